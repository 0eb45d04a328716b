"""Walking a session."""

import contextlib
import gc
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from pacesetter import (
    Client,
    ClosedError,
    GroupError,
    InvalidAnswerError,
    InvalidRequestError,
    ServerUnavailableError,
    Session,
    StaleAttemptError,
    Window,
)
from serving import PATIENCE, RunningService, open_http

COSINE = {"kind": "cosine", "total_steps": 1000}


def _until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Wait for something that another thread brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def _walking(session: Session) -> Window:
    """Take windows until one has steps before its mark and after it, as in a steady training."""
    window, taken = session._core.window(0), 0
    # A hiccup makes steps look so long that the next window can wait until the last one. A server
    # that answers slowly makes them look so short that it is wanted from the first one on.
    while taken < 3 or not 0 < window.mark < len(window):
        assert taken < 100
        time.sleep(0.05 * (1 + taken // 4))
        window, taken = session._core.window(window.stop), taken + 1
    return window


def _threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"pacesetter-{name}"]


def test_a_session_shows_what_loops_call():
    """Completion in an editor offers the trainer's part; what integrations call is elsewhere."""
    state = {"info", "name", "attempt", "series", "groups", "horizon", "revision", "max_lookahead"}
    loop = {"lr", "values", "report", "applied", "resize", "restart", "flush", "deliver"}
    loop |= {"finish", "close"}
    listeners = {"on_report", "on_notice", "on_outage"}
    assert {name for name in dir(Session) if name[0] != "_"} == state | loop | listeners


def test_every_step_has_the_servers_value(client: Client, unique_name: str):
    """Across all windows each step has the bits that the server forecast."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    expected = client.forecast(unique_name, count=1200, points=1200)["series"]["lr"]
    assert [session.lr(step) for step in range(1200)] == expected


def test_steps_may_be_asked_for_in_any_order(client: Client, unique_name: str):
    """Going back gives the same bits, and a jump ahead needs no steps in between."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    first = [session.lr(step) for step in range(100)]
    assert session.lr(5000) >= 0
    assert [session.lr(step) for step in reversed(range(100))] == first[::-1]


def test_a_window_is_walked_without_requests(fake_client: Client, fake: Any):
    """Once the pace is known, a long window serves its steps from memory."""
    session = fake_client.session("fake")
    window = _walking(session)
    count = len(fake.requests)
    for step in range(window.start, window.start + window.mark):
        session.lr(step)
    assert len(fake.requests) == count


def test_the_next_window_is_fetched_before_it_is_needed(fake_client: Client, fake: Any):
    """At the mark the thread asks for the following window; the trainer finds it there."""
    session = fake_client.session("fake")
    window = _walking(session)
    before = len(fake.bodies)
    session.lr(window.start + window.mark)
    _until(lambda: len(fake.bodies) > before)
    assert fake.bodies[-1]["want"]["start"] == window.stop
    _until(lambda: session._prefetcher._ready is not None)
    session.lr(window.stop)
    assert [body["want"]["start"] for body in fake.bodies].count(window.stop) == 1


def test_a_failed_prefetch_is_silent_until_the_window_is_used_up(
    fake_client: Client, fake: Any, caplog: pytest.LogCaptureFixture
):
    """Sealed steps go on without the server; then the trainer waits up to the bound, and raises."""
    session = fake_client.session("fake")
    window = _walking(session)
    fake.fail = lambda _: httpx.Response(503)
    for step in range(window.start, window.stop):
        session.lr(step)
    assert caplog.text == ""
    with pytest.raises(ServerUnavailableError, match=r"away for 0\.5 s"):
        session.lr(window.stop)
    fake.fail = None
    assert session.lr(window.stop) == 0.5


def test_reports_and_the_wish_travel_together_in_a_session_that_reacts(fake: Any):
    """With a lookahead nothing is prefetched, and the next step's sync has the reports."""
    fake.max_lookahead = 1
    with Client("http://fake", transport=httpx.MockTransport(fake)) as client:
        session = client.session("fake")
        for step in range(5):
            session.lr(step)
            session.report(step, loss=float(step))
        session.lr(5)
    wishes = [body["want"] for body in fake.bodies if "want" in body]
    assert wishes == [{"start": step, "count": 1} for step in range(6)]
    arrived: list[int] = []
    for body in fake.bodies:
        arrived += [report["step"] for report in body.get("reports", ())]
        if "want" in body:
            assert set(range(body["want"]["start"])) <= set(arrived)


def test_many_reports_arrive_before_the_step_they_decide(fake: Any):
    """If there are more reports than one call takes, all are delivered first."""
    fake.max_lookahead = 1
    with Client("http://fake", transport=httpx.MockTransport(fake)) as client:
        session = client.session("fake")
        session.lr(0)
        for _ in range(3):
            session.report(0, **{f"m{n}": 1.0 for n in range(3000)})
        session.lr(1)
        last = max(n for n, body in enumerate(fake.bodies) if "want" in body)
        before = fake.bodies[: last + 1]
        assert sum(len(body.get("reports", ())) for body in before) >= 3


def test_reports_are_batched(fake_client: Client, fake: Any):
    """Some thousand reports make about as many calls as there are thousands."""
    session = fake_client.session("fake")
    for step in range(5000):
        session.report(step, loss=0.5)
    _until(lambda: sum(len(body.get("reports", ())) for body in fake.bodies) >= 5000)
    assert len(fake.bodies) <= 10


def test_a_lone_report_leaves_within_about_a_second(fake_client: Client, fake: Any):
    """The last metrics of an epoch do not wait for a hundred others."""
    fake_client.session("fake").report(7, loss=math.nan, acc=math.inf)
    session = fake_client.session("fake")
    session.report(8, loss=1)
    _until(lambda: any(body.get("reports") for body in fake.bodies))
    _until(lambda: len([body for body in fake.bodies if body.get("reports")]) >= 2)
    sent = sorted((r["step"], r["metrics"]) for b in fake.bodies for r in b.get("reports", ()))
    assert sent == [(7, {"loss": "nan", "acc": "inf"}), (8, {"loss": 1.0})]


def test_flush_delivers_now(client: Client, unique_name: str):
    """After `flush` the server has every report, and repeats change nothing."""
    session = client.create_session(unique_name, base_lr=0.1)
    session.lr(249)
    for _ in range(2):
        for step in range(250):
            session.report(step, loss=1.0 / (step + 1), acc=math.nan)
    session.flush()
    assert len(session._core.sync.reports) == 0


def test_a_report_without_metrics_says_nothing(fake_client: Client, fake: Any):
    """An empty report is not sent: the server would refuse the batch."""
    session = fake_client.session("fake")
    session.report(1)
    session.flush()
    assert fake.bodies == []


def test_a_refused_metric_costs_no_other(
    client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """What was measured beside it arrives, and the log names it once."""
    session = client.create_session(unique_name, base_lr=0.1)
    session.lr(9)
    session.report(1, loss=0.5)
    session.report(2, **{"acc (top-1)": 1.0, "a/b": 0.25, "loss": 0.3})
    session.report(3, loss=0.4)
    session.flush()
    session.report(4, **{"acc (top-1)": 1.0, "loss": 0.2})
    session.flush()
    assert len(session._core.sync.reports) == 0
    metrics = client.history(unique_name)["metrics"]
    assert metrics["loss"][1:5] == [0.5, 0.3, 0.4, 0.2]
    assert metrics["a/b"][2] == 0.25
    (told,) = caplog.records
    assert "'acc (top-1)' (Name a metric by" in told.getMessage()


def test_a_plateau_sees_its_metric_beside_a_refused_one(client: Client, unique_name: str):
    """A metric that the server refuses keeps no controller from its measurement."""
    plateau = {"kind": "plateau", "metric": "eval_loss", "patience": 0, "factor": 0.5}
    session = client.create_session(
        unique_name, base_lr=0.1, controllers=[plateau], max_lookahead=1
    )
    rates = []
    for step in range(3):
        rates.append(session.lr(step))
        session.report(step, **{"eval_loss": 1.0, "acc (top-1)": 0.5})
    assert rates == [0.1, 0.1, 0.05]


def test_a_refusal_of_a_full_batch_is_read(client: Client, unique_name: str):
    """An answer that points at each of thousands of values is longer than any window."""
    session = client.create_session(unique_name, base_lr=0.1)
    session.lr(0)
    with session._core.sync.lock:
        for _ in range(3_999):
            session.report(0, **{"no;name that is as long as names of metrics may be": 1.0})
        session.report(0, loss=0.5)
    session.flush()
    assert client.history(unique_name)["metrics"]["loss"] == [0.5]


def test_a_report_of_a_step_to_come_does_not_hold_up_the_others(client: Client, unique_name: str):
    """It cannot have been measured, so that report is dropped, and the others are kept."""
    session = client.create_session(unique_name, base_lr=0.1)
    session.lr(9)
    for step in (8, 10, 9, 11):
        session.report(step, loss=0.5)
    with pytest.raises(InvalidRequestError, match="Nothing can have been measured at step 10"):
        session.flush()
    assert [step for step, _ in session._core.sync.reports.entries] == [8, 9]
    session.flush()


def test_a_refused_report_in_the_background_is_logged(
    client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """No caller waits for a background delivery, so its refusal goes to the log."""
    session = client.create_session(unique_name, base_lr=0.1)
    session.report(2, **{"no;name": 1.0})
    _until(lambda: len(session._core.sync.reports) == 0)
    _until(lambda: "no;name" in caplog.text)
    session.lr(0)


def test_a_fenced_attempt_is_told_at_its_next_window(fake_client: Client, fake: Any):
    """A zombie can use what was sealed for it; it gets no more, and its reports are dropped."""
    session = fake_client.session("fake")
    assert session.lr(0) == 0.5
    problem = {"code": "stale_attempt", "detail": "Attempt 2 is open."}
    fake.fail = lambda _: httpx.Response(409, json=problem)
    session.report(0, loss=1.0)
    _until(lambda: len(session._core.sync.reports) == 0)
    with pytest.raises(StaleAttemptError):
        session.lr(1)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda h, b: (h, b[:-8] + b"\0\0\0\0\0\0\xf8\x7f"), id="NaN"),
        pytest.param(lambda h, b: (h, b[:-8] + b"\0\0\0\0\0\0\xe0\xbf"), id="negative"),
        pytest.param(lambda h, b: (h, b + bytes(8)), id="long"),
        pytest.param(lambda h, b: ({**h, "start": 99}, b), id="another step"),
        pytest.param(lambda h, b: ({**h, "attempt": 2}, b), id="another attempt"),
    ],
)
def test_nonsense_is_refused_and_leaves_the_session_usable(
    spoil: Any, fake_client: Client, fake: Any
):
    """Nothing of a bad answer is applied; when the server is well again so is the session."""
    session = fake_client.session("fake")
    fake.spoil = spoil
    with pytest.raises(InvalidAnswerError):
        session.lr(0)
    fake.spoil = None
    assert session.lr(0) == 0.5


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda h, b: (h, b[:-8]), id="cut off"),
        pytest.param(lambda h, b: (h, b + bytes(10**6)), id="huge"),
        pytest.param(lambda _, b: ({"status": "ok"}, b), id="of another program"),
    ],
)
def test_a_training_waits_where_an_answer_is_not_the_servers(
    spoil: Any, fake_client: Client, fake: Any
):
    """It stops only after its longest wait, and goes on when the server answers itself."""
    session = fake_client.session("fake")
    fake.spoil = spoil
    with pytest.raises(ServerUnavailableError, match="the longest wait allowed"):
        session.lr(0)
    asked = len(fake.bodies)
    assert asked > 1
    fake.spoil = lambda h, b: spoil(h, b) if len(fake.bodies) < asked + 3 else (h, b)
    assert session.lr(0) == 0.5


def test_nonsense_fetched_ahead_reaches_nobody(fake_client: Client, fake: Any):
    """A bad window in the background is dropped; the trainer's own fetch raises."""
    session = fake_client.session("fake")
    window = _walking(session)
    fake.spoil = lambda h, b: (h, b[:-8] + b"\0\0\0\0\0\0\xf8\x7f")
    for step in range(window.start, window.stop):
        assert session.lr(step) == 0.5
    with pytest.raises(InvalidAnswerError, match="not finite"):
        session.lr(window.stop)


def test_learning_rates_outside_the_users_bounds_are_refused(client: Client, unique_name: str):
    """A mistyped base rate stops at the trainer."""
    session = client.create_session(unique_name, base_lr=30.0, lr_bounds=(0.0, 1.0))
    with pytest.raises(InvalidAnswerError, match=r"outside \[0, 1\]"):
        session.lr(0)


@pytest.mark.parametrize("bounds", [(1.0, 0.1), (-1.0, 1.0), (math.nan, 1.0)])
def test_bounds_that_are_none_are_refused(bounds: tuple[float, float], fake_client: Client):
    """Invalid bounds are refused when the session is opened."""
    with pytest.raises(ValueError, match="lr_bounds"):
        fake_client.session("fake", lr_bounds=bounds)


def test_groups_have_values_of_their_own(client: Client, unique_name: str):
    """`lr(step, group)` and `values(step)` return each series."""
    groups = {"body": {"base_lr": 0.1}, "head": {"base_lr": 0.5}}
    session = client.create_session(unique_name, groups=groups)
    assert session.lr(3, "body") == 0.1
    assert session.lr(3, group="head") == 0.5
    assert session.values(3) == {"body.lr": 0.1, "head.lr": 0.5}
    with pytest.raises(GroupError, match="groups body, head and no group was named"):
        session.lr(3)
    with pytest.raises(GroupError, match="no group 'tail'"):
        session.lr(3, "tail")


def test_a_session_without_groups_has_none(client: Client, unique_name: str):
    """Naming a group there is an error, with or without a window at hand."""
    session = client.create_session(unique_name, base_lr=0.1)
    with pytest.raises(GroupError, match="has no groups"):
        session.lr(0, "head")
    assert session.values(0) == {"lr": 0.1}
    with pytest.raises(GroupError, match="has no groups"):
        session.lr(0, "head")


@pytest.mark.parametrize("step", [-1, -(10**9)])
def test_a_negative_step_is_refused(step: int, fake_client: Client):
    """It is not taken for an index from the end of a window."""
    session = fake_client.session("fake")
    session.lr(0)
    with pytest.raises(ValueError, match="negative"):
        session.lr(step)


def test_dropping_a_session_ends_its_thread(client: Client, unique_name: str):
    """A sweep that opens thousands of sessions does not accumulate threads."""
    session: Session | None = client.create_session(unique_name, base_lr=0.1)
    assert session is not None
    session.report(1, loss=1.0)
    assert [thread.daemon for thread in _threads(unique_name)] == [True]
    session = None
    gc.collect()
    _until(lambda: not _threads(unique_name))


def test_closing_delivers_and_ends_the_thread(client: Client, unique_name: str):
    """After the `with` block all is delivered and no thread runs; the session says it is closed."""
    with client.create_session(unique_name, base_lr=0.1) as session:
        session.lr(0)
        session.report(1, loss=1.0)
    assert len(session._core.sync.reports) == 0
    assert not _threads(unique_name)
    with pytest.raises(ClosedError):
        session.report(2, loss=1.0)
    with pytest.raises(ClosedError):
        session.flush()
    assert session.lr(0) == 0.1


def test_closing_without_a_server_is_bounded_and_counts_the_loss(
    fake_client: Client,
    fake: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    """A dead server does not hold up the end of a training."""
    monkeypatch.setattr("pacesetter._session.CLOSE_SECONDS", 1.0)
    session = fake_client.session("fake")
    fake.fail = lambda _: httpx.Response(503)
    session.report(1, loss=1.0)
    began = time.monotonic()
    session.close()
    assert time.monotonic() - began < PATIENCE / 4
    assert "1 reports of session fake were not delivered" in caplog.text


def test_closing_waits_for_a_server_that_comes_back(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
):
    """A restart of the server at the end of a training costs no report."""
    # However long a start takes here.
    monkeypatch.setattr("pacesetter._session.CLOSE_SECONDS", PATIENCE)
    with Client(service.url) as client:
        session = client.create_session("run", base_lr=0.1)
        session.lr(0)
        service.kill()
        session.report(0, loss=0.5)
        back = threading.Timer(0.5, service.start)
        back.start()
        session.close()
        back.join()
        assert len(session._core.sync.reports) == 0
        assert client.history("run")["metrics"]["loss"] == [0.5]


def test_a_delivery_is_tried_for_as_long_as_said(service: RunningService, caplog: Any):
    """At the end, reports must not stop a training: what is left is logged."""
    with Client(service.url) as client:
        session = client.create_session("run", base_lr=0.1)
        session.lr(0)
        assert session.deliver(0.0)
        service.kill()
        session.report(0, loss=0.5)
        began = time.monotonic()
        assert not session.deliver(0.3)
        assert time.monotonic() - began < PATIENCE / 4
        assert "1 reports of session run are not delivered: " in caplog.text
        service.start()
        assert session.deliver(PATIENCE)
        assert client.history("run")["metrics"]["loss"] == [0.5]


@pytest.mark.parametrize("seconds", [-0.5, -1.0, -math.inf])
def test_a_delivery_is_tried_once_when_its_time_has_passed(
    seconds: float, client: Client, unique_name: str
):
    """What a job has left before it is killed may be less than nothing: nothing is raised."""
    session = client.create_session(unique_name, base_lr=0.1)
    assert session.lr(0) == 0.1
    session.report(0, loss=1.0)
    assert session.deliver(seconds)


def test_a_delivery_goes_on_after_a_refusal(client: Client, unique_name: str, caplog: Any):
    """A report that is refused is logged, and costs none of those behind it."""
    session = client.create_session(unique_name, base_lr=0.1)
    session.lr(1)
    with session._core.sync.lock:
        session.report(50, loss=0.5)
        session.report(1, loss=0.25)
    assert session.deliver(PATIENCE)
    assert "Nothing can have been measured at step 50" in caplog.text
    assert client.history(unique_name)["metrics"]["loss"] == [None, 0.25]


def test_reporting_from_many_threads_loses_nothing(fake_client: Client, fake: Any):
    """Metrics may come from evaluation threads while the trainer steps."""
    session = fake_client.session("fake")

    def report(first: int) -> None:
        for step in range(first, first + 500):
            session.report(step, loss=0.5)

    threads = [threading.Thread(target=report, args=(n * 500,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for step in range(300):
        session.lr(step)
    for thread in threads:
        thread.join()
    session.flush()
    steps = {report["step"] for body in fake.bodies for report in body.get("reports", ())}
    assert steps == set(range(2000))


def test_a_refused_report_does_not_cost_the_window_it_travels_with(
    client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """A mistake in a metric's name, made at every step, stalls no step."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    window = _walking(session)
    with session._core.sync.lock:
        session.report(0, **{"no;name": 1.0})
        session.lr(window.start + window.mark)
    _until(lambda: session._prefetcher._ready is not None)
    _until(lambda: len(session._core.sync.reports) == 0 and bool(caplog.records))
    assert len(caplog.records) == 1


def test_a_fault_in_the_background_ends_neither_thread_nor_training(
    fake_client: Client,
    fake: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """Any exception there is logged once, and the trainer's steps go on."""
    session = fake_client.session("fake")

    class Broken:
        def __float__(self) -> float:
            raise RuntimeError("device lost")

    session._core.sync.reports.entries.append((0, {"loss": Broken()}))
    session.report(0, loss=1.0)
    _until(lambda: "device lost" in caplog.text)
    assert session.lr(0) == 0.5
    assert _threads("fake")[0].is_alive()


def test_without_threads_windows_are_fetched_on_demand(
    fake_client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A process that may start no more threads still trains."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    session = fake_client.session("fake")
    session.report(0, loss=1.0)
    assert [session.lr(step) for step in range(500)] == [0.5] * 500
    assert "goes on without its thread" in caplog.text
    session.flush()


@contextlib.contextmanager
def _hanging_in_the_background(session: Session) -> Iterator[None]:
    """Have another thread be in an exchange that does not end."""
    begun, over = threading.Event(), threading.Event()

    def hang() -> None:
        with session._core.sync.lock:
            begun.set()
            over.wait()

    thread = threading.Thread(target=hang)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_hanging_exchange_in_the_background_is_waited_for_within_the_bound(
    fake_client: Client,
):
    """The trainer does not queue behind its own thread for longer than `max_wait`."""
    session = fake_client.session("fake")
    began = time.monotonic()
    with (
        _hanging_in_the_background(session),
        pytest.raises(ServerUnavailableError, match="overloaded"),
    ):
        session.lr(0)
    assert 0.4 < time.monotonic() - began < PATIENCE / 4


def test_a_refused_metric_does_not_end_a_lockstep_training(client: Client, unique_name: str):
    """What the server refuses is dropped and logged; the next value still comes."""
    plateau = {"kind": "plateau", "metric": "loss", "patience": 0}
    session = client.create_session(unique_name, base_lr=0.1, controllers=[plateau])
    assert session.lr(0) == 0.1
    session.report(0, loss=1.0)
    session.report(0, **{"acc(top1)": 0.5})
    assert session.lr(1) == 0.1
    session.report(1, loss=1.0)
    assert session.lr(2) == 0.1 * 0.1


def test_a_session_is_made_from_units_and_templates(client: Client, unique_name: str):
    """Lengths in epochs, and a published template, can be used from here."""
    schedule = {"kind": "step", "step_size": {"epochs": 1}, "gamma": 0.5}
    by_epoch = client.create_session(
        unique_name, base_lr=0.1, schedule=schedule, steps_per_epoch=3, total_steps=30
    )
    assert [by_epoch.lr(step) for step in range(4)] == [0.1, 0.1, 0.1, 0.05]
    template = {
        "name": unique_name,
        "parameters": {"lr": {"example": 0.1}},
        "spec": {"base_lr": {"$": "lr"}},
    }
    with open_http(client.url) as http:
        http.post("/v1/templates", json=template).raise_for_status()
    made = client.session(
        f"{unique_name}-made", template=f"{unique_name}@1", parameters={"lr": 0.25}
    )
    assert made.lr(0) == 0.25
