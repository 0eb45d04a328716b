"""The rank tracker: what ranks do, how much memory that takes, and which ranks deviate."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isfinite, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from pacesetter_service.core.applied import KEPT, compare, precision
from pacesetter_service.core.commands import RecordDeviation, Seal
from pacesetter_service.core.decide import decide
from pacesetter_service.core.errors import StaleAttemptError, StepOutOfRangeError
from pacesetter_service.core.events import RateAgreed, RateDeviated
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.session import Attempt, Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.watching import DEVIATING_KEPT
from pacesetter_service.runtime.ranks import (
    MAX_RANKS,
    NEVER,
    Patience,
    Position,
    RankState,
    RankTracker,
    merged,
    summary,
)
from pacesetter_service.runtime.shared_ranks import tell_others
from pacesetter_service.store.ranks import Merge, Place, RankRow, RankTable

rates = st.floats(min_value=0.0, allow_infinity=False)


def session(ranks: int = 1, horizon: int = 0, attempt: int = 1) -> Session:
    """Return a session of that many ranks."""
    made = create(SessionSpec(name="run", base_lr=0.1, ranks=ranks))
    return replace(made, horizon=horizon, attempt=Attempt(attempt))


def test_a_rank_that_is_silent_is_counted_no_more() -> None:
    """An alarm about a job that has ended stops by itself."""
    deviating = compare(3, {"lr": 0.2}, {"lr": 0.1})
    talking, silent = RankTracker(), RankTracker(recent=0.0)
    for tracker in (talking, silent):
        tracker.record_call("run", 1, 1, 0, applied=deviating)
    assert talking.counts() == (1, 1)
    assert silent.counts() == (0, 0)


# Agreement ---------------------------------------------------------------------------------------


@given(rates)
def test_what_was_sealed_agrees_to_the_bit(rate: float) -> None:
    """The sealed value itself is exact, and its float32 is exact or agrees as float32."""
    assert precision(rate, rate) == "exact"
    with np.errstate(all="ignore"):
        rounded = float(np.float32(rate))
    if isfinite(rounded):
        assert precision(rounded, rate) == ("exact" if rounded == rate else "float32")


@given(rates, st.floats())
def test_everything_else_differs(sealed: float, applied: float) -> None:
    """A value agrees only if it is the sealed one or the float32 nearest to it."""
    with np.errstate(all="ignore"):
        agrees = applied in (sealed, float(np.float32(sealed))) and isfinite(applied)
    assert (precision(applied, sealed) != "differs") == agrees


@pytest.mark.parametrize("applied", [nan, inf, -inf])
def test_no_number_ever_agrees(applied: float) -> None:
    """NaN and infinities differ from every rate, also from one beyond the range of float32."""
    assert precision(applied, 0.1) == "differs"
    assert precision(applied, 1e300) == "differs"


def test_the_neighbouring_float32_differs() -> None:
    """One unit in the last place of a float32 is a deviation."""
    nearest = np.float32(0.1)
    assert precision(float(nearest), 0.1) == "float32"
    assert precision(float(np.nextafter(nearest, np.float32(1))), 0.1) == "differs"


def test_a_comparison_is_as_good_as_its_worst_value() -> None:
    """One series that differs makes the rank deviate, and is listed first."""
    sealed = {"a.lr": 0.1, "b.lr": 0.2, "c.lr": 0.3}
    found = compare(7, {**sealed, "b.lr": float(np.float32(0.2))}, sealed)
    assert (found.step, found.precision, found.differing) == (7, "float32", 0)
    found = compare(7, {"a.lr": 0.1, "c.lr": 0.4}, sealed)
    assert (found.precision, found.differing, found.values[0].series) == ("differs", 1, "c.lr")


# The command -------------------------------------------------------------------------------------


def sealed_until(step: int) -> Session:
    """Return a session with the steps below one sealed."""
    made = session()
    return evolve_all(made, decide(made, Seal(0, step)).events)


def test_a_deviation_becomes_an_event_and_a_notice() -> None:
    """What differs is recorded with both values, and trainers are told at the next step."""
    before = sealed_until(10)
    events = decide(before, RecordDeviation(3, 9, {"lr": (0.2, 0.1)}, attempt=1)).events
    assert events == (RateDeviated(3, 9, "lr", 0.2, 0.1),)
    [notice] = evolve_all(before, events).control.notices
    assert (notice.step, notice.code) == (10, "rate_deviated")


def test_an_agreement_is_never_recorded_as_a_deviation() -> None:
    """Values that agree, to the bit or as float32, make no event for any rank."""
    agreeing = {"lr": (float(np.float32(0.1)), 0.1)}
    assert decide(sealed_until(10), RecordDeviation(0, 9, agreeing)).events == ()


def test_a_deviation_has_a_step_and_an_attempt() -> None:
    """A step that was not handed out and an attempt that is not the running one are refused."""
    values = {"lr": (0.2, 0.1)}
    with pytest.raises(StepOutOfRangeError, match="handed out so far are 0 to 9"):
        decide(sealed_until(10), RecordDeviation(0, 10, values))
    with pytest.raises(StaleAttemptError):
        decide(sealed_until(10), RecordDeviation(0, 9, values, attempt=2))


def test_a_deviation_is_recorded_once_until_it_ends() -> None:
    """What the session has recorded is not recorded again by any call, until it agrees."""
    session = sealed_until(10)
    deviates = RecordDeviation(3, 8, {"lr": (0.2, 0.1)})
    session = decide(session, deviates).after
    assert session.control.watch.deviating == {3: ("lr",)}
    assert decide(session, deviates).events == ()
    assert decide(session, RecordDeviation(4, 8, {"lr": (0.2, 0.1)})).events != ()
    agreed = decide(session, RecordDeviation(3, 9, {"lr": (0.1, 0.1)}))
    assert agreed.events == (RateAgreed(3, ("lr",)),)
    assert agreed.after.control.watch.deviating == {}
    assert decide(agreed.after, deviates).events == (RateDeviated(3, 8, "lr", 0.2, 0.1),)


differing = st.sets(st.sampled_from("abcdefghijkl"))


@given(st.lists(st.tuples(differing, differing)))
def test_a_deviation_is_new_once_whatever_agrees_and_differs(
    calls: list[tuple[set[str], set[str]]],
) -> None:
    """Only what is not recorded is new, and at most `KEPT` series of a rank are recorded."""
    session, recorded = sealed_until(10), set[str]()
    for mentioned, differs in calls:
        wrong = differs & mentioned
        values = {each: (0.2 if each in wrong else 0.1, 0.1) for each in sorted(mentioned)}
        draft = decide(session, RecordDeviation(0, 9, values))
        recorded -= mentioned - wrong
        new = [each.series for each in draft.events if isinstance(each, RateDeviated)]
        assert set(new) <= wrong - recorded
        assert len(new) == min(len(wrong - recorded), KEPT - len(recorded))
        recorded |= set(new)
        session = draft.after
        assert set(session.control.watch.deviating.get(0, ())) == recorded


def test_the_ranks_whose_deviations_are_recorded_are_bounded() -> None:
    """If very many ranks deviate, the log has some of them, and the state stays small."""
    session = sealed_until(10)
    for rank in range(DEVIATING_KEPT + 1):
        session = decide(session, RecordDeviation(rank, 9, {"lr": (0.2, 0.1)})).after
    assert len(session.control.watch.deviating) == DEVIATING_KEPT
    assert decide(session, RecordDeviation(DEVIATING_KEPT, 9, {"lr": (0.2, 0.1)})).events == ()


# Calls -------------------------------------------------------------------------------------------


def test_a_call_leaves_what_it_does_not_mention() -> None:
    """Reports, wants and applied values are each remembered from the last call that had any."""
    tracker = RankTracker()
    tracker.record_call("run", 0, 1, 0, asked=10)
    tracker.record_call("run", 0, 1, 2, reported=7)
    tracker.record_call("run", 0, 1, 2, applied=compare(8, {"lr": 0.1}, {"lr": 0.1}))
    heard = tracker.snapshot("run").ranks[0]
    assert (heard.asked, heard.reported, heard.revision, heard.step) == (10, 7, 2, 10)
    assert heard.applied is not None
    assert heard.applied.step == 8


def test_a_rank_that_goes_back_is_where_it_went() -> None:
    """A rank that asks for an earlier step than before begins there again."""
    tracker = RankTracker()
    tracker.record_call("run", 0, 1, 0, asked=500, reported=499)
    tracker.record_call("run", 0, 1, 0, asked=100)
    assert tracker.snapshot("run").ranks[0].step == 100


def test_a_fenced_process_hides_nobody() -> None:
    """A process that still reads for an earlier attempt does not replace its successor."""
    tracker = RankTracker()
    tracker.record_call("run", 0, 1, 0, asked=500)
    tracker.record_call("run", 0, 2, 1, asked=100)
    tracker.record_call("run", 0, 1, 0, asked=600)
    heard = tracker.snapshot("run").ranks[0]
    assert (heard.attempt, heard.step) == (2, 100)


def test_what_the_session_says_deviates() -> None:
    """A rank deviates for as long as its session says so, even if other series agree."""
    tracker = RankTracker()
    agreeing = compare(5, {"lr": 0.1}, {"lr": 0.1})
    tracker.record_call("run", 0, 1, 0, applied=agreeing, deviating=("momentum",))
    assert tracker.snapshot("run").ranks[0].deviates
    tracker.record_call("run", 0, 1, 0)
    assert not tracker.snapshot("run").ranks[0].deviates


# Bounds ------------------------------------------------------------------------------------------


def test_the_sessions_that_were_silent_for_longest_are_forgotten() -> None:
    """Beyond the limit one session is dropped, and its view starts anew."""
    tracker = RankTracker(max_sessions=2)
    began = tracker.snapshot("a").since
    for name in "abac":
        tracker.record_call(name, 0, 1, 0)
    assert [name for name in "abc" if tracker.snapshot(name).ranks] == ["a", "c"]
    assert tracker.snapshot("a").since == began
    assert tracker.snapshot("b").since >= began


def test_the_ranks_of_all_sessions_are_bounded() -> None:
    """Beyond the limit whole sessions are dropped, but never the one that called last."""
    tracker = RankTracker(max_followed=MAX_RANKS)
    for name in "abc":
        for rank in range(30_000):
            tracker.record_call(name, rank, 1, 0)
            tracker.record_call(name, rank, 2, 0)
    assert [len(tracker.snapshot(name).ranks) for name in "abc"] == [0, 30_000, 30_000]


def test_a_rank_with_a_number_beyond_all_ranks_is_not_followed() -> None:
    """Numbers that no session can expect cost no memory."""
    tracker = RankTracker()
    tracker.record_call("run", MAX_RANKS - 1, 1, 0)
    tracker.record_call("run", MAX_RANKS, 1, 0)
    tracker.record_call("run", 2**53, 1, 0)
    assert list(tracker.snapshot("run").ranks) == [MAX_RANKS - 1]


def test_of_many_series_a_rank_costs_a_few() -> None:
    """Of a thousand applied values those that differ are kept first, and only some."""
    tracker = RankTracker()
    sealed = {f"g{number}.lr": 0.1 for number in range(1000)}
    tracker.record_call("run", 0, 1, 0, applied=compare(0, {**sealed, "g999.lr": 0.2}, sealed))
    applied = tracker.snapshot("run").ranks[0].applied
    assert applied is not None
    assert (len(applied.values), applied.values[0].series, applied.differing) == (
        KEPT,
        "g999.lr",
        1,
    )


# The summary -------------------------------------------------------------------------------------


def test_without_any_call_all_ranks_are_missing() -> None:
    """Before the first call all expected ranks are missing and no rank is slow."""
    found = summary(session(ranks=3), RankTracker().snapshot("run"), Patience(60))
    assert (found.seen, found.newest_step, found.furthest, found.slowest) == (0, None, None, None)
    assert found.missing == (0, 1, 2)


@given(
    st.dictionaries(
        st.integers(0, 20),
        st.tuples(st.integers(1, 2), st.integers(NEVER, 1000), st.integers(0, 2)),
    )
)
def test_every_rank_is_in_the_summary_once(calls: dict[int, tuple[int, int, int]]) -> None:
    """Ranks are seen, missing or of an earlier attempt; the slowest is behind no other."""
    tracker = RankTracker()
    for rank, (attempt, asked, revision) in calls.items():
        tracker.record_call("run", rank, attempt, revision, asked=asked)
    running = replace(session(ranks=21, attempt=2), revision=2)
    found = summary(running, tracker.snapshot("run"), Patience(1e6, steps=100))
    here = {rank: asked for rank, (attempt, asked, _) in calls.items() if attempt == 2}
    assert found.seen == len(here)
    assert found.seen + len(found.missing) == 21
    assert set(found.earlier) | set(here) == set(calls)
    assert found.current == sum(calls[rank][2] == 2 for rank in here)
    steps = {rank: asked for rank, asked in here.items() if asked != NEVER}
    assert found.furthest == max(steps.values(), default=None)
    assert (found.newest_step or 0) == max((found.furthest or 0) - 1, 0)
    assert (found.slowest is None) == (not steps)
    if found.slowest is not None:
        assert steps[found.slowest] == min(steps.values())
    newest = max(here.values(), default=NEVER)
    assert set(found.stale) == {rank for rank, asked in here.items() if newest - asked > 100}


def test_silence_makes_a_rank_stale() -> None:
    """A rank that has not called for longer than the patience is stale."""
    tracker = RankTracker()
    tracker.record_call("run", 0, 1, 0, asked=5)
    snapshot = tracker.snapshot("run")
    later = replace(snapshot, now=snapshot.now + 61)
    assert summary(session(), snapshot, Patience(60)).stale == ()
    assert summary(session(), later, Patience(60)).stale == (0,)


def _heard(**fields: Any) -> RankState:
    """Return what one process knows of a rank."""
    return RankState(**{"attempt": 1, "at": 1.0, **fields})


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param(
            {"attempt": 2}, {"step": 9, "at": 9.0}, {"attempt": 2, "step": NEVER}, id="attempt"
        ),
        pytest.param(
            {"at": 2.0, "revision": 3, "step": 4, "reported": 4, "reported_at": 2.0},
            {"at": 1.0, "revision": 2, "step": 5, "asked": 5, "asked_at": 1.0},
            {"at": 2.0, "revision": 3, "step": 5, "asked": 5, "reported": 4},
            id="parts",
        ),
        pytest.param(
            {"stood": 7, "since": 1.0, "pace": 0.5},
            {"at": 3.0},
            {"at": 3.0, "stood": 7, "since": 1.0, "pace": 0.5},
            id="position",
        ),
        pytest.param(
            {"step": 90, "asked": 90, "asked_at": 1.0, "reported": 89, "reported_at": 1.0},
            {"at": 2.0, "step": 50, "asked": 50, "asked_at": 2.0},
            {"step": 50, "asked": 50, "reported": 89},
            id="went back",
        ),
    ],
)
def test_what_two_processes_have_heard_is_put_together(
    one: dict[str, Any], other: dict[str, Any], expected: dict[str, Any]
) -> None:
    """In either order, and when merged once more with the result, it is the same."""
    first, second = _heard(**one), _heard(**other)
    found = merged(first, second)
    assert {name: getattr(found, name) for name in expected} == expected
    assert merged(second, first) == found
    assert merged(found, first) == found
    assert merged(second, found) == found


def test_what_was_heard_is_told_once_or_again_if_nobody_took_it() -> None:
    """Only what is new since the last time is taken; what is put back is taken again."""
    tracker = RankTracker(shares=True)
    for rank in (0, 1):
        tracker.record_call("run", rank, 1, 0)
    assert set(tracker.take_untold()) == {("run", 0), ("run", 1)}
    tracker.record_call("run", 1, 1, 0, asked=8)
    taken = tracker.take_untold()
    assert {place: heard.asked for place, heard in taken.items()} == {("run", 1): 8}
    tracker.put_back(taken)
    assert set(tracker.take_untold()) == {("run", 1)}
    assert not tracker.take_untold()


def test_a_rank_is_silent_while_others_of_its_training_are_heard() -> None:
    """Only a rank of the newest attempt counts, beside one that calls; an ended training does not.

    The last calls are set back here, instead of waiting for a minute.
    """
    tracker = RankTracker(recent=600.0)
    ages = {("run", 0): 0.0, ("run", 1): 90.0, ("run", 2): 900.0, ("over", 0): 90.0}
    for (name, rank), age in ages.items():
        tracker.record_call(name, rank, 1, 0, stood=7)
        tracker._crews[name].ranks[rank].at -= age
    tracker.record_call("again", 0, 2, 0)
    tracker.record_call("again", 1, 1, 0)
    tracker._crews["again"].ranks[1].at -= 90.0
    assert tracker.silent(60.0) == 1
    assert tracker.heard_lately(60.0) == [("run", 7)]


def test_what_was_heard_is_told_again_after_any_failure() -> None:
    """A row that cannot be read, too, leaves what was heard here for the next time."""

    class Unreadable(RankTable):
        def merge(self, places: Sequence[Place], merge: Merge) -> None:
            for place in places:
                merge(0.0, place, RankRow(1, 0.0, deviates=False, state="[]"))

    tracker = RankTracker(shares=True)
    tracker.record_call("run", 0, 1, 0)
    with pytest.raises(AttributeError):
        tell_others(tracker, Unreadable(create_engine("sqlite://")))
    assert set(tracker.take_untold()) == {("run", 0)}


@given(
    st.floats(min_value=0, exclude_min=True),
    st.floats(allow_nan=False),
    st.integers(0, 2**53),
    st.integers(NEVER, 2**53),
)
def test_a_trainer_is_within_what_it_asked_for(
    pace: float, seconds: float, stood: int, asked: int
) -> None:
    """No pace, and no time since it called, places it elsewhere, or nowhere."""
    heard = RankState(1, stood=stood, asked=asked, since=0.0, pace=pace)
    assert stood <= Position.of(heard, seconds).step <= max(stood, asked)
