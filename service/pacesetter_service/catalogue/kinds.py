"""Every kind of schedule, controller and action, with its parameters, law and an example."""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from pacesetter_service.catalogue.glossary import meaning
from pacesetter_service.core.actions import Action
from pacesetter_service.core.controllers.base import Controller, NamedController
from pacesetter_service.core.errors import UnknownKindError
from pacesetter_service.core.model import Tagged
from pacesetter_service.core.schedules.base import Named, Schedule


def schedules() -> list[str]:
    """Return the names of all kinds of schedules, sorted."""
    return sorted(Schedule.kinds)


def controllers() -> list[str]:
    """Return the names of all kinds of controllers, sorted."""
    return sorted(Controller.kinds)


def actions() -> list[str]:
    """Return the names of all kinds of actions, sorted."""
    return sorted(Action.kinds)


def parameters_of(member: type[Tagged], reference: str = "#/$defs/{model}") -> dict[str, Any]:
    """Return the JSON schema of a kind's parameters; each parameter says what it means.

    A field's own description takes precedence over the glossary's entry for its name.

    Args:
        member: The kind.
        reference: The form of references to other models.
    """
    kind = member.model_fields["kind"].default
    schema = member.model_json_schema(ref_template=reference)
    example: Mapping[str, Any] = getattr(member, "example", {})
    for name, field in schema["properties"].items():
        found = _KIND if name == "kind" else meaning(member.family, kind, name)
        if found is not None:
            field.setdefault("description", found)
        if name in example:
            field.setdefault("examples", [example[name]])
    return schema


_KIND = "which kind this is"


@cache
def describe_schedule(kind: str) -> Mapping[str, Any]:
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
        "parameters": parameters_of(member),
        "example": example,
        "out_of_range": Schedule.parse(example).range_policy(),
    }


@cache
def describe_controller(kind: str) -> Mapping[str, Any]:
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
        "parameters": parameters_of(member),
        "example": example,
        "watches": list(Controller.parse(example).watches),
    }


@cache
def describe_action(kind: str) -> Mapping[str, Any]:
    """Describe one kind as JSON types; `example` is the body of an order.

    Raises:
        UnknownKindError: There is no such kind.
    """
    member = Action.kinds.get(kind)
    if member is None:
        raise UnknownKindError(kind, actions(), Action.redirects.get(kind), family="action")
    return {
        "kind": kind,
        "description": inspect.cleandoc(member.__doc__ or ""),
        "formula": member.formula,
        "every_channel": member.every_channel,
        "parameters": parameters_of(member),
        "example": {"kind": kind, **member.example},
    }
