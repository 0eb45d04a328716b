"""Schedules around another schedule: dampers of its start, and an anneal away from it."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pacesetter_service.core.lengths import StepPoint, whole
from pacesetter_service.core.model import NonNegative, Real
from pacesetter_service.core.schedules.base import AnySchedule, Named, Schedule
from pacesetter_service.core.schedules.clocks import Shift
from pacesetter_service.core.schedules.combinators import Channels, Product
from pacesetter_service.core.schedules.eases import Cosine, Ease, Linear
from pacesetter_service.core.schedules.named.stages import in_turn
from pacesetter_service.core.schedules.primitives import Hold, Ramp, Rectification, Saturation


class UntunedWarmup(Named):
    """Another schedule, damped at first for as long as Adam's `beta2` asks for.

    `linear` rises to 1 in `floor(2 / (1 - beta2))` steps, `exponential` approaches 1 with a time
    constant of `floor(1 / (1 - beta2))`. The schedule's own clock runs meanwhile.
    """

    formula: ClassVar[str] = (
        "schedule(t) * min((t + 1) / floor(2 / (1 - beta2)), 1); exponential:"
        " schedule(t) * (1 - exp(-(t + 1) / floor(1 / (1 - beta2))))"
    )
    source: ClassVar[str] = (
        "pytorch_warmup UntunedLinearWarmup, UntunedExponentialWarmup; Ma and Yarats 2019,"
        " arXiv:1910.04209"
    )
    example: ClassVar[dict[str, Any]] = {"schedule": {"kind": "cosine", "total_steps": 10_000}}

    kind: Literal["untuned_warmup"] = "untuned_warmup"
    schedule: AnySchedule
    beta2: Annotated[Real, Field(ge=0, lt=1)] = 0.999
    shape: Literal["linear", "exponential"] = "linear"

    def expand(self) -> Schedule:  # noqa: D102
        return Product(schedule=self.schedule, factors=(self._factor(),))

    def _factor(self) -> Schedule:
        if self.shape == "exponential":
            return Saturation(period=int(1.0 / (1.0 - self.beta2)))
        rise = Ramp(start=0.0, end=1.0, steps=int(2.0 / (1.0 - self.beta2)))
        return Shift(schedule=rise, by=1.0)


class RAdamWarmup(Named):
    """Another schedule, damped at first as RAdam rectifies the variance of Adam's steps."""

    formula: ClassVar[str] = "schedule(t) * rectification(t)"
    source: ClassVar[str] = "pytorch_warmup RAdamWarmup; Liu et al. 2020, arXiv:1908.03265"
    example: ClassVar[dict[str, Any]] = {"schedule": {"kind": "cosine", "total_steps": 10_000}}

    kind: Literal["radam_warmup"] = "radam_warmup"
    schedule: AnySchedule
    beta2: Annotated[Real, Field(gt=0.6, lt=1)] = 0.999

    def expand(self) -> Schedule:  # noqa: D102
        return Product(schedule=self.schedule, factors=(Rectification(beta2=self.beta2),))


class SwaAnneal(Named):
    """Another schedule up to a step, then an anneal from where it is to a constant, for averaging.

    With `anneal_steps=0` it is constant at once. Other channels of the schedule go on.
    """

    formula: ClassVar[str] = (
        "schedule(t) for t < start, then schedule(start) * (1 - a) + swa_lr * a, a going from 0 to"
        " 1 over anneal_steps"
    )
    source: ClassVar[str] = (
        "torch.optim.swa_utils.SWALR (there anneal_epochs); Izmailov et al. 2018, arXiv:1803.05407"
    )
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "cosine", "total_steps": 1000},
        "start": 750,
        "swa_lr": 0.05,
    }

    kind: Literal["swa_anneal"] = "swa_anneal"
    schedule: AnySchedule = Hold()
    start: StepPoint = 0
    swa_lr: NonNegative
    anneal_steps: StepPoint = 10
    anneal_strategy: Literal["cos", "linear"] = "cos"

    def expand(self) -> Schedule:  # noqa: D102
        laws = self.schedule.channels()
        steps = whole(self.anneal_steps)
        ease: Ease = Cosine() if self.anneal_strategy == "cos" else Linear()
        anneal = Ramp(end=self.swa_lr, steps=steps, ease=ease) if steps else Hold(value=self.swa_lr)
        law = in_turn((laws["lr"], whole(self.start)), then=anneal)
        return Channels(laws=laws | {"lr": law}) if len(laws) > 1 else law
