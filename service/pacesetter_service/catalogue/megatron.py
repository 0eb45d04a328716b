"""Presets of Megatron, by its own names, parameters and defaults.

Megatron's `get_optimizer_param_scheduler` turns its command line into these parameters, and
multiplies what is given in iterations (`--lr-decay-iters`) by the global batch size.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import Duration, Length, known, steps_of
from pacesetter_service.core.model import Count, NonNegative, OneOf
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import (
    Advance,
    Delay,
    Part,
    Sequence,
    Shift,
    Span,
)
from pacesetter_service.core.schedules.combinators import Channels, Clamp, Product
from pacesetter_service.core.schedules.eases import (
    Cosine,
    Decay,
    Ease,
    Linear,
    Poly,
    Power,
    Reversed,
)
from pacesetter_service.core.schedules.named.cycles import Rate
from pacesetter_service.core.schedules.primitives import Hold, PowerLaw, Ramp

LengthOrNone = Annotated[
    NonNegative | Duration,
    OneOf('Write a number of steps, 0 for none, or a length such as {"fraction": 0.01}'),
]

# Poly of power 1 is the straight line, exact near its end.
DECAYS: dict[str, Ease] = {"linear": Poly(), "cosine": Cosine()}
COOLDOWNS: dict[str, Ease] = DECAYS | {
    "exponential": Decay(ratio=0.5),
    "minus_sqrt": Power(power=0.5),
}
INCREASES: dict[str, Ease] = {"linear": Linear(), "cosine": Reversed(ease=Cosine())}


class OptimizerParamScheduler(Named):
    """Megatron's schedule: a linear warmup, then one of five decays, and a growing weight decay.

    Megatron counts samples: its lengths are numbers of samples, and it advances by a global batch
    at every step. With `increment` set to the global batch size, what is passed to
    `step(increment)`, the lengths are Megatron's own; with 1, the default, they are steps, or any
    unit that the session knows. A batch size that ramps up has no single increment, and an
    `inverse-square-root` without warmup is another curve in each unit.

    As in Megatron, the first step uses `init_lr`, so 0 unless told; the warmup and every other
    boundary belong to the part that they end; all but `constant` give `min_lr` after
    `lr_decay_steps`, which `inverse-square-root` jumps to; `wsd_decay_steps` is counted back from
    `lr_decay_steps`, and where it comes to lie over the warmup, the warmup goes first and the rate
    jumps. `max_lr` is the base unless given: groups of other rates are Megatron's overrides.

    With `start_wd` and `end_wd` there is a channel `weight_decay`, without its `wd_mult`. Megatron
    wants it to grow; here it may fall.
    """

    formula: ClassVar[str] = (
        "init_lr + (max_lr - init_lr) * n / W for n <= W, then min_lr + (max_lr - min_lr) *"
        " decay((n - W) / (D - W)) for n <= D, then min_lr, with n = t * increment,"
        " W = lr_warmup_steps, D = lr_decay_steps"
    )
    source: ClassVar[str] = "megatron.core.optimizer_param_scheduler.OptimizerParamScheduler"
    example: ClassVar[dict[str, Any]] = {
        "max_lr": 3e-4,
        "min_lr": 3e-5,
        "lr_warmup_steps": 256_000,
        "lr_decay_steps": 25_600_000,
        "lr_decay_style": "cosine",
        "start_wd": 0.01,
        "end_wd": 0.1,
        "wd_incr_steps": 25_600_000,
        "wd_incr_style": "linear",
        "increment": 256,
    }

    kind: Literal["megatron.OptimizerParamScheduler"] = "megatron.OptimizerParamScheduler"
    init_lr: NonNegative = 0.0
    max_lr: Rate = "base"
    min_lr: NonNegative = 0.0
    lr_warmup_steps: LengthOrNone = 0.0
    lr_decay_steps: Length
    lr_decay_style: Literal["constant", "linear", "cosine", "inverse-square-root", "WSD"] = "linear"
    start_wd: NonNegative | None = None
    end_wd: NonNegative | None = None
    wd_incr_steps: Length | None = None
    wd_incr_style: Literal["constant", "linear", "cosine"] = "constant"
    wsd_decay_steps: Length | None = None
    lr_wsd_decay_style: Literal["linear", "cosine", "exponential", "minus_sqrt"] = "exponential"
    increment: Count = 1

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        lengths = ("lr_warmup_steps", "lr_decay_steps", "wd_incr_steps", "wsd_decay_steps")
        written = [name for name in lengths if isinstance(getattr(self, name), Duration)]
        if written and self.increment != 1:
            raise PydanticCustomError(
                "two_units",
                "With an increment the lengths count samples, so {names} cannot be in another"
                " unit; write plain numbers, or leave `increment` out",
                {"names": ", ".join(written)},
            )
        return self

    @model_validator(mode="after")
    def _time_to_decay(self) -> Self:
        warmup, decay = self.lr_warmup_steps, self.lr_decay_steps
        if known(warmup) and known(decay) and warmup >= decay:
            raise PydanticCustomError(
                "no_time_to_decay",
                "lr_decay_steps ({decay}) must be above lr_warmup_steps ({warmup}):"
                " it counts the warmup too",
                {"decay": decay, "warmup": warmup},
            )
        if self.lr_decay_style == "WSD" and self.wsd_decay_steps is None:
            raise PydanticCustomError(
                "no_cooldown", "The style WSD needs wsd_decay_steps, the length of its last part"
            )
        return self

    @model_validator(mode="after")
    def _rates_ascend(self) -> Self:
        if self.max_lr != "base" and self.max_lr < max(self.init_lr, self.min_lr):
            raise PydanticCustomError(
                "not_ascending", "`max_lr` must not be below `init_lr` or `min_lr`; raise it"
            )
        return self

    @model_validator(mode="after")
    def _whole_weight_decay(self) -> Self:
        if (self.start_wd is None) != (self.end_wd is None):
            raise PydanticCustomError(
                "half_a_weight_decay", "Give both of `start_wd` and `end_wd`, or none of them"
            )
        if self.wd_incr_style == "constant":
            if self.start_wd != self.end_wd:
                raise PydanticCustomError(
                    "no_style",
                    "A constant weight decay cannot go from `start_wd` to another `end_wd`;"
                    ' set `wd_incr_style` to "linear" or "cosine"',
                )
        elif self.start_wd is not None and self.wd_incr_steps is None:
            raise PydanticCustomError(
                "no_length", "Say in `wd_incr_steps` when the weight decay is at `end_wd`"
            )
        return self

    def expand(self) -> Schedule:  # noqa: D102
        law = self._with_weight_decay(self._rate())
        return law if self.increment == 1 else Advance(schedule=law, by=self.increment)

    def _rate(self) -> Schedule:
        warmup, decay = steps_of(self.lr_warmup_steps), self._decay()
        if warmup == 0:
            return decay
        rise = Ramp(start=self.init_lr, end=self.max_lr, steps=warmup)
        return _then(rise, warmup, decay)

    def _decay(self) -> Schedule:
        """Return the law after the warmup, on the clock of the whole schedule."""
        warmup, until = steps_of(self.lr_warmup_steps), steps_of(self.lr_decay_steps)
        match self.lr_decay_style:
            case "constant":
                return Hold(value=self.max_lr)
            case "inverse-square-root":
                # From step 1 on: without a warmup, Megatron counts the first step as the second.
                root = Delay(schedule=PowerLaw(timescale=max(warmup, 1.0)), by=1)
                fall = Product(schedule=Hold(value=self.max_lr), factors=(root,))
                return _then(Clamp(schedule=fall, min=self.min_lr), until, Hold(value=self.min_lr))
            case "WSD":
                length = steps_of(self.wsd_decay_steps or 0)
                return self._fall(until - length, length, COOLDOWNS[self.lr_wsd_decay_style])
            case style:
                return self._fall(warmup, until - warmup, DECAYS[style])

    def _fall(self, start: float, length: float, ease: Ease) -> Schedule:
        # The fraction passed is computed first, as in Megatron, and the ease is applied to it: the
        # other order differs near zeros.
        way = Ramp(start=self.max_lr, end=self.min_lr, steps=1, ease=ease)
        return Shift(schedule=Span(schedule=way, ratio=length), by=-start)

    def _with_weight_decay(self, rate: Schedule) -> Schedule:
        if self.start_wd is None or self.end_wd is None:
            return rate
        law: Schedule = Hold(value=self.end_wd)
        if self.wd_incr_style != "constant":
            ease = INCREASES[self.wd_incr_style]
            way = Ramp(start=self.start_wd, end=self.end_wd, steps=1, ease=ease)
            law = Span(schedule=way, ratio=steps_of(self.wd_incr_steps or 0))
        return Channels(laws={"lr": rate, "weight_decay": law})


def _then(first: Schedule, until: float, after: Schedule) -> Schedule:
    """Put one law after another on one clock; the boundary step belongs to the first one."""
    parts = (Part(schedule=first, until=until), Part(schedule=after))
    return Sequence(parts=parts, clock="global", boundary="previous")
