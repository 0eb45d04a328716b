"""Who may call what: the one table of it. Routes not listed here are denied."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

from pacesetter_service.core.tokens import Role

Access = Role | Literal["public"]
"""The least role that a call takes; `public` takes no token."""

_CALLS: Mapping[Access, tuple[str, ...]] = {
    # Probes have no tokens, and a browser sends none when it opens a page.
    "public": (
        "GET /livez",
        "GET /readyz",
        "GET /version",
        "GET /openapi.json",
        "GET /docs",
        "GET /redoc",
    ),
    # Whatever changes nothing.
    "viewer": (
        "GET /v1/sessions",
        "GET /v1/sessions/{name}",
        "GET /v1/sessions/{name}/lr",
        "GET /v1/sessions/{name}/forecast",
        "GET /v1/sessions/{name}/actions",
        "GET /v1/sessions/{name}/attempts",
        "GET /v1/sessions/{name}/history",
        "GET /v1/sessions/{name}/export",
        "GET /v1/sessions/{name}/events",
        "GET /v1/sessions/{name}/events/stream",
        "GET /v1/sessions/{name}/explain",
        "GET /v1/sessions/{name}/ranks",
        "GET /v1/sessions/{name}/range-test",
        "GET /metrics",
        "GET /v1/schedules",
        "GET /v1/schedules/{kind}",
        "GET /v1/controllers",
        "GET /v1/controllers/{kind}",
        "GET /v1/templates",
        "GET /v1/templates/{name}",
        "GET /v1/templates/{name}/diff",
        "GET /v1/templates/{name}/{version}",
        "POST /v1/schedules/preview",
        "POST /v1/schedules/lint",
        "POST /v1/schedules/recommend",
    ),
    # What a job does for itself, unattended.
    "trainer": (
        "POST /v1/sessions",
        "POST /v1/sessions/{name}/sync",
        "POST /v1/sessions/{name}/attempts",
        "POST /v1/sessions/{name}/fork",
        "POST /v1/sessions/{name}/finish",
    ),
    # What an operator decides about jobs.
    "operator": (
        "PATCH /v1/sessions/{name}",
        "DELETE /v1/sessions/{name}",
        "POST /v1/sessions/{name}/actions",
        "DELETE /v1/sessions/{name}/actions/{number}",
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

ACCESS: Mapping[str, Access] = {call: access for access, calls in _CALLS.items() for call in calls}
"""What each call takes, by method and path as the routes have them."""


def access_to(method: str, path: str) -> Access | None:
    """Return what a call takes; None if no role may make it."""
    # Looking at the head only is looking.
    pattern, accesses = _TABLE.get("GET" if method == "HEAD" else method, _NOTHING)
    match = pattern.fullmatch(path)
    return None if match is None else accesses[(match.lastindex or 0) - 1]


def methods_at(path: str) -> list[str]:
    """Return the methods that an address takes."""
    return [method for method, (pattern, _) in _TABLE.items() if pattern.fullmatch(path)]


_Column = tuple[re.Pattern[str], list[Access]]


def _columns() -> dict[str, _Column]:
    """Make one pattern a method, each of whose groups is a path: the hot call has no time."""
    paths: defaultdict[str, list[str]] = defaultdict(list)
    accesses: defaultdict[str, list[Access]] = defaultdict(list)
    for call, access in ACCESS.items():
        method, _, path = call.partition(" ")
        paths[method].append("(" + re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)) + ")")
        accesses[method].append(access)
    return {method: (re.compile("|".join(paths[method])), accesses[method]) for method in paths}


_TABLE = _columns()
_NOTHING: _Column = (re.compile("(?!)"), [])

METHODS = frozenset(_TABLE) | {"HEAD"}
"""Those that any address takes."""
