"""The descriptions that a session may have, where its optimizer was loaded before its scheduler.

A job that resumes may load its optimizer, build a new torch scheduler, and convert that. Then the
optimizer holds a rate that has decayed, while its scheduler is at step 0. torch would start from
the held rate until the scheduler's state is loaded. But the session of that training began at the
`initial_lr`, which torch keeps in each param group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pacesetter._errors import UnsupportedSchedulerError
from pacesetter._from_torch._convert import Conversion, converted, law_of, of_laws, of_plateau
from pacesetter._from_torch._joined import members, position
from pacesetter._groups import ParamGroup

# ruff: noqa: ANN401, SLF001 - any scheduler of torch's


def candidates(
    scheduler: Any, param_groups: Sequence[ParamGroup], metric: str, *, driven: bool
) -> list[Conversion]:
    """Return the descriptions that a scheduler's session may have, likeliest first: one or two.

    Args:
        scheduler: A torch scheduler.
        param_groups: The param groups of its optimizer.
        metric: What a plateau watches.
        driven: Whether another scheduler of this process has driven the optimizer, so that it holds
            what the training has come to.

    Raises:
        UnsupportedSchedulerError: There is no such description.
    """
    begun = _begun(scheduler, param_groups, metric)
    loaded = begun is not None and not driven and _was_loaded(scheduler, param_groups)
    try:
        held = converted(scheduler, param_groups, metric)
    except UnsupportedSchedulerError:
        if begun is None or not loaded:
            raise
        return [begun]
    if begun is None or begun.description == held.description:
        return [held]
    return [begun, held] if loaded else [held, begun]


def _begun(scheduler: Any, param_groups: Sequence[ParamGroup], metric: str) -> Conversion | None:
    """Return the description by a new scheduler, with the rates before any update; else None."""
    if any("initial_lr" not in group for group in param_groups) or _has_moved(scheduler):
        return None
    groups = [
        {**group, "lr": _first(scheduler, group, at)} for at, group in enumerate(param_groups)
    ]
    said = (_said(param_groups[0]),)
    if type(scheduler).__name__ == "ReduceLROnPlateau":
        return Conversion(of_plateau(scheduler, groups, metric), said)
    laws = [law_of(scheduler, group, at, 0) for at, group in enumerate(groups)]
    return Conversion(of_laws(laws, groups), said)


def _said(group: ParamGroup) -> str:
    return (
        f"the optimizer holds the learning rate {float(group['lr'])!r}, as one does that was loaded"
        " before it was converted: the session is that of its initial_lr, "
        f"{float(group['initial_lr'])!r}. To begin at the held rate, delete initial_lr from each "
        "param group before the scheduler is built"
    )


def _has_moved(scheduler: Any) -> bool:
    seen = getattr(scheduler, "num_bad_epochs", 0) or getattr(scheduler, "cooldown_counter", 0)
    return bool(seen) or position(scheduler) > 0


def _first(scheduler: Any, group: ParamGroup, at: int) -> Any:
    """Return the rate before any update; SequentialLR set its first one when it was built."""
    name = type(scheduler).__name__
    return scheduler._last_lr[at] if name == "SequentialLR" else group["initial_lr"]


def _was_loaded(scheduler: Any, param_groups: Sequence[ParamGroup]) -> bool:
    """Return whether an optimizer was loaded, not scaled or trained, as far as can be told.

    SWALR goes on from the rate that it finds, so that rate is likely its own.
    """
    optimizer = scheduler.optimizer
    if getattr(optimizer, "_opt_called", False) or type(scheduler).__name__ == "SWALR":
        return False
    rates = [float(group["lr"]) for group in param_groups]
    as_built = [float(rate) for rate in members(scheduler)[-1]._last_lr] == rates
    return bool(optimizer.state) or as_built
