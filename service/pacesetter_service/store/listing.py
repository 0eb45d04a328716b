"""Which sessions a list is of, in which order, and where one of its pages begins."""

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
"""By what sessions are sorted; with `-` the other way round."""

SORTS: tuple[Sort, ...] = get_args(Sort)

Fate = Literal["active", "finished", "failed", "archived"]
"""What can be said of a session by its row alone: its status, or `failed` of a finished one."""


class Place(NamedTuple):
    """Where a page begins: behind the session that has this key, and this name."""

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Which sessions a list is of, and in which order.

    Attributes:
        sort: The order; of equal keys the name decides.
        behind: Only those that come behind this place; None for all.
        names: Only those that the caller may speak of.
        matching: Only those that match this pattern, in which `*` and `?` stand for others.
        labels: Only those that have all of these labels, by name and value.
        statuses: Only those of these statuses; none of them for all.
        fates: Likewise.
        since: Only those that were written at this time or later; ISO 8601, UTC.
        heard: Those that were heard of since then, written or not.
        quiet_since: Only those that were not written since this time.
        ailing: Only those that an operator is to look at by their record, and those of these names;
            None for all.
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
    """Return the query for the rows of a list, in its order, for a kind of database."""
    query = select(sessions).where(is_there, *_conditions(listing, dialect))
    key = [sessions.c[name] for name in dict.fromkeys((listing.column, "name"))]
    down = listing.sort.startswith("-")
    if listing.behind is not None:
        behind = listing.behind[-len(key) :]  # by name alone the key is the name
        query = query.where(tuple_(*key) < behind if down else tuple_(*key) > behind)
    return query.order_by(*(each.desc() if down else each for each in key))


def _conditions(listing: Listing, dialect: str) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [labelled(*label) for label in listing.labels]
    if listing.statuses:
        found.append(sessions.c.status.in_(listing.statuses))
    if listing.fates:
        # Few are ailing, and many of one status: its index is not what finds them.
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
    """Select the sessions whose names match one of some patterns."""
    expression = expression_of(patterns, atomic=dialect != "postgresql")
    return sessions.c.name.regexp_match(expression)


def _among(what: str, names: Collection[str], dialect: str) -> ColumnElement[bool]:
    """Select the sessions of these names, in one parameter however many there are."""
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
"""What is being imported is not there yet; what is being removed is not there any more."""
