"""The family of a template: faults are found soon, healthy runs cause no alarm, doubt is named."""

import numpy as np
import pytest
from benchmarks.collapse import FAULTS, KINDS, SOON, SURE, Kind, Run, family_of, hundred, watched
from hypothesis import given, settings
from hypothesis import strategies as st

from pacesetter_service.core.commands import RecordDeparture, Seal
from pacesetter_service.core.decide import decide
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.insight.collapse import (
    CELLS,
    LEAST_MEMBERS,
    Family,
    Gathering,
    curve_of,
    is_whole,
    leaves_path,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda each: each.name)
def test_faults_are_found_within_five_percent_of_the_run(kind: Kind) -> None:
    """Of 20 faults in 100 runs nearly all are found, with at most 2 false alarms in the 100."""
    found = hundred(kind, np.random.default_rng(7))
    faults = [each for each in found if each.fault is not None]
    soon = [each for each in faults if each.delay is not None and each.delay <= SOON]
    assert len(faults) == 20
    assert len(soon) >= 16
    assert sum(each.false for each in found) <= 2


@pytest.mark.slow
def test_the_proportions_hold_over_many_families() -> None:
    """All but 1 in 100 faults that the best observer sees are found, with few false alarms."""
    random = np.random.default_rng(8)
    found = [each for kind in KINDS for _ in range(4) for each in hundred(kind, random)]
    faults = [each for each in found if each.fault is not None]
    soon = [each for each in faults if each.delay is not None and each.delay <= SOON]
    sure = [each for each in faults if each.clear >= SURE]
    assert len(sure) > 0.9 * len(faults)
    assert len(set(map(id, sure)) & set(map(id, soon))) >= 0.99 * len(sure)
    assert len(soon) >= 0.94 * len(faults)
    assert sum(each.false for each in found) <= 0.02 * len(found)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: each.__name__)
def test_each_fault_is_found(fault: object) -> None:
    """In the midst of a run none of them is missed."""
    random = np.random.default_rng(3)
    family = family_of(KINDS[0], random)
    run = Run(KINDS[0], random)
    losses = fault(run, 0.4)  # type: ignore[operator]
    [first, *_] = family.judged(curve_of("run", run.parts, losses)).departures
    assert 0.38 * CELLS <= first.since <= first.found
    assert 0.4 <= (first.found + 1) / CELLS <= 0.4 + SOON
    lower = fault.__name__ in ("rate_too_low", "repeated_data")  # type: ignore[attr-defined]
    assert (first.apart < 0) == lower


def test_a_run_can_be_judged_as_soon_as_it_was_measured() -> None:
    """However short the measurements are, nothing is found, and nothing fails."""
    random = np.random.default_rng(11)
    family = family_of(KINDS[0], random)
    run = Run(KINDS[0], random)
    losses = run.losses()
    for count in range(0, 300, 7):
        judged = family.judged(curve_of("run", run.parts[:count], losses[:count]))
        assert judged.departures == ()
        assert len(judged.cells) == len(judged.losses) == len(judged.expected)


def test_what_was_found_is_found_from_what_was_measured_by_then() -> None:
    """A judgement in the midst of a run finds the same departure as one at its end."""
    random = np.random.default_rng(4)
    family = family_of(KINDS[0], random)
    run = Run(KINDS[0], random)
    losses = FAULTS[2](run, 0.5)
    whole = family.judged(curve_of("run", run.parts, losses)).departures[0]
    for cell in range(45, 60):
        known = run.parts < (cell + 1) / CELLS + 1e-3
        found = family.judged(curve_of("run", run.parts[known], losses[known])).departures
        assert [each.found for each in found] == ([whole.found] if cell >= whole.found else [])


def test_a_run_that_returns_can_leave_again() -> None:
    """Each time is a separate departure, with the step at which the run was near again."""
    random = np.random.default_rng(5)
    family = family_of(KINDS[0], random)
    run = Run(KINDS[0], random)
    apart = sum((run.parts >= low) & (run.parts < high) for low, high in ((0.3, 0.4), (0.7, 0.9)))
    losses = run.losses() * (1 + 0.05 * apart)
    first, second = family.judged(curve_of("run", run.parts, losses)).departures
    assert (first.found, second.found) == (30, 70)
    assert first.back is not None
    assert 40 <= first.back <= 46


def test_a_run_that_has_settled_elsewhere_can_leave_again() -> None:
    """A second departure of a run that never came back is found; in the end both are over."""
    random = np.random.default_rng(5)
    family = family_of(KINDS[0], random)
    run = Run(KINDS[0], random)
    far = np.searchsorted([0.2, 0.5, 0.9], run.parts, side="right")
    losses = run.losses() * np.array([1.0, 1.03, 1.08, 1.0])[far]
    first, second = family.judged(curve_of("run", run.parts, losses)).departures
    assert (first.found, second.found) == (20, 50)
    assert first.apart == pytest.approx(0.03, abs=0.005)
    assert second.apart == pytest.approx(0.05, abs=0.005)
    assert first.back == second.back == 92


def test_a_run_that_drifts_on_is_told_of_once() -> None:
    """Until the run has settled, its drift is one departure."""
    random = np.random.default_rng(5)
    family = family_of(KINDS[0], random)
    for fault in (FAULTS[5], FAULTS[6]):  # divergence and slow drift
        run = Run(KINDS[0], random)
        losses = fault(run, 0.4)
        assert len(family.judged(curve_of("run", run.parts, losses)).departures) == 1


def test_what_is_not_finite_is_left_out() -> None:
    """The cells before a non-finite loss are still judged."""
    random = np.random.default_rng(6)
    family = family_of(KINDS[0], random)
    run = Run(KINDS[0], random)
    losses = np.where(run.parts > 0.5, np.nan, FAULTS[5](run, 0.4))
    judged = family.judged(curve_of("run", run.parts, losses))
    assert judged.cells[-1] <= 50
    assert judged.departures


def test_fewer_members_want_more_to_be_told() -> None:
    """A band of five members is wider than one of twenty, and fewer than five make none."""
    random = np.random.default_rng(9)
    curves = [curve_of("member", run.parts, run.losses()) for run in runs(random, 20)]
    few, many = Family(curves[:LEAST_MEMBERS]), Family(curves)
    assert few.least > many.least
    with pytest.raises(ValueError, match="5 members"):
        Family(curves[: LEAST_MEMBERS - 1])


def runs(random: np.random.Generator, count: int) -> list[Run]:
    """Return that many runs of a family."""
    return [Run(KINDS[0], random) for _ in range(count)]


def test_what_scatters_more_than_its_family_is_not_told_of() -> None:
    """A run that is measured with ten times the noise, or ten times as seldom, is healthy."""
    random = np.random.default_rng(10)
    family = family_of(KINDS[0], random)
    noisy = Kind("noisy", KINDS[0].rates, scatter=0.05)
    seldom = Kind("seldom", KINDS[0].rates, measured=60)
    told = [watched(family, Run(kind, random), None).false for kind in (noisy, seldom) * 20]
    assert sum(told) <= 1


def test_a_curve_that_does_not_fall_or_has_no_end_is_no_member() -> None:
    """Members were measured to their end, and their losses fall."""
    parts = (np.arange(500) + 0.5) / 500
    assert is_whole(curve_of("falls", parts, 3 - parts))
    assert not is_whole(curve_of("rises", parts, 3 + parts))
    assert not is_whole(curve_of("ends early", parts[:450], 3 - parts[:450]))
    assert not is_whole(curve_of("seldom", parts[::20], 3 - parts[::20]))


@settings(max_examples=30)
@given(st.lists(st.integers(0, 499), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_what_is_gathered_by_and_by_is_what_is_gathered_at_once(cuts: list[int], seed: int) -> None:
    """Means and counts are the same however often a run was read in between."""
    parts = (np.arange(500) + 0.5) / 500
    losses = 3 - parts + 0.01 * np.random.default_rng(seed).normal(size=500)
    whole, gathering, first = curve_of("run", parts, losses), Gathering(), 0
    for end in (*sorted(cuts), 500):
        gathering.add(parts[:end], losses[:end], first)
        first = max(gathering.curve("run").reached - 3, 0)
    found = gathering.curve("run")
    assert np.array_equal(found.counts, whole.counts)
    assert found.means == pytest.approx(whole.means, rel=1e-12, nan_ok=True)


def test_a_path_of_rates_is_known_by_its_form() -> None:
    """A path at another level is the same; an order makes another one from its cell on."""
    cells = (np.arange(CELLS) + 0.5) / CELLS
    cosine = (1 + np.cos(np.pi * cells)) / 2
    assert leaves_path(3e-4 * cosine, cosine) == CELLS
    assert leaves_path(3e-4 * cosine[:40], cosine) == CELLS
    assert leaves_path(np.where(cells < 0.6, 1, 0.5) * cosine, cosine) == 60
    assert leaves_path(np.zeros(0), cosine) == 0


def test_a_departure_is_recorded_once_for_each_time() -> None:
    """The same departure changes nothing; one that begins later is another."""
    session = create(SessionSpec(name="run", base_lr=0.1))
    session = decide(session, Seal(0, 50)).after
    told = decide(session, RecordDeparture("loss", 40, "it left"))
    [event] = told.events
    assert (event.code, event.about, event.at) == ("left_family", "loss", 50)  # type: ignore[union-attr]
    again = decide(told.after, RecordDeparture("loss", 45, "it left"))
    assert not again.events
    later = decide(told.after, RecordDeparture("loss", 51, "it left again"))
    assert len(later.events) == 1
    other = decide(told.after, RecordDeparture("val_loss", 40, "it left"))
    assert len(other.events) == 1
