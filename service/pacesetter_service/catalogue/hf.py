"""Presets of transformers: every `lr_scheduler_type`, with the parameters of `get_scheduler`.

All but the polynomial one are factors of the base. The numbers of steps are the Trainer's: there is
no warmup unless one is given. The Trainer rounds a warmup that is given as a ratio up; here it
becomes the nearest step. Where transformers compares `min_lr` or `lr_end` with the learning rate,
it uses the optimizer's default for all groups; here each group has its own floor.
"""

from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import (
    Controller,
    ControllerState,
    Observation,
    Sample,
    Verdict,
    changed,
)
from pacesetter_service.core.controllers.improvement import (
    Improvement,
    Mode,
    refuse_impossible,
)
from pacesetter_service.core.lengths import (
    Duration,
    Length,
    StepCount,
    StepPoint,
    known,
    steps_of,
    whole,
)
from pacesetter_service.core.model import Flag, Level, NonNegative, OneOf, Positive, Real, Step
from pacesetter_service.core.schedules import eases
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import Part, Sequence, Shift, Span
from pacesetter_service.core.schedules.combinators import Relative
from pacesetter_service.core.schedules.primitives import Hold, PowerLaw, Ramp
from pacesetter_service.core.smoothing import Window

REDIRECTS: dict[str, str] = {
    "hf.reduce_lr_on_plateau": (
        "reduce_lr_on_plateau follows a metric and not the steps: put the controller"
        " `torch.ReduceLROnPlateau`, which transformers uses, or our `plateau`, among the session's"
        " `controllers`, beside any schedule"
    ),
    "hf.greedy": (
        "greedy follows a metric and not the steps: put `greedy`, or `hf.GreedyLR` with"
        " transformers' own names and numbers, among the session's `controllers`, beside any"
        " schedule"
    ),
}
"""Scheduler types that are not schedules here, with what to do instead."""

DECAY_OF_INVERSE_SQRT = 10_000
"""The timescale of an inverse square root with neither a timescale nor a warmup."""


class OfTrainer(Named):
    """What `get_scheduler` passes to schedules; not all of them use it."""

    num_warmup_steps: StepPoint = 0
    num_training_steps: StepCount | None = None


class Decaying(OfTrainer):
    """A warmup, and a decay until the end of the training.

    A training no longer than its warmup has a decay of one step, as in transformers.
    """

    num_training_steps: StepCount

    @property
    def decay_steps(self) -> int:
        """How long the decay lasts."""
        return max(whole(self.num_training_steps) - whole(self.num_warmup_steps), 1)


class Constant(OfTrainer):
    """The base for ever.

    As in transformers the numbers of steps are accepted and mean nothing: there is no warmup.
    `hf.constant_with_warmup` has one.
    """

    formula: ClassVar[str] = "base"
    source: ClassVar[str] = "transformers.get_constant_schedule"
    example: ClassVar[dict[str, Any]] = {}

    kind: Literal["hf.constant"] = "hf.constant"

    def expand(self) -> Schedule:  # noqa: D102
        return Hold()


class ConstantWithWarmup(OfTrainer):
    """A linear rise from 0 to the base, which is then held.

    The first step uses 0, and the base comes at step `num_warmup_steps`.
    """

    formula: ClassVar[str] = "base * min(t / num_warmup_steps, 1)"
    source: ClassVar[str] = "transformers.get_constant_schedule_with_warmup"
    example: ClassVar[dict[str, Any]] = {"num_warmup_steps": 100}

    kind: Literal["hf.constant_with_warmup"] = "hf.constant_with_warmup"

    def expand(self) -> Schedule:  # noqa: D102
        return _after_rise(self.num_warmup_steps, Hold())


class Linear(Decaying):
    """A linear rise from 0 to the base, and a line down to 0 at the end of the training.

    The first step uses 0; from step `num_training_steps` on the value is 0.
    """

    formula: ClassVar[str] = (
        "base * t / W for t < W, then base * max(0, (T - t) / (T - W)),"
        " with W = num_warmup_steps, T = num_training_steps"
    )
    source: ClassVar[str] = "transformers.get_linear_schedule_with_warmup, the Trainer's default"
    example: ClassVar[dict[str, Any]] = {"num_warmup_steps": 100, "num_training_steps": 1000}

    kind: Literal["hf.linear"] = "hf.linear"

    def expand(self) -> Schedule:  # noqa: D102
        if whole(self.num_training_steps) <= whole(self.num_warmup_steps):
            return _after_rise(self.num_warmup_steps, Hold(value=0.0))
        line = eases.Reversed(ease=eases.Linear())
        fall = Ramp(start=1.0, end=0.0, steps=self.decay_steps, ease=line)
        return _after_rise(self.num_warmup_steps, Relative(schedule=fall))


class Cosine(Decaying):
    """A linear rise from 0 to the base, and cosine waves, by default half a wave down to 0.

    As in transformers the wave goes on after `num_training_steps`: by default the value rises
    again, and is back at the base a decay's length later.
    """

    formula: ClassVar[str] = (
        "base * t / W for t < W, then"
        " base * (1 + cos(2 * pi * num_cycles * (t - W) / (T - W))) / 2,"
        " with W = num_warmup_steps, T = num_training_steps"
    )
    source: ClassVar[str] = "transformers.get_cosine_schedule_with_warmup"
    example: ClassVar[dict[str, Any]] = {"num_warmup_steps": 100, "num_training_steps": 1000}

    kind: Literal["hf.cosine"] = "hf.cosine"
    num_cycles: Positive = 0.5

    def expand(self) -> Schedule:  # noqa: D102
        wave = eases.Cosine(waves=self.num_cycles)
        return _after_rise(self.num_warmup_steps, _curve("base", 0.0, self.decay_steps, wave))


class CosineWithRestarts(Decaying):
    """A linear rise from 0 to the base, and `num_cycles` times half a cosine wave down to 0.

    From step `num_training_steps` on the value is 0. As in transformers, where a restart comes to
    a fraction just below a whole number of cycles (`num_cycles` 49), it comes one step late, after
    one more value near 0.
    """

    formula: ClassVar[str] = (
        "base * t / W for t < W, then base * (1 + cos(pi * (num_cycles * p mod 1))) / 2 for p < 1,"
        " then 0, with p = (t - W) / (T - W), W = num_warmup_steps, T = num_training_steps"
    )
    source: ClassVar[str] = "transformers.get_cosine_with_hard_restarts_schedule_with_warmup"
    example: ClassVar[dict[str, Any]] = {
        "num_warmup_steps": 100,
        "num_training_steps": 1000,
        "num_cycles": 3,
    }

    kind: Literal["hf.cosine_with_restarts"] = "hf.cosine_with_restarts"
    num_cycles: Positive = 1.0

    def expand(self) -> Schedule:  # noqa: D102
        teeth = eases.Teeth(ease=eases.Cosine(), count=self.num_cycles)
        return _after_rise(self.num_warmup_steps, Ramp(end=0.0, steps=self.decay_steps, ease=teeth))


class Polynomial(Decaying):
    """A linear rise from 0 to the base, and a power of the remaining time down to `lr_end`.

    `lr_end` is a learning rate and not a factor; transformers refuses one above the optimizer's.
    A training no longer than its warmup, on which transformers may divide by zero, has `lr_end`
    after it.
    """

    formula: ClassVar[str] = (
        "base * t / W for t < W, then lr_end + (base - lr_end) * (1 - (t - W) / (T - W)) ** power"
        " for t < T, then lr_end, with W = num_warmup_steps, T = num_training_steps"
    )
    source: ClassVar[str] = "transformers.get_polynomial_decay_schedule_with_warmup"
    example: ClassVar[dict[str, Any]] = {
        "num_warmup_steps": 100,
        "num_training_steps": 1000,
        "power": 2.0,
    }

    kind: Literal["hf.polynomial"] = "hf.polynomial"
    lr_end: NonNegative = 1e-7
    power: Positive = 1.0

    def expand(self) -> Schedule:  # noqa: D102
        if whole(self.num_training_steps) <= whole(self.num_warmup_steps):
            return _after_rise(self.num_warmup_steps, Hold(value=self.lr_end))
        ease = eases.Poly(power=self.power)
        return _after_rise(
            self.num_warmup_steps, Ramp(end=self.lr_end, steps=self.decay_steps, ease=ease)
        )


class InverseSqrt(OfTrainer):
    """A linear rise from 0 to the base, which then falls with the square root of the time.

    Without a `timescale` it is the warmup's length, or 10,000 without a warmup.
    `num_training_steps` is accepted and means nothing, as in transformers.
    """

    formula: ClassVar[str] = (
        "base * t / W for t < W, then base / sqrt((t - W + timescale) / timescale),"
        " with W = num_warmup_steps"
    )
    source: ClassVar[str] = "transformers.get_inverse_sqrt_schedule"
    example: ClassVar[dict[str, Any]] = {"num_warmup_steps": 100}

    kind: Literal["hf.inverse_sqrt"] = "hf.inverse_sqrt"
    timescale: Length | None = None

    def expand(self) -> Schedule:  # noqa: D102
        own = None if self.timescale is None else steps_of(self.timescale)
        timescale = float(own or whole(self.num_warmup_steps) or DECAY_OF_INVERSE_SQRT)
        return _after_rise(self.num_warmup_steps, PowerLaw(timescale=timescale, shift=timescale))


class Floored(Decaying):
    """Cosine waves that go down to `min_lr`, or to `min_lr_rate` times the base."""

    num_cycles: Positive = 0.5
    min_lr: NonNegative | None = None
    min_lr_rate: NonNegative | None = None

    @model_validator(mode="after")
    def _one_floor(self) -> Self:
        if (self.min_lr is None) == (self.min_lr_rate is None):
            raise PydanticCustomError(
                "one_floor", "Give either min_lr, a learning rate, or min_lr_rate, a factor"
            )
        return self

    def wave(self) -> Schedule:
        """Return the waves after the warmup, from their own step 0 on."""
        ease = eases.Cosine(waves=self.num_cycles)
        if self.min_lr is not None:
            return _curve("base", self.min_lr, self.decay_steps, ease)
        return Relative(schedule=_curve(1.0, self.min_lr_rate or 0.0, self.decay_steps, ease))


class CosineWithMinLr(Floored):
    """A linear rise from 0 to the base, and cosine waves, by default half a wave to a floor.

    Either `min_lr` or `min_lr_rate` must be given. As in transformers the wave goes on after
    `num_training_steps`: by default the value rises again.
    """

    formula: ClassVar[str] = (
        "base * t / W for t < W, then"
        " m + (base - m) * (1 + cos(2 * pi * num_cycles * (t - W) / (T - W))) / 2,"
        " with m = min_lr or min_lr_rate * base, W = num_warmup_steps, T = num_training_steps"
    )
    source: ClassVar[str] = "transformers.get_cosine_with_min_lr_schedule_with_warmup"
    example: ClassVar[dict[str, Any]] = {
        "num_warmup_steps": 100,
        "num_training_steps": 1000,
        "min_lr_rate": 0.1,
    }

    kind: Literal["hf.cosine_with_min_lr"] = "hf.cosine_with_min_lr"

    def expand(self) -> Schedule:  # noqa: D102
        return _after_rise(self.num_warmup_steps, self.wave())


class CosineWarmupWithMinLr(Floored):
    """A rise to the base that does not start at 0, and cosine waves to a floor.

    Without `warmup_lr_rate` the first step uses `base / num_warmup_steps`, with it that factor of
    the base; either way the base comes one step earlier than in the other schedules, and so does
    all that follows. Either `min_lr` or `min_lr_rate` must be given. As in transformers the wave
    goes on after `num_training_steps`: by default the value rises again.
    """

    formula: ClassVar[str] = (
        "base * (t + 1) / W, or base * (r + (1 - r) * t / (W - 1)) with r = warmup_lr_rate,"
        " for t < W, then"
        " m + (base - m) * (1 + cos(2 * pi * num_cycles * (t - W + 1) / (T - W))) / 2,"
        " with m = min_lr or min_lr_rate * base, W = num_warmup_steps, T = num_training_steps"
    )
    source: ClassVar[str] = "transformers.get_cosine_with_min_lr_schedule_with_warmup_lr_rate"
    example: ClassVar[dict[str, Any]] = {
        "num_warmup_steps": 100,
        "num_training_steps": 1000,
        "min_lr_rate": 0.1,
        "warmup_lr_rate": 0.01,
    }

    kind: Literal["hf.cosine_warmup_with_min_lr"] = "hf.cosine_warmup_with_min_lr"
    warmup_lr_rate: NonNegative | None = None

    def expand(self) -> Schedule:  # noqa: D102
        wave = Shift(schedule=self.wave(), by=1)
        return _after_rise(self.num_warmup_steps, wave, self._rise())

    def _rise(self) -> Schedule:
        steps = whole(self.num_warmup_steps)
        if self.warmup_lr_rate is None:
            return Shift(schedule=_line(0.0, max(steps, 1)), by=1)
        return _line(self.warmup_lr_rate, max(steps - 1, 1))


class WarmupStableDecay(OfTrainer):
    """A rise to the base, a plateau there, and a decay to a floor, which is then held.

    As in transformers the rise starts from the floor, `min_lr_ratio` times the base, too; and
    `num_stable_steps` wins over `num_training_steps`, which is used to find it where it is missing.
    transformers accepts a decay and a warmup that together are longer than the training, and jumps
    into the decay; this refuses it.
    """

    formula: ClassVar[str] = (
        "base * (m + (1 - m) * rise(t / W)) for t < W, then base for num_stable_steps,"
        " then base * (m + (1 - m) * fall(s / num_decay_steps)), s the steps since then,"
        " then base * m, with m = min_lr_ratio, W = num_warmup_steps"
    )
    source: ClassVar[str] = "transformers.get_wsd_schedule; Hu et al. 2024, arXiv:2404.06395"
    example: ClassVar[dict[str, Any]] = {
        "num_warmup_steps": 100,
        "num_training_steps": 1000,
        "num_decay_steps": 200,
    }

    kind: Literal["hf.warmup_stable_decay"] = "hf.warmup_stable_decay"
    num_decay_steps: StepPoint
    num_stable_steps: StepPoint | None = None
    warmup_type: Literal["linear", "cosine", "1-sqrt"] = "linear"
    decay_type: Literal["linear", "cosine", "1-sqrt"] = "cosine"
    min_lr_ratio: NonNegative = 0.0
    num_cycles: Positive = 0.5

    @model_validator(mode="after")
    def _time_for_all(self) -> Self:
        if self.num_stable_steps is not None:
            return self
        if self.num_training_steps is None:
            raise PydanticCustomError(
                "no_length", "Say how long it is: give num_training_steps or num_stable_steps"
            )
        lengths = (self.num_training_steps, self.num_warmup_steps, self.num_decay_steps)
        if all(map(known, lengths)) and self._stable_steps < 0:
            raise PydanticCustomError(
                "no_time_to_decay",
                "A warmup of {warmup} and a decay of {decay} do not fit into {total} training"
                " steps; shorten them",
                dict(zip(("total", "warmup", "decay"), lengths, strict=True)),
            )
        return self

    @property
    def _stable_steps(self) -> int:
        if self.num_stable_steps is not None:
            return whole(self.num_stable_steps)
        assert self.num_training_steps is not None  # noqa: S101 - the validator saw to it
        used = whole(self.num_warmup_steps) + whole(self.num_decay_steps)
        return whole(self.num_training_steps) - used

    def expand(self) -> Schedule:  # noqa: D102
        warmup, decay = whole(self.num_warmup_steps), whole(self.num_decay_steps)
        phases = [
            (_curve(self.min_lr_ratio, 1.0, max(warmup, 1), self._rising()), warmup),
            (Hold(), self._stable_steps),
            (_curve(1.0, self.min_lr_ratio, max(decay, 1), self._falling()), decay),
        ]
        parts = [Part(schedule=law, steps=steps) for law, steps in phases if steps > 0]
        floor = Part(schedule=Hold(value=self.min_lr_ratio))
        return Relative(schedule=Sequence(parts=(*parts, floor)))

    def _rising(self) -> eases.Ease:
        rising: dict[str, eases.Ease] = {
            "linear": eases.Linear(),
            "cosine": eases.Haversine(),
            "1-sqrt": eases.Reversed(ease=eases.Power(power=0.5)),
        }
        return rising[self.warmup_type]

    def _falling(self) -> eases.Ease:
        falling: dict[str, eases.Ease] = {
            "linear": eases.Poly(),
            "cosine": eases.Cosine(waves=self.num_cycles),
            "1-sqrt": eases.Power(power=0.5),
        }
        return falling[self.decay_type]


def _curve(start: Level, end: Level, steps: int, ease: eases.Ease) -> Schedule:
    """Return a ramp without an end whose progress is divided first, as transformers does it."""
    way = Ramp(start=start, end=end, steps=1.0, ease=ease, out_of_range="extrapolate")
    return Span(schedule=way, ratio=float(steps))


def _line(start: float, steps: int) -> Schedule:
    """Return factors that rise to 1 in a straight line."""
    return Ramp(start=start, end=1.0, steps=float(steps), out_of_range="extrapolate")


def _after_rise(warmup: int | Duration, law: Schedule, factors: Schedule | None = None) -> Schedule:
    """Put a warmup before a law: factors of the base, by default in a straight line from 0."""
    steps = whole(warmup)
    if steps == 0:
        return law
    rise = Relative(schedule=factors or _line(0.0, steps))
    return Sequence(parts=(Part(schedule=rise, steps=steps), Part(schedule=law)))


MIN_LR, MAX_LR = 1e-3, 1.0
"""The library's own bounds; also for groups that an object of bounds does not name."""

Bound = Annotated[
    NonNegative | dict[str, NonNegative],
    OneOf("Write a learning rate, or an object with one for each group by its name"),
]


class GreedyLRState(ControllerState):
    """The counters of the library's scheduler, and the window of its streaming average.

    Attributes:
        best: The best value so far; infinite before the first.
        good: `num_good_epochs`, the new bests in a row.
        bad: `num_bad_epochs`, the other values in a row.
        cooldown: `cooldown_counter`.
        warmup: `warmup_counter`.
        resets_in: `reset_start`, as it is counted down.
        window: The newest values, if they are smoothed.
        total: Their running sum, which may differ from their exact sum in the last bits.
    """

    best: float
    resets_in: int
    good: int = 0
    bad: int = 0
    cooldown: int = 0
    warmup: int = 0
    window: tuple[float, ...] = ()
    total: float = 0.0


class GreedyLR(Controller):
    """The rule of transformers' GreedyLR, with its numbers and its traps; our own is `greedy`.

    More than `patience` new bests in a row divide the rate by `factor`, up to `max_lr`, and let
    `warmup` measurements pass; more than `patience` others multiply it by `factor`, down to
    `min_lr`, and let `cooldown` measurements pass. Changes of no more than `eps` are not made. With
    `smooth` a value is the mean of the newest `window_size`. A cut that is due while every rate is
    at or below its `min_lr` counts down `reset_start`; at 0 all rates go back to where they began
    and everything is forgotten. It is made for a constant schedule; over another one it acts on the
    level. Bounds for groups are an object by their names, where transformers takes a list.
    `verbose` is accepted and means nothing: the log of events has every decision.

    Read these before using it; `greedy` has none of them:

    - **A rate below `min_lr` is never cut.** The bounds are absolute and their defaults are 1e-3
      and 1.0: at the usual 5e-5 every cut would be a raise, so none is made, and the rate climbs
      with each run of improvements. Give `min_lr` and `max_lr` around your own rate.
    - A rate near `eps` stops short of its floor: with the defaults no rate below 2e-7 is cut, a
      `min_lr` of 1e-7 is never reached, and so nothing is ever reset.
    - With `smooth` one NaN or infinity makes every later mean NaN, and the rate only falls, until
      the reset. Use `nan="ignore"` or a `smoothing` of the metric instead.
    - -inf (or inf with mode "max") becomes the best, and nothing beats it.
    - Values during a cooldown or a warmup are not looked at, so an old best counts for longer.
    - With "rel" and negative metrics worse values count as better: use "abs". A relative threshold
      of 1 or more with mode "min" is refused: nothing but values below zero could pass it.
    - `reset_start` counts cuts that were due, each after `patience + 1 + cooldown` measurements.
    """

    State: ClassVar[type[ControllerState]] = GreedyLRState
    formula: ClassVar[str] = (
        "level = min(level / factor, max_lr) once good > patience,"
        " max(level * factor, min_lr) once bad > patience"
    )
    source: ClassVar[str] = "transformers.GreedyLR, arXiv:2512.14527"
    example: ClassVar[dict[str, Any]] = {"metric": "eval_loss", "min_lr": 1e-6, "max_lr": 1e-3}

    kind: Literal["hf.GreedyLR"] = "hf.GreedyLR"
    mode: Mode = "min"
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.95
    patience: Step = 10
    threshold: NonNegative = 1e-6
    threshold_mode: Literal["rel", "abs"] = "abs"
    cooldown: Step = 0
    warmup: Step = 0
    min_lr: Bound = MIN_LR
    max_lr: Bound = MAX_LR
    eps: NonNegative = 1e-8
    verbose: Flag = False
    smooth: Flag = False
    window_size: Window = 50
    reset_start: Step = 500

    @model_validator(mode="after")
    def _some_room(self) -> Self:
        named = {group for of in (self.min_lr, self.max_lr) if isinstance(of, dict) for group in of}
        if any(self._lowest(group) > self._highest(group) for group in named or {""}):
            raise PydanticCustomError(
                "no_room", "A `min_lr` is above its `max_lr`; give both around your learning rate"
            )
        return self

    @model_validator(mode="after")
    def _a_threshold_can_be_passed(self) -> Self:
        refuse_impossible(self.improvement)
        return self

    @cached_property
    def improvement(self) -> Improvement:
        """What counts as an improvement to this rule; an infinite value may be one."""
        return Improvement(self.mode, self.threshold, self.threshold_mode, finite_only=False)

    def init(self) -> GreedyLRState:  # noqa: D102
        return GreedyLRState(best=self.improvement.worst, resets_in=self.reset_start)

    def observe(self, state: ControllerState, seen: Sample) -> Observation:  # noqa: D102
        assert isinstance(state, GreedyLRState)  # noqa: S101 - each controller gets its own state back
        state, value = self._smoothed(state, seen.value)
        if state.cooldown > 0:
            return Observation(_with(state, cooldown=state.cooldown - 1, good=0, bad=0))
        if state.warmup > 0:
            return Observation(_with(state, warmup=state.warmup - 1, good=0, bad=0))
        if self.improvement.is_better(value, state.best):
            state = _with(state, best=value, good=state.good + 1, bad=0)
        else:
            state = _with(state, good=0, bad=state.bad + 1)
        if state.good > self.patience:
            return self._raised(state, seen, value)
        if state.bad > self.patience:
            return self._cut(state, seen, value)
        return Observation(state)

    def _smoothed(self, state: GreedyLRState, value: float) -> tuple[GreedyLRState, float]:
        if not self.smooth:
            return state, value
        window, total = (*state.window, value), state.total + value
        if len(window) > self.window_size:
            window, total = window[1:], total - window[0]
        return _with(state, window=window, total=total), total / len(window)

    def _raised(self, state: GreedyLRState, seen: Sample, value: float) -> Observation:
        raised = {
            group: new
            for group, level in seen.levels.items()
            for new in [min(level / self.factor, self._highest(group))]
            if new - level > self.eps
        }
        reason = (
            f"{seen.metric} has been a new best {state.good} times in a row (now {value!r};"
            f" patience {self.patience}): divided by {self.factor!r}"
        )
        rested = _with(state, good=0, warmup=self.warmup, resets_in=self.reset_start)
        return Observation(rested, Verdict(reason, levels=raised) if raised else None)

    def _cut(self, state: GreedyLRState, seen: Sample, value: float) -> Observation:
        cut = {
            group: new
            for group, level in seen.levels.items()
            for new in [max(level * self.factor, self._lowest(group))]
            if level - new > self.eps
        }
        known = state.best != self.improvement.worst
        reason = (
            f"{seen.metric} has {f'not improved on {state.best!r}' if known else 'shown no value'}"
            f" in {state.bad} measurements (now {value!r}; patience {self.patience})"
        )
        levels = {**seen.levels, **cut}
        rested = _with(state, bad=0, cooldown=self.cooldown)
        if any(level > self._lowest(group) for group, level in levels.items()):
            verdict = Verdict(f"{reason}: multiplied by {self.factor!r}", levels=cut)
            return Observation(rested, verdict if cut else None)
        return self._at_floor(rested, seen, cut, reason)

    def _at_floor(
        self, state: GreedyLRState, seen: Sample, cut: dict[str, float], reason: str
    ) -> Observation:
        """Count down to the reset; report it the first time, even if there is nothing to cut."""
        left = state.resets_in - 1
        if left <= 0:
            back = changed(seen.levels, seen.bases)
            verdict = Verdict(f"{reason}, at the floor: back to the base", levels=back)
            return Observation(_with(self.init(), cooldown=self.cooldown), verdict)
        counted = _with(state, resets_in=left)
        if left == self.reset_start - 1:
            floors = ", ".join(sorted({repr(self._lowest(group)) for group in seen.levels}))
            reason = f"{reason}: every rate is at or below its min_lr ({floors}) and is cut no more"
            return Observation(counted, Verdict(reason, levels=cut, advice="at_floor"))
        verdict = Verdict(f"{reason}: multiplied by {self.factor!r}", levels=cut)
        return Observation(counted, verdict if cut else None)

    def _lowest(self, group: str) -> float:
        return self.min_lr.get(group, MIN_LR) if isinstance(self.min_lr, dict) else self.min_lr

    def _highest(self, group: str) -> float:
        return self.max_lr.get(group, MAX_LR) if isinstance(self.max_lr, dict) else self.max_lr


def _with(state: GreedyLRState, **changes: Any) -> GreedyLRState:  # noqa: ANN401 - any of its fields
    return state.model_copy(update=changes)
