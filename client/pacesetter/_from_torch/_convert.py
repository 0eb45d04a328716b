"""From a scheduler to the description of a session: a table of classes, and what groups share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pacesetter._errors import UnsupportedSchedulerError
from pacesetter._from_torch import _cycles, _joined, _lambdas, _plateau, _simple
from pacesetter._from_torch._law import Law, carried
from pacesetter._from_torch._numbers import number
from pacesetter._groups import ParamGroup, group_names

# ruff: noqa: ANN401 - any scheduler of torch's

logger = logging.getLogger("pacesetter")


@dataclass(frozen=True)
class Conversion:
    """A description of a session.

    Attributes:
        description: The keywords of `Client.session`.
        said: Texts to log where a session is opened by it.
    """

    description: dict[str, Any]
    said: tuple[str, ...] = ()

    def log(self) -> None:
        """Log these texts."""
        for each in self.said:
            logger.warning("%s", each)


def converted(scheduler: Any, param_groups: Sequence[ParamGroup], metric: str) -> Conversion:
    """Return the description of a session that goes on where a scheduler and its optimizer are.

    Raises:
        UnsupportedSchedulerError: Its law cannot be written down as data, or the optimizer holds
            other learning rates than it says, from which torch would not go on.
    """
    if _class_of(scheduler) == "ReduceLROnPlateau":
        return Conversion(of_plateau(scheduler, param_groups, metric))
    now = _joined.position(scheduler)
    laws = [
        carried(law_of(scheduler, group, at, now), group["lr"], type(scheduler).__name__)
        for at, group in enumerate(param_groups)
    ]
    described = of_laws(laws, param_groups)
    said = tuple(each for law in laws for each in law.said)
    return Conversion({**described, "start_step": now} if now else described, said)


def law_of(scheduler: Any, group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of a scheduler for one param group, at one of its own steps.

    Raises:
        UnsupportedSchedulerError: It cannot be written down as data.
    """
    name = _class_of(scheduler)
    if name not in LAWS:
        raise UnsupportedSchedulerError(
            f"{name} cannot be taken over: there is no schedule kind for it. client.schedules() "
            "lists the kinds there are"
        )
    try:
        return LAWS[name](scheduler, group, at, now)
    except OverflowError as error:
        raise UnsupportedSchedulerError(
            f"{name} has left the range of float64 at its step {now}: give it a smaller gamma"
        ) from error


def _class_of(scheduler: Any) -> str:
    kind = type(scheduler)
    if kind.__module__ == _lambdas.HOME and kind.__name__ == "GreedyLR":
        raise UnsupportedSchedulerError(
            "transformers' GreedyLR is no scheduler of torch's: create the session with its own "
            "arguments in a controller of the kind hf.GreedyLR"
        )
    if kind.__module__ not in _MODULES:
        raise UnsupportedSchedulerError(
            f"{kind.__module__}.{kind.__qualname__} is not one of torch's own schedulers, so its "
            "law is unknown: write the schedule as data (client.schedules() lists the kinds)"
        )
    return kind.__name__


def of_laws(
    laws: Sequence[Law], param_groups: Sequence[ParamGroup], *, by_name: bool = False
) -> dict[str, Any]:
    """Return one law for all param groups, or a group for each, with what differs."""
    base, schedule = laws[0].base, laws[0].schedule
    one_law = all(law.schedule == schedule for law in laws)
    if one_law and all(law.base == base for law in laws) and not by_name:
        return {"base_lr": base, "schedule": schedule}
    groups = {
        name: {"base_lr": law.base, **({} if one_law else {"schedule": law.schedule})}
        for name, law in zip(group_names(param_groups), laws, strict=True)
    }
    return {"groups": groups, "schedule": schedule} if one_law else {"groups": groups}


def of_plateau(scheduler: Any, param_groups: Sequence[ParamGroup], metric: str) -> dict[str, Any]:
    """Return the rates as they are, and a controller that goes on with what torch's has seen."""
    names = group_names(param_groups)
    rates = [number(group["lr"], "lr") for group in param_groups]
    laws = [Law(rate, {"kind": "constant"}, rate) for rate in rates]
    controller = _plateau.controller(scheduler, names, metric)
    by_name = isinstance(controller["min_lr"], dict)  # floors of groups can only be stated by name
    described = of_laws(laws, param_groups, by_name=by_name)
    described["controllers"] = [controller]
    reached = _joined.position(scheduler)
    return {**described, "start_step": reached} if reached else described


_MODULES = {"torch.optim.lr_scheduler", "torch.optim.swa_utils"}

LAWS: dict[str, Callable[[Any, ParamGroup, int, int], Law]] = {
    "ChainedScheduler": partial(_joined.chained, law_of),
    "ConstantLR": _simple.constant,
    "CosineAnnealingLR": _simple.cosine,
    "CosineAnnealingWarmRestarts": _simple.warm_restarts,
    "CyclicLR": _cycles.cyclic,
    "ExponentialLR": _simple.exponential,
    "LambdaLR": _lambdas.lambda_,
    "LinearLR": _simple.linear,
    "MultiplicativeLR": _lambdas.multiplicative,
    "MultiStepLR": _simple.multistep,
    "OneCycleLR": _cycles.one_cycle,
    "PolynomialLR": _simple.polynomial,
    "SWALR": _simple.swa,
    "SequentialLR": partial(_joined.sequential, law_of),
    "StepLR": _simple.step,
}
"""How each of torch's schedulers becomes a law."""
