"""Schedulers that go down from the base, or up to it, as trainings experience them.

Where torch's stepping and its closed form differ, on fractions of a step or on lengths of 0, the
stepping counts: it is what trainings have had.
"""

from __future__ import annotations

import math
from typing import Any

from pacesetter._errors import UnsupportedSchedulerError
from pacesetter._from_torch._law import Law
from pacesetter._from_torch._numbers import number, whole
from pacesetter._groups import ParamGroup

# ruff: noqa: ANN401 - any scheduler of torch's


def base_of(scheduler: Any, at: int) -> float:
    """Return the base learning rate of a param group.

    Raises:
        UnsupportedSchedulerError: The scheduler does not know the group, or its base is no rate.
    """
    check_known(scheduler, at)
    return number(scheduler.base_lrs[at], "base_lr")


def check_known(scheduler: Any, at: int) -> None:
    """Refuse a param group that was added to the optimizer since the scheduler was built.

    Raises:
        UnsupportedSchedulerError: The scheduler does not know the group.
    """
    count = len(scheduler.base_lrs)
    if at >= count:
        raise UnsupportedSchedulerError(
            f"{type(scheduler).__name__} was built for {count} param groups and the optimizer "
            "has more now: build it again"
        )


def step(scheduler: Any, _group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of StepLR."""
    base, gamma = base_of(scheduler, at), number(scheduler.gamma, "gamma")
    size = whole(scheduler.step_size, "step_size", least=1)
    schedule = {"kind": "step", "step_size": size, "gamma": gamma}
    return Law(base, schedule, base * gamma ** (now // size), floor=0.0)


def multistep(scheduler: Any, _group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of MultiStepLR; it never reaches a milestone below 0 or between two steps."""
    base, gamma = base_of(scheduler, at), number(scheduler.gamma, "gamma")
    milestones = sorted(
        int(each) for each in scheduler.milestones.elements() if each >= 0 and each == each // 1
    )
    schedule = {"kind": "multistep", "milestones": milestones, "gamma": gamma}
    passed = sum(milestone <= now for milestone in milestones)
    return Law(base, schedule, base * gamma**passed, floor=0.0)


def constant(scheduler: Any, _group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of ConstantLR; what ends at step 0, or between two steps, never ends."""
    base, part = base_of(scheduler, at), number(scheduler.factor, "factor")
    until = number(scheduler.total_iters, "total_iters", least=-math.inf)
    if until <= 0 or until != until // 1:
        return Law(base, _factor(part), base * part, floor=0.0)
    schedule = {"kind": "constant", "factor": part, "total_iters": int(until)}
    value = base * part if now < until else base * (part + (1 - part))
    return Law(base, schedule, value, floor=0.0)


def linear(scheduler: Any, _group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of LinearLR; it stays at the last whole step within `total_iters`."""
    base = base_of(scheduler, at)
    start = number(scheduler.start_factor, "start_factor")
    end = number(scheduler.end_factor, "end_factor")
    length = number(scheduler.total_iters, "total_iters", least=-math.inf)
    last = max(math.floor(length), 0)
    if last == 0:
        return Law(base, _factor(start), base * start, floor=0.0)
    value = base * (start + (end - start) * min(now, last) / length)
    schedule: dict[str, Any] = {
        "kind": "linear",
        "start_factor": start,
        "end_factor": end,
        "total_iters": last,
    }
    if last != length:
        way = {"kind": "ramp", "start": start, "end": end, "steps": length}
        stays = {"kind": "freeze", "schedule": {**way, "out_of_range": "extrapolate"}, "at": last}
        schedule = {"kind": "relative", "schedule": stays}
    return Law(base, schedule, value, floor=0.0)


def exponential(scheduler: Any, _group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of ExponentialLR."""
    base, gamma = base_of(scheduler, at), number(scheduler.gamma, "gamma")
    return Law(base, {"kind": "exponential", "gamma": gamma}, base * gamma**now, floor=0.0)


def polynomial(scheduler: Any, _group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of PolynomialLR; it stays at the last whole step within `total_iters`."""
    base, power = base_of(scheduler, at), number(scheduler.power, "power")
    length = number(scheduler.total_iters, "total_iters", least=-math.inf)
    last = max(math.floor(length), 0)
    if last == 0 or power == 0.0:
        return Law(base, {"kind": "constant"}, base, floor=0.0)
    value = base * (1.0 - min(now, last) / length) ** power
    schedule: dict[str, Any] = {"kind": "polynomial", "total_steps": last, "power": power}
    if last != length:
        ease = {"kind": "poly", "power": power}
        way = {"kind": "ramp", "end": 0.0, "steps": length, "ease": ease}
        schedule = {"kind": "freeze", "schedule": way, "at": last}
    return Law(base, schedule, value, floor=0.0)


def cosine(
    scheduler: Any, _group: ParamGroup, at: int, now: int, *, lasts: int | None = None
) -> Law:
    """Return the law of CosineAnnealingLR: held at its minimum, unless it passes that and rises.

    Args:
        scheduler: The torch scheduler.
        at: The index of the param group.
        now: The step that the scheduler has reached.
        lasts: How many steps it is used for, where another scheduler follows it.
    """
    base, low = base_of(scheduler, at), number(scheduler.eta_min, "eta_min")
    length = number(scheduler.T_max, "T_max")
    if length == 0.0:
        raise UnsupportedSchedulerError("T_max=0, by which torch divides: make it at least 1")
    rises = max(now, (lasts or 0) - 1) > length
    value = low + (base - low) * (1 + math.cos(math.pi * now / length)) / 2
    schedule: dict[str, Any] = {"kind": "cosine", "total_steps": length, "min_lr": low}
    if length != length // 1:
        # It has no step at its minimum.
        schedule = {"kind": "ramp", "end": low, "steps": length, "ease": "cosine"}
        if rises:
            schedule["out_of_range"] = "extrapolate"
    elif rises:
        schedule = {"kind": "torch.CosineAnnealingLR", "T_max": int(length), "eta_min": low}
    else:
        schedule["total_steps"] = int(length)
    # From its minimum it rises to the base that it was built with.
    return Law(base, schedule, value, floor=None if rises else low)


def warm_restarts(scheduler: Any, _group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of CosineAnnealingWarmRestarts, which ignores what the optimizer holds."""
    base, low = base_of(scheduler, at), number(scheduler.eta_min, "eta_min")
    first, growth = whole(scheduler.T_0, "T_0", least=1), whole(scheduler.T_mult, "T_mult", least=1)
    passed, length = now, first
    if growth == 1:
        passed %= length
    while passed >= length:
        passed, length = passed - length, length * growth
    schedule = {
        "kind": "torch.CosineAnnealingWarmRestarts",
        "T_0": first,
        "T_mult": growth,
        "eta_min": low,
    }
    return Law(base, schedule, low + (base - low) * (1 + math.cos(math.pi * passed / length)) / 2)


def swa(scheduler: Any, group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of SWALR, which goes on from what the optimizer holds."""
    check_known(scheduler, at)
    if now > 0:
        raise UnsupportedSchedulerError(
            "SWALR has left the learning rate that it started from: take it over before its first "
            "step"
        )
    held = number(group["lr"], "lr")
    schedule = {
        "kind": "torch.SWALR",
        "swa_lr": number(group["swa_lr"], "swa_lr"),
        "anneal_epochs": whole(scheduler.anneal_epochs, "anneal_epochs"),
        "anneal_strategy": scheduler._anneal_strategy,  # noqa: SLF001 - torch has no public name
    }
    return Law(held, schedule, held)


def _factor(part: float) -> dict[str, Any]:
    return {"kind": "relative", "schedule": {"kind": "hold", "value": part}}
