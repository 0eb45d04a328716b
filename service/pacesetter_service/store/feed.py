"""The events of all sessions, in the order in which they were committed.

Each has a position, which its transaction takes from a counter whose row it holds until it is
committed; see `writing.py`. So positions become visible in their order, whichever process commits:
a reader that has read up to one misses nothing that comes before it.
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
from pacesetter_service.store.schema import events, feed, ids, sessions

LOOKED_THROUGH = 20_000
"""So many positions are looked through for one page, whatever few of them are wanted."""

CREATED = "created"
"""The kind of the first event of a session, which stands in its row."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events of all sessions are wanted.

    Attributes:
        names: Only those of sessions that the caller may speak of.
        matching: Only those of sessions whose names match this pattern; None for all.
        kinds: Only those of these kinds; none of them for all.
        actor: Only those that this one has ordered or done; None for all.
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
        spec: What its creator asked for.
        created_at: When it was recorded; ISO 8601, UTC.
        recorded: The event; None of a creation.
    """

    position: int
    session: str
    spec: SessionSpec
    created_at: str
    recorded: Recorded | None


class FeedPage(NamedTuple):
    """Some events, the position to go on behind, and whether there is more to look through."""

    entries: list[FeedEntry]
    behind: int
    more: bool


def newest_position(connection: Connection) -> int:
    """Return the position of the newest event; 0 if there was none."""
    query = select(ids.c.next).where(ids.c.kind == "feed")
    return int(connection.execute(query).scalar_one()) - 1


def page_of(connection: Connection, wanted: Wanted, behind: int, limit: int) -> FeedPage:
    """Return up to `limit` events that come behind a position, in their order."""
    newest = newest_position(connection)
    known = select(feed.c.position).where(feed.c.position > behind).order_by(feed.c.position)
    last = connection.execute(known.offset(LOOKED_THROUGH - 1).limit(1)).scalar_one_or_none()
    until = newest if last is None else int(last)
    query = (
        select(
            feed.c.position,
            feed.c.session_id,
            feed.c.seq.label("number"),
            events.c.kind,
            events.c.payload,
            events.c.attempt,
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
    return FeedPage(list(_entries(connection, rows)), until, full or until < newest)


def _entries(connection: Connection, rows: Sequence[Any]) -> Iterator[FeedEntry]:
    told = select(sessions.c.id, sessions.c.name, sessions.c.spec)
    mine = told.where(sessions.c.id.in_({row.session_id for row in rows}))
    known = {row.id: (row.name, codec.load_spec(row.spec)) for row in connection.execute(mine)}
    for row in rows:
        if row.session_id not in known:  # it was purged in this moment
            continue
        name, spec = known[row.session_id]
        recorded = None
        if row.number:
            event = load_event(row.kind, row.payload, spec)
            recorded = Recorded(event, row.number, row.attempt, row.created_at, own=True)
        yield FeedEntry(row.position, name, spec, row.created_at, recorded)


def _conditions(wanted: Wanted, dialect: str) -> Iterator[ColumnElement[bool]]:
    if wanted.kinds:
        of_kind = events.c.kind.in_(wanted.kinds)
        yield or_(feed.c.seq == 0, of_kind) if CREATED in wanted.kinds else of_kind
    if wanted.actor is not None:
        said = json.dumps(wanted.actor, ensure_ascii=False)
        # By a function, because LIKE takes one letter for the other in SQLite.
        found = func.strpos if dialect == "postgresql" else func.instr
        yield found(events.c.payload, f'"actor":{said}') > 0
    for label in wanted.labels:
        yield labelled(*label)
    if wanted.matching is not None:
        yield matches((wanted.matching,), dialect)
    if wanted.names.patterns:
        yield matches(wanted.names.patterns, dialect)
