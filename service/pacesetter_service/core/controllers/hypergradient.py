"""Hypergradient descent: apply gradient descent to the learning rate as well."""

from collections.abc import Iterator
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import (
    Controller,
    ControllerState,
    Observation,
    Sample,
    Verdict,
    changed,
)
from pacesetter_service.core.model import NonNegative, Positive


class HypergradientState(ControllerState):
    """Nothing: the level itself is all the memory there is."""


class Hypergradient(Controller):
    """Raise the level while successive gradients agree, lower it when they turn against each other.

    The derivative of the loss by the learning rate of the last SGD step is `-<g_t, g_{t-1}>`, so

    ==============  ======================================  ========================================
    rule            the metric                              level
    ==============  ======================================  ========================================
    additive        h = <g_t, g_{t-1}>                      max(level + beta * h, min_lr)
    multiplicative  c = h / (norm of g_t * norm of g_{t-1}) max(level * (1 + beta * c), min_lr)
    ==============  ======================================  ========================================

    The trainer reports the metric when the gradient is there, before the update that uses it; then
    the rates are those of the SGD-HD optimizer, which changes its rate and then makes its step:

    ```python
    last = None
    for batch in loader:
        optimizer.zero_grad()
        loss(model, batch).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        if last is not None:
            scheduler.step(torch.dot(gradient, last).item())
        last = gradient
        optimizer.step()
    ```

    For the multiplicative rule it is `torch.cosine_similarity(gradient, last, dim=0)`. With weight
    decay in the optimizer, `gradient` is the sum with `weight_decay * p`. With momentum, `last` is
    what the optimizer has just applied: its momentum buffers, read after `optimizer.step()`.

    **beta** of the additive rule has the unit of a rate over a squared gradient: 1e-6 suits one
    model and does nothing for another. That of the multiplicative rule has none, and 0.02 is a
    start. Values beyond -1 and 1 are no cosines, but for rounding: they count as -1 and 1.

    **Floor.** The reference has none, and climbs the loss once its rate is below zero. Here a level
    goes no lower than `min_lr`, 0 by default; one that is below it already is only raised. From 0
    the additive rule recovers: the weights stand still, and two gradients at one point agree. The
    multiplicative rule stays at 0, so give it a floor above 0. A group whose base is 0 stays at 0:
    its schedule is a multiple of its base.

    **Groups.** With `group` the rule drives that group alone: give each its own controller, whose
    metric is the product of its own gradients. Without, all groups go by the one metric: additive
    by the same amount, which is the derivative of a shift that they share.

    **Traps.** There is a decision at every measurement. NaN, infinities and what would overflow
    change nothing. A steep place can throw the level far: bound it by the session's `limits`
    (`max_lr`; `max_change`, but then not from a level of 0, of which nothing is a multiple). Under
    a schedule that is not constant the level moves as if the schedule were, and the rate is their
    product.
    """

    State: ClassVar[type[ControllerState]] = HypergradientState
    formula: ClassVar[str] = (
        "level = max(level + beta * <g_t, g_{t-1}>, min_lr); multiplicative:"
        " max(level * (1 + beta * cos(g_t, g_{t-1})), min_lr)"
    )
    source: ClassVar[str] = (
        "Baydin et al. 2018, arXiv:1703.04782; SGDHD of gbaydin/hypergradient-descent"
    )
    example: ClassVar[dict[str, Any]] = {"metric": "gradient_product", "beta": 1e-4}

    kind: Literal["hypergradient"] = "hypergradient"
    rule: Literal["additive", "multiplicative"] = "additive"
    beta: Positive = 1e-6
    min_lr: NonNegative = 0.0
    group: Annotated[str, Field(min_length=1)] | None = None

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.rule == "multiplicative" and self.beta >= 1:
            yield PydanticCustomError(
                "beta_too_large",
                "With a `beta` of 1 or more, gradients that oppose each other would take the level"
                " to 0 for good; give one below 1, such as 0.02",
            )

    def observe(self, state: ControllerState, seen: Sample) -> Observation:  # noqa: D102
        new = {
            group: self._moved(level, seen.value)
            for group, level in seen.levels.items()
            if self.group in {None, group} and seen.bases[group] > 0
        }
        levels = changed(
            seen.levels, {group: each for group, each in new.items() if isfinite(each)}
        )
        return Observation(state, Verdict(self._reason(seen), levels=levels) if levels else None)

    def _moved(self, level: float, value: float) -> float:
        """Return the next level; not finite if it cannot be computed."""
        if self.rule == "additive":
            moved = level + self.beta * value
        elif isfinite(value):
            moved = level * (1.0 + self.beta * min(max(value, -1.0), 1.0))
        else:
            moved = value
        # A level below the floor is not lifted to the floor by gradients that say "lower".
        return max(moved, min(self.min_lr, level)) if isfinite(moved) else moved

    def _reason(self, seen: Sample) -> str:
        agree = "agree" if seen.value > 0 else "oppose each other"
        return (
            f"successive gradients {agree}: {seen.metric} {seen.value!r}, {self.rule} with beta"
            f" {self.beta!r}, to at least {self.min_lr!r}"
        )
