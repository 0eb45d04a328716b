"""torch's schedulers as data: one small function for each class, in a table.

torch is not imported: a scheduler is known by the name of its class, which must be torch's own, for
a subclass may follow another law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from pacesetter._errors import UnsupportedSchedulerError
from pacesetter._groups import ParamGroup, group_names

Law: TypeAlias = tuple[float, dict[str, Any]]
"""A base learning rate and the schedule that scales it."""


def convert(scheduler: Any, param_groups: Sequence[ParamGroup], metric: str) -> dict[str, Any]:  # noqa: ANN401
    """The description of a session with the law of `scheduler`.

    Raises:
        UnsupportedSchedulerError: its law cannot be written down as data.
    """
    if _class_of(scheduler) == "ReduceLROnPlateau":
        return _plateau(scheduler, param_groups, metric)
    laws = [_law(scheduler, group, at) for at, group in enumerate(param_groups)]
    described = _described(laws, param_groups)
    if (position := _position(scheduler)) > 0:
        described["start_step"] = position
    return described


def _position(scheduler: Any) -> int:  # noqa: ANN401 - any scheduler
    """The step that it has reached; ChainedScheduler leaves the counting to its parts."""
    parts = scheduler._schedulers if _class_of(scheduler) == "ChainedScheduler" else [scheduler]  # noqa: SLF001
    positions = {int(part.last_epoch) for part in parts}
    if len(positions) > 1:
        raise UnsupportedSchedulerError(
            f"the parts of ChainedScheduler have reached different steps ({sorted(positions)}): "
            "take it over before its first step"
        )
    return positions.pop()


def _class_of(scheduler: Any) -> str:  # noqa: ANN401 - any scheduler
    kind = type(scheduler)
    if kind.__module__ not in _MODULES:
        raise UnsupportedSchedulerError(
            f"{kind.__module__}.{kind.__qualname__} is not one of torch's own schedulers, so its "
            "law is unknown: write the schedule as data (client.schedules() lists the kinds)"
        )
    return kind.__name__


def _law(scheduler: Any, group: ParamGroup, at: int) -> Law:  # noqa: ANN401 - any scheduler
    name = _class_of(scheduler)
    if name not in _LAWS:
        why = _REFUSED.get(name, "there is no schedule kind for it")
        raise UnsupportedSchedulerError(
            f"{name} cannot be taken over: {why}. client.schedules() lists the kinds there are"
        )
    return _LAWS[name](scheduler, group, at)


def _described(laws: Sequence[Law], param_groups: Sequence[ParamGroup]) -> dict[str, Any]:
    """One law for all groups, or a group for each, with what differs."""
    base, schedule = laws[0]
    if all(law == laws[0] for law in laws):
        return {"base_lr": base, "schedule": schedule}
    names = group_names(param_groups)
    if all(law[1] == schedule for law in laws):
        groups = {name: {"base_lr": law[0]} for name, law in zip(names, laws, strict=True)}
        return {"groups": groups, "schedule": schedule}
    return {
        "groups": {
            name: {"base_lr": law[0], "schedule": law[1]}
            for name, law in zip(names, laws, strict=True)
        }
    }


def _base(scheduler: Any, at: int) -> float:  # noqa: ANN401 - any scheduler
    return float(scheduler.base_lrs[at])


def _whole(value: float, what: str) -> int:
    if float(value) != int(value):
        raise UnsupportedSchedulerError(f"{what}={value!r}: make it a whole number of steps")
    return int(value)


def _step(scheduler: Any, _group: ParamGroup, at: int) -> Law:  # noqa: ANN401
    schedule = {"kind": "step", "step_size": scheduler.step_size, "gamma": scheduler.gamma}
    return _base(scheduler, at), schedule


def _multistep(scheduler: Any, _group: ParamGroup, at: int) -> Law:  # noqa: ANN401
    milestones = sorted(scheduler.milestones.elements())
    schedule = {"kind": "multistep", "milestones": milestones, "gamma": scheduler.gamma}
    return _base(scheduler, at), schedule


def _constant(scheduler: Any, _group: ParamGroup, at: int) -> Law:  # noqa: ANN401
    return _base(scheduler, at), {
        "kind": "constant",
        "factor": scheduler.factor,
        "total_iters": scheduler.total_iters,
    }


def _linear(scheduler: Any, _group: ParamGroup, at: int) -> Law:  # noqa: ANN401
    return _base(scheduler, at), {
        "kind": "linear",
        "start_factor": scheduler.start_factor,
        "end_factor": scheduler.end_factor,
        "total_iters": scheduler.total_iters,
    }


def _exponential(scheduler: Any, _group: ParamGroup, at: int) -> Law:  # noqa: ANN401
    return _base(scheduler, at), {"kind": "exponential", "gamma": scheduler.gamma}


def _polynomial(scheduler: Any, _group: ParamGroup, at: int) -> Law:  # noqa: ANN401
    return _base(scheduler, at), {
        "kind": "polynomial",
        "total_steps": scheduler.total_iters,
        "power": scheduler.power,
    }


def _cosine(scheduler: Any, _group: ParamGroup, at: int) -> Law:  # noqa: ANN401
    return _base(scheduler, at), {
        "kind": "cosine",
        "total_steps": _whole(scheduler.T_max, "T_max"),
        "min_lr": float(scheduler.eta_min),
    }


def _cyclic(scheduler: Any, _group: ParamGroup, at: int) -> Law:  # noqa: ANN401
    if scheduler._scale_fn_custom is not None:  # noqa: SLF001 - the only place that says so
        raise UnsupportedSchedulerError(
            "CyclicLR has a scale_fn of its own, and a Python function is no data: use one of the "
            "modes triangular, triangular2, exp_range"
        )
    up = round(scheduler.total_size * scheduler.step_ratio)
    schedule = {
        "kind": "cyclic",
        "base_lr": _base(scheduler, at),
        "max_lr": float(scheduler.max_lrs[at]),
        "step_size_up": up,
        "step_size_down": _whole(scheduler.total_size, "step_size_up + step_size_down") - up,
        "mode": scheduler.mode,
        "gamma": scheduler.gamma,
        "cycle_momentum": scheduler.cycle_momentum,
    }
    if scheduler.cycle_momentum:
        schedule["base_momentum"] = float(scheduler.base_momentums[at])
        schedule["max_momentum"] = float(scheduler.max_momentums[at])
    return _base(scheduler, at), schedule


def _one_cycle(scheduler: Any, group: ParamGroup, _at: int) -> Law:  # noqa: ANN401
    phases = scheduler._schedule_phases  # noqa: SLF001 - the only place that has pct_start
    peak = float(group["max_lr"])
    schedule = {
        "kind": "one_cycle",
        "max_lr": peak,
        "total_steps": scheduler.total_steps,
        "pct_start": _pct_start(phases[0]["end_step"], scheduler.total_steps),
        "anneal_strategy": scheduler._anneal_func_type,  # noqa: SLF001
        "cycle_momentum": scheduler.cycle_momentum,
        "div_factor": _ratio(peak, float(group["initial_lr"])),
        "final_div_factor": _ratio(float(group["initial_lr"]), float(group["min_lr"])),
        "three_phase": len(phases) == 3,
    }
    if scheduler.cycle_momentum:
        schedule["base_momentum"] = float(group["base_momentum"])
        schedule["max_momentum"] = float(group["max_momentum"])
    return peak, schedule


def _pct_start(end_step: float, total_steps: int) -> float:
    return _typed((end_step + 1) / total_steps, lambda p: p * total_steps - 1 == end_step)


def _ratio(numerator: float, quotient: float) -> float:
    return _typed(numerator / quotient, lambda divisor: numerator / divisor == quotient)


def _typed(inexact: float, reproduces: Callable[[float], bool]) -> float:
    """The number that a user is likely to have typed: the roundest that gives the same bits."""
    digits = (0, 1, 2, 3, 4, 6, 8, 10, 12)
    rounded = [r for r in (round(inexact, n) for n in digits) if r]
    near = [inexact, math.nextafter(inexact, math.inf), math.nextafter(inexact, 0.0)]
    return next(filter(reproduces, [*rounded, *near]), inexact)


def _warm_restarts(scheduler: Any, _group: ParamGroup, at: int) -> Law:  # noqa: ANN401
    return _base(scheduler, at), {
        "kind": "torch.CosineAnnealingWarmRestarts",
        "T_0": scheduler.T_0,
        "T_mult": scheduler.T_mult,
        "eta_min": float(scheduler.eta_min),
    }


def _swa(scheduler: Any, group: ParamGroup, _at: int) -> Law:  # noqa: ANN401
    if scheduler.last_epoch > 0:
        raise UnsupportedSchedulerError(
            "SWALR has left the learning rate that it started from: take it over before its first "
            "step"
        )
    return float(group["lr"]), {
        "kind": "torch.SWALR",
        "swa_lr": float(group["swa_lr"]),
        "anneal_epochs": scheduler.anneal_epochs,
        "anneal_strategy": scheduler._anneal_strategy,  # noqa: SLF001 - torch has no public name
    }


def _chained(scheduler: Any, group: ParamGroup, at: int) -> Law:  # noqa: ANN401
    parts = scheduler._schedulers  # noqa: SLF001 - torch has no public name for it
    for part in parts:
        name = _class_of(part)
        if name not in _MULTIPLYING or getattr(part, "eta_min", 0.0) != 0.0:
            raise UnsupportedSchedulerError(
                f"{name} in ChainedScheduler does not only multiply what the others made of the "
                "learning rate, and may undo it: chain schedulers that multiply (an eta_min of 0), "
                "or write a `product` of schedules"
            )
    laws = [_law(part, group, at) for part in parts]
    (base, first), *others = laws
    if not others:
        return base, first
    factors = [schedule for _, schedule in others]
    return base, {"kind": "product", "schedule": first, "factors": factors}


def _sequential(scheduler: Any, group: ParamGroup, at: int) -> Law:  # noqa: ANN401
    ends: list[int] = scheduler._milestones  # noqa: SLF001 - torch has no public name for it
    starts = [0, *ends]
    if starts != sorted(set(starts)):
        raise UnsupportedSchedulerError(
            f"SequentialLR has the milestones {ends}: give them rising, the first above 0"
        )
    parts: list[dict[str, Any]] = []
    bases = []
    for child, start, end in zip(
        scheduler._schedulers,  # noqa: SLF001
        starts,
        [*ends, None],
        strict=True,
    ):
        if (name := _class_of(child)) in _NOT_IN_SEQUENCE:
            raise UnsupportedSchedulerError(f"{name} in SequentialLR: {_NOT_IN_SEQUENCE[name]}")
        base, schedule = _law(child, group, at)
        part: dict[str, Any] = {"schedule": schedule}
        parts.append(part if end is None else {**part, "steps": end - start})
        if schedule["kind"] not in _ABSOLUTE:
            bases.append(base)
    if len(set(bases)) > 1:
        raise UnsupportedSchedulerError(
            f"the parts of SequentialLR start from different learning rates ({bases}): build them "
            "before any CyclicLR or OneCycleLR, which changes the base of all"
        )
    return (bases or [float(group["initial_lr"])])[0], {"kind": "sequence", "parts": parts}


def _plateau(scheduler: Any, param_groups: Sequence[ParamGroup], metric: str) -> dict[str, Any]:  # noqa: ANN401
    if scheduler.last_epoch > 0:
        raise UnsupportedSchedulerError(
            "ReduceLROnPlateau has seen metrics already, which the server would not know: take it "
            "over before its first step"
        )
    if len(set(scheduler.min_lrs)) > 1:
        raise UnsupportedSchedulerError(
            f"ReduceLROnPlateau has a min_lr for each group ({scheduler.min_lrs}): use one for all"
        )
    laws: list[Law] = [(float(group["lr"]), {"kind": "constant"}) for group in param_groups]
    controller = {
        "kind": "torch.ReduceLROnPlateau",
        "metric": metric,
        "mode": scheduler.mode,
        "factor": scheduler.factor,
        "patience": scheduler.patience,
        "threshold": scheduler.threshold,
        "threshold_mode": scheduler.threshold_mode,
        "cooldown": scheduler.cooldown,
        "min_lr": float(scheduler.min_lrs[0]),
        "eps": scheduler.eps,
    }
    return {**_described(laws, param_groups), "controllers": [controller]}


_MODULES = {"torch.optim.lr_scheduler", "torch.optim.swa_utils"}

_MULTIPLYING = {
    "ConstantLR",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LinearLR",
    "MultiStepLR",
    "PolynomialLR",
    "StepLR",
}

_NOT_IN_SEQUENCE = {
    "ChainedScheduler": "torch raises when it comes to it; write a `sequence` of a `product`",
    "SequentialLR": "make it one, flat",
    "SWALR": "it goes on from the rate before it; write a `sequence` with value `continue`",
}

_ABSOLUTE = {"cyclic", "one_cycle"}  # kinds that state their learning rates themselves

_LAWS: dict[str, Callable[[Any, ParamGroup, int], Law]] = {
    "ChainedScheduler": _chained,
    "ConstantLR": _constant,
    "CosineAnnealingLR": _cosine,
    "CosineAnnealingWarmRestarts": _warm_restarts,
    "CyclicLR": _cyclic,
    "ExponentialLR": _exponential,
    "LinearLR": _linear,
    "MultiStepLR": _multistep,
    "OneCycleLR": _one_cycle,
    "PolynomialLR": _polynomial,
    "SWALR": _swa,
    "SequentialLR": _sequential,
    "StepLR": _step,
}

_REFUSED = {
    "LambdaLR": "its law is a Python function, which is no data",
    "MultiplicativeLR": "its law is a Python function, which is no data",
}
