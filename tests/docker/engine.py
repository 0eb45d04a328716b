"""The Docker engine as the check sees it: containers and Compose projects that clean up."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
IMAGE = "pacesetter"
HEALTHY_SECONDS = 60


def docker(*arguments: str) -> str:
    """Run a docker command, and return what it printed.

    Raises:
        subprocess.CalledProcessError: It failed; its message is on standard error.
    """
    return _run(["docker", *arguments])


def missing() -> str | None:
    """Return what keeps the check from running, or None."""
    if shutil.which("docker") is None:
        return "there is no `docker` command"
    asked = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        return f"no Docker engine answers ({asked.stderr.strip()})"
    if _compose_command() is None:
        return "there is neither `docker compose` nor `docker-compose`"
    return None


def lacking(images: Iterable[str]) -> list[str]:
    """Return those images that are neither here nor can be pulled."""

    def works(*command: str) -> bool:
        done = subprocess.run(["docker", *command], capture_output=True, check=False)
        return done.returncode == 0

    return [
        each
        for each in images
        if not works("image", "inspect", each) and not works("pull", "--quiet", each)
    ]


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Container:
    """A container that serves, by its name or id."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @classmethod
    def run(cls, name: str, port: int, volume: str) -> Self:
        """Run a container as confined as Compose would, and wait until it is healthy."""
        docker(
            *("run", "--detach", "--name", name, "--publish", f"127.0.0.1:{port}:7070"),
            *("--env", "PACESETTER_INSECURE=1"),
            *("--volume", f"{volume}:/data", "--read-only", "--tmpfs", "/tmp"),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", IMAGE),
        )
        container = cls(name, port)
        container.wait_until_healthy()
        return container

    def wait_until_healthy(self) -> None:
        """Wait for the image's own HEALTHCHECK to pass.

        Raises:
            TimeoutError: It did not.
        """
        deadline = time.monotonic() + HEALTHY_SECONDS
        while self.inspect()["State"]["Health"]["Status"] != "healthy":
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} is not healthy after {HEALTHY_SECONDS} s")
            time.sleep(0.2)

    def inspect(self) -> dict[str, Any]:
        """Return the engine's description of it."""
        found: list[dict[str, Any]] = json.loads(docker("container", "inspect", self.name))
        return found[0]

    def python(self, code: str, *arguments: str) -> str:
        """Run Python code beside the service, as the same user; return what it printed."""
        return docker("exec", self.name, "python", "-c", code, *arguments)

    def remove(self) -> None:
        """Kill and remove the container; its volume stays."""
        docker("rm", "--force", self.name)


class Project:
    """A Compose project on docker-compose.yml, with separate volumes."""

    def __init__(self, name: str, port: int, *, profile: str = "") -> None:
        profiles = ("--profile", profile) if profile else ()
        self._command = [*(_compose_command() or ()), "--project-name", name, *profiles]
        self._environment = {**os.environ, "PACESETTER_PORT": str(port)}
        self._port = port

    def up(self) -> Container:
        """Bring it up with the image that is there, and wait until it is healthy."""
        self._compose("up", "--detach", "--no-build")
        container = self.container("pacesetter")
        container.wait_until_healthy()
        return container

    def bring_up(self, *services: str, healthy: Iterable[str]) -> None:
        """Bring services up with the images that are there, and wait for some to be healthy."""
        self._compose("up", "--detach", "--no-build", *services)
        for each in healthy:
            self.container(each).wait_until_healthy()

    def container(self, service: str) -> Container:
        """Return the container of a service, running or not."""
        return Container(self._compose("ps", "--all", "--quiet", service), self._port)

    def show_logs(self) -> None:
        """Write the last log lines of each container to standard error."""
        sys.stderr.write(self._compose("logs", "--tail", "30"))

    def down(self, *options: str) -> None:
        """Stop it and remove it."""
        self._compose("down", *options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down("--volumes")

    def _compose(self, *arguments: str) -> str:
        return _run([*self._command, *arguments], self._environment)


def _compose_command() -> list[str] | None:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
    done.check_returncode()
    return done.stdout.strip()
