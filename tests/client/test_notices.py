"""Notices: what the server tells a trainer, when, and how often."""

import json
import logging
import pickle
import struct
import threading
from typing import Any

import httpx
import pytest
import torch

from pacesetter import (
    AwaitingMeasurementError,
    Client,
    ConflictError,
    InvalidAnswerError,
    Notice,
    ServerUnavailableError,
    SessionFinishedError,
    SessionInfo,
)
from pacesetter._errors import api_error
from pacesetter._notices import REMEMBERED, Board, OnNotice
from pacesetter._window import MAX_MESSAGE, MAX_NOTICES, Expected, decode
from pacesetter.torch import RemoteLR
from serving import PATIENCE, open_http

DRIVER = {"kind": "bold_driver", "metric": "loss"}
"""A controller that has the trainer roll back after a step that made things worse."""


def answer(notices: Any, count: int = 3) -> bytes:
    """Return a window from step 5 on with some notices."""
    header = {
        "attempt": 1,
        "start": 5,
        "count": count,
        "series": ["lr"],
        "horizon": 8,
        "revision": 2,
        "max_lookahead": None,
        "notices": notices,
    }
    return json.dumps(header).encode() + b"\n" + struct.pack(f"<{count}d", *[0.1] * count)


EXPECTED = Expected(1, ("lr",), 5, 3, session="run")


def told(step: int, code: str = "plateaued", message: str = "loss is flat") -> dict[str, Any]:
    """Return a notice as the server writes it."""
    return {"step": step, "code": code, "message": message}


def test_a_window_has_the_notices_of_its_steps():
    """They are read with the values, and name their session."""
    window = decode(answer([told(7), told(5, "roll_back", "x")]), EXPECTED).window
    assert window is not None
    assert window.notices == (
        Notice("run", 7, "plateaued", "loss is flat"),
        Notice("run", 5, "roll_back", "x"),
    )


def test_a_server_without_notices_is_understood():
    """Older servers leave the field out; newer ones may add codes and fields."""
    content = answer([{**told(5, "of_the_future"), "more": 1}])
    window = decode(content, EXPECTED).window
    assert window is not None
    assert window.notices[0].code == "of_the_future"
    bare = content.replace(b'"notices"', b'"other"')
    window = decode(bare, EXPECTED).window
    assert window is not None
    assert window.notices == ()


@pytest.mark.parametrize(
    "notices",
    [
        pytest.param({}, id="no list"),
        pytest.param(None, id="null"),
        pytest.param([told(5)] * (MAX_NOTICES + 1), id="too many"),
        pytest.param(["plateaued"], id="a text"),
        pytest.param([told(4)], id="a step before the window"),
        pytest.param([told(8)], id="a step behind the window"),
        pytest.param([told(True)], id="a step that is no number"),
        pytest.param([{"code": "plateaued", "message": ""}], id="no step"),
        pytest.param([told(5, "Plateaued!")], id="a code that is no name"),
        pytest.param([told(5, "a" * 65)], id="a long code"),
        pytest.param([told(5, message="a" * (MAX_MESSAGE + 1))], id="a long message"),
        pytest.param([{**told(5), "message": 3}], id="a message that is no text"),
        pytest.param([{**told(5), "good_step": "3"}], id="a good step that is no number"),
        pytest.param([{**told(5), "good_step": -1}], id="a good step before all steps"),
    ],
)
def test_notices_that_break_the_contract_are_refused(notices: Any):
    """The server is not trusted here either: the answer is refused as a whole."""
    with pytest.raises(InvalidAnswerError, match="notice"):
        decode(answer(notices), EXPECTED)


def train(client: Client, name: str, losses: list[float], **listening: Any) -> list[Any]:
    """Train under a bold driver, and return the steps and notices in order."""
    session = client.create_session(name, base_lr=0.1, controllers=[DRIVER])
    happened: list[Any] = []
    if listening.get("here"):
        session.on_notice(happened.append)
    for step, loss in enumerate(losses):
        session.lr(step)
        happened.append(step)
        session.report(step, loss=loss)
    return happened


def test_a_notice_comes_when_the_trainer_reaches_its_step(client: Client, unique_name: str):
    """It comes before the value of its step, and once."""
    happened = train(client, unique_name, [1.0, 0.5, 9.0, 0.4, 0.3], here=True)
    [notice] = [each for each in happened if isinstance(each, Notice)]
    assert happened == [0, 1, 2, notice, 3, 4]
    assert (notice.session, notice.step, notice.code) == (unique_name, 3, "roll_back")
    assert notice.good_step == 1
    assert "9.0" in notice.message


def test_a_client_listens_for_all_its_sessions(server_url: str, unique_name: str):
    """A client's listener gets each session's notices, with its name, in the trainer's thread."""
    heard: list[tuple[Notice, threading.Thread]] = []
    with Client(
        server_url, on_notice=lambda notice: heard.append((notice, threading.current_thread()))
    ) as client:
        for name in (f"{unique_name}-a", f"{unique_name}-b"):
            train(client, name, [1.0, 9.0, 0.1])
    assert [(notice.session, notice.step) for notice, _ in heard] == [
        (f"{unique_name}-a", 2),
        (f"{unique_name}-b", 2),
    ]
    assert {thread for _, thread in heard} == {threading.main_thread()}


def test_without_a_listener_notices_are_logged(
    client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """A roll-back is a warning, in one line that has the session and the step."""
    train(client, unique_name, [1.0, 9.0, 0.1])
    [record] = [each for each in caplog.records if "roll_back" in each.getMessage()]
    assert record.levelno == logging.WARNING
    assert f"session {unique_name}, step 2: roll_back: " in record.getMessage()


def test_the_log_knows_what_is_urgent(caplog: pytest.LogCaptureFixture):
    """Notices that need the trainer are warnings; the others are at INFO, and stay one line."""
    caplog.set_level(logging.INFO, logger="pacesetter")
    codes = ["roll_back", "diverged", "plateaued", "of_the_future"]
    Board().tell(Notice("run", 1, code, "a\nb\x1b[2J") for code in codes)
    ours = [record for record in caplog.records if "session run," in record.getMessage()]
    assert [record.levelno for record in ours] == [30, 30, 20, 20]
    assert all(record.getMessage().isprintable() for record in ours)


def test_going_back_tells_nothing_twice(client: Client, unique_name: str):
    """Windows may be fetched again: the notices in them are known."""
    session = client.create_session(unique_name, base_lr=0.1, controllers=[DRIVER])
    heard: list[Notice] = []
    session.on_notice(heard.append)
    for step, loss in enumerate([1.0, 9.0, 0.1, 0.1]):
        session.lr(step)
        session.report(step, loss=loss)
    for step in (0, 2, 1, 2, 3, 2):
        session.lr(step)
    assert [notice.step for notice in heard] == [2]


def test_one_that_comes_in_the_background_waits_for_the_trainer(fake: Any, fake_client: Client):
    """The notices of a prefetched window come when the trainer enters it."""
    heard: list[tuple[int, str]] = []
    session = fake_client.session("fake")

    @session.on_notice
    def listen(notice: Notice) -> None:
        heard.append((notice.step, threading.current_thread().name))

    def spoil(header: dict[str, Any], block: bytes) -> tuple[dict[str, Any], bytes]:
        last = header["start"] + header["count"] - 1
        return {**header, "notices": [told(last)]}, block

    fake.spoil = spoil
    for step in range(300):
        window = session._core.window(step)
        assert {told_of for told_of, _ in heard} <= set(range(window.stop))
    assert {name for _, name in heard} == {threading.main_thread().name}
    assert len(heard) == len(set(heard)) > 1


def test_what_a_listener_raises_reaches_the_loop_and_loses_nothing(
    client: Client, unique_name: str
):
    """The step may be asked for again, and the notices after the one that raised still come."""
    session = client.create_session(unique_name, base_lr=0.1, controllers=[DRIVER])
    calls: list[int] = []

    @session.on_notice
    def stop(notice: Notice) -> None:
        calls.append(notice.step)
        raise RuntimeError("roll back")

    for step, loss in enumerate([1.0, 9.0]):
        session.lr(step)
        session.report(step, loss=loss)
    with pytest.raises(RuntimeError, match="roll back"):
        session.lr(2)
    assert session.lr(2) > 0
    assert calls == [2]


def test_a_listener_that_raises_keeps_no_notice_from_the_others(caplog: pytest.LogCaptureFixture):
    """All of them are called; the first error is raised, and a further one is in the log."""
    heard: list[int] = []
    board = Board()

    def failing(what: str) -> OnNotice:
        def listener(notice: Notice) -> None:
            heard.append(notice.step)
            raise RuntimeError(what)

        return listener

    board.listen(failing("first"))
    board.listen(failing("second"))
    board.listen(lambda notice: heard.append(notice.step))
    with pytest.raises(RuntimeError, match="first"):
        board.tell([Notice("run", 3, "plateaued", "")])
    assert heard == [3, 3, 3]
    assert [str(each.exc_info[1]) for each in caplog.records if each.exc_info] == ["second"]


def test_the_memory_of_notices_is_bounded():
    """However many notices a server sends, the oldest are forgotten."""
    heard: list[Notice] = []
    board = Board(heard.append)
    for step in range(3 * REMEMBERED):
        board.tell([Notice("run", step, "plateaued", "")])
    assert len(heard) == 3 * REMEMBERED
    assert len(board._known) == REMEMBERED


def test_remote_lr_passes_notices_through(client: Client, unique_name: str):
    """A trainer that uses only the scheduler gets them from `step()`."""
    session = client.create_session(unique_name, base_lr=0.1, controllers=[DRIVER])
    heard: list[Notice] = []
    session.on_notice(heard.append)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = RemoteLR(optimizer, session)
    for step, loss in enumerate([1.0, 0.5, 9.0, 0.1]):
        assert [notice.step for notice in heard] == [3] * (step > 2)
        optimizer.step()
        scheduler.step(loss)
    assert [notice.code for notice in heard] == ["roll_back"]


def test_listeners_stay_in_their_process(server_url: str, unique_name: str):
    """A pickled session works elsewhere, without functions that only this process has."""
    with Client(server_url, on_notice=lambda notice: None) as client:
        session = client.create_session(unique_name, base_lr=0.1)
        session.on_notice(lambda notice: None)
        again = pickle.loads(pickle.dumps(session))
        assert again.lr(0) == 0.1
        again.close()


# -- the end of a session, and the wait for others -------------------------------------------------


def test_a_finished_session_raises_and_still_takes_reports(client: Client, unique_name: str):
    """The step after the end has its own error; what was measured last is delivered."""
    rule = {"kind": "range_test", "metric": "loss"}
    session = client.create_session(unique_name, base_lr=0.1, controllers=[rule])
    session.lr(0)
    session.report(0, loss=float("nan"))
    with pytest.raises(SessionFinishedError, match="the first step that is not sealed is 1"):
        session.lr(1)
    session.report(0, accuracy=0.5)
    session.flush()
    assert len(session._core.sync.reports) == 0


def test_an_end_met_in_the_background_costs_no_reports(fake: Any, fake_client: Client):
    """A window that is no longer available is dropped, and the reports go without it."""
    session = fake_client.session("fake")
    problem = {"code": "session_finished", "detail": "It is over."}

    def over(request: httpx.Request) -> httpx.Response | None:
        wish = "want" in json.loads(request.content or b"{}")
        return httpx.Response(409, json=problem) if wish else None

    session.lr(0)
    fake.fail = over
    session._prefetcher.order(1, 10)
    session.report(0, loss=0.5)
    session.flush()
    session.close()
    assert [body["reports"] for body in fake.bodies if "want" not in body] == [
        [{"step": 0, "metrics": {"loss": 0.5}}]
    ]


def test_each_has_an_error_of_its_own():
    """A program that catches conflicts and outages catches these too."""
    errors = [
        api_error(status, json.dumps({"code": code, "detail": "x"}).encode())
        for status, code in [(409, "session_finished"), (503, "awaiting_measurement")]
    ]
    assert [type(error) for error in errors] == [SessionFinishedError, AwaitingMeasurementError]
    assert isinstance(errors[0], ConflictError)


def test_a_rank_waits_for_the_others(server_url: str, unique_name: str):
    """At a boundary the client asks again until the decision is made, within `max_wait`."""
    spec = {
        "name": unique_name,
        "base_lr": 0.1,
        "ranks": 2,
        "controllers": [{"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}],
        "reaction": {"decide_every": 2, "timeout": 3600},
    }
    with open_http(server_url) as http:
        http.post("/v1/sessions", json=spec).raise_for_status()
    rates: dict[int, list[float]] = {0: [], 1: []}
    opened = threading.Barrier(len(rates))  # one that opens later would find a trained session

    def rank(number: int) -> None:
        with Client(server_url, max_wait=PATIENCE) as client:
            session = client.session(unique_name, rank=number)
            opened.wait(PATIENCE)
            for step in range(8):
                rates[number].append(session.lr(step))
                session.report(step, loss=1.0 + step)

    threads = [threading.Thread(target=rank, args=(number,)) for number in rates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == 4


def test_the_wait_for_the_others_is_bounded(fake: Any, fake_client: Client):
    """After `max_wait` the error says what was missing."""
    problem = {"code": "awaiting_measurement", "detail": "Step 4 waits for a decision."}
    session = fake_client.session("fake")
    fake.fail = lambda _: httpx.Response(503, json=problem)
    with pytest.raises(ServerUnavailableError, match="Step 4 waits") as raised:
        session.lr(4)
    assert isinstance(raised.value.__cause__, AwaitingMeasurementError)


def test_a_view_is_reported_as_what_it_is_of(fake: Any):
    """A loop that steps with a value reports the metric that has readings, not its view."""
    spec = {
        "controllers": [{"metric": "smooth"}, {"metric": "loss"}],
        "metrics": {"smooth": {"of": "loss"}, "loss": {"of": None}},
    }
    info = SessionInfo.parse({**fake.description(), "spec": spec})
    assert info.metrics == ("loss",)


def test_what_is_trained_again_is_told_again(client: Client, unique_name: str):
    """A pending change is announced before it in each attempt, in the same process too."""
    session = client.create_session(unique_name, base_lr=0.1, max_lookahead=1)
    heard: list[Notice] = []
    session.on_notice(heard.append)
    with open_http(client.url) as http:
        order = {"kind": "scale", "factor": 4, "at": 8}
        http.post(f"/v1/sessions/{unique_name}/actions", json=order).raise_for_status()
    for step in range(6):
        session.lr(step)
    assert [(each.step, each.code) for each in heard] == [(0, "large_change")]
    for _ in range(2):
        session.restart(0)
        for step in range(3):
            session.lr(step)
    assert [(each.step, each.code) for each in heard] == [(0, "large_change")] * 3


def test_going_back_forgets_what_was_not_told_of_the_steps_given_up():
    """A listener that raised on a notice of those steps does not get the others of them later."""
    heard: list[int] = []

    def listen(notice: Notice) -> None:
        heard.append(notice.step)
        if notice.step == 5:
            raise RuntimeError("back to the checkpoint")

    board = Board(listen)
    with pytest.raises(RuntimeError):
        board.tell([Notice("any", step, "plateaued", "") for step in (5, 6, 2)])
    board.go_back(4)
    board.tell([])
    assert heard == [5, 2]


def test_a_misspelt_metric_is_a_warning_with_the_name_that_was_meant(
    client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """Without a listener it is in the training's log, once."""
    plateau = {"kind": "plateau", "metric": "val_loss"}
    session = client.create_session(unique_name, base_lr=0.1, controllers=[plateau], silent_after=5)
    for step in range(12):
        session.lr(step)
        session.report(step, val_los=1.0)
    [record] = [each for each in caplog.records if "metric_never_seen" in each.getMessage()]
    assert record.levelno == logging.WARNING
    assert "Did you mean 'val_los'?" in record.getMessage()


def test_the_pitfalls_of_a_description_are_logged_when_it_is_created(
    client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """Each is one line with its place, the problem and the remedy."""
    kl = {"kind": "kl_adaptive", "metric": "kl"}
    client.create_session(unique_name, base_lr=0.1, controllers=[kl])
    [record] = [each for each in caplog.records if "ceiling_below_base" in each.getMessage()]
    assert record.levelno == logging.WARNING
    assert "/controllers/0/max_lr: max_lr 0.01 is below" in record.getMessage()
