"""torch's own schedulers, driven over a range of steps, as the reference for parity."""

import warnings
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

Floats = NDArray[np.float64]
Build = Callable[[Optimizer], LRScheduler]


def optimizer(lr: float = 0.1, momentum: float = 0.9) -> SGD:
    """Return an optimizer of one parameter."""
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=momentum)


def closed_form(build: Build, steps: Iterable[int], lr: float = 0.1) -> Floats:
    """Evaluate torch's closed form at each step: `_get_closed_form_lr`, or an absolute `get_lr`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # get_lr warns every direct caller
        scheduler = build(optimizer(lr))
        values = []
        for step in steps:
            scheduler.last_epoch = step
            form = getattr(scheduler, "_get_closed_form_lr", scheduler.get_lr)
            values.append(float(form()[0]))
    return np.array(values)


def run(build: Build, steps: int, lr: float = 0.1) -> tuple[Floats, Floats]:
    """Step torch's scheduler as a training does; return learning rates and momenta."""
    trained = optimizer(lr)
    scheduler = build(trained)
    rates, momenta = [], []
    for _ in range(steps):
        rates.append(float(trained.param_groups[0]["lr"]))
        momenta.append(float(trained.param_groups[0]["momentum"]))
        trained.step()
        scheduler.step()
    return np.array(rates), np.array(momenta)
