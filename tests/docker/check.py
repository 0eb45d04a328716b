"""Build the image, train against it, kill it, stop it, and check that it keeps its promises.

    python tests/docker/check.py [options for `docker build`]

A script and no test module, because it needs a Docker engine: `make docker-test` runs it.
"""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import torch
from engine import IMAGE, ROOT, Container, Project, docker, free_port, missing

from pacesetter import Client
from pacesetter.torch import RemoteLR

NAME = f"pacesetter-check-{os.getpid()}"
SESSION = "trained-in-a-container"
STEPS = 600
KILL_AT = 150
MOST_MEGABYTES = 200
"""Megabytes that the image may add to its base."""
STOP_SECONDS = 8
"""The limit of a drained stop: within `docker stop`'s ten seconds, after which it kills."""

Values = dict[int, float]


def main() -> None:
    """Run every check, in order; the first that fails ends the run."""
    lack = missing()
    if lack is not None:
        sys.exit(f"docker-test: {lack}; nothing was built or checked")
    build(sys.argv[1:])
    check_image()
    with volume() as data:
        port = free_port()
        container = Container.run(NAME, port, data)
        check_confinement(container)
        lrs, losses = train_through_a_kill(container, data)
        check_kept(container, lrs, losses)
        losses |= stop_with_a_request_in_flight(container)
        docker("start", container.name)
        container.wait_until_healthy()
        check_kept(container, lrs, losses)
    check_compose()


def build(options: list[str]) -> None:
    """Build the image as the README says, showing the engine's own output."""
    subprocess.run(["docker", "build", "--tag", IMAGE, *options, "."], cwd=ROOT, check=True)


def check_image() -> None:
    """Check what is in the image, and what is not."""
    size = int(docker("image", "inspect", "--format", "{{.Size}}", IMAGE)) // 10**6
    ours = int(_in_image("du", "-sm", "/opt/pacesetter").split()[0])
    assert ours < MOST_MEGABYTES, f"the service and what it needs take {ours} MB"
    _ok(f"{size} MB, of which {ours} are the service and what it needs; the rest is the base")
    code = (
        "import importlib.util as u, shutil;"
        "print([m for m in ('torch', 'pytest', 'mypy', 'pip') if u.find_spec(m)],"
        "[c for c in ('gcc', 'cc', 'make') if shutil.which(c)])"
    )
    found = _in_image("python", "-c", code)
    assert found == "[] []", f"the image brings {found}"
    _ok("no torch, no test tools, no compiler")


def check_confinement(container: Container) -> None:
    """Check that the service is unprivileged and can write only where it should."""
    code = """
import os, pathlib, sys
def writable(place):
    try:
        pathlib.Path(place, "probe").touch()
        pathlib.Path(place, "probe").unlink()
    except OSError:
        return False
    return True
owner = os.stat("/proc/1").st_uid
print(os.getuid(), owner, *(place for place in sys.argv[1:] if writable(place)))
"""
    places = ("/", "/etc", "/opt/pacesetter", "/usr/local", "/var/tmp", "/tmp", "/data")
    said = container.python(code, *places).split()
    assert said == ["10001", "10001", "/tmp", "/data"], said
    _ok("healthy on a read-only root as uid 10001, which can write to /data and /tmp alone")


def train_through_a_kill(container: Container, data: str) -> tuple[Values, Values]:
    """Train while the container is killed and another takes over its volume.

    Returns:
        The learning rate that each step used, and the reports that the service acknowledged.
    """
    witness = Witness()
    reached = threading.Event()
    outage = threading.Thread(target=_replace_when, args=(reached, container, data), daemon=True)
    outage.start()
    with Client(container.url, transport=witness) as client:
        lrs = _train(client, reached)
    outage.join()
    assert witness.failures > 0, "the training ended before the container did"
    assert len(witness.losses) == STEPS, f"{len(witness.losses)} of {STEPS} reports were taken"
    _ok(f"{STEPS} steps trained through a SIGKILL; {witness.failures} requests met no server")
    return lrs, witness.losses


class Witness(httpx.HTTPTransport):
    """The network as the client sees it, with a note of each report that was acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: Values = {}
        self.failures = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on, and note its outcome."""
        try:
            response = super().handle_request(request)
            response.read()
        except httpx.TransportError:
            self.failures += 1
            raise
        if response.is_success and request.url.path.endswith("/sync"):
            for report in json.loads(request.content).get("reports", ()):
                self.losses[report["step"]] = report["metrics"]["loss"]
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=httpx.ByteStream(response.content),
        )


def _train(client: Client, reached: threading.Event) -> Values:
    torch.manual_seed(0)
    inputs = torch.randn(64, 4)
    targets = inputs @ torch.randn(4, 1)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters())
    # The plateau rule reads the losses, so that lost or doubled ones would show in the rates too.
    session = client.create_session(
        SESSION,
        base_lr=0.1,
        schedule={"kind": "cosine", "total_steps": STEPS},
        controllers=[{"kind": "plateau", "metric": "loss", "patience": 20}],
        max_lookahead=10,
    )
    scheduler = RemoteLR(optimizer, session)
    lrs: Values = {}
    for step in range(STEPS):
        lrs[step] = optimizer.param_groups[0]["lr"]
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call] # torch's
        optimizer.step()
        scheduler.step(loss)
        if step == KILL_AT:
            reached.set()
        time.sleep(0.005)  # a batch takes its time; the kill must fall into the training
    session.flush()
    return lrs


def _replace_when(reached: threading.Event, container: Container, data: str) -> None:
    reached.wait()
    docker("kill", "--signal", "KILL", container.name)
    container.remove()
    time.sleep(1)
    Container.run(container.name, container.port, data)


def check_kept(container: Container, lrs: Values, losses: Values) -> None:
    """Compare what the service has with what it handed out and acknowledged, to the bit."""
    with Client(container.url) as client:
        answer = client.lr(SESSION, 0, count=STEPS)
    assert answer["sealed_until"] == STEPS
    kept = answer["series"]["lr"]
    assert [value.hex() for value in kept] == [lrs[step].hex() for step in range(STEPS)]
    code = """
import json, sqlite3
rows = sqlite3.connect("file:/data/pacesetter.db?mode=ro", uri=True)
assert rows.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
print(json.dumps(rows.execute("SELECT step, value FROM readings ORDER BY step").fetchall()))
"""
    readings = [(step, value.hex()) for step, value in json.loads(container.python(code))]
    assert readings == [(step, value.hex()) for step, value in sorted(losses.items())]
    _ok(f"{len(kept)} sealed values the same to the bit, {len(readings)} reports kept once each")


def stop_with_a_request_in_flight(container: Container) -> Values:
    """Send half a report, have the container stopped, send the rest, and get an answer.

    Returns:
        The report.
    """
    reports = [{"step": STEPS, "metrics": {"loss": 0.125}}]
    body = json.dumps({"attempt": 1, "reports": reports}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", container.port, timeout=STOP_SECONDS)
    connection.putrequest("POST", f"/v1/sessions/{SESSION}/sync")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(len(body)))
    connection.endheaders(body[:10])
    time.sleep(0.5)  # let the service have it before the signal
    began = time.monotonic()
    with subprocess.Popen(["docker", "stop", container.name], stdout=subprocess.DEVNULL) as stop:
        _wait_until_refused(container)
        time.sleep(1)  # a service that did not wait for the rest would be gone by now
        connection.send(body[10:])
        status = connection.getresponse().status
        connection.close()
        stop.wait()
    seconds = time.monotonic() - began
    assert status == 200, f"the request in flight was answered {status}"
    code = container.inspect()["State"]["ExitCode"]
    assert code == 0, f"exit status {code}"
    assert seconds < STOP_SECONDS, f"stopped after {seconds:.1f} s"
    _ok(f"stopped in {seconds:.1f} s with status 0; the request in flight was answered")
    return {STEPS: 0.125}


def _wait_until_refused(container: Container) -> None:
    """Wait until the service refuses a new connection: then the signal has arrived."""
    deadline = time.monotonic() + STOP_SECONDS
    with httpx.Client(trust_env=False, timeout=1) as client:
        while time.monotonic() < deadline:
            try:
                client.get(f"{container.url}/livez", headers={"connection": "close"})
            except httpx.TransportError:
                return
            time.sleep(0.05)
    raise TimeoutError("SIGTERM did not reach the service")


def check_compose() -> None:
    """Bring docker-compose.yml up and down and up again."""
    with Project(NAME, free_port()) as project:
        container = project.up()
        host = container.inspect()["HostConfig"]
        published = {each["HostIp"] for ports in host["PortBindings"].values() for each in ports}
        assert published == {"127.0.0.1"}, published
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        check_confinement(container)
        with Client(container.url) as client:
            client.create_session("composed", base_lr=0.1)
        project.down()
        container = project.up()
        with Client(container.url) as client:
            names = [each.name for each in client.sessions()]
        assert names == ["composed"]
        _ok("docker-compose.yml: up for 127.0.0.1 alone, confined; its volume outlives `down`")


@contextmanager
def volume() -> Iterator[str]:
    """Return an empty volume; it and its container are removed at the end."""
    docker("volume", "create", NAME)
    try:
        yield NAME
    except BaseException:
        subprocess.run(["docker", "logs", "--tail", "50", NAME], check=False)
        raise
    finally:
        subprocess.run(["docker", "rm", "--force", NAME], capture_output=True, check=False)
        docker("volume", "rm", NAME)


def _in_image(program: str, *arguments: str) -> str:
    return docker("run", "--rm", "--entrypoint", program, IMAGE, *arguments)


def _ok(what: str) -> None:
    sys.stdout.write(f"ok: {what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
