"""Where a field is in a call: in its body, its query, its path or a header."""

from collections.abc import Iterable, Iterator, Mapping

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic.fields import FieldInfo
from starlette.requests import Request

Place = Mapping[str, str]
"""`{"pointer": …}` into the body, or the name of a `{"parameter": …}`."""

HEADERS: Mapping[str, str] = {"key": "Idempotency-Key", "actor": "Pacesetter-Actor"}
"""By the use cases' name of a field, the header in which it may come."""

WITH_BODY = frozenset({"POST", "PATCH", "PUT"})


def place_in(request: Request, field: tuple[str | int, ...]) -> Place:
    """Return where a field is in a request."""
    name, route = str(field[0]), request.scope.get("route")
    known = {each.lower() for each in _parameters(route)} if isinstance(route, APIRoute) else set()
    header = HEADERS.get(name, name)
    if header.lower() in known:
        return {"parameter": header}
    return {"pointer": pointer_to(field)} if request.method in WITH_BODY else {"parameter": name}


def pointer_to(path: Iterable[object]) -> str:
    """Write a JSON pointer, RFC 6901."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def query_of(dependant: Dependant) -> Iterator[tuple[str, FieldInfo]]:
    """Return the query parameters of a call, and of its dependencies."""
    for field in dependant.query_params:
        yield field.alias, field.field_info
    for each in dependant.dependencies:
        yield from query_of(each)


def _parameters(route: APIRoute) -> Iterator[str]:
    """Return the names of a call's parameters in its query and in headers.

    Parameters in its path are left out: the body may have another field of the same name.
    """
    yield from (name for name, _ in query_of(route.dependant))
    yield from _headers_of(route.dependant)


def _headers_of(dependant: Dependant) -> Iterator[str]:
    for field in dependant.header_params:
        yield field.alias
    for each in dependant.dependencies:
        yield from _headers_of(each)
