"""The record of a session through the client: history, followed events, files."""

import itertools
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from pacesetter import Client, ConflictError, InvalidRequestError, NotFoundError
from pacesetter._errors import InvalidAnswerError, ServerUnavailableError
from serving import PATIENCE, RunningService, open_http

PLATEAU = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}


def trained(client: Client, name: str, steps: int = 5) -> str:
    """Train a session whose rate is cut at every step."""
    client.create_session(name, base_lr=0.1, controllers=[PLATEAU]).close()
    with open_http(client.url) as http:
        for step in range(steps):
            report(http, name, step)
    return name


def report(http: httpx.Client, name: str, step: int) -> None:
    """Ask for a step and report its loss."""
    path = f"/v1/sessions/{name}/sync"
    http.post(path, json={"step": step}).raise_for_status()
    body = {"reports": [{"step": step, "metrics": {"loss": 1.0}}]}
    http.post(path, json=body).raise_for_status()


def test_history_has_values_and_metrics(client: Client, unique_name: str) -> None:
    """They are of the requested steps and metrics."""
    trained(client, unique_name)
    history = client.history(unique_name, start=1, end=3, metrics=["loss"], readings=True)
    assert history["steps"] == [1, 2]
    assert history["series"]["lr"] == client.lr(unique_name, 1, count=2)["series"]["lr"]
    assert history["metrics"] == {"loss": [1.0, 1.0]}
    assert history["readings"] == {"loss": {"0": [1.0, 1.0]}}


def test_events_come_page_by_page(client: Client, unique_name: str) -> None:
    """All events come in order, from any of them on."""
    trained(client, unique_name)
    events = list(client.events(unique_name))
    assert [each["seq"] for each in events] == list(range(len(events)))
    assert events[0]["kind"] == "created"
    assert list(client.events(unique_name, after=1)) == events[2:]


def test_followed_events_survive_the_server(tmp_path: Path) -> None:
    """A reader gets every event once and in order while the service is killed and comes back."""
    with RunningService(tmp_path / "pacesetter.db") as service, Client(service.url) as client:
        trained(client, "followed")
        found: list[dict[str, Any]] = []
        events = client.events("followed", follow=True)
        following = threading.Thread(
            target=lambda: found.extend(itertools.islice(events, 12)), daemon=True
        )
        following.start()
        for step in range(5, 13):
            if step == 8:
                service.kill()
                service.start()
            with open_http(service.url) as http:
                report(http, "followed", step)
        following.join()
        assert [each["seq"] for each in found] == list(range(12))
        assert found == list(client.events("followed"))[:12]


def test_following_ends_when_the_server_stays_away(tmp_path: Path) -> None:
    """After `retry_for` seconds without a server it is an error, and not a silence."""
    with (
        RunningService(tmp_path / "pacesetter.db") as service,
        Client(service.url) as client,
        Client(service.url, retry_for=0.5) as follower,
    ):
        events = follower.events(trained(client, "followed"), follow=True)
        assert next(events)["seq"] == 0
        service.kill()
        with pytest.raises(ServerUnavailableError, match="was away"):
            list(events)
        service.start()


def test_a_gap_in_the_events_is_an_error() -> None:
    """A server that leaves an event out, or repeats one, is not believed."""
    for seq in (0, 3):
        stream = f'id: {seq}\nevent: x\ndata: {{"seq": {seq}}}\n\n'

        def answer(request: httpx.Request, text: str = stream) -> httpx.Response:
            return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})

        with Client("http://fake", transport=httpx.MockTransport(answer)) as client:
            events = client.events("any", after=1, follow=True)
            with pytest.raises(InvalidAnswerError, match="event 2 should have come"):
                next(events)


def test_what_does_not_exist_is_not_followed(client: Client, tmp_path: Path) -> None:
    """A missing session is an error at once."""
    with pytest.raises(NotFoundError):
        next(client.events("nobody-has-this", follow=True))
    with pytest.raises(NotFoundError):
        client.export("nobody-has-this", tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


def test_a_record_goes_through_a_file(client: Client, unique_name: str, tmp_path: Path) -> None:
    """The export is imported under another name, with the same values and events."""
    file, copy = tmp_path / "record.jsonl", f"{unique_name}-copy"
    client.export(trained(client, unique_name), file)
    assert [each.name for each in tmp_path.iterdir()] == ["record.jsonl"]
    info = client.import_session(file, name=copy)
    assert (info.name, info.horizon) == (copy, 5)
    assert client.history(copy) == client.history(unique_name)
    with pytest.raises(ConflictError, match="exists already"):
        client.import_session(file)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InvalidRequestError, match="line"):
        client.import_session(file, name=f"{copy}-2")


def test_a_realised_curve_is_a_schedule(client: Client, unique_name: str) -> None:
    """A new session made from it gives the same values without the controllers."""
    trained(client, unique_name)
    body = client.realised(unique_name, start=0, end=5)
    again = client.create_session(
        f"{unique_name}-again", base_lr=body["base_lr"], schedule=body["schedule"]
    )
    want = client.lr(unique_name, 0, count=5)["series"]["lr"]
    assert [again.lr(step) for step in range(5)] == want
    assert len(set(want)) > 1


def command(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the `pacesetter` command against a service."""
    return subprocess.run(
        [sys.executable, "-m", "pacesetter.cli", *arguments, "--url", url],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_command_moves_a_session(client: Client, unique_name: str, tmp_path: Path) -> None:
    """`pacesetter export` writes a file that `pacesetter import` restores; errors are two lines."""
    trained(client, unique_name)
    file = str(tmp_path / "record.jsonl")
    assert command(client.url, "export", unique_name, file).stdout == f"wrote {file}\n"
    done = command(client.url, "import", file, "--name", f"{unique_name}-b")
    assert done.stdout == f"imported {unique_name}-b, sealed up to step 5\n"
    for status, wrong in (
        (4, ("import", file)),
        (1, ("import", f"{file}-x")),
        (3, ("export", "nobody-has-this", file)),
    ):
        failed = command(client.url, *wrong)
        assert (failed.returncode, failed.stdout) == (status, "")
        assert len(failed.stderr.splitlines()) == 2


def test_the_command_follows_events(client: Client, unique_name: str) -> None:
    """`pacesetter events --follow` prints a line for each event until it is interrupted."""
    trained(client, unique_name)
    known = command(client.url, "events", unique_name, "--kind", "decided").stdout.splitlines()
    arguments = ["events", unique_name, "--kind", "decided", "--follow", "--url", client.url]
    with subprocess.Popen(
        [sys.executable, "-m", "pacesetter.cli", *arguments], stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        assert [following.stdout.readline().rstrip("\n") for _ in known] == known
        with open_http(client.url) as http:
            for step in (5, 6):
                report(http, unique_name, step)
        assert "From step" in following.stdout.readline()
        following.send_signal(signal.SIGINT)
        assert following.wait(PATIENCE) == 130
