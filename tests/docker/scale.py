"""Bring the profile `scale` up, kill its parts under trainings, and check what trainers get.

    python tests/docker/scale.py

A script and no test module, because it needs a Docker engine: `make docker-test` runs it.
"""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
from engine import ROOT, Project, docker, free_port, lacking, missing

from pacesetter import AuthenticationError, Client

NAME = f"pacesetter-scale-{os.getpid()}"
SECRETS = ROOT / "deploy/compose/secrets"
REPLICAS = ("pacesetter-1", "pacesetter-2", "pacesetter-3")
SERVICES = ("balancer", *REPLICAS, "metrics-token")
IMAGES = ("haproxy:3.2-bookworm", "postgres:17-bookworm", "debian:bookworm-slim")
SESSIONS = 3
AWAY = 3.0
"""Seconds for which a killed part stays away."""
MOVED = 60
"""The steps by which every training must advance between two faults."""
PATIENCE = 120.0
BLOCK = 500
"""Steps of a record that are read in one call; a longer part of it would be thinned out."""


def main() -> None:
    """Run every check, in order; the first that fails ends the run."""
    lack = missing()
    if lack is not None:
        sys.exit(f"docker-test: {lack}; nothing was checked")
    unavailable = lacking(IMAGES)
    if unavailable:
        _say(f"scale: left out, because no {', '.join(unavailable)} can be had here")
        return
    subprocess.run([ROOT / "deploy/compose/secrets.sh"], check=True, stdout=subprocess.DEVNULL)
    options = sys.argv[1:]
    folder = ROOT / "deploy/compose/pgbouncer"
    build = ["docker", "build", "--tag", "pacesetter-pgbouncer", *options, folder]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    port = free_port()
    with Project(NAME, port, profile="scale") as project:
        try:
            project.bring_up(*SERVICES, healthy=("balancer", *REPLICAS))
            url = f"http://127.0.0.1:{port}"
            check_doors(project, url)
            check_faults(project, url)
        except BaseException:
            project.show_logs()
            raise


def _token() -> str:
    return (SECRETS / "admin_token").read_text()


def check_doors(project: Project, url: str) -> None:
    """Check that tokens are required, that Prometheus has one, and which ports are published."""
    with Client(url, token="x" * 48) as stranger, contextlib.suppress(AuthenticationError):
        raise AssertionError(f"a stranger was told {list(stranger.sessions())}")
    for service in (*REPLICAS, "pgbouncer", "postgres"):
        bindings = project.container(service).inspect()["HostConfig"]["PortBindings"]
        assert not bindings, f"{service} is published: {bindings}"
    mode = project.container("pacesetter-1").inspect()["HostConfig"]
    assert mode["ReadonlyRootfs"]
    assert mode["CapDrop"] == ["ALL"]
    deadline = time.monotonic() + PATIENCE
    while (state := project.container("metrics-token").inspect()["State"])["Status"] != "exited":
        assert time.monotonic() < deadline, state
        time.sleep(0.2)
    assert state["ExitCode"] == 0, state
    environment = str(project.container("pacesetter-1").inspect()["Config"])
    assert _token() not in environment
    _ok("tokens are asked for; the balancer alone is published; no secret is in a container's data")


class Training:
    """A training behind the balancer, which records what it used and how long its steps waited."""

    def __init__(self, url: str, name: str) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.longest = 0.0
        self.error: BaseException | None = None
        self._ended = threading.Event()
        self._client = Client(url, token=_token())
        self._name = name
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        draw = random.Random(self._name)
        try:
            session = self._client.create_session(
                self._name,
                base_lr=0.1,
                schedule={"kind": "cosine", "total_steps": 1_000_000},
                controllers=[{"kind": "plateau", "metric": "loss", "patience": 50}],
                max_lookahead=10,
            )
            while not self._ended.is_set():
                step = len(self.rates)
                began = time.monotonic()
                rate = session.lr(step)
                self.longest = max(self.longest, time.monotonic() - began)
                loss = draw.random()
                session.report(step, loss=loss)
                self.losses.append(loss)
                self.rates.append(rate)
                time.sleep(0.005)
            session.flush()
        except BaseException as error:  # told on the main thread
            self.error = error

    def get_on(self, steps: int) -> None:
        """Wait until it has trained that many more steps.

        Raises:
            AssertionError: It ended, or did not.
        """
        goal, deadline = len(self.rates) + steps, time.monotonic() + PATIENCE
        while len(self.rates) < goal:
            assert self.error is None, repr(self.error)
            assert time.monotonic() < deadline, f"{self._name} stands at {len(self.rates)}"
            time.sleep(0.05)

    def waited(self) -> float:
        """Return the longest wait of a step since the last call, in seconds."""
        longest, self.longest = self.longest, 0.0
        return longest

    def end(self) -> None:
        """End it, and compare what the service has with what was used and reported, to the bit."""
        self._ended.set()
        self._thread.join(PATIENCE)
        assert self.error is None, repr(self.error)
        count = len(self.rates)
        kept = self._client.lr(self._name, 0, count=count)["series"]["lr"]
        assert kept == self.rates, f"{self._name} has used other rates than those that are sealed"
        told: list[float] = []
        for start in range(0, count, BLOCK):
            page = self._client.history(self._name, start=start, end=min(start + BLOCK, count))
            told += page["metrics"]["loss"]
        assert told == self.losses, f"{self._name}: reports are missing"
        self._client.close()


class Operator:
    """An operator who orders something now and then, and follows the events."""

    def __init__(self, url: str, session: str) -> None:
        self._url = url
        self._session = session
        self._client = Client(url, token=_token())
        self._seen: list[dict[str, Any]] = []
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        with Client(self._url, token=_token()) as client:
            for event in client.events(self._session, follow=True):
                self._seen.append(event)

    def order(self) -> None:
        """Order something, as often as it takes, and wait until the feed has it, once."""
        body = {"kind": "scale", "factor": 0.99}
        path = f"{self._url}/v1/sessions/{self._session}/actions"
        headers = {"Authorization": f"Bearer {_token()}", "Idempotency-Key": uuid.uuid4().hex}
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.post(path, json=body, headers=headers, trust_env=False, timeout=20)
                if answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                    break
                problem = answer.headers["content-type"] == "application/problem+json"
                assert problem, answer.text
            assert time.monotonic() < deadline
            time.sleep(0.5)
        number = answer.raise_for_status().json()["id"]
        while self._orders().count(number) < 1:
            assert time.monotonic() < deadline, f"the feed does not tell of order {number}"
            time.sleep(0.02)

    def _orders(self) -> list[int]:
        return [each["order"]["id"] for each in list(self._seen) if each["kind"] == "ordered"]

    def end(self) -> None:
        """Compare what the feed had with the record, and restore that under another name."""
        told = list(self._client.events(self._session))
        assert self._seen[: len(told)] == told, "the feed left something out, or told it twice"
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder) / "record"
            self._client.export(self._session, record)
            self._client.import_session(record, name="restored")
        before, after = (
            self._client.lr(name, 0, count=BLOCK) for name in (self._session, "restored")
        )
        assert before["series"] == after["series"]
        self._client.close()
        _ok(f"a feed of {len(told)} events, through every fault; a record that is restored")


def check_faults(project: Project, url: str) -> None:
    """Kill each part under the trainings in turn; a training may see only a wait."""
    trainings = [Training(url, f"run-{number}") for number in range(SESSIONS)]

    trainings[0].get_on(1)
    operator = Operator(url, "run-0")

    def through(what: str, fault: Callable[[], object]) -> None:
        for each in trainings:
            each.get_on(MOVED)
            each.waited()
        fault()
        operator.order()
        for each in trainings:
            each.get_on(MOVED)
        longest = max(each.waited() for each in trainings)
        _ok(f"{what}: no training failed; its longest step waited {longest:.1f} s")

    through("nothing happens", lambda: None)
    for replica in REPLICAS:
        through(f"{replica} killed", lambda replica=replica: _kill(project, replica))
    through("PostgreSQL killed", lambda: _kill(project, "postgres"))
    through("PgBouncer killed", lambda: _kill(project, "pgbouncer"))
    through("the balancer killed", lambda: _kill(project, "balancer"))
    through("the replicas stopped and started in turn", lambda: _roll(project))
    for each in trainings:
        each.end()
    operator.end()
    count = sum(len(each.rates) for each in trainings)
    _ok(f"{count} rates used as they are sealed, to the bit; each report kept")


def _kill(project: Project, service: str) -> None:
    container = project.container(service)
    docker("kill", "--signal", "KILL", container.name)
    time.sleep(AWAY)
    docker("start", container.name)
    container.wait_until_healthy()


def _roll(project: Project) -> None:
    """Restart as an upgrade does: one after the other, each when the one before is back."""
    for replica in REPLICAS:
        container = project.container(replica)
        docker("stop", container.name)
        assert container.inspect()["State"]["ExitCode"] == 0
        docker("start", container.name)
        container.wait_until_healthy()


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def _ok(what: str) -> None:
    _say(f"ok: {what}")


if __name__ == "__main__":
    main()
