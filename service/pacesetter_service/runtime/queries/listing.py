"""Pages of sessions: the database selects and sorts them; states that it lacks are judged here."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Generic, Protocol, TypeVar

from pacesetter_service.core.cost import Check
from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.core.status import SILENT_SECONDS, State
from pacesetter_service.core.tokens import EVERYTHING, NameScope
from pacesetter_service.runtime.pool import checked
from pacesetter_service.runtime.rank_digests import STALE_AFTER
from pacesetter_service.runtime.service import Service
from pacesetter_service.store.listing import SORTS, Fate, Listing, Place, Sort
from pacesetter_service.store.port import Stored

__all__ = ["EVERY_STATE", "SORTS", "Page", "Place", "Question", "Sort", "read_page"]

LOOKED_AT = 2_000
"""The most sessions that are read for one page if the database cannot tell their states."""

BATCH = 250
"""How many of them are read at a time, at least."""

EVERY_STATE: frozenset[State] = frozenset({"active", "silent", "finished", "failed", "archived"})

UNTOLD: frozenset[State] = frozenset({"active", "silent"})
"""States that the database cannot tell apart: it does not hear what trainers say."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which sessions are asked for, and which page of them.

    Attributes:
        limit: The most sessions.
        names: Only those that the caller may see.
        matching: Only those whose names match this pattern of `*` and `?`.
        labels: Only those with all of these labels and values.
        status: Only those of this status; None for all.
        states: Only those in one of these states.
        since: Only those that were written or have called since then; None for all.
        ailing: Only those that failed, or run and have a rank that deviates or is silent.
        sort: The order.
        behind: Where the page begins; None for the first one.
    """

    limit: int
    names: NameScope = EVERYTHING
    matching: str | None = None
    labels: Sequence[tuple[str, str]] = ()
    status: str | None = None
    states: Collection[State] = EVERY_STATE
    since: datetime | None = None
    ailing: bool = False
    sort: Sort = "name"
    behind: Place | None = None


class Judged(Protocol):
    """A view of a session that knows its state."""

    @property
    def state(self) -> State:
        """What has become of the session."""


J = TypeVar("J", bound=Judged)


@dataclass(frozen=True, slots=True)
class Page(Generic[J]):
    """Some sessions in order, and where the next page begins; None if this is the last.

    If states must be judged here, a page may have fewer sessions than were asked for, though there
    are more.
    """

    found: list[J]
    behind: Place | None


def read_page(
    service: Service,
    question: Question,
    judge: Callable[[list[Stored]], list[J]],
    check: Check,
) -> Page[J]:
    """Return a page of sessions, each as `judge` makes it; not for the event loop.

    Args:
        service: The service.
        question: Which sessions, and which page.
        judge: Makes views of sessions, in the same order.
        check: Is called between two sessions.

    Raises:
        StorageUnavailableError: The database did not answer.
    """
    listing = _listing(service, question)
    mixed = len(UNTOLD.intersection(question.states)) == 1
    size = max(BATCH, question.limit + 1) if mixed else question.limit + 1
    found: list[tuple[Stored, J]] = []
    looked_at = 0
    while len(found) <= question.limit:
        rows = list(checked(service.store.page(listing, size), check))
        judged = zip(rows, judge(rows), strict=True)
        found += [each for each in judged if each[1].state in question.states]
        looked_at += len(rows)
        if len(rows) < size or len(found) > question.limit:
            break
        listing = replace(listing, behind=_place(listing.column, rows[-1]))
        if looked_at >= LOOKED_AT:
            return Page([each for _, each in found], listing.behind)
    page = found[: question.limit]
    more = len(found) > question.limit
    behind = _place(listing.column, page[-1][0]) if more else None
    return Page([each for _, each in page], behind)


def _place(column: str, stored: Stored) -> Place:
    name = stored.session.spec.name
    return Place(name if column == "name" else getattr(stored, column), name)


def _listing(service: Service, question: Question) -> Listing:
    """Return the listing to ask the database for: it may have too many sessions, never too few."""
    states = set(question.states)
    fates: list[Fate] = [each for each in _FATES if each in states]
    if UNTOLD.intersection(states):
        fates.append("active")
    quiet = None
    if states == {"silent"}:
        quiet = _iso(datetime.now(UTC) - timedelta(seconds=SILENT_SECONDS))
    return Listing(
        sort=question.sort,
        behind=question.behind,
        names=question.names,
        matching=question.matching,
        labels=question.labels,
        statuses=() if question.status is None else (question.status,),
        fates=() if states == EVERY_STATE else fates,
        since=None if question.since is None else _iso(question.since),
        heard=() if question.since is None else _heard_since(service, question.since),
        quiet_since=quiet,
        ailing=_ailing(service) if question.ailing else None,
    )


_FATES: tuple[Fate, ...] = ("finished", "failed", "archived")


def _ailing(service: Service) -> list[str]:
    """Return the sessions with ranks that deviate or are silent, in any process."""
    names = set(service.tracker.in_trouble(STALE_AFTER))
    if service.store.ranks is not None:
        with suppress(StorageUnavailableError):  # what was heard here is better than nothing
            names.update(service.store.ranks.in_trouble(STALE_AFTER, service.tracker.recent))
    return sorted(names)


def _heard_since(service: Service, since: datetime) -> list[str]:
    seconds = (datetime.now(UTC) - since).total_seconds()
    names = set(service.tracker.heard_within(seconds))
    if service.store.ranks is not None:
        with suppress(StorageUnavailableError):  # what was heard here is better than nothing
            names.update(service.store.ranks.heard_within(seconds))
    return sorted(names)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
