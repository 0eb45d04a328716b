"""Every kind of schedule and of controller, with its parameters, law, source and an example."""

import inspect
from typing import Any

from pacesetter_service.core.controllers.base import Controller, NamedController
from pacesetter_service.core.errors import UnknownKindError
from pacesetter_service.core.schedules.base import Named, Schedule


def schedules() -> list[str]:
    """Return the names of all kinds of schedules, sorted."""
    return sorted(Schedule.kinds)


def controllers() -> list[str]:
    """Return the names of all kinds of controllers, sorted."""
    return sorted(Controller.kinds)


def describe_schedule(kind: str) -> dict[str, Any]:
    """Describe one kind as JSON types; `out_of_range` is what its example does past its end.

    Raises:
        UnknownKindError: There is no such kind.
    """
    member = Schedule.kinds.get(kind)
    if member is None:
        raise UnknownKindError(kind, schedules(), Schedule.redirects.get(kind))
    example = {"kind": kind, **member.example}
    return {
        "kind": kind,
        "family": "named" if issubclass(member, Named) else "building block",
        "description": inspect.cleandoc(member.__doc__ or ""),
        "formula": member.formula,
        "source": member.source,
        "parameters": member.model_json_schema(),
        "example": example,
        "out_of_range": Schedule.parse(example).range_policy(),
    }


def describe_controller(kind: str) -> dict[str, Any]:
    """Describe one kind as JSON types; `watches` are the metrics that its example reads.

    Raises:
        UnknownKindError: There is no such kind.
    """
    member = Controller.kinds.get(kind)
    if member is None:
        advice = Controller.redirects.get(kind)
        raise UnknownKindError(kind, controllers(), advice, family="controller")
    example = {"kind": kind, **member.example}
    return {
        "kind": kind,
        "family": "preset" if issubclass(member, NamedController) else "rule",
        "description": inspect.cleandoc(member.__doc__ or ""),
        "formula": member.formula,
        "source": member.source,
        "guards": member.guards,
        "parameters": member.model_json_schema(),
        "example": example,
        "watches": list(Controller.parse(example).watches),
    }
