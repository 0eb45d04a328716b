"""Removing a session for good: it is hidden immediately, and then emptied slice by slice.

The transaction that hides a session frees its name, and records the number of its last attempt, so
that its trainers are never mistaken for those of another session of that name. Its rows are deleted
in many small transactions, between which all other writers have their turn. If the process ends
before that, the status shows which sessions are left.
"""

from typing import Any

from sqlalchemy import (
    Connection,
    LargeBinary,
    Select,
    String,
    Table,
    Text,
    and_,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)

from pacesetter_service.core.errors import (
    SessionHasForksError,
    SessionNotArchivedError,
    SessionNotFoundError,
    SessionPurgedError,
)
from pacesetter_service.store.record import HIDDEN, IMPORTING, PURGING
from pacesetter_service.store.schema import OF_A_SESSION, ancestors, labels, purged, ranks, sessions

ROWS = 2_000
"""How many rows with only numbers one slice removes: some milliseconds of work."""

LARGE_ROWS = 100
"""The same for rows with texts or blocks of values, of any length."""

FORKS_NAMED = 5
"""The most forks that are named when they prevent a purge."""


def refuse_unless_purgeable(connection: Connection, name: str) -> Any:  # noqa: ANN401 - a row
    """Return the id and the last attempt of a session that may be purged.

    Raises:
        SessionNotFoundError: There is none of that name.
        SessionPurgedError: It was purged: a caller that repeats a purge learns that it is done.
        SessionNotArchivedError: It is not archived.
        SessionHasForksError: Other sessions share its steps.
    """
    query = select(sessions.c.id, sessions.c.status, sessions.c.attempt)
    # Locked if there are other writers, so that none of them forks it meanwhile.
    there = query.where(sessions.c.name == name, sessions.c.status.not_in(HIDDEN))
    row = connection.execute(there.with_for_update()).one_or_none()
    if row is None:
        if (moment := purged_at(connection, name)) is not None:
            raise SessionPurgedError(name, moment)
        raise SessionNotFoundError(name)
    if row.status != "archived":
        raise SessionNotArchivedError(name)
    forks = [each.name for each in connection.execute(_forks_of(row.id))]
    if forks:
        raise SessionHasForksError(name, forks)
    return row


def hide(connection: Connection, name: str, actor: str, now: str) -> None:
    """Hide an archived session from all callers, and free its name.

    Raises as `refuse_unless_purgeable` does.
    """
    row = refuse_unless_purgeable(connection, name)
    hidden = {"name": f"*{row.id}", "status": PURGING, "version": sessions.c.version + 1}
    connection.execute(update(sessions).where(sessions.c.id == row.id).values(hidden))
    connection.execute(delete(labels).where(labels.c.session_id == row.id))
    connection.execute(delete(ranks).where(ranks.c.session == name))
    connection.execute(delete(purged).where(purged.c.name == name))
    gone = {"name": name, "attempt": row.attempt, "actor": actor, "purged_at": now}
    connection.execute(insert(purged), gone)


def _forks_of(session_id: int) -> Select[tuple[str]]:
    """Select the names of sessions that share a session's steps and are not being purged."""
    return (
        select(sessions.c.name)
        .join(ancestors, ancestors.c.session_id == sessions.c.id)
        .where(ancestors.c.ancestor_id == session_id, sessions.c.status != PURGING)
        .order_by(sessions.c.name)
        .limit(FORKS_NAMED)
    )


def hide_cut_off_imports(connection: Connection, before: str) -> None:
    """Mark unfinished imports that began before a time for removal."""
    cut_off = and_(sessions.c.status == IMPORTING, sessions.c.changed_at < before)
    connection.execute(update(sessions).where(cut_off).values(status=PURGING))


def hidden(connection: Connection) -> list[int]:
    """Return the ids of the sessions that are being removed."""
    return list(connection.scalars(select(sessions.c.id).where(sessions.c.status == PURGING)))


def remove_some(connection: Connection, session_id: int) -> bool:
    """Remove a slice of a hidden session's rows; return whether any may be left."""
    mine = and_(sessions.c.id == session_id, sessions.c.status == PURGING)
    # Locked if there are other writers, which remove other slices of it.
    if connection.execute(select(sessions.c.id).where(mine).with_for_update()).first() is None:
        return False
    for table in OF_A_SESSION:
        if _remove_first(connection, table, session_id):
            return True
    connection.execute(delete(sessions).where(mine))
    return False


def _remove_first(connection: Connection, table: Table, session_id: int) -> bool:
    """Remove a session's first rows of a table, by key; return whether there were any.

    The key of the last of them is looked up first. So the rows are found by the order of the keys
    alone, however many there are.
    """
    mine = table.c.session_id == session_id
    keys = [column for column in table.primary_key if column.name != "session_id"]
    large = any(isinstance(column.type, LargeBinary | Text) for column in table.columns)
    rows = LARGE_ROWS if large else ROWS
    first = select(*keys).where(mine).order_by(*keys)
    if connection.execute(first.limit(1)).first() is None:
        return False
    last = connection.execute(first.limit(1).offset(rows - 1)).first()
    upto = mine if last is None else and_(mine, tuple_(*keys) <= tuple_(*last))
    connection.execute(delete(table).where(upto))
    return True


def size_of(connection: Connection, session_id: int) -> int:
    """Return about how many bytes a session's rows take: its texts, and eight for each number."""
    total = 0
    for table in (*OF_A_SESSION, sessions):
        own = table.c.id if table is sessions else table.c.session_id
        texts = [c for c in table.columns if isinstance(c.type, LargeBinary | String)]
        numbers = _NUMBER_SIZE * (len(table.columns) - len(texts))
        lengths = [func.coalesce(func.sum(func.length(column)), 0) for column in texts]
        query = select(func.count(), *lengths).select_from(table).where(own == session_id)
        rows, *sums = connection.execute(query).one()
        total += rows * numbers + sum(sums)
    return int(total)


_NUMBER_SIZE = 8


def purged_at(connection: Connection, name: str) -> str | None:
    """Return when the last session of a name was purged; None if none was."""
    query = select(purged.c.purged_at).where(purged.c.name == name)
    return connection.execute(query).scalar_one_or_none()


def last_attempt(connection: Connection, name: str) -> int:
    """Return the number of the last purged attempt under a name; 0 if there is none."""
    query = select(func.coalesce(func.max(purged.c.attempt), 0)).where(purged.c.name == name)
    return int(connection.execute(query).scalar_one())
