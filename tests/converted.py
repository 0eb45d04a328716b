"""The values of a session that torch's scheduler was converted to, beside torch's own."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import SGD, Adam, Optimizer

from pacesetter._from_torch._convert import converted
from pacesetter_service.core.spec import SessionSpec

Make = Callable[[Optimizer], Any]


def convert(scheduler: Any, param_groups: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Return the description that a scheduler is converted to, and log its warnings."""
    found = converted(scheduler, param_groups, metric)
    found.log()
    return found.description


def sgd(*rates: float, momentum: float = 0.9) -> SGD:
    """Return an optimizer with a param group for each rate."""
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates or (0.1,)
    ]
    return SGD(groups, lr=0.1, momentum=momentum)


def adam(*rates: float) -> Adam:
    """Return an optimizer whose momentum is the first of its betas."""
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates or (0.1,)
    ]
    return Adam(groups, lr=0.1)


def held(optimizer: Optimizer) -> list[float]:
    """Return the rate and the momentum of each param group."""
    return [
        float(value)
        for group in optimizer.param_groups
        for value in (group["lr"], group["betas"][0] if "betas" in group else group["momentum"])
    ]


def made(make: Make, optimizer: Optimizer) -> Any:
    """Build a scheduler; SequentialLR steps a chain as its first part, and torch warns of that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return make(optimizer)


def step(optimizer: Optimizer, scheduler: Any) -> None:
    """Make an update, as a training does."""
    optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of SequentialLR, which passes an epoch
        scheduler.step()


def theirs(optimizer: Optimizer, scheduler: Any, steps: int) -> np.ndarray[Any, Any]:
    """Train on with torch's; return rates and momenta from the present step on."""
    rows = [held(optimizer)]
    for _ in range(steps - 1):
        step(optimizer, scheduler)
        rows.append(held(optimizer))
    return np.array(rows)


def ours(described: dict[str, Any], optimizer: Optimizer, steps: int) -> np.ndarray[Any, Any]:
    """Evaluate the session of a description; what it does not drive stays as it is."""
    spec = SessionSpec.model_validate({"name": "converted", **described})
    t = np.arange(spec.start_step, spec.start_step + steps, dtype=np.float64)
    series = {each.name: each.schedule.values(t, each.base) for each in spec.series()}
    columns = []
    names = list(spec.groups) if spec.groups else [""] * len(optimizer.param_groups)
    for name, group in zip(names, optimizer.param_groups, strict=True):
        prefix = f"{name}." if name else ""
        momentum = float(group["betas"][0] if "betas" in group else group["momentum"])
        columns.append(series[f"{prefix}lr"])
        columns.append(series.get(f"{prefix}momentum", np.full(steps, momentum)))
    return np.stack(columns, axis=1)


def both(
    make: Make, *, steps: int = 60, before: int = 0, optimizer: Callable[[], Optimizer] = sgd
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Convert a scheduler after some steps, and train on with torch's."""
    trained = optimizer()
    scheduler = made(make, trained)
    for _ in range(before):
        step(trained, scheduler)
    described = convert(scheduler, trained.param_groups, "loss")
    return ours(described, trained, steps), theirs(trained, scheduler, steps)
