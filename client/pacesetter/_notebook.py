"""How clients and sessions show themselves in a notebook: where trainings stand, and their curves.

What is shown is made by `_html`. Nothing here raises, and nothing waits for a server longer than
`SECONDS`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Protocol, TypeAlias, TypeVar

from pacesetter._html import LONGEST, MOST_ROWS, card, table
from pacesetter._info import SessionInfo
from pacesetter._opening import path_of
from pacesetter._operation import SVG

T = TypeVar("T")

LARGEST = 2**20
"""Bytes of an answer: what a cell shows stays in the notebook."""

SECONDS = 1.5
"""Seconds for which a cell waits for the server, in total."""


class Sends(Protocol):
    """Asks the server once, in bounded time."""

    @property
    def url(self) -> str:
        """The server's address."""

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        accept: str = ...,
        max_bytes: int = ...,
        timeout: float | None = None,
    ) -> bytes:
        """Return what the server answers."""


@dataclass
class Seen:
    """What the server said in the time available.

    Attributes:
        row: Where the training stands; None if the server did not say.
        picture: Its curve, as SVG.
        trouble: Why something is missing.
    """

    row: Mapping[str, Any] | None = None
    picture: bytes | None = None
    trouble: str = ""


Look: TypeAlias = Callable[..., Seen]
"""Asks for a session's status, by its name and, if it is known, its first step."""


class StatusRow(dict[str, Any]):
    """Where a training stands, as the server says; a notebook shows it with its curve."""

    look: Look | None = None

    def _repr_html_(self) -> str:
        look = self.look
        return shown(
            lambda: _card(self, None if look is None else look(self["name"], row=self)), self
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return StatusRow, (dict(self),)  # a copy asks no server


def session_card(info: SessionInfo, look: Look | None) -> str:
    """Return a session as HTML: as it is now if the server answers, else as it was described."""
    seen = None if look is None else look(info.name, info.start_step)
    if seen is not None and seen.row is not None:
        return _card(seen.row, seen)
    row = {
        "name": info.name,
        "state": info.state,
        "attempt": info.attempt,
        "revision": info.revision,
        "labels": info.spec.get("labels"),
        "sealed": f"below step {info.horizon:,}",
        "plan": None if info.plan_end is None else f"ends at step {info.plan_end:,}",
    }
    return _card(row, seen)


def _card(row: Mapping[str, Any], seen: Seen | None) -> str:
    return card(row) if seen is None else card(row, seen.picture, seen.trouble)


def told_by(look: Look, thing: T) -> T:
    """Make what the server said of a session ask again when a notebook shows it."""
    if isinstance(thing, StatusRow):
        thing.look = look
    elif isinstance(thing, SessionInfo):
        thing.look_again(look)
    return thing


def look_at(
    transport: Sends, name: str, first: int | None = None, *, row: Mapping[str, Any] | None = None
) -> Seen:
    """Ask for where a training stands, unless that is known, and for its curve; raise nothing.

    Args:
        transport: Asks the server.
        name: The session.
        first: Its first step; None if that is not known.
        row: The session's row of the status view, if it is known already.
    """
    seen, ask = Seen(row), Hurried(transport)
    try:
        if seen.row is None:
            seen.row = json.loads(ask.get(path_of(name) + "/status"))
        if first is None:
            first = SessionInfo.parse(json.loads(ask.get(path_of(name)))).start_step
        params = {"start": first, "count": _count(seen.row, first), "points": 500}
        picture = ask.get(path_of(name) + "/forecast", params, accept=SVG)
        seen.picture = picture if b"<svg" in picture[:1_000] else None
    except Exception as error:
        seen.trouble = str(error) or type(error).__name__
    return seen


def sessions_at(transport: Sends) -> str:
    """Return the sessions of a server as a table, the last changed first."""
    params = {"view": "status", "sort": "-changed_at", "limit": MOST_ROWS + 1}
    try:
        rows = json.loads(Hurried(transport).get("/v1/sessions", params))["sessions"]
    except Exception as error:
        return table(transport.url, [], str(error) or type(error).__name__)
    return table(transport.url, rows)


class Hurried:
    """Asks a server some questions, in `SECONDS` in total.

    Args:
        transport: Asks it.
    """

    def __init__(self, transport: Sends) -> None:
        self._transport = transport
        self._end = time.monotonic() + SECONDS

    def get(
        self, path: str, params: Mapping[str, Any] | None = None, accept: str = "application/json"
    ) -> bytes:
        """Return the answer.

        Raises:
            PacesetterError: There is none in the time that is left.
        """
        left = max(self._end - time.monotonic(), 0.05)
        return self._transport.send(
            "GET", path, params=params, accept=accept, max_bytes=LARGEST, timeout=left
        )


def shown(show: Callable[[], str], thing: object) -> str:
    """Return what shows a thing, or its text if that fails: a cell must never break."""
    try:
        return show()
    except Exception:
        return f"<pre>{escape(repr(thing)[:LONGEST])}</pre>"


def _count(row: Mapping[str, Any], first: int) -> int:
    """Return how many steps are drawn: the whole plan, or a little more than was trained."""
    total = row.get("total_steps")
    end = total if isinstance(total, int) else max(1_000, int(row["horizon"] * 1.25))
    return max(end - first, 10)
