"""What rules read off the curve of a range test, against the libraries that they come from."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacesetter_service.core.smoothing import Ema
from pacesetter_service.insight.range_test import (
    AGREEMENT,
    RULES,
    Curve,
    Suggestion,
    propose,
    smoothed,
    suggest,
)
from strategies import metrics

GOLDEN = Path(__file__).parents[1] / "golden"

FILES = {path.stem: json.loads(path.read_text()) for path in GOLDEN.glob("range_test/*.json")}

CASES = {
    f"{library}: {case['curve']}: {rule}": (case, rule)
    for library, file in sorted(FILES.items())
    for case in file["cases"]
    for rule in case["rules"]
}

REFUSED = {
    # It replaces the steepest point by the first NaN.
    ("not a number at the end", "torch_lr_finder"),
    # It runs off the left end of the curve and gives the first rate.
    ("short", "slide"),
}
"""Answers of the libraries for curves that support none."""

SINGLE = 1e-6
"""The precision of rates that fastai computes in float32."""


def floats(values: list[str]) -> list[float]:
    """Parse float64 as they are written down."""
    return [float.fromhex(value) for value in values]


def sweep(steps: int = 100, start: float = 1e-7, end: float = 10.0) -> list[float]:
    """Return rates that rise by the same factor."""
    return [start * (end / start) ** (step / (steps - 1)) for step in range(steps)]


def u_curve(lr: list[float], best: float = 1e-3, blown_up: float = 0.3) -> list[float]:
    """Return a loss that falls most steeply at `best` and rises from `blown_up` on."""
    falls = [1 / (1 + math.exp(2.5 * math.log10(best / rate))) for rate in lr]
    return [
        2.3 - 1.8 * fall + 0.4 * (rate / blown_up) ** 1.5
        for rate, fall in zip(lr, falls, strict=True)
    ]


@pytest.mark.parametrize("name", CASES)
def test_a_rule_says_what_its_library_says(name: str) -> None:
    """The rate is that of the library, except where we refuse on purpose."""
    case, rule = CASES[name]
    curve = Curve.of(floats(case["lr"]), floats(case["loss"]))
    ours, theirs = suggest(curve, case["planned"])[rule], case["rules"][rule]
    if (case["curve"], rule) in REFUSED:
        assert ours.lr is None or ours.lr != float.fromhex(theirs)
    elif theirs is None:
        assert ours.lr is None
        assert ours.reason
    else:
        assert ours.lr == pytest.approx(float.fromhex(theirs), rel=SINGLE)


@pytest.mark.parametrize("library", FILES)
def test_golden_values_can_be_made_again(library: str) -> None:
    """Each file has a generator, which pins the library's version."""
    generator = (GOLDEN / f"generate/range_test_{library}.py").read_text()
    pins = [line for line in generator.splitlines() if line.startswith("# requires")]
    assert any(FILES[library]["version"] in line for line in pins)


def test_every_library_rule_has_golden_values() -> None:
    """Only `steepest` is a rule of our own."""
    assert {rule for _, rule in CASES.values()} == set(RULES) - {"steepest"}


@pytest.mark.parametrize("mode", ["exponential", "linear"])
def test_steepest_finds_the_steepest_fall_over_the_logarithm(mode: str) -> None:
    """It is the steepest point of a known curve, whatever the spacing of the rates."""
    lr = sweep(200, 1e-6, 1.0) if mode == "exponential" else np.linspace(1e-4, 0.1, 2000).tolist()
    found = suggest(Curve.of(lr, u_curve(lr, best=1e-2, blown_up=1e3)))["steepest"]
    assert found.lr == pytest.approx(1e-2, rel=0.05)


def test_steepest_reads_a_stair_at_the_end_of_each_level() -> None:
    """A rate that is held for five steps is one point of the curve."""
    levels = sweep(40, 1e-6, 1.0)
    lr = [rate for rate in levels for _ in range(5)]
    loss = [value for value in u_curve(levels, best=1e-2) for _ in range(5)]
    said = suggest(Curve.of(lr, loss))
    assert (
        said["steepest"].lr == suggest(Curve.of(levels, u_curve(levels, best=1e-2)))["steepest"].lr
    )
    assert said["fastai"].lr is None
    assert "divides" in said["fastai"].reason


def test_a_blow_up_that_falls_back_does_not_mislead() -> None:
    """After the lowest loss nothing is read, however steeply the loss falls there."""
    lr = sweep()
    loss = u_curve(lr)
    loss[-12:] = [900.0, 5.0, 900.0, 5.0, 900.0, 5.0, 900.0, 5.0, 900.0, 5.0, 900.0, 5.0]
    found = suggest(Curve.of(lr, loss))
    assert found["steepest"].lr == pytest.approx(1e-3, rel=0.2)
    assert found["fastai"].lr != pytest.approx(1e-3, rel=0.2)


def test_a_short_valley_at_the_very_start_is_none() -> None:
    """Counting back from the first point, as fastai does, gives the last rate of all."""
    lr = sweep(12, 1e-3, 1.0)
    loss = [0.0, 3.0, 2.0, *[4.0 + step for step in range(4)], *[0.0] * 5]
    found = suggest(Curve.of(lr, loss), planned=12)["valley"]
    assert found == Suggestion(None, None, "the loss falls nowhere for three steps")


@pytest.mark.parametrize(
    ("lr", "loss", "reason"),
    [
        ([], [], "there are no measurements yet"),
        ([0.1] * 30, [1.0] * 30, "does not rise"),
        (sweep(30)[::-1], u_curve(sweep(30)), "falls on the way"),
        ([0.0, *sweep(30)], [1.0] * 31, "above 0"),
    ],
)
def test_what_is_no_range_test_is_told(lr: list[float], loss: list[float], reason: str) -> None:
    """No rule reads a rate off it, and all of them say why."""
    curve = Curve.of(lr, loss)
    said = suggest(curve)
    assert set(said) == set(RULES)
    assert all(each.lr is None and reason in each.reason for each in said.values())
    proposal = propose(curve, said)
    assert proposal.lr is None
    assert reason in proposal.reason


@pytest.mark.parametrize("loss", [[1.0] * 60, [1.0 + 0.1 * step for step in range(60)]])
def test_a_loss_that_does_not_fall_proposes_nothing(loss: list[float]) -> None:
    """Where nothing falls every rule reads noise, and the advice says what to change."""
    curve = Curve.of(sweep(60), loss)
    proposal = propose(curve, suggest(curve))
    assert proposal.lr is None
    assert "does not fall" in proposal.reason
    assert "lower start_lr" in proposal.reason


def test_a_first_loss_that_is_no_number_proposes_nothing() -> None:
    """There is no curve before it."""
    curve = Curve.of(sweep(20), [math.nan] * 20)
    assert "the first loss is not finite" in propose(curve, suggest(curve)).reason


def test_the_proposal_is_the_median_of_those_that_agree() -> None:
    """For an odd number it is one of their rates; those left out are named."""
    curve = Curve.of(sweep(), u_curve(sweep()))
    said = {
        name: Suggestion(lr, 0, "")
        for name, lr in {"a": 0.01, "b": 0.02, "c": 0.03, "d": 1e-6, "e": 5.0}.items()
    }
    proposal = propose(curve, said)
    assert proposal.lr == 0.02
    assert proposal.agreeing == ("a", "b", "c")
    assert proposal.reason == (
        "the median of the 3 rules that agree: a, b, c; left out as too far off: d 1e-06, e 5"
    )
    even = propose(curve, said | {"f": Suggestion(0.005, 0, "")})
    assert even.agreeing == ("a", "b", "f")
    assert even.lr == 0.01


def test_an_even_number_meets_in_the_middle_of_the_logarithm() -> None:
    """Of four rates it is the geometric mean of the inner two."""
    curve = Curve.of(sweep(), u_curve(sweep()))
    said = {str(lr): Suggestion(lr, 0, "") for lr in (0.01, 0.01, 0.02, 0.04, 0.041)}
    assert propose(curve, said).lr == pytest.approx(math.sqrt(0.02 * 0.04))


def test_rules_that_do_not_agree_propose_nothing() -> None:
    """The reason has their rates."""
    curve = Curve.of(sweep(), u_curve(sweep()))
    said = {str(lr): Suggestion(lr, 0, "") for lr in (1e-6, 1e-4, 1e-2, 1.0)}
    proposal = propose(curve, said)
    assert proposal.lr is None
    assert "1e-06, 0.0001 0.0001, 0.01 0.01" in proposal.reason


def test_a_sweep_that_ends_too_early_says_so() -> None:
    """The loss was still falling at the last rate, so a higher end may be better."""
    lr = sweep(100, 1e-6, 1e-2)
    curve = Curve.of(lr, u_curve(lr, best=1e-3))
    proposal = propose(curve, suggest(curve))
    assert proposal.lr is not None
    assert "a higher end_lr may find more" in proposal.reason


def test_a_curve_needs_a_loss_for_each_rate() -> None:
    """Sequences of different lengths are refused."""
    with pytest.raises(ValueError, match="give one loss for each rate"):
        Curve.of([0.1], [1.0, 2.0])


def test_smoothing_keeps_what_is_no_number_and_goes_on() -> None:
    """A NaN stays where it was, and the average is what it would be without it."""
    beside = smoothed([1.0, 2.0, 4.0], Ema(beta=0.9))
    with_nan = smoothed([1.0, math.nan, 2.0, 4.0], Ema(beta=0.9))
    assert math.isnan(with_nan.pop(1))
    assert with_nan == beside


def test_a_smoother_that_has_nothing_to_say_leaves_the_loss() -> None:
    """`every` gives nothing until its count is full; the curve keeps a point for each rate."""
    every: Any = {"kind": "every", "count": 2}
    assert smoothed([1.0, 3.0, 5.0], Ema.parse(every)) == [1.0, 2.0, 5.0]


steps = st.integers(0, 60)


@given(st.data(), steps, st.one_of(st.none(), st.integers(1, 200)))
def test_any_losses_give_rates_of_the_sweep_or_a_reason(
    data: st.DataObject, count: int, planned: int | None
) -> None:
    """Whatever is measured, a rate lies within the sweep, and a missing rate is explained."""
    lr = sweep(count) if count > 1 else [0.1] * count
    values = st.one_of(metrics, st.floats())
    losses = data.draw(st.lists(values, min_size=count, max_size=count))
    curve = Curve.of(lr, losses)
    said = suggest(curve, planned)
    for name, each in said.items():
        assert each.reason
        if each.lr is not None:
            assert each.index is not None
            scale = 10 if name == "minimum" else 1
            assert each.lr * scale == pytest.approx(lr[each.index])
    proposal = propose(curve, said)
    assert proposal.reason
    if proposal.lr is not None:
        rates = [said[name].lr or 0.0 for name in proposal.agreeing]
        assert min(rates) <= proposal.lr <= max(rates) <= AGREEMENT * min(rates)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40))
def test_the_valley_is_the_one_of_the_quadratic_search(losses: list[int]) -> None:
    """The fast search for the longest falling subsequence finds where fastai's ends, ties too."""
    from pacesetter_service.insight.range_test import _longest_fall

    lengths, end = [1] * len(losses), 0
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[end] < lengths[i]:
                end = i
    assert _longest_fall(np.array(losses, dtype=float)) == (end, lengths[end])
