"""What the server advises over HTTP, in Python's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IN_PYTHON: Mapping[str, str] = {
    "session_not_found": (
        "client.create_session(name, base_lr=..., schedule=...) creates it, and client.sessions()"
        " lists those that there are"
    ),
    "session_exists": (
        "client.session(name) opens it; client.session(new_name, continues=name, ...) branches off"
    ),
    "session_not_archived": "client.archive(name) archives it",
    "unknown_kind": "client.schedules() lists the kinds of schedules",
    "step_out_of_range": "client.lr(name, step) shows any step without sealing it",
    "unauthenticated": "give an access token by Client(token=...) or PACESETTER_TOKEN",
}
"""By the code of the problem; without an entry, the advice about HTTP is left out."""


def in_python(detail: str, problem: Mapping[str, Any], *, advised: bool = False) -> str:
    """Return a problem's sentence, with the server's advice about HTTP put into Python's terms.

    Args:
        detail: The sentence.
        problem: The problem.
        advised: Whether the client has its own advice, which replaces the server's.
    """
    advice = problem.get("advice")
    if not isinstance(advice, str) or not advice or not detail.endswith(advice):
        return detail
    said = detail[: -len(advice)].rstrip()
    own = None if advised else IN_PYTHON.get(str(problem.get("code")))
    return f"{said} {own[0].upper()}{own[1:]}." if own else said
