"""Tables of which role may make which call, and about which names. Other routes are denied."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal

from pacesetter_service.core.tokens import Role

MOST_KNOWN = 1_024
"""The most addresses whose route is remembered: the hot call uses the same few again."""

Access = Role | Literal["public"]
"""The least role that a call requires; `public` requires no token."""

_CALLS: Mapping[Access, tuple[str, ...]] = {
    # Probes have no tokens, and a browser sends none when it opens a page.
    "public": (
        "GET /livez",
        "GET /readyz",
        "GET /version",
        "GET /openapi.json",
        "GET /docs",
        "GET /docs/{asset}",
    ),
    # Calls that change nothing.
    "viewer": (
        "GET /v1/sessions",
        "GET /v1/sessions/{name}",
        "GET /v1/sessions/{name}/status",
        "GET /v1/sessions/{name}/lr",
        "GET /v1/sessions/{name}/forecast",
        "GET /v1/sessions/{name}/actions",
        "GET /v1/sessions/{name}/attempts",
        "GET /v1/sessions/{name}/history",
        "GET /v1/sessions/{name}/export",
        "GET /v1/sessions/{name}/events",
        "GET /v1/sessions/{name}/events/stream",
        "GET /v1/sessions/{name}/explain",
        "GET /v1/sessions/{name}/family",
        "GET /v1/sessions/{name}/ranks",
        "GET /v1/sessions/{name}/range-test",
        "GET /v1/sessions/{name}/merge",
        "GET /v1/events",
        "GET /v1/events/stream",
        "GET /v1/compare",
        "GET /metrics",
        "GET /v1/schedules",
        "GET /v1/schedules/{kind}",
        "GET /v1/controllers",
        "GET /v1/controllers/{kind}",
        "GET /v1/actions",
        "GET /v1/actions/{kind}",
        "GET /v1/templates",
        "GET /v1/templates/{name}",
        "GET /v1/templates/{name}/diff",
        "GET /v1/templates/{name}/{version}",
        "POST /v1/sessions/{name}/plan",
        "POST /v1/schedules/preview",
        "POST /v1/schedules/lint",
        "POST /v1/schedules/recommend",
    ),
    # Calls that a job makes for itself, unattended.
    "trainer": (
        "POST /v1/sessions",
        "POST /v1/sessions/{name}/sync",
        "POST /v1/sessions/{name}/attempts",
        "POST /v1/sessions/{name}/fork",
        "POST /v1/sessions/{name}/finish",
    ),
    # Calls in which an operator decides about jobs.
    "operator": (
        "PATCH /v1/sessions/{name}",
        "DELETE /v1/sessions/{name}",
        "POST /v1/sessions/{name}/actions",
        "DELETE /v1/sessions/{name}/actions/{number}",
        "POST /v1/sessions/{name}/plan/apply",
        "POST /v1/sessions/{name}/take-back",
        "POST /v1/import",
        "POST /v1/templates",
        "POST /v1/templates/{name}/{version}/deprecate",
    ),
    "admin": (
        "POST /v1/sessions/{name}/purge",
        "POST /v1/prune",
        "GET /v1/tokens",
        "POST /v1/tokens",
        "DELETE /v1/tokens/{token_id}",
    ),
}

ASKING_SCOPE = frozenset(
    {
        # The name is in the body, or in a line of it.
        "POST /v1/sessions",
        "POST /v1/import",
        "POST /v1/templates",
        # The names are in the query.
        "GET /v1/compare",
        # Lists show only what the caller may see.
        "GET /v1/sessions",
        "GET /v1/templates",
        "GET /v1/events",
        "GET /v1/events/stream",
    }
)
"""Calls whose address names nothing, and whose endpoint checks the scope of its caller."""

NAMELESS = frozenset(
    {
        "GET /metrics",  # sums over all sessions, without names
        "GET /v1/schedules",
        "GET /v1/schedules/{kind}",
        "GET /v1/controllers",
        "GET /v1/controllers/{kind}",
        "GET /v1/actions",
        "GET /v1/actions/{kind}",
        "POST /v1/schedules/preview",
        "POST /v1/schedules/lint",
        "POST /v1/schedules/recommend",
    }
)
"""Calls that are about no session and no template, so that they are inside every scope.

A call that is neither public nor here nor above, and names nothing in its address, is outside of
every scope: it requires a token without one.
"""

BOUNDED: Mapping[str, str] = {
    # Bounds of orders are checked where all orders are.
    "POST /v1/sessions/{name}/actions": "",
    "DELETE /v1/sessions/{name}/actions/{number}": "",
    "POST /v1/sessions/{name}/fork": "fork",
    "POST /v1/sessions/{name}/attempts": "restart",
    "POST /v1/sessions/{name}/take-back": "take_back",
}
"""Calls that require more than a viewer's role, and may be made with a token that has bounds.

Each has the word that the bounds must allow for it; it is empty if the bounds are checked later. A
call that is not here, and changes something, requires a token without bounds.
"""

_NAMING = re.compile(r"/v1/(?:sessions|templates)/([^/]+)(?:/.*)?", re.DOTALL)


ACCESS: Mapping[str, Access] = {call: access for access, calls in _CALLS.items() for call in calls}
"""The access that each call requires, by method and path as the routes have them."""


@lru_cache(MOST_KNOWN)
def access_to(method: str, path: str) -> Access | None:
    """Return the access that a call requires; None if no role may make it."""
    # HEAD requires what GET does.
    pattern, accesses = _TABLE.get("GET" if method == "HEAD" else method, _NOTHING)
    match = pattern.fullmatch(path)
    return None if match is None else accesses[(match.lastindex or 0) - 1]


@lru_cache(MOST_KNOWN)
def route_of(method: str, path: str) -> str | None:
    """Return the path of a call's route; None if there is no such call."""
    method = "GET" if method == "HEAD" else method
    match = _TABLE.get(method, _NOTHING)[0].fullmatch(path)
    return None if match is None else _ROUTES[method][(match.lastindex or 0) - 1]


def name_in(path: str) -> str | None:
    """Return the name of the session or template that an address is about; None if about none."""
    match = _NAMING.fullmatch(path)
    return None if match is None else match[1]


def word_of(method: str, path: str) -> str | None:
    """Return the word that bounds must allow for a call; empty for none, None if none allow it."""
    route = f"{'GET' if method == 'HEAD' else method} {route_of(method, path)}"
    return "" if ACCESS.get(route) in ("public", "viewer") else BOUNDED.get(route)


def takes_any_scope(method: str, path: str) -> bool:
    """Return whether a call whose address names nothing may be made with a scope."""
    return _SCOPED.get("GET" if method == "HEAD" else method, _NONE).fullmatch(path) is not None


def methods_at(path: str) -> list[str]:
    """Return the methods that an address accepts; none if there is nothing at it."""
    found = [method for method, (pattern, _) in _TABLE.items() if pattern.fullmatch(path)]
    if "GET" in found:
        found.insert(found.index("GET") + 1, "HEAD")
    return [*found, "OPTIONS"] if found else []


_Column = tuple[re.Pattern[str], list[Access]]


def _columns() -> dict[str, _Column]:
    """Make one pattern for each method, with a group for each path: the hot call must be fast."""
    accesses: defaultdict[str, list[Access]] = defaultdict(list)
    for call, access in ACCESS.items():
        accesses[call.partition(" ")[0]].append(access)
    return {method: (each, accesses[method]) for method, each in _patterns(ACCESS).items()}


def _routes() -> dict[str, list[str]]:
    """Return the paths of each method, in the order of the groups of its pattern."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for call in ACCESS:
        method, _, path = call.partition(" ")
        found[method].append(path)
    return dict(found)


def _patterns(calls: Iterable[str]) -> dict[str, re.Pattern[str]]:
    paths: defaultdict[str, list[str]] = defaultdict(list)
    for call in calls:
        method, _, path = call.partition(" ")
        paths[method].append(f"({_pattern(path)})")
    return {method: re.compile("|".join(each)) for method, each in paths.items()}


def _pattern(path: str) -> str:
    """Return the pattern of a path: an address that another path names literally is not its."""
    pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))
    others = [each for each in _LITERAL if each != path and re.fullmatch(pattern, each)]
    return f"(?!(?:{'|'.join(map(re.escape, others))})\\Z){pattern}" if others else pattern


_LITERAL = sorted({call.partition(" ")[2] for call in ACCESS if "{" not in call})

_TABLE = _columns()
_ROUTES = _routes()
_NONE = re.compile("(?!)")
_NOTHING: _Column = (_NONE, [])
_SCOPED = _patterns(ASKING_SCOPE | NAMELESS)

METHODS = frozenset(_TABLE) | {"HEAD"}
"""The methods that any address accepts."""
