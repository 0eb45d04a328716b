"""Presets of torchtitan, by its own names, parameters and defaults."""

from typing import Any, ClassVar, Literal

from pacesetter_service.core.lengths import Duration, StepCount, StepPoint, whole
from pacesetter_service.core.model import Fraction
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import Part, Sequence, Shift, Span
from pacesetter_service.core.schedules.combinators import Relative
from pacesetter_service.core.schedules.eases import Cosine, Ease, Poly, Power
from pacesetter_service.core.schedules.primitives import Hold, Ramp

# Poly of power 1 is the straight line, exact near its end.
DECAYS: dict[str, Ease] = {"linear": Poly(), "sqrt": Power(power=0.5), "cosine": Cosine()}


class LRScheduler(Named):
    """Warm up, stay at the base, and go down to `min_lr_factor` of it in the last steps.

    As in torchtitan, the first step uses `base / warmup_steps`; the decay takes up all that the
    warmup leaves unless `decay_ratio` says less; a warmup or a decay that is too long is cut. The
    end of the decay falls on step `total_steps`, one after the last, so that no step trains with 0.
    `total_steps` is the training's own unless given.

    Trained further than that, torchtitan goes on along the decay's formula, which turns negative,
    or up again with `cosine`, and stops with an error where there is no decay; here the floor, or
    the base, is held.
    """

    formula: ClassVar[str] = (
        "base * (t + 1) / W for t < W, then base, then"
        " base * (m + (1 - m) * decay(p)) with p = (t + 1 - W - S) / D up to 1 from t = W + S on,"
        " where W = warmup_steps, m = min_lr_factor, D = round(decay_ratio * T) or T - W,"
        " S = T + 1 - W - D, T = total_steps"
    )
    source: ClassVar[str] = "torchtitan LRSchedulersContainer.Config; arXiv:2404.06395"
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000, "decay_ratio": 0.2}

    kind: Literal["torchtitan.lr_scheduler"] = "torchtitan.lr_scheduler"
    warmup_steps: StepPoint = 200
    total_steps: StepCount = Duration(fraction=1.0)
    decay_ratio: Fraction | None = None
    decay_type: Literal["linear", "sqrt", "cosine"] = "linear"
    min_lr_factor: Fraction = 0.0

    def expand(self) -> Schedule:  # noqa: D102
        total = whole(self.total_steps)
        warmup = min(whole(self.warmup_steps), total)
        decay = total - warmup
        if self.decay_ratio is not None:
            decay = min(round(total * self.decay_ratio), decay)
        parts = [Part(schedule=Hold(value=1.0), steps=total + 1 - warmup - decay)]
        if warmup:
            parts.insert(
                0, Part(schedule=_from_one(Ramp(start=0.0, end=1.0, steps=warmup)), steps=warmup)
            )
        if decay:
            way = Ramp(start=1.0, end=self.min_lr_factor, steps=1, ease=DECAYS[self.decay_type])
            parts.append(Part(schedule=_from_one(Span(schedule=way, ratio=decay))))
        return Relative(schedule=Sequence(parts=tuple(parts)))


def _from_one(law: Schedule) -> Schedule:
    """Return the law with its steps numbered from 1."""
    return Shift(schedule=law, by=1)
