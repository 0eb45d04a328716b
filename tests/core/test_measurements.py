"""From readings to measurements: which ranks must report, and how their values are aggregated."""

import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.closed_loop import Loop, session, shuffled
from pacesetter_service.core import decide, measuring
from pacesetter_service.core.commands import Reading, Report
from pacesetter_service.core.events import Measured, Missed, Reported
from pacesetter_service.core.measuring import (
    Measurement,
    MetricSpec,
    Miss,
    Pending,
    close,
    is_complete_at,
)
from strategies import metrics

finite = st.floats(-1e6, 1e6)
aggregates = st.sampled_from(["mean", "median", "min", "max", "sum", "rank0"])


def measured(values: dict[int, float], **spec: Any) -> Measurement | Miss:
    """Close one step that is asked for until it can wait no longer."""
    metric = MetricSpec.model_validate({"ranks": len(values), **spec})
    readings = [Reading(rank, 0, "loss", value) for rank, value in values.items()]
    [closed] = close(Pending(readings), {"loss": metric}, until=0)
    return closed


def value_of(values: list[float], aggregate: str) -> float:
    """Aggregate the values of ranks 0, 1, … ."""
    closed = measured(dict(enumerate(values)), aggregate=aggregate)
    assert isinstance(closed, Measurement)
    return closed.value


@given(st.lists(finite, min_size=1, max_size=20))
def test_each_aggregate_is_what_its_name_says(values: list[float]) -> None:
    """Mean and sum add from left to right by rank; the others select or interpolate."""
    total = values[0]
    for value in values[1:]:
        total = total + value
    assert value_of(values, "sum") == total
    assert value_of(values, "mean") == total / len(values)
    assert value_of(values, "median") == statistics.median(values)
    assert value_of(values, "min") == min(values)
    assert value_of(values, "max") == max(values)
    assert value_of(values, "rank0") == values[0]


@given(st.lists(metrics, min_size=1, max_size=16), aggregates, st.randoms())
def test_the_order_of_arrival_never_changes_a_bit(
    values: list[float], aggregate: str, order: random.Random
) -> None:
    """Ranks are taken in their own order, not in that of arrival."""
    arrived = dict(shuffled(enumerate(values), order))
    in_order = measured(dict(enumerate(values)), aggregate=aggregate)
    assert repr(measured(arrived, aggregate=aggregate)) == repr(in_order)


@given(st.lists(finite, min_size=1, max_size=8), st.integers(0, 8), aggregates)
def test_one_ranks_nan_is_news_to_all(values: list[float], at: int, aggregate: str) -> None:
    """A NaN is not averaged away, nor lost because it compares with nothing; rank0 is rank 0's."""
    values.insert(min(at, len(values)), math.nan)
    expected = aggregate != "rank0" or at == 0
    assert math.isnan(value_of(values, aggregate)) is expected


def test_infinities_stay_what_they_are() -> None:
    """One infinite loss makes the mean infinite, and two that cancel make NaN."""
    assert value_of([1.0, math.inf], "mean") == math.inf
    assert value_of([1.0, -math.inf], "min") == -math.inf
    assert value_of([1.0, -math.inf], "max") == 1.0
    assert math.isnan(value_of([math.inf, -math.inf], "sum"))


def test_rank_0_alone_is_enough_and_indispensable() -> None:
    """With `rank0` no other rank is waited for, and none replaces it."""
    assert measured({0: 2.0}, ranks=8, aggregate="rank0") == Measurement(0, "loss", 2.0, 1)
    assert measured({0: 2.0, 3: 9.0}, ranks=8, aggregate="rank0").ranks == 1
    without = measured({1: 2.0, 2: 2.0}, ranks=8, aggregate="rank0", quorum=2)
    assert without == Miss(0, "loss", 0, 1)


def test_some_ranks_may_be_all_that_report() -> None:
    """A metric that the last two of eight stages measure is complete with theirs."""
    loop = Loop(session(ranks=8, metrics={"loss": {"ranks": 2}}))
    loop.seal(0).report(0, {6: 1.0, 7: 3.0}).seal(1)
    assert loop.shown() == [("loss", 0, 2.0)]


@pytest.mark.parametrize(("reported", "expected"), [(3, Measurement), (2, Miss)])
def test_a_quorum_decides_between_measured_and_missed(reported: int, expected: type) -> None:
    """When the wait is over, three of four are enough for a quorum of three, and two are not."""
    values = {rank: float(rank) for rank in range(reported)}
    assert type(measured(values, ranks=4, quorum=3)) is expected
    assert type(measured(values, ranks=4)) is Miss


def test_before_the_deadline_a_quorum_is_not_asked() -> None:
    """A quorum does not shorten the wait: the other ranks have their time."""
    loop = Loop(session(ranks=3, metrics={"loss": {"quorum": 1, "deadline": 3}}, max_lookahead=9))
    loop.seal(0, 9).report(0, {0: 1.0, 1: 2.0}).report(2, {0: 1.0}).seal(9)
    assert loop.events[-1].start == 9  # type: ignore[union-attr] # sealed, and nothing else
    assert loop.shown() == []
    loop.report(3, {0: 1.0}).seal(10)
    assert loop.shown() == [("loss", 0, 1.5)]


def test_a_deadline_counts_steps_of_whoever_is_ahead() -> None:
    """`deadline` steps behind the newest report a step is missed, and the next ones wait on."""
    loop = Loop(session(ranks=2, metrics={"loss": {"deadline": 4}}, max_lookahead=20))
    loop.seal(0, 20)
    for step in range(10):
        loop.report(step, {0: 1.0})
    loop.seal(20)
    assert [miss.step for miss in loop.missed] == [0, 1, 2, 3, 4, 5]
    assert loop.missed[0] == Missed(0, "loss", ranks=1, wanted=2, at=20)
    assert {reading.step for reading in loop.session.pending.values()} == {6, 7, 8, 9}


def test_a_complete_step_ends_the_wait_for_those_before_it() -> None:
    """Measurements are consumed in order: a complete step does not wait for incomplete ones."""
    loop = Loop(session(ranks=2, max_lookahead=9)).seal(0, 9)
    loop.report(0, {0: 1.0}).report(1, {0: 5.0, 1: 7.0}).report(2, {1: 1.0}).seal(9)
    assert loop.shown() == [("loss", 1, 6.0)]
    assert [(miss.step, miss.ranks, miss.wanted) for miss in loop.missed] == [(0, 1, 2)]
    assert [reading.step for reading in loop.session.pending.values()] == [2]


def test_a_missed_step_stays_missed() -> None:
    """A report that comes after its step was missed is recorded, and has no other effect."""
    loop = Loop(session(ranks=2, max_lookahead=9)).seal(0, 9)
    loop.report(0, {0: 1.0}).report(1, {0: 1.0, 1: 1.0}).seal(9)
    [event] = loop.give(Report((Reading(1, 0, "loss", 1.0),)))
    assert isinstance(event, Reported)
    assert (len(event.readings), event.watched) == (1, ())
    assert not loop.session.pending
    loop.seal(10)
    assert loop.shown() == [("loss", 1, 1.0)]


def test_a_second_opinion_of_a_rank_is_not_asked_for() -> None:
    """The first value of a rank counts, within one report and across several."""
    loop = Loop(session(ranks=2)).seal(0)
    loop.give(Report((Reading(0, 0, "loss", 1.0), Reading(0, 0, "loss", 100.0))))
    loop.report(0, {0: 200.0, 1: 3.0}).report(0, {1: 300.0}).seal(1)
    assert loop.shown() == [("loss", 0, 2.0)]


def test_a_rank_that_never_reports_again_fills_no_memory() -> None:
    """Without a deadline too, pending readings are bounded, and the oldest are dropped."""
    assert measuring.MAX_WAITING < decide.MAX_PENDING
    steps = measuring.MAX_WAITING + 100
    loop = Loop(session(ranks=2, max_lookahead=65_536)).seal(0, 65_536)
    loop.give(Report(tuple(Reading(0, step, "loss", 1.0) for step in range(steps))))
    loop.seal(65_536)
    given_up = len(loop.missed)
    assert given_up > 0
    assert [miss.step for miss in loop.missed] == list(range(given_up))
    assert len(loop.session.pending) == steps - given_up <= measuring.MAX_WAITING
    loop.report(65_000, {0: 1.0, 1: 3.0})
    for _ in range(steps // decide.CONSUMED_SERIES + 1):  # one sealing consumes only so many
        loop.seal(loop.session.horizon)
    assert loop.shown() == [("loss", 65_000, 2.0)]


def test_thousands_of_ranks_may_be_a_window_ahead_of_the_slowest() -> None:
    """None of their reports is refused or dropped: the last rank's complete every step."""
    ranks, steps = 4096, 25
    loop = Loop(session(ranks=ranks, max_lookahead=steps)).seal(0, steps)
    for step in range(steps):
        loop.give(Report(tuple(Reading(rank, step, "loss", 1.0) for rank in range(1, ranks))))
    loop.seal(steps)
    assert not loop.missed
    assert len(loop.session.pending) == (ranks - 1) * steps > decide.MAX_PENDING
    loop.give(Report(tuple(Reading(0, step, "loss", 4097.0) for step in range(steps))))
    loop.seal(steps + 1)
    assert loop.shown() == [("loss", step, 2.0) for step in range(steps)]


def test_the_newest_step_may_have_any_number_of_ranks() -> None:
    """However many ranks report one step, it waits for the others."""
    many = measuring.MAX_WAITING + 1
    readings = [Reading(rank, 7, "loss", 1.0) for rank in range(many)]
    assert close(Pending(readings), {"loss": MetricSpec(ranks=60_000)}) == []


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.integers(0, 3)), metrics, max_size=30
    ),
    st.integers(1, 4),
    aggregates,
    st.none() | st.integers(1, 4),
)
def test_measurements_come_in_order_and_take_each_reading_once(
    readings: dict[tuple[int, str, int], float],
    ranks: int,
    aggregate: str,
    deadline: int | None,
) -> None:
    """Steps close in order; what is left is newer than all that was consumed."""
    spec = MetricSpec.model_validate(
        {"ranks": ranks, "aggregate": aggregate, "deadline": deadline, "quorum": 1}
    )
    specs = {"a": spec, "b": spec}
    pending = Pending(
        Reading(rank, step, metric, value) for (step, metric, rank), value in readings.items()
    )
    closed = close(pending, specs)
    assert [(each.step, each.metric) for each in closed] == sorted(
        {(each.step, each.metric) for each in closed}
    )
    for metric in "ab":
        steps = {step for step, name, _ in pending if name == metric}
        taken = {each.step for each in closed if each.metric == metric}
        assert all(old < new for old in taken for new in steps - taken)
        for step in steps:
            if is_complete_at(step, metric, spec, pending):
                assert step in taken


def test_what_was_measured_is_an_event() -> None:
    """The log of measurements has the value and how many ranks it is made of."""
    loop = Loop(session(ranks=3, metrics={"loss": {"quorum": 2, "deadline": 1}}))
    loop.seal(0).report(0, {2: 4.0, 0: 2.0}).seal(1).report(1, {0: 1.0}).seal(2)
    assert loop.of(Measured) == [Measured(0, "loss", 3.0, 2, at=2)]
