"""ReduceLROnPlateau as a controller, which goes on from what torch's has seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pacesetter._errors import UnsupportedSchedulerError
from pacesetter._from_torch._numbers import above_zero, number, whole

# ruff: noqa: ANN401 - a scheduler of torch's, or its state


def controller(scheduler: Any, names: Sequence[str], metric: str) -> dict[str, Any]:
    """Return the controller that decides as torch's would from here on.

    Args:
        scheduler: Torch's ReduceLROnPlateau, or an object with its attributes.
        names: The names of the param groups.
        metric: The metric that the controller watches.

    Raises:
        UnsupportedSchedulerError: It has arguments that no session takes.
    """
    factor = above_zero(scheduler.factor, "factor")
    floors = _floors(scheduler, len(names))
    described = {
        "kind": "torch.ReduceLROnPlateau",
        "metric": metric,
        "mode": scheduler.mode,
        "factor": factor,
        "patience": whole(scheduler.patience, "patience"),
        "threshold": number(scheduler.threshold, "threshold"),
        "threshold_mode": scheduler.threshold_mode,
        "cooldown": whole(scheduler.cooldown, "cooldown"),
        "min_lr": floors[0] if len(set(floors)) == 1 else dict(zip(names, floors, strict=True)),
        "eps": number(scheduler.eps, "eps"),
    }
    seen = start(scheduler)
    return {**described, "start": seen} if seen else described


def start(scheduler: Any) -> dict[str, Any]:
    """Return what it has seen, in a controller's form; empty if it has seen nothing."""
    best = float(scheduler.best)
    seen: dict[str, Any] = {}
    if best != (math.inf if scheduler.mode == "min" else -math.inf):
        seen["best"] = best if math.isfinite(best) else f"{'-' if best < 0 else ''}Infinity"
    if scheduler.num_bad_epochs:
        seen["bad"] = whole(scheduler.num_bad_epochs, "num_bad_epochs")
    if scheduler.cooldown_counter > 0:
        seen["cooldown"] = whole(scheduler.cooldown_counter, "cooldown_counter")
    return seen


def _floors(scheduler: Any, count: int) -> list[float]:
    floors = scheduler.min_lrs
    if len(floors) != count:
        # torch extends them at its next cut, if they were one number.
        if scheduler.default_min_lr is None:
            raise UnsupportedSchedulerError(
                f"min_lr={floors!r} is for {len(floors)} param groups and the optimizer has "
                f"{count}: set scheduler.min_lrs to one for each"
            )
        floors = [scheduler.default_min_lr] * count
    return [number(floor, "min_lr") for floor in floors]
