"""How names and numbers are written for people: in the log, in errors and in explanations."""

from pacesetter_service.core.controllers import Controller
from pacesetter_service.core.model import Model, jsonable

SHOWN = 6
"""The most names, or fields of a state, that one sentence lists."""


def kind_of(member: Controller | Model) -> str:
    """Return the kind of a controller, schedule or action."""
    kind: str = jsonable(member)["kind"]
    return kind


def listed(names: tuple[str, ...] | list[str]) -> str:
    """Join names; a long list is cut after the first ones, with the number of the rest."""
    more = len(names) - SHOWN
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {more:,} more" if more > 0 else shown


def number(value: float) -> str:
    """Format a number for people, with six digits."""
    return f"{value:.6g}"
