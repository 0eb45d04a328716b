"""The schedule that is optimal where a training follows a functional scaling law."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import StepCount, StepPoint, whole
from pacesetter_service.core.model import Real
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.eases import Poly
from pacesetter_service.core.schedules.named.stages import in_turn, too_long
from pacesetter_service.core.schedules.primitives import Hold, Ramp
from pacesetter_service.core.schedules.warmup import Warmup

MAX_BETA = 100.0
"""The largest capacity exponent: its decay, the power 199 of what remains, is over in a moment."""


class FslDecay(Named):
    """A decay to 0 as a power of the steps that remain, over all of them or over the last.

    `beta` is the law's capacity exponent, above 1 and at most 100: how fast the eigenvalues of the
    features fall. The second exponent is the source's, s: how much of the target lies in few of
    them. With it

    - `s >= 1 - 1 / beta`, an easy task: the decay takes the whole run, and the best base falls with
      the run's length N as `N ** -((s - 1 + 1 / beta) / (s + 1 / beta))`;
    - `s < 1 - 1 / beta`, a hard one: the base is the largest that is stable, is kept for most of
      the run, and decays over its end alone: give `decay_steps`, a part that is the smaller the
      longer the run is.

    Both were proved for linear regression with noise, one pass over the data and no warmup; a model
    has no beta that could be looked up. It is a family of shapes to choose from: 2 (`beta` 1.5) is
    a square, and towards `beta` 1 it is a straight line.
    """

    formula: ClassVar[str] = (
        "base * t / warmup_steps, then base, then base * (1 - u) ** (2 * beta - 1) over the last"
        " decay_steps"
    )
    source: ClassVar[str] = "Li et al. 2026, arXiv:2602.06797; the law: arXiv:2509.19189"
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000, "beta": 1.5}

    kind: Literal["fsl_decay"] = "fsl_decay"
    total_steps: StepCount
    beta: Annotated[Real, Field(gt=1, le=MAX_BETA)]
    decay_steps: StepCount | None = None
    warmup_steps: StepPoint = 0

    def _faults(self) -> Iterator[PydanticCustomError]:
        stages = {"warmup_steps": self.warmup_steps}
        if self.decay_steps is not None:
            stages["decay_steps"] = self.decay_steps
        yield from too_long(self.total_steps, **stages)

    def expand(self) -> Schedule:  # noqa: D102
        warmup = whole(self.warmup_steps)
        rest = whole(self.total_steps) - warmup
        decay = rest if self.decay_steps is None else whole(self.decay_steps)
        if decay == 0:
            return Warmup(schedule=Hold(), steps=warmup)
        end = Ramp(end=0.0, steps=decay, ease=Poly(power=2.0 * self.beta - 1.0))
        law = in_turn((Hold(), rest - decay), then=end)
        return Warmup(schedule=law, steps=warmup) if warmup else law
