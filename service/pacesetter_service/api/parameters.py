"""Query parameters: unknown ones, and ones given twice, are refused."""

from collections import Counter
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import parse_qsl

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Scope

from pacesetter_service.api import problems
from pacesetter_service.api.access import route_of
from pacesetter_service.api.places import query_of
from pacesetter_service.core.model import did_you_mean

Known = Mapping[str, bool]
"""The parameters of a call, and whether each may be repeated."""

MOST_NAMED = 40
"""The most characters of a parameter's name that an answer repeats."""


class Parameters:
    """The query parameters of every call of an application."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        self._known: dict[tuple[str, str], Known] = {
            (method, route.path): {
                name: _is_list(info.annotation) for name, info in query_of(route.dependant)
            }
            for router in routers
            for route in router.routes
            if isinstance(route, APIRoute)
            for method in route.methods or ()
        }

    def refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a call with parameters that it does not take; None if it has none.

        A misspelt filter would filter nothing, and one of two values would be ignored.
        """
        if not scope["query_string"]:
            return None
        method, path = scope["method"], route_of(scope["method"], scope["path"])
        if path is None:
            return None
        known = self._known.get(("GET" if method == "HEAD" else method, path), {})
        text = scope["query_string"].decode("latin-1")
        given = Counter(name for name, _ in parse_qsl(text, keep_blank_values=True))
        wrong = [
            {"type": "unknown_parameter", "loc": ("query", name[:MOST_NAMED]), "msg": message}
            for name, count in given.items()
            if (message := _fault(name, count, known)) is not None
        ]
        return problems.of_validation(wrong) if wrong else None


def _fault(name: str, count: int, known: Known) -> str | None:
    if name not in known:
        there = f"Known here: {', '.join(sorted(known))}" if known else "This call takes none"
        return f"There is no such parameter.{did_you_mean(name, known)} {there}"
    if count > 1 and not known[name]:
        return f"It is given {count} times; give it once"
    return None


def _is_list(annotation: Any) -> bool:  # noqa: ANN401 - whatever an endpoint declares
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_list(inside[0])
    if origin in {Union, UnionType}:
        return any(_is_list(each) for each in inside if each is not NoneType)
    return origin is list
