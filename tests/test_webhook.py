"""Alarms reach a receiver: signed, repeated while it is away, and without delaying a trainer."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from little_servers import Asked, answer, answering
from pacesetter_service.__main__ import main
from pacesetter_service.core.events import Noticed, RateDeviated
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.tally import Tally
from pacesetter_service.settings import read_settings
from pacesetter_service.store.port import Changes, Stored
from pacesetter_service.webhook import TRIES, Webhook
from serving import PATIENCE, RunningService, open_http

PAGE = Path(__file__).parents[1] / "docs/observability.md"
SECRET = "a-secret-of-the-tests"
SPEC = {"name": "run", "base_lr": 0.1, "schedule": {"kind": "constant"}}


def alarm(step: int = 7) -> list[Changes]:
    """Return the changes of a commit with one alarm."""
    session = create(SessionSpec(name="run", base_lr=0.1))
    events = [RateDeviated(1, step, "lr", 0.3, 0.1)]
    return [Changes(Stored(1, session, 1, "2026-01-01T00:00:00.000+00:00", ()), log=list(events))]


def wait_for(fact: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < end, "it did not become so"
        time.sleep(0.005)


@contextmanager
def sending(url: str, **options: Any) -> Iterator[tuple[Webhook, Tally]]:
    """Return a running webhook, and its figures."""
    tally = Tally()
    webhook = Webhook(url, SECRET, tally, **{"first_pause": 0.001, **options})
    webhook.start()
    try:
        yield webhook, tally
    finally:
        webhook.stop()


def is_genuine(header: str, body: bytes) -> bool:
    """Check a signature by the program that the page shows."""
    (program,) = re.findall(r"```python\n(import hmac.*?)```", PAGE.read_text(), re.DOTALL)
    shown: dict[str, Any] = {}
    exec(program, shown)
    return bool(shown["is_genuine"](SECRET, header, body))


def test_a_deviation_is_told_with_a_signature(tmp_path: Path) -> None:
    """A real service sends it to a real receiver, once, in the form that the page shows."""
    with (
        answering(lambda _: answer(204, b"")) as (receiver, seen),
        RunningService(
            tmp_path / "pacesetter.db",
            webhook_url=f"{receiver.url}/alarms?of=pacesetter",
            webhook_secret=SECRET,
        ) as service,
        open_http(service.url) as http,
    ):
        http.post("/v1/sessions", json=SPEC).raise_for_status()
        http.post("/v1/sessions/run/sync", json={"step": 7}).raise_for_status()
        body = {"rank": 1, "applied": {"step": 7, "values": {"lr": 0.3}}}
        for _ in range(2):
            http.post("/v1/sessions/run/sync", json=body).raise_for_status()
        count = 'pacesetter_webhook_alarms_total{result="delivered"} 1.0'
        wait_for(lambda: count in http.get("/metrics").text)
    (told,) = seen
    assert (told.method, told.target) == ("POST", "/alarms?of=pacesetter")
    found = json.loads(told.body)
    shown = re.search(r'```json\n(\{"id".*?\})\n```', PAGE.read_text(), re.DOTALL)
    assert shown is not None
    assert set(found) == set(json.loads(shown[1]))
    assert found["kind"] == "rate_deviated"
    assert (found["session"], found["attempt"], found["step"]) == ("run", 1, 7)
    assert "0.3" in found["text"]
    header = told.headers["pacesetter-signature"]
    assert is_genuine(header, told.body)
    assert not is_genuine(header, told.body + b" ")
    assert not is_genuine(header.replace("t=", "t=9"), told.body)


def test_an_alarm_is_sent_again_until_it_is_taken() -> None:
    """Failures and closed connections cost a try each; the alarm keeps its id."""
    said = iter([answer(503), None, answer(429), answer(200)])
    with (
        answering(lambda _: next(said)) as (receiver, seen),
        sending(receiver.url) as (webhook, tally),
    ):
        webhook.listen(alarm())
        wait_for(lambda: tally.alarms["delivered"] == 1)
    assert len(seen) == 4
    assert len({json.loads(each.body)["id"] for each in seen}) == 1


def test_a_receiver_that_refuses_is_not_asked_again() -> None:
    """A refusal and a redirect end it, and nothing is sent to a redirect's target."""
    elsewhere: list[Asked] = []

    def trap(asked: Asked) -> bytes:
        elsewhere.append(asked)
        return answer(200)

    with answering(trap) as (other, _):
        said = iter([answer(400), answer(307, location=other.url), answer(200)])
        with (
            answering(lambda _: next(said)) as (receiver, seen),
            sending(receiver.url) as (webhook, tally),
        ):
            for step in (1, 2, 3):
                webhook.listen(alarm(step))
            wait_for(lambda: tally.alarms["delivered"] == 1)
    assert tally.alarms == {"delivered": 1, "failed": 2, "dropped": 0}
    assert [json.loads(each.body)["step"] for each in seen] == [1, 2, 3]
    assert not elsewhere


def test_what_is_never_taken_is_given_up() -> None:
    """After the last try the alarm counts as failed."""
    with (
        answering(lambda _: answer(500)) as (receiver, seen),
        sending(receiver.url, first_pause=0.0) as (webhook, tally),
    ):
        webhook.listen(alarm())
        wait_for(lambda: tally.alarms["failed"] == 1)
    assert len(seen) == TRIES


def test_alarms_that_do_not_fit_are_dropped_and_counted() -> None:
    """The writer never waits: what exceeds the queue is counted, also at the end."""
    tally = Tally()
    webhook = Webhook("http://127.0.0.1:9", None, tally, most_waiting=2)
    for step in range(5):
        webhook.listen(alarm(step))
    assert tally.alarms["dropped"] == 3
    webhook._ended.set()
    webhook.start()
    webhook.stop()
    assert tally.alarms == {"delivered": 0, "failed": 0, "dropped": 5}


def test_what_a_session_notices_is_an_alarm_by_its_code() -> None:
    """The kind of such an alarm is the code of the notice."""
    (changes,) = alarm()
    changes.log[:] = [Noticed(4, "plan_over", "", "The plan is over.")]
    with (
        answering(lambda _: answer(200)) as (receiver, seen),
        sending(receiver.url) as (webhook, tally),
    ):
        webhook.listen([changes])
        wait_for(lambda: tally.alarms["delivered"] == 1)
    assert json.loads(seen[0].body)["kind"] == "plan_over"


@pytest.mark.parametrize(
    "address", ["ftp://x/y", "file:///etc/passwd", "//x", "http://", "https://me:secret@x/"]
)
def test_only_addresses_of_the_web_are_taken(address: str) -> None:
    """Another scheme, no host, and a password that logs would show are refused at the start."""
    with pytest.raises(ValidationError, match="http:// or https://"):
        read_settings(["--webhook-url", address])


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080", "socksio"),
        ("HTTPS_PROXY", "gopher://127.0.0.1", "Unknown scheme"),
        ("HTTP_PROXY", "http://[::1", "Invalid port"),
        ("SSL_CERT_FILE", "/nowhere/authorities.pem", "No such file"),
        ("SSL_CERT_FILE", __file__, "certificate"),
    ],
)
def test_surroundings_from_which_no_alarm_could_be_sent_are_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    """The operator gets a sentence that names the variable, in place of alarms that never come."""
    monkeypatch.setenv(name, value)
    url = f"--database-url=sqlite:///{tmp_path / 'pacesetter.db'}"
    with pytest.raises(SystemExit, match=reason) as refused:
        main(["--port=0", url, "--webhook-url=https://127.0.0.1:9/x"])
    assert name in str(refused.value)
