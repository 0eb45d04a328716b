"""Which sessions a list has, in which order, and where its pages begin."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import (
    JSON,
    BindParameter,
    ColumnElement,
    Select,
    bindparam,
    cast,
    func,
    or_,
    select,
    tuple_,
)

from pacesetter_service.core.tokens import EVERYTHING, NameScope, expression_of
from pacesetter_service.store import record
from pacesetter_service.store.schema import labels, sessions

Sort = Literal["name", "-name", "created_at", "-created_at", "changed_at", "-changed_at"]
"""The column by which sessions are sorted; with `-`, in descending order."""

SORTS: tuple[Sort, ...] = get_args(Sort)

Fate = Literal["active", "finished", "failed", "archived"]
"""What a session's row alone tells: its status, or `failed` for a finished one that failed."""


class Place(NamedTuple):
    """Where a page begins: after the session with this key and this name."""

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Which sessions a list has, and in which order.

    Attributes:
        sort: The order; if keys are equal, the name decides.
        behind: Only those after this place; None for all.
        names: Only those that the caller may see.
        matching: Only those whose names match this pattern of `*` and `?`.
        labels: Only those that have all of these labels, by name and value.
        statuses: Only those of these statuses; empty for all.
        fates: Only those of these fates; empty for all.
        since: Only those that were written at this time or later; ISO 8601, UTC.
        heard: Those whose ranks have called since then, written or not.
        quiet_since: Only those that were not written since this time.
        ailing: Only those that an operator should look at by their record, and those of these
            names; None for all.
    """

    sort: Sort = "name"
    behind: Place | None = None
    names: NameScope = EVERYTHING
    matching: str | None = None
    labels: Sequence[tuple[str, str]] = ()
    statuses: Collection[str] = ()
    fates: Collection[Fate] = ()
    since: str | None = None
    heard: Collection[str] = ()
    quiet_since: str | None = None
    ailing: Collection[str] | None = None

    @property
    def column(self) -> str:
        """The column of `sessions` that it is sorted by."""
        return self.sort.removeprefix("-")


def listed_by(listing: Listing, dialect: str) -> Select[Any]:
    """Return the query for the rows of a list, in order, for a kind of database."""
    query = select(sessions).where(is_there, *_conditions(listing, dialect))
    key = [sessions.c[name] for name in dict.fromkeys((listing.column, "name"))]
    down = listing.sort.startswith("-")
    if listing.behind is not None:
        behind = listing.behind[-len(key) :]  # sorted by name, the key is only the name
        query = query.where(tuple_(*key) < behind if down else tuple_(*key) > behind)
    return query.order_by(*(each.desc() if down else each for each in key))


def _conditions(listing: Listing, dialect: str) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [labelled(*label) for label in listing.labels]
    if listing.statuses:
        found.append(sessions.c.status.in_(listing.statuses))
    if listing.fates:
        # Few sessions are ailing, and many have one status: do not search by the status's index.
        status = sessions.c.status if listing.ailing is None else sessions.c.status.concat("")
        found.append(or_(*(_of_fate(each, status) for each in listing.fates)))
    if listing.since is not None:
        heard = _among("heard", listing.heard, dialect)
        found.append((sessions.c.changed_at >= listing.since) | heard)
    if listing.ailing is not None:
        ailing = _among("ailing", listing.ailing, dialect)
        found.append((sessions.c.troubled == 1) | ailing)
    if listing.quiet_since is not None:
        found.append(sessions.c.changed_at < listing.quiet_since)
    # Expressions are costly in SQLite, so they come last.
    if listing.matching is not None:
        found.append(matches((listing.matching,), dialect))
    if listing.names.patterns:
        found.append(matches(listing.names.patterns, dialect))
    return found


def matches(patterns: tuple[str, ...], dialect: str) -> ColumnElement[bool]:
    """Select the sessions whose names match any of the patterns."""
    expression = expression_of(patterns, atomic=dialect != "postgresql")
    return sessions.c.name.regexp_match(expression)


def _among(what: str, names: Collection[str], dialect: str) -> ColumnElement[bool]:
    """Select the sessions with these names, which are one parameter however many there are."""
    said: BindParameter[str] = bindparam(what, json.dumps(sorted(names)))
    if dialect == "postgresql":
        return sessions.c.name.in_(select(func.json_array_elements_text(cast(said, JSON))))
    return sessions.c.name.in_(select(func.json_each(said).table_valued("value").c.value))


def _of_fate(fate: Fate, status: ColumnElement[str]) -> ColumnElement[bool]:
    has_failed = sessions.c.control.contains('"ended":["failed"')
    if fate == "failed":
        return (status == "finished") & has_failed
    if fate == "finished":
        return (status == "finished") & ~has_failed
    return status == fate


def labelled(name: str, value: str) -> ColumnElement[bool]:
    """Select the sessions that have a label with this value."""
    having = select(labels.c.session_id).where(labels.c.name == name, labels.c.value == value)
    return sessions.c.id.in_(having)


is_there = sessions.c.status.not_in(record.HIDDEN)
"""Whether callers see a session: imports do not exist yet, and purged ones no longer do."""
