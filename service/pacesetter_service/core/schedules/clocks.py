"""The combinators of time: laws that are shifted, stretched, repeated, or put in sequence.

They change the clock of every channel that their children drive.
"""

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from math import inf
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import (
    Duration,
    Length,
    Stage,
    StepPoint,
    known,
    steps_of,
    whole,
)
from pacesetter_service.core.model import MAX_STEP, Count, Flag, Model, Positive, Real
from pacesetter_service.core.schedules.base import (
    AnySchedule,
    Base,
    Schedule,
    Steps,
    Values,
    at_steps,
)
from pacesetter_service.core.schedules.combinators import drives
from pacesetter_service.core.schedules.cost import Cost, Pricing, work
from pacesetter_service.core.schedules.numeric import power_of
from pacesetter_service.core.schedules.out_of_range import OutOfRange, inside, refused


class OfTime(Schedule):
    """A combinator that changes the clock of one child."""

    schedule: AnySchedule

    def channels(self) -> dict[str, Schedule]:  # noqa: D102
        return {
            channel: self.model_copy(update={"schedule": law})
            for channel, law in self.schedule.channels().items()
        }

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return self.schedule.range_policy()


class Freeze(OfTime):
    """The child's clock stops at a step; its value is held from there on."""

    formula: ClassVar[str] = "schedule(min(t, at))"
    source: ClassVar[str] = "elementary"
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "exponential", "gamma": 0.99},
        "at": 200,
    }

    kind: Literal["freeze"] = "freeze"
    at: StepPoint

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        return self.schedule.values(np.minimum(t, steps_of(self.at)), base)

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return "hold"


class Within(OfTime):
    """The child in the range from step 0 to `steps`, both included, and a policy for the rest.

    `out_of_range` says what there is before step 0 and after `steps`: `hold` the child's own value
    at the nearer end, `bounce` the way back and forth again, `extrapolate` the child as it stands,
    whatever it says of itself, `error` nothing: sealing is refused there.
    """

    formula: ClassVar[str] = (
        "schedule(t) for 0 <= t <= steps; outside hold: schedule(clip(t, 0, steps)); bounce:"
        " schedule(steps - abs(steps - t mod (2 * steps)))"
    )
    source: ClassVar[str] = "elementary; torch CosineAnnealingLR after T_max (bounce)"
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "warmup_cosine", "warmup_steps": 100, "total_steps": 500},
        "steps": 500,
        "out_of_range": "bounce",
    }

    kind: Literal["within"] = "within"
    steps: Length
    out_of_range: OutOfRange = "hold"

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        steps = steps_of(self.steps)
        values = self.schedule.values(inside(t, 0.0, steps, self.out_of_range), base)
        return refused(values, t, 0.0, steps, self.out_of_range)

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return self.out_of_range


class Delay(OfTime):
    """The child's clock starts later; until then its first value is held."""

    formula: ClassVar[str] = "schedule(max(t - by, 0))"
    source: ClassVar[str] = "elementary"
    example: ClassVar[dict[str, Any]] = {"schedule": {"kind": "step", "step_size": 30}, "by": 100}

    kind: Literal["delay"] = "delay"
    by: StepPoint

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        return self.schedule.values(np.maximum(t - steps_of(self.by), 0.0), base)


class Shift(OfTime):
    """The child's clock is ahead by some steps; below 0 it is behind.

    Libraries disagree on whether the first step is number 0 or 1: `by=1` is the second view.
    """

    formula: ClassVar[str] = "schedule(t + by)"
    source: ClassVar[str] = "the zero_indexed_step of verl"
    example: ClassVar[dict[str, Any]] = {"schedule": {"kind": "step", "step_size": 30}, "by": 1}

    kind: Literal["shift"] = "shift"
    by: Annotated[Real, Field(ge=-MAX_STEP, le=MAX_STEP)]

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        return self.schedule.values(t + self.by, base)


class Span(OfTime):
    """The child's clock runs slower by a ratio; below 1 it runs faster."""

    formula: ClassVar[str] = "schedule(t / ratio)"
    source: ClassVar[str] = "the scale schedule ratio of composer, of schedules without a warmup"
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "cosine", "total_steps": 100},
        "ratio": 2.0,
    }

    kind: Literal["stretch"] = "stretch"
    ratio: Positive

    def _faults(self) -> Iterator[PydanticCustomError]:
        for law in _laws_in(self.schedule):
            if advice := law.unstretchable():
                yield PydanticCustomError("not_stretched", "{advice}", {"advice": advice})

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        return self.schedule.values(t / self.ratio, base)


def _laws_in(part: object) -> Iterator[Schedule]:
    """Return every law that a part of a spec contains."""
    if isinstance(part, Schedule):
        yield part
    if isinstance(part, Model):
        for name in type(part).model_fields:
            yield from _laws_in(getattr(part, name))
    elif isinstance(part, tuple | dict):
        for child in part.values() if isinstance(part, dict) else part:
            yield from _laws_in(child)


class Advance(OfTime):
    """The child's clock advances by some count at every step, as one of samples does.

    So it does too where a library's scheduler is stepped several times for one update.
    """

    formula: ClassVar[str] = "schedule(t * by)"
    source: ClassVar[str] = "Megatron's step(increment); accelerate, which steps once a process"
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "cosine", "total_steps": 1_000_000},
        "by": 256,
    }

    kind: Literal["advance"] = "advance"
    by: Count

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        return self.schedule.values(t * self.by, base)


class Stair(OfTime):
    """The child's clock advances only every so many steps."""

    formula: ClassVar[str] = "schedule(floor(t / every) * every)"
    source: ClassVar[str] = "the staircase of keras and optax; who steps once an epoch"
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "cosine", "total_steps": 1000},
        "every": 100,
    }

    kind: Literal["stair"] = "stair"
    every: Length

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        every = steps_of(self.every)
        return self.schedule.values(np.floor_divide(t, every) * every, base)


class Prolong(OfTime):
    """The child over a horizon that is prolonged by `period` each time it is passed.

    The child sees the fraction of the horizon that has passed: 1 at each of its ends, after which
    the longer horizon has some of its way left again.
    """

    formula: ClassVar[str] = "schedule(t / (period * max(ceil(t / period), 1)))"
    source: ClassVar[str] = "the cycle=True of keras PolynomialDecay; TensorFlow, Paddle, NeMo"
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "ramp", "end": 0.001, "steps": 1},
        "period": 100,
    }

    kind: Literal["prolong"] = "prolong"
    period: Length

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        period = steps_of(self.period)
        horizon = period * np.maximum(np.ceil(t / period), 1.0)
        return self.schedule.values(t / horizon, base)

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return "extrapolate"


class Repeat(OfTime):
    """The child from its start, again and again.

    Cycle `i` lasts `period * growth ** i` steps, in which the child's clock runs slower by that
    factor, and starts from a base multiplied by `peak_decay ** i`. The first `lead` steps of a
    cycle neither grow nor run slower; `truncated` cuts each length to whole steps before it grows
    on. After `limit` cycles the end of the last one is held. The cycle is found with whole numbers,
    never with a logarithm, which is off by one at some restarts.
    """

    formula: ClassVar[str] = (
        "schedule((t - start of cycle i) / growth ** i), with base * peak_decay ** i"
    )
    source: ClassVar[str] = "SGDR: Loshchilov and Hutter 2016, arXiv:1608.03983; timm cycles"
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "cosine", "total_steps": 100},
        "period": 100,
        "growth": 2,
    }

    passes: ClassVar[float] = 20.0

    kind: Literal["repeat"] = "repeat"
    period: Length
    growth: Annotated[Real, Field(ge=1, le=1e6)] = 1.0
    peak_decay: Annotated[Real, Field(gt=0)] = 1.0
    limit: Count | None = None
    lead: StepPoint = 0
    truncated: Flag = False

    def _faults(self) -> Iterator[PydanticCustomError]:
        if known(self.period) and known(self.lead) and self.lead >= self.period:
            yield PydanticCustomError("no_period", "`lead` must be below `period`, which counts it")

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        cycle, local = self._cycle_and_time(np.maximum(t, 0.0))
        if self.peak_decay != 1.0:
            cycles, at = np.unique(cycle, return_inverse=True)
            base = base * power_of(self.peak_decay, cycles)[at]
        return self.schedule.values(local, base)

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return "extrapolate" if self.limit is None else "hold"

    def _cycle_and_time(self, t: Steps) -> tuple[Steps, Steps]:
        period = steps_of(self.period)
        last = np.inf if self.limit is None else self.limit - 1
        if not self._grows:
            cycle = np.minimum(np.floor_divide(t, period), last)
            return cycle, np.minimum(t - cycle * period, period)
        starts, stretched = self._starts
        cycle = np.minimum(np.searchsorted(starts, t, side="right") - 1.0, last)
        index = cycle.astype(np.int64)
        passed, lead = t - starts[index], steps_of(self.lead)
        local = passed / stretched[index]
        if lead:
            local = np.where(passed < lead, passed, lead + (passed - lead) / stretched[index])
        return cycle, np.minimum(local, period)

    @cached_property
    def _grows(self) -> bool:
        length = steps_of(self.period) - whole(self.lead)
        return self.growth != 1.0 and not (self.truncated and int(length * self.growth) <= length)

    @cached_property
    def _starts(self) -> tuple[Values, Values]:
        """Where the cycles start, whole and exact where possible, and how slowly each one runs."""
        period, growth = steps_of(self.period), self.growth
        lead = whole(self.lead)
        first = (int(period) if period == int(period) else period) - lead
        factor = int(growth) if growth == int(growth) else growth
        if not (self.truncated or isinstance(factor, int)):
            return self._smooth_starts(first + lead, lead)
        if isinstance(factor, float) and not self.truncated:
            return self._smooth_starts(first, lead)
        starts: list[float] = [0]
        stretched, length = [1.0], first
        while starts[-1] <= MAX_STEP and len(starts) <= MAX_CYCLES:
            starts.append(starts[-1] + lead + length)
            length = int(length * factor) if self.truncated else length * factor
            stretched.append(length / first if self.truncated else growth ** (len(starts) - 1))
        return np.array(starts, dtype=np.float64), np.array(stretched)

    def _smooth_starts(self, first: float, lead: int) -> tuple[Values, Values]:
        """Return the same for lengths that are not whole, computed together: there may be many."""
        stretched = power_of(self.growth, np.arange(MAX_CYCLES + 1.0))
        with np.errstate(over="ignore"):
            lengths = np.cumprod([first, *[self.growth] * (MAX_CYCLES - 1)])
            starts = np.concatenate(([0.0], np.cumsum(lead + lengths)))
        within = int(np.searchsorted(starts, MAX_STEP, side="right"))
        return starts[: within + 1], stretched[: within + 1]


MAX_CYCLES = 10_000
"""The most cycles of growing length; the rest of time belongs to the last one."""


class Part(Model):
    """One part of a sequence; it ends after `steps` of its own, or at `until` of the sequence.

    One that ends where it starts is left out.
    """

    schedule: AnySchedule = Field(description="the law of this part")
    steps: Stage | None = Field(
        default=None, description="how long it is, in steps; not for the last part"
    )
    until: Real | Duration | None = Field(
        default=None,
        description="where it ends, as a value of the whole law's clock, in place of `steps`",
    )


class Sequence(Schedule):
    """One law after the other; the last one has no end.

    With `clock="local"` each part starts from its own step 0, with `"global"` it sees the
    sequence's clock, with `"rescaled"` the fraction of its length that has passed. With
    `value="continue"` the base of each part is the value in which the part before ended; with
    `"base"` it is the base itself. A boundary belongs to the next part, or to the `previous` one. A
    part of 0 steps is left out.
    """

    formula: ClassVar[str] = "parts[i](t - start of i), i the part that t falls into"
    source: ClassVar[str] = "torch.optim.lr_scheduler.SequentialLR; optax.join_schedules"
    example: ClassVar[dict[str, Any]] = {
        "parts": [
            {"schedule": {"kind": "ramp", "start": 0.0, "end": "base", "steps": 100}, "steps": 100},
            {"schedule": {"kind": "exponential", "gamma": 0.999}},
        ]
    }

    kind: Literal["sequence"] = "sequence"
    parts: Annotated[tuple[Part, ...], Field(min_length=1, max_length=256)]
    clock: Literal["local", "global", "rescaled"] = "local"
    value: Literal["base", "continue"] = "base"
    boundary: Literal["next", "previous"] = "next"

    def _faults(self) -> Iterator[PydanticCustomError]:
        for index, part in enumerate(self.parts):
            last = index == len(self.parts) - 1
            if part.steps is not None and part.until is not None:
                yield PydanticCustomError(
                    "two_ends", "Part {index}: give `steps` or `until`, not both", {"index": index}
                )
            if part.steps is None and part.until is None and (not last or self.clock == "rescaled"):
                yield PydanticCustomError(
                    "no_end",
                    "Part {index}: say how long it lasts (`steps`) or where it ends (`until`)",
                    {"index": index},
                )
        lengths = [length for part in self.parts for length in (part.steps, part.until)]
        if not any(isinstance(length, Duration) for length in lengths):
            ends = self._ends_of(self.parts)
            if any(b < a for a, b in pairwise(ends)):
                yield PydanticCustomError(
                    "not_ascending", "No part may end before it starts: sort the ends"
                )
            if self.clock == "rescaled" and self._ends[-1] <= self._starts[-1]:
                yield PydanticCustomError(
                    "not_ascending", "The last part of a rescaled sequence must end after it starts"
                )
        channels = [drives(part.schedule) for part in self.parts]
        driven = [names for names in channels if names is not None]
        if any(names != driven[0] for names in driven):
            yield PydanticCustomError(
                "different_channels",
                "Every part must drive the same channels, but they drive {driven};"
                " add the missing ones with `channels`",
                {"driven": "; ".join(", ".join(sorted(names)) for names in driven)},
            )

    @cached_property
    def _lasting(self) -> tuple[Part, ...]:
        """The parts with a positive length; the last one is always included."""
        *bounded, last = self.parts
        ends = self._ends_of(self.parts)
        # A first part may end at or before 0; it then covers all time up to its end.
        starts = [0.0 if self.parts[0].until is None else -inf, *ends]
        some = [
            part for part, start, end in zip(bounded, starts, ends, strict=False) if end > start
        ]
        return (*some, last)

    @cached_property
    def _ends(self) -> list[float]:
        """Where each bounded part with a positive length ends, on the clock of the sequence."""
        return self._ends_of(self._lasting)

    @staticmethod
    def _ends_of(parts: tuple[Part, ...]) -> list[float]:
        ends: list[float] = []
        for part in parts:
            if part.until is not None:
                ends.append(steps_of(part.until))
            elif part.steps is not None:
                ends.append((ends[-1] if ends else 0.0) + steps_of(part.steps))
        return ends

    @cached_property
    def _starts(self) -> list[float]:
        """Where each part starts. The first starts at 0, or before its own end if that is lower."""
        ends = self._ends
        first = 0.0 if not ends or ends[0] > 0 else ends[0] - 1.0
        return [first, *ends][: len(self._lasting)]

    def cost(self, of: Pricing) -> Cost:  # noqa: D102
        parts = [of(part.schedule) for part in self.parts]
        calls = sum(part.call for part in parts)
        if self.value == "continue":  # each part starts from the end of all parts before it
            steps = sum(part.step for part in parts)
            calls *= (len(parts) + 1) / 2
        else:
            steps = max(part.step for part in parts)
        return self.own_cost() + Cost(calls, steps) + work(len(parts))

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        side: Literal["left", "right"] = "right" if self.boundary == "next" else "left"
        which = np.searchsorted(self._ends[: len(self._lasting) - 1], t, side=side)
        result = np.empty(t.shape)
        for index in np.unique(which):
            here = which == index
            start = self._base_of(int(index), at_steps(base, here), t[here])
            local = self._clock_of(int(index), t[here])
            result[here] = self._lasting[index].schedule.values(local, start)
        return result

    def _base_of(self, index: int, base: Base, t: Steps) -> Base:
        """Return the base of a part: the sequence's base as the earlier parts have changed it."""
        if self.value == "continue":
            for before in range(index):
                end = self._clock_of(before, np.full_like(t, self._ends[before]))
                base = self._lasting[before].schedule.values(end, base)
        return base

    def _clock_of(self, index: int, t: Steps) -> Steps:
        start = self._starts[index]
        match self.clock:
            case "local":
                return t - start
            case "global":
                return t
            case "rescaled":
                return (t - start) / (self._ends[index] - start)

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return self.parts[-1].schedule.range_policy()

    def channels(self) -> dict[str, Schedule]:  # noqa: D102
        # Each part is queried once: once for each channel, nested sequences would cost 16 ** depth.
        laws = [part.schedule.channels() for part in self.parts]
        return {channel: self._of([each[channel] for each in laws]) for channel in laws[0]}

    def _of(self, laws: list[Schedule]) -> "Sequence":
        """Return the same sequence with other laws in its parts."""
        parts = tuple(
            part.model_copy(update={"schedule": law})
            for part, law in zip(self.parts, laws, strict=True)
        )
        return self.model_copy(update={"parts": parts})
