"""CyclicLR and OneCycleLR, which write their own rates and may swing momentum against them."""

from __future__ import annotations

import json
import math
from typing import Any

from pacesetter._errors import UnsupportedSchedulerError
from pacesetter._from_torch._law import Law
from pacesetter._from_torch._numbers import divisor, number, typed
from pacesetter._from_torch._simple import base_of, check_known
from pacesetter._groups import ParamGroup

# ruff: noqa: ANN401, SLF001 - any scheduler of torch's, which has no public names for these


def cyclic(scheduler: Any, _group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of CyclicLR."""
    low, high = base_of(scheduler, at), number(scheduler.max_lrs[at], "max_lr")
    up, down = _halves(scheduler)
    schedule: dict[str, Any] = {
        "kind": "cyclic",
        "base_lr": low,
        "max_lr": high,
        "step_size_up": up,
        "step_size_down": down,
        "mode": scheduler.mode,
        "gamma": number(scheduler.gamma, "gamma"),
        "cycle_momentum": scheduler.cycle_momentum,
    }
    if scheduler._scale_fn_custom is not None:
        raise UnsupportedSchedulerError(_without_scale_fn(schedule))
    if scheduler.cycle_momentum:
        schedule["base_momentum"] = _momentum(scheduler.base_momentums[at], "base_momentum")
        schedule["max_momentum"] = _momentum(scheduler.max_momentums[at], "max_momentum")
    return Law(low, schedule, low + (high - low) * _height(scheduler, now))


def one_cycle(scheduler: Any, group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of OneCycleLR."""
    check_known(scheduler, at)
    peak = number(group["max_lr"], "max_lr")
    initial, final = number(group["initial_lr"], "initial_lr"), number(group["min_lr"], "min_lr")
    schedule: dict[str, Any] = {"kind": "one_cycle", "max_lr": peak, **said_by_state(scheduler)}
    if peak > 0.0:  # whatever 0 was divided by
        schedule["div_factor"] = divisor(peak, initial, "div_factor")
    if initial > 0.0:
        schedule["final_div_factor"] = divisor(initial, final, "final_div_factor")
    if scheduler.cycle_momentum:
        schedule["base_momentum"] = _momentum(group["base_momentum"], "base_momentum")
        schedule["max_momentum"] = _momentum(group["max_momentum"], "max_momentum")
    return Law(peak, schedule, _annealed(scheduler, group, "lr", now))


def said_by_state(scheduler: Any) -> dict[str, Any]:
    """Return what a OneCycleLR's state says of its law; the optimizer holds its rates."""
    return {
        "total_steps": scheduler.total_steps,
        "pct_start": _pct_start(scheduler._schedule_phases, scheduler.total_steps),
        "anneal_strategy": scheduler._anneal_func_type,
        "cycle_momentum": scheduler.cycle_momentum,
        "three_phase": len(scheduler._schedule_phases) == 3,
    }


def momentum_of(scheduler: Any, group: ParamGroup, at: int, step: int) -> float:
    """Return the momentum that a cycle has written at one of its own steps."""
    if hasattr(scheduler, "_schedule_phases"):
        return _annealed(scheduler, group, "momentum", step)
    low, high = float(scheduler.base_momentums[at]), float(scheduler.max_momentums[at])
    return high - (high - low) * _height(scheduler, step)


def _halves(scheduler: Any) -> tuple[float, float]:
    """Return the sizes of both halves; torch keeps their sum and the first one's share."""
    total, share = float(scheduler.total_size), float(scheduler.step_ratio)
    up = typed(total * share, lambda each: each / total == share)
    down = typed(total - up, lambda each: up + each == total)
    if not 0.0 < share < 1.0:
        raise UnsupportedSchedulerError(
            f"step_size_down={down!r}: a triangle needs a way down; what falls at once is the kind "
            "`cyclic` with the mode `sawtooth`"
        )
    # The bounds of a session's lengths.
    number(up, "step_size_up", least=1e-6, most=1e18)
    number(down, "step_size_down", least=1e-6, most=1e18)
    return up, down


def _height(scheduler: Any, step: int) -> float:
    cycle = math.floor(1 + step / scheduler.total_size)
    x = 1.0 + step / scheduler.total_size - cycle
    rising = scheduler.step_ratio
    height = x / rising if x <= rising else (x - 1) / (rising - 1)
    if scheduler.mode == "triangular2":
        return float(height * 2.0 ** -(cycle - 1))
    return float(height * scheduler.gamma**step if scheduler.mode == "exp_range" else height)


def _annealed(scheduler: Any, group: ParamGroup, what: str, step: int) -> float:
    """Return OneCycleLR's rate or momentum at a step; past its end, the last one."""
    step, start, phases = min(step, scheduler.total_steps - 1), 0.0, scheduler._schedule_phases
    for phase in phases[:-1]:
        if step <= phase["end_step"]:
            break
        start = phase["end_step"]
    else:
        phase = phases[-1]
    if phase["end_step"] == start:  # torch divides by zero
        return float(group[phase[f"end_{what}"]])
    part = (step - start) / (phase["end_step"] - start)
    value = scheduler._anneal_func(group[phase[f"start_{what}"]], group[phase[f"end_{what}"]], part)
    return float(value)


def _pct_start(phases: list[Any], total_steps: int) -> float:
    ends = [phase["end_step"] for phase in phases[:-1]]  # the only place that has it

    def reproduces(part: float) -> bool:
        return [n * part * total_steps - n for n in range(1, len(ends) + 1)] == ends

    return typed((ends[0] + 1) / total_steps, reproduces)


def _momentum(value: Any, what: str) -> float:
    return number(value, what, most=1.0)


def _without_scale_fn(schedule: dict[str, Any]) -> str:
    height = schedule["max_lr"] - schedule["base_lr"]
    halves = {size: schedule[size] for size in ("step_size_up", "step_size_down")}
    triangle = {"kind": "cyclic", "base_lr": 0.0, "max_lr": height, **halves}
    factors = [{"kind": "expression", "value": "0.99 ** t"}]
    scaled = {"kind": "product", "schedule": triangle, "factors": factors}
    bottom = {"kind": "hold", "value": schedule["base_lr"]}
    example = json.dumps({"kind": "sum", "of": [bottom, scaled]})
    return (
        "CyclicLR has a scale_fn of its own, and a Python function is no data: use one of the "
        "modes triangular, triangular2, exp_range, or create the session with the function as an "
        f"`expression` of the step t, such as {example}"
    )
