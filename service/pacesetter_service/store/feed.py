"""The events of all sessions, in the order of their commits.

Each event has a position, which its transaction takes from a counter whose row it locks until it
commits; see `writing.py`. So positions become visible in order, whichever process commits: a reader
that has read up to a position has missed nothing before it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, or_, select

from pacesetter_service.core.events import load_event
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.tokens import EVERYTHING, NameScope
from pacesetter_service.insight.explain import Recorded
from pacesetter_service.store import codec
from pacesetter_service.store.listing import is_there, labelled, matches
from pacesetter_service.store.schema import attempts, events, feed, ids, sessions

LOOKED_THROUGH = 20_000
"""The most positions that are searched for one page, even if few of them are wanted."""

CREATED = "created"
"""The kind of the first event of a session, which is in the session's row."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events of all sessions are wanted.

    Attributes:
        names: Only those of sessions that the caller may see.
        matching: Only those of sessions whose names match this pattern; None for all.
        kinds: Only those of these kinds; empty for all.
        actor: Only those that this actor has ordered or done; None for all.
        labels: Only those of sessions with all of these labels.
    """

    names: NameScope = EVERYTHING
    matching: str | None = None
    kinds: Sequence[str] = ()
    actor: str | None = None
    labels: Sequence[tuple[str, str]] = ()


class FeedEntry(NamedTuple):
    """An event, with its position and its session.

    Attributes:
        position: Its place among the events of all sessions.
        session: The session's name.
        spec: The session's spec.
        created_at: When it was recorded; ISO 8601, UTC.
        attempt: The attempt that it happened in.
        recorded: The event; None for a creation.
    """

    position: int
    session: str
    spec: SessionSpec
    created_at: str
    attempt: int
    recorded: Recorded | None


class FeedPage(NamedTuple):
    """Some events, the position to go on after, and whether there are more to search."""

    entries: list[FeedEntry]
    behind: int
    more: bool


def newest_position(connection: Connection) -> int:
    """Return the position of the newest event; 0 if there was none."""
    query = select(ids.c.next).where(ids.c.kind == "feed")
    return int(connection.execute(query).scalar_one()) - 1


def page_of(connection: Connection, wanted: Wanted, behind: int, limit: int) -> FeedPage:
    """Return up to `limit` events after a position, in order."""
    newest = newest_position(connection)
    known = select(feed.c.position).where(feed.c.position > behind).order_by(feed.c.position)
    last = connection.execute(known.offset(LOOKED_THROUGH - 1).limit(1)).scalar_one_or_none()
    until = newest if last is None else int(last)
    first = select(func.min(attempts.c.attempt)).where(attempts.c.session_id == feed.c.session_id)
    query = (
        select(
            feed.c.position,
            feed.c.session_id,
            feed.c.seq.label("number"),
            events.c.kind,
            events.c.payload,
            func.coalesce(events.c.attempt, first.scalar_subquery(), 1).label("attempt"),
            func.coalesce(events.c.created_at, sessions.c.created_at).label("created_at"),
        )
        .join(sessions, sessions.c.id == feed.c.session_id)
        .outerjoin(
            events, (events.c.session_id == feed.c.session_id) & (events.c.seq == feed.c.seq - 1)
        )
        .where(feed.c.position > behind, feed.c.position <= until, is_there)
        .where(*_conditions(wanted, connection.dialect.name))
        .order_by(feed.c.position)
    )
    rows = connection.execute(query.limit(limit + 1)).all()
    full = len(rows) > limit
    if full:
        rows = rows[:limit]
        until = rows[-1].position
    until = max(until, behind)
    entries = [each for each in _entries(connection, rows) if _is_by(each, wanted.actor)]
    return FeedPage(entries, until, full or until < newest)


def _is_by(entry: FeedEntry, actor: str | None) -> bool:
    """Return whether an event was brought about by an actor, and does not just name it."""
    if actor is None:
        return True
    return entry.recorded is not None and entry.recorded.event.author == actor


def _entries(connection: Connection, rows: Sequence[Any]) -> Iterator[FeedEntry]:
    told = select(sessions.c.id, sessions.c.name, sessions.c.spec)
    mine = told.where(sessions.c.id.in_({row.session_id for row in rows}))
    known = {row.id: (row.name, codec.load_spec(row.spec)) for row in connection.execute(mine)}
    for row in rows:
        if row.session_id not in known:  # it was purged just now
            continue
        name, spec = known[row.session_id]
        recorded = None
        if row.number:
            event = load_event(row.kind, row.payload, spec)
            recorded = Recorded(event, row.number, row.attempt, row.created_at, own=True)
        yield FeedEntry(row.position, name, spec, row.created_at, row.attempt, recorded)


def _conditions(wanted: Wanted, dialect: str) -> Iterator[ColumnElement[bool]]:
    if wanted.kinds:
        of_kind = events.c.kind.in_(wanted.kinds)
        yield or_(feed.c.seq == 0, of_kind) if CREATED in wanted.kinds else of_kind
    if wanted.actor is not None:
        said = json.dumps(wanted.actor, ensure_ascii=False)
        # A match may be a label of that name, so the author is checked afterwards. A function is
        # used because LIKE in SQLite ignores case.
        found = func.strpos if dialect == "postgresql" else func.instr
        yield found(events.c.payload, f'"actor":{said}') > 0
    for label in wanted.labels:
        yield labelled(*label)
    if wanted.matching is not None:
        yield matches((wanted.matching,), dialect)
    if wanted.names.patterns:
        yield matches(wanted.names.patterns, dialect)
