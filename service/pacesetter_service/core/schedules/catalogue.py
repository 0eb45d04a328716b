"""The catalogue: every schedule kind with its parameters, law, source and an example."""

import inspect
from typing import Any

from pacesetter_service.core.errors import UnknownKindError
from pacesetter_service.core.schedules.base import Named, Schedule


def kinds() -> list[str]:
    """Give the names of all schedule kinds, sorted."""
    return sorted(Schedule.kinds)


def describe(kind: str) -> dict[str, Any]:
    """Describe one kind as JSON types; `outside` is what its example does past its end.

    Raises:
        UnknownKindError: There is no such kind.
    """
    member = Schedule.kinds.get(kind)
    if member is None:
        raise UnknownKindError(kind, kinds(), Schedule.elsewhere.get(kind))
    example = {"kind": kind, **member.example}
    return {
        "kind": kind,
        "family": "named" if issubclass(member, Named) else "building block",
        "description": inspect.cleandoc(member.__doc__ or ""),
        "formula": member.formula,
        "source": member.source,
        "parameters": member.model_json_schema(),
        "example": example,
        "outside": Schedule.parse(example).beyond(),
    }
