"""The controller `plateau`: its decisions, its options, and the traps that it avoids."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.optim.lr_scheduler import ReduceLROnPlateau

from core.controllers.following import follow, train
from core.torch_schedulers import optimizer
from pacesetter_service.core.commands import Reading, Report, Seal
from pacesetter_service.core.controllers import Controller, Sample
from pacesetter_service.core.controllers.plateau import Plateau, PlateauState
from pacesetter_service.core.decide import decide
from pacesetter_service.core.events import Decided
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.model import jsonable
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec
from strategies import factors, metrics

numbers = st.one_of(st.floats(-10, 10), st.sampled_from([0.5, 0.4, 0.3, 0.0, -1.0]))

of_torch = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": factors,
        "patience": st.integers(0, 4),
        "threshold": st.sampled_from([0.0, 1e-4, 0.1]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 3),
        "min_lr": st.sampled_from([0.0, 1e-3]),
        "eps": st.sampled_from([0.0, 1e-8, 1e-3]),
    }
)

any_plateau = st.builds(
    Plateau,
    metric=st.just("loss"),
    mode=st.sampled_from(["min", "max"]),
    factor=st.floats(0.1, 0.9),
    patience=st.integers(0, 3),
    when=st.sampled_from(["exceeded", "reached"]),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    threshold_mode=st.sampled_from(
        ["rel", "abs", "rel_and_abs", "signed_rel", "abs_on_value", "rel_subtracted"]
    ),
    finite_only=st.booleans(),
    cooldown=st.integers(0, 3),
    cooldown_ignores=st.sampled_from(["bad", "all"]),
    min_lr=st.sampled_from([0.0, 1e-3]),
    min_ratio=st.sampled_from([0.0, 0.05]),
    eps=st.sampled_from([0.0, 1e-8]),
    at_floor=st.sampled_from(["stay", "notify", "reset"]),
    notify=st.booleans(),
    up_factor=st.sampled_from([None, 1.5]),
    up_patience=st.integers(1, 3),
    max_ratio=st.sampled_from([1.0, 4.0]),
)


def plateau(**parameters: Any) -> Plateau:
    """Return a plateau that watches the loss."""
    return Plateau.model_validate({"metric": "loss", **parameters})


def cuts(rule: Controller, values: list[float]) -> list[int]:
    """Return the measurements, counted from 1, after which the level was lowered."""
    rates = [0.1, *follow(rule, values).rates]
    return [index for index in range(1, len(rates)) if rates[index] < rates[index - 1]]


@given(of_torch, st.lists(numbers, min_size=1, max_size=60))
def test_finite_metrics_give_the_bits_of_torch(spec: dict[str, Any], values: list[float]) -> None:
    """At a constant rate every value of a session equals torch's, as long as metrics are finite."""
    trained = optimizer(0.1)
    torchs = ReduceLROnPlateau(trained, **spec)
    expected = []
    for value in values:
        expected.append([float(trained.param_groups[0]["lr"])])
        torchs.step(value)
    controller = {"kind": "plateau", "metric": "loss", **spec}
    _, rates = train({"controllers": [controller]}, values)
    assert rates == expected


@given(any_plateau, st.lists(metrics, min_size=1, max_size=50), st.integers(0, 50))
def test_a_restart_at_any_measurement_changes_nothing(
    rule: Plateau, values: list[float], at: int
) -> None:
    """Counts, cooldown and best go through JSON: timm and fairseq lose the counts on resume."""
    assert repr(follow(rule, values)) == repr(follow(rule, values, restart_at=at))


@given(any_plateau, st.lists(metrics, max_size=50))
def test_a_level_stays_between_its_floor_and_its_ceiling(
    rule: Plateau, values: list[float]
) -> None:
    """Whatever is measured, no level leaves its bounds, and the best is never NaN."""
    followed = follow(rule, values, {"body": 0.1, "head": 1.0})
    for levels in followed.levels:
        for group, base in (("body", 0.1), ("head", 1.0)):
            assert max(1e-3 if rule.min_lr else 0.0, rule.min_ratio * base) <= levels[group]
            assert levels[group] <= base * (rule.max_ratio if rule.up_factor else 1.0)
    assert isinstance(followed.state, PlateauState)
    assert not math.isnan(followed.state.best)


def test_each_group_has_a_floor_of_its_own() -> None:
    """`min_lr` by group stops the cuts of that group alone; ignite drops a `min_lr` altogether."""
    rule = plateau(patience=0, min_lr={"body": 0.05})
    levels = follow(rule, [1.0] * 4, {"body": 0.1, "head": 1.0}).levels[-1]
    assert levels["body"] == 0.05
    assert levels["head"] == pytest.approx(1e-3)


def test_a_floor_can_follow_the_base() -> None:
    """`min_ratio` is a fraction of each group's own base."""
    rule = plateau(patience=0, min_ratio=0.5)
    assert follow(rule, [1.0] * 4, {"a": 0.1, "b": 8.0}).levels[-1] == {"a": 0.05, "b": 4.0}


def test_no_cut_raises_a_level_that_lies_below_its_floor() -> None:
    """A rate that fastai would lift to the floor stays where it is."""
    assert follow(plateau(patience=0, min_lr=0.5), [1.0] * 4).rates == [0.1] * 4


def test_a_divisor_keeps_round_numbers() -> None:
    """0.1 divided by 10 is 0.01, which 0.1 times 0.1 is not."""
    assert follow(plateau(patience=0, divisor=10.0), [1.0] * 3).rates == [0.1, 0.01, 0.001]
    assert follow(plateau(patience=0), [1.0] * 2).rates[-1] == 0.1 * 0.1 != 0.01


def test_a_patience_is_exceeded_or_reached() -> None:
    """Torch's patience is one more than many expect: 2 cuts at the fourth of equal metrics."""
    assert cuts(plateau(patience=2), [1.0] * 5) == [4]
    assert cuts(plateau(patience=2, when="reached"), [1.0] * 4) == [3]


def test_a_reached_patience_of_none_waits_for_a_bad_measurement() -> None:
    """With patience 0 an improvement never cuts, unlike in optax."""
    falling = [1.0, 0.9, 0.8, 0.7]
    assert cuts(plateau(patience=0, when="reached"), falling) == []
    assert cuts(plateau(patience=0, when="reached"), [*falling, 0.7]) == [5]


def test_after_a_cut_the_count_starts_anew() -> None:
    """Without a cooldown, too, the next cut needs its full patience: keras once cut each epoch."""
    assert cuts(plateau(patience=2), [1.0] * 10) == [4, 7, 10]


def test_a_cooldown_ignores_bad_measurements() -> None:
    """Measurements during it are not counted, and the patience begins after it."""
    assert cuts(plateau(patience=1, cooldown=3), [1.0] * 8) == [3, 8]


def test_a_best_value_of_the_cooldown_counts_unless_all_is_ignored() -> None:
    """With `all`, later values need not beat a value that was seen during the cooldown."""
    values = [1.0, 1.0, 0.2, 0.9, 0.8, 0.7]
    assert cuts(plateau(patience=0, cooldown=1), values) == [2, 4, 6]
    assert cuts(plateau(patience=0, cooldown=1, cooldown_ignores="all"), values) == [2]


def test_small_changes_are_not_made() -> None:
    """A cut of at most `eps` changes no level, and is no event."""
    followed = follow(plateau(patience=0, eps=0.06, factor=0.5), [1.0] * 4)
    assert followed.rates == [0.1] * 4
    assert followed.said == []


def test_a_nan_never_becomes_the_best() -> None:
    """NaN counts as no improvement, and what follows is compared with what came before it."""
    state = follow(plateau(), [0.5, math.nan]).state
    assert isinstance(state, PlateauState)
    assert (state.best, state.bad) == (0.5, 1)


def test_a_nan_before_all_others_is_not_the_best_for_ever() -> None:
    """In keras and paddle no value is ever better than a NaN that came first."""
    assert cuts(plateau(patience=2), [math.nan, 0.9, 0.8, 0.7, 0.6, 0.5]) == []


@pytest.mark.parametrize(("mode", "too_good"), [("min", -math.inf), ("max", math.inf)])
def test_an_infinity_does_not_freeze_the_best(mode: str, too_good: float) -> None:
    """After one measurement too good to be true improvements are still seen, unlike in torch."""
    sign = -1.0 if mode == "min" else 1.0
    values = [sign * 1.0, too_good, *(sign * (2.0 + step) for step in range(8))]
    assert cuts(plateau(mode=mode, patience=2, threshold_mode="abs"), values) == []
    frozen = plateau(mode=mode, patience=2, threshold_mode="abs", finite_only=False)
    assert cuts(frozen, values) == [5, 8]


def test_a_first_metric_of_any_size_is_the_best() -> None:
    """It may be above 1e9, the starting best of mmengine, on which nothing higher improves."""
    state = follow(plateau(), [1e300]).state
    assert isinstance(state, PlateauState)
    assert (state.best, state.bad) == (1e300, 0)


GETTING_WORSE = [-1.0, -0.95, -0.9, -0.86, -0.82, -0.78, -0.75, -0.72]
"""A metric below zero that should fall, and rises a little each time."""


def test_a_relative_threshold_takes_worse_negative_values_for_better() -> None:
    """With torch's `rel` the best follows a metric that gets worse, and nothing is cut."""
    followed = follow(plateau(patience=2, threshold=0.1), GETTING_WORSE)
    assert followed.said == []
    assert followed.state.best == -0.72  # type: ignore[attr-defined]


@pytest.mark.parametrize(("mode", "sign"), [("min", 1.0), ("max", -1.0)])
def test_a_signed_threshold_sees_negative_values_get_worse(mode: str, sign: float) -> None:
    """`signed_rel` requires a fraction of the best value's size, above zero and below."""
    rule = plateau(mode=mode, patience=2, threshold=0.1, threshold_mode="signed_rel")
    worse = GETTING_WORSE if mode == "min" else GETTING_WORSE[::-1]
    assert cuts(rule, worse) == [4, 7]
    better = [sign * -1.0 * 1.2**step for step in range(12)]
    assert cuts(rule, better) == []
    assert cuts(rule, [sign * 1.2**-step for step in range(12)]) == []


def test_both_thresholds_may_be_asked_for_at_once() -> None:
    """`rel_and_abs` requires more than the ratio and the absolute difference together."""
    rule = plateau(patience=0, threshold=0.1, threshold_abs=0.1, threshold_mode="rel_and_abs")
    assert cuts(rule, [1.0, 0.79]) == []
    assert cuts(rule, [1.0, 0.81]) == [2]


def test_a_rise_by_the_threshold_is_told_from_its_last_bit() -> None:
    """`abs` and `abs_on_value` judge accuracies two hundredths apart differently."""
    parameters = {"mode": "max", "patience": 0, "threshold": 0.02}
    on_best = plateau(**parameters, threshold_mode="abs")
    on_value = plateau(**parameters, threshold_mode="abs_on_value")
    pairs = [(n / 100, (n + 2) / 100) for n in range(98)]
    better_than_best = [not cuts(on_best, [low, high]) for low, high in pairs]
    better_by_value = [not cuts(on_value, [low, high]) for low, high in pairs]
    assert better_than_best == [high > low + 0.02 for low, high in pairs]
    assert better_by_value == [high - 0.02 > low for low, high in pairs]
    assert better_than_best != better_by_value


def test_a_lucky_value_starves_a_noisy_metric_unless_it_is_smoothed() -> None:
    """After a downward spike a steady decrease is cut; a median of three ignores the spike."""
    values = [2.0, 1.9, 0.1, *(1.8 - 0.05 * step for step in range(12))]
    controllers = [{"kind": "plateau", "metric": "loss", "patience": 3}]
    median = {"loss": {"smoothing": {"kind": "median", "window": 3}}}
    _, cut = train({"controllers": controllers}, values)
    _, uncut = train({"controllers": controllers, "metrics": median}, values)
    assert cut[-1][0] < 0.1
    assert uncut[-1] == [0.1]


def test_metrics_of_a_warmup_are_not_seen_before_from_step() -> None:
    """A loss that rises while the rate does is no plateau: the rule sleeps until `from_step`."""
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 4.0, 3.0]
    warmup = {"kind": "warmup", "steps": 5, "schedule": {"kind": "constant"}}
    controller = {"kind": "plateau", "metric": "loss", "patience": 1}
    spec = {"schedule": warmup, "controllers": [controller]}
    assert train(spec, values)[1][-1][0] < 0.1
    awake_later = {**spec, "controllers": [{**controller, "from_step": 5}]}
    assert train(awake_later, values)[1][-1] == [0.1]


def reported(spec: dict[str, Any], steps: int, ranks: int = 1, every: int = 1) -> list[float]:
    """Train some steps, all ranks reporting a loss of 1 at every n-th; return the rates."""
    session = create(SessionSpec.model_validate({"name": "x", "base_lr": 0.1, **spec}))
    rates = []
    for step in range(steps):
        events = decide(session, Seal(step, 1)).events
        session = evolve_all(session, events)
        rates.append(float(session.timelines["lr"].values(step, 1)[0]))
        if step % every == 0:
            readings = tuple(Reading(rank, step, "loss", 1.0) for rank in range(ranks))
            session = evolve_all(session, decide(session, Report(readings)).events)
    return rates


def test_many_ranks_do_not_use_up_the_patience_of_one() -> None:
    """Four ranks that report a step make one measurement; accelerate stepped once for each."""
    spec = {"controllers": [{"kind": "plateau", "metric": "loss", "patience": 4}]}
    alone, together = reported(spec, 12), reported({**spec, "ranks": 4}, 12, ranks=4)
    assert together == alone
    assert alone[6] < alone[5] == 0.1


def test_patience_counts_measurements_and_not_steps() -> None:
    """A metric that is measured at every tenth step cuts after ten times as many."""
    spec = {"controllers": [{"kind": "plateau", "metric": "loss", "patience": 2}]}
    rates = reported(spec, 40, every=10)
    assert rates[:31] == [0.1] * 31
    assert rates[31] < 0.1


def test_a_cut_reaches_any_schedule() -> None:
    """A schedule written in absolute numbers is cut by the same factor as one that follows."""
    controller = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}
    absolute = {"kind": "one_cycle", "max_lr": 0.1, "total_steps": 50}
    idle = {**controller, "patience": 99}
    _, cut = train({"schedule": absolute, "controllers": [controller]}, [1.0] * 6)
    _, uncut = train({"schedule": absolute, "controllers": [idle]}, [1.0] * 6)
    assert cut == [
        [rate * factor]
        for [rate], factor in zip(uncut, [1, 1, 0.5, 0.25, 0.125, 1 / 16], strict=True)
    ]


def test_a_cut_says_why() -> None:
    """The event has the metric, the values and the patience that led to it."""
    controller = {"kind": "plateau", "metric": "loss", "patience": 1}
    session, _ = train({"controllers": [controller]}, [0.5, 0.6, 0.7])
    events = decide(session, Seal(3, 1)).events
    [cut] = [event for event in events if isinstance(event, Decided)]
    assert cut.at == 3
    assert cut.levels == {"lr": (0.1, 0.1 * 0.1)}
    assert cut.advice is None
    assert "loss has not improved on 0.5 in 2 measurements (now 0.7; patience 1)" in cut.reason


def test_a_cut_is_told_to_the_trainer_if_asked() -> None:
    """With `notify` each cut comes with the advice `plateaued`; other measurements have none."""
    told = follow(plateau(patience=1, notify=True), [1.0] * 5).verdicts
    assert [each and each.advice for each in told] == [None, None, "plateaued", None, "plateaued"]


def test_a_metric_that_was_never_finite_is_not_called_infinite() -> None:
    """The reason does not say that nothing improved on infinity."""
    [cut] = follow(plateau(patience=1), [math.nan, math.nan]).said
    assert "loss has shown no value in 2 measurements (now nan; patience 1)" in cut.reason


def test_at_the_floor_nothing_is_said_unless_asked() -> None:
    """By default the rule stays at its floor silently, as torch's does."""
    assert len(follow(plateau(patience=0, factor=0.5, min_lr=0.03), [1.0] * 9).said) == 2


def test_the_trainer_is_told_of_the_floor_once() -> None:
    """`notify` sends `at_floor` with the cut that leads there, and not again."""
    rule = plateau(patience=0, factor=0.5, min_lr=0.03, at_floor="notify")
    told = follow(rule, [1.0] * 9)
    assert [each.advice for each in told.said] == [None, "at_floor"]
    assert told.rates[2:] == [0.03] * 7
    assert "every level is at its floor now" in told.said[-1].reason


def test_a_level_that_began_at_its_floor_is_told_of_too() -> None:
    """If no cut is ever possible, the first plateau says so, once."""
    told = follow(plateau(patience=1, min_lr=0.5, at_floor="notify"), [1.0] * 9)
    assert [each and each.advice for each in told.verdicts] == [None, None, "at_floor", *[None] * 6]


def test_a_reset_puts_all_levels_back_and_forgets_the_best() -> None:
    """When the patience runs out at the floor, the rule starts over."""
    rule = plateau(patience=1, factor=0.5, min_ratio=0.5, at_floor="reset")
    told = follow(rule, [1.0] * 5, {"a": 0.1, "b": 0.2})
    assert told.levels[2] == {"a": 0.05, "b": 0.1}
    assert told.levels[4] == {"a": 0.1, "b": 0.2}
    assert told.state == rule.init()
    assert told.said[-1].advice == "at_floor"
    assert "with every level at its floor: back to the bases" in told.said[-1].reason


def test_a_rule_may_start_with_what_another_has_seen() -> None:
    """Another rule's best value, bad measurements and cooldown count as its own would."""
    values = [1.0, 0.7, 0.9, 0.8, 0.75, 0.9, 0.9, 0.9]
    whole = follow(plateau(patience=2, cooldown=1), values)
    start = {"best": 0.7, "bad": 1}
    rest = follow(plateau(patience=2, cooldown=1, start=start), values[3:])
    assert rest.levels == whole.levels[3:]
    assert rest.state == whole.state


def test_a_reset_forgets_what_another_has_seen() -> None:
    """The start holds only at the beginning: after a reset the first value is the best."""
    rule = plateau(patience=0, min_ratio=1.0, at_floor="reset", start={"best": 0.1})
    assert follow(rule, [5.0, 4.0]).state.best == 4.0


@pytest.mark.parametrize("best", [None, 0.3, "-Infinity", "Infinity"])
def test_a_start_survives_its_json(best: float | str | None) -> None:
    """Infinities, which torch may hold for ever, are texts there."""
    rule = plateau(start={"best": best})
    assert Controller.parse(json.loads(json.dumps(jsonable(rule)))) == rule


def test_a_start_with_nan_is_refused() -> None:
    """NaN can never be a best value."""
    with pytest.raises(ValidationError, match="NaN was never the best"):
        plateau(start={"best": math.nan})


def test_a_stop_ends_the_session_at_the_second_plateau() -> None:
    """The floor gets a full patience of training before no further step is sealed."""
    controller = {"kind": "plateau", "metric": "loss", "patience": 1, "factor": 0.5}
    stopping = {**controller, "min_ratio": 0.5, "at_floor": "stop"}
    session, rates = train({"controllers": [stopping]}, [1.0] * 5)
    assert rates == [[0.1], [0.1], [0.1], [0.05], [0.05]]
    session = evolve_all(session, decide(session, Seal(5, 1)).events)
    assert session.status == "finished"
    assert "with every level at its floor: the session ends" in session.control.notices[-1].message


def test_improvements_in_a_row_raise_the_level_again() -> None:
    """With `up_factor` it rises after `up_patience` of them, to at most the base."""
    rule = plateau(patience=0, factor=0.5, up_factor=1.5, up_patience=2)
    values = [1.0, 1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    told = follow(rule, values)
    rising = [0.025, 0.0375, 0.0375, 0.0375 * 1.5, 0.0375 * 1.5, 0.0375 * 1.5 * 1.5, 0.084375]
    assert told.rates == pytest.approx([0.1, 0.05, 0.025, *rising])
    assert follow(rule, [*values, 0.2, 0.1]).rates[-1] == 0.1
    assert "loss has improved 2 times in a row, to 0.8 (up_patience 2)" in told.said[2].reason


def test_one_bad_measurement_breaks_a_row_of_improvements() -> None:
    """They must be consecutive to raise the level; NaN interrupts them, too."""
    rule = plateau(patience=5, up_factor=2.0, up_patience=2, max_ratio=8.0)
    assert follow(rule, [1.0, math.nan, 0.9, 1.0, 0.8, 0.9]).said == []
    assert follow(rule, [1.0, 0.9]).rates[-1] == 0.2


def test_a_level_can_rise_above_its_base_only_if_asked() -> None:
    """`max_ratio` is how far above; at the ceiling there is no notice."""
    falling = [1.0 * 0.9**step for step in range(12)]
    assert follow(plateau(up_factor=2.0, up_patience=1), falling).said == []
    rule = plateau(up_factor=2.0, up_patience=1, max_ratio=3.0)
    assert follow(rule, falling).rates == pytest.approx([0.2, *[0.3] * 11])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a threshold that asks for less than nothing": ({"threshold": 1.0}, "asks for a metric below"),
    "the same with both": (
        {"threshold": 1.5, "threshold_mode": "rel_and_abs"},
        "asks for a metric below",
    ),
    "a threshold that nothing looks at": ({"threshold_abs": 0.1}, 'Only threshold_mode "rel_and_a'),
    "two ways down": ({"factor": 0.5, "divisor": 2.0}, "give one of them"),
    "a divisor that raises": ({"divisor": 0.5}, "greater than 1"),
    "a factor that raises": ({"factor": 1.0}, "less than 1"),
    "a list of floors": ({"min_lr": [0.1, 0.2]}, 'one for each group by its name: {"head": 0.1}'),
    "a ceiling below the base": ({"max_ratio": 0.5}, "greater than or equal to 1"),
}


@pytest.mark.parametrize(("parameters", "words"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused(parameters: dict[str, Any], words: str) -> None:
    """The error says what is wrong and what to write instead."""
    with pytest.raises(ValidationError, match=words.replace("{", r"\{")):
        plateau(**parameters)


def test_a_large_threshold_is_fine_where_it_can_be_passed() -> None:
    """Higher metrics may have to double, and absolute thresholds have the metric's unit."""
    assert cuts(plateau(mode="max", threshold=1.0, patience=0), [1.0, 2.5, 4.0]) == [3]
    assert cuts(plateau(threshold=5.0, threshold_mode="abs", patience=0), [9.0, 3.0]) == []


@pytest.mark.parametrize("at_floor", ["notify", "reset", "stop"])
def test_a_level_is_at_its_floor_in_spite_of_rounding(at_floor: str) -> None:
    """An operator's scale may leave it above its floor by the last bit."""
    rule = plateau(patience=0, min_lr=0.05, eps=0.0, at_floor=at_floor)
    seen = Sample("loss", 0, 1.0, {"": math.nextafter(0.05, 1)}, {"": 0.1})
    verdict = rule.observe(PlateauState(best=1.0), seen).verdict
    assert verdict is not None
    assert verdict.advice in ("at_floor", "finished")


def test_a_cut_by_the_last_bit_is_made_as_in_torch() -> None:
    """Without `eps` a level one bit above its floor is cut to it."""
    rule = plateau(patience=0, factor=0.010000000000000002, min_lr=1e-3, eps=0.0)
    assert follow(rule, [1.0] * 3).rates == [0.1, 0.0010000000000000002, 1e-3]
