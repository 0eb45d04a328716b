"""Old sessions are put away: archived first, and removed for good after some time in the archive.

Nothing happens to a session that has gone on since it was examined. Several processes may do this
on one database: each step is one small transaction, and steps that another process has done are
skipped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from pacesetter_service.core.commands import Archive
from pacesetter_service.core.cost import Check
from pacesetter_service.core.errors import (
    NOTHING_KEPT,
    ConflictError,
    PacesetterError,
    SessionArchivedError,
    SessionHasForksError,
    SessionNotArchivedError,
    SessionNotFoundError,
)
from pacesetter_service.core.status import State
from pacesetter_service.runtime.operator import purge_session, rehearse_purge
from pacesetter_service.runtime.pool import checked
from pacesetter_service.runtime.ranks import wall_clock
from pacesetter_service.runtime.service import Service, infos_of
from pacesetter_service.runtime.work import Change
from pacesetter_service.store.port import Stored

log = structlog.get_logger("pacesetter.retention")

DAY = 86_400.0

EVERY = 3_600.0
"""Seconds between two searches for sessions that the settings put away.

The first search comes this long after the start: trainings that an outage has kept from calling get
the time to call before they count as silent.
"""

OVER: tuple[State, ...] = ("finished", "failed", "silent")
"""The states that the settings archive: a training that has not begun yet may still begin."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which sessions are put away.

    Attributes:
        seconds: For how long nothing was written to them.
        states: The states that they are in.
        labels: Labels that they all have.
        purges: Whether archived ones are removed for good; otherwise they stay as they are.
    """

    seconds: float
    states: Sequence[State]
    labels: Mapping[str, str]
    purges: bool

    @property
    def statuses(self) -> set[str]:
        """The statuses of the sessions that it applies to: others take no place on a page."""
        found = {_STATUS_IN[state] for state in self.states}
        return found if self.purges else found - {"archived"}


_STATUS_IN: Mapping[State, str] = {
    "active": "active",
    "silent": "active",
    "finished": "finished",
    "failed": "finished",
    "archived": "archived",
}
"""The status that the database has for a session in each state."""


@dataclass(frozen=True, slots=True)
class PutAway:
    """A session that was, or would be, put away.

    Attributes:
        name: Its name.
        state: Its state before.
        changed_at: When it was last written to; ISO 8601, UTC.
        step: What was, or would be, done: `archive`, `purge` or `keep`.
        size: About how many bytes its rows take.
        reason: Why it is kept; empty otherwise.
    """

    name: str
    state: State
    changed_at: str
    step: Literal["archive", "purge", "keep"]
    size: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Pruned:
    """A page of sessions that were put away, and where the next begins; None if it is the last."""

    sessions: list[PutAway]
    next_below: int | None


async def prune(
    service: Service,
    policy: Policy,
    actor: str,
    *,
    dry_run: bool,
    below: int | None,
    limit: int,
    ended: Callable[[], bool] = lambda: False,
) -> Pruned:
    """Put a page of sessions away, forks before the sessions that they were forked from.

    If this fails after some were put away, the page ends there, with the one that could not be.

    Args:
        service: The service.
        policy: Which sessions.
        actor: Who puts them away.
        dry_run: Only report what would be done.
        below: Where the previous page ended.
        limit: How many sessions are examined.
        ended: Returns whether to leave the rest of the page as it is.

    Raises:
        BusyError: Too many costly answers are being prepared already.
        PacesetterError: The first session could not be put away, and none was.
    """
    before = wall_clock(policy.seconds)

    def looked(check: Check) -> tuple[list[tuple[Stored, State, int]], int | None]:
        page = service.store.aged(
            before=before,
            statuses=policy.statuses,
            labels_too=policy.labels,
            below=below,
            limit=limit,
        )
        some = list(checked(page, check))
        states = [each.state for each in infos_of(service, some)]
        found = [
            (stored, state, service.store.size_of(stored.id))
            for stored, state in checked(zip(some, states, strict=True), check)
            if state in policy.states
        ]
        return found, some[-1].id if len(some) == limit else None

    found, last = await service.reads.run(looked)
    done = list[PutAway]()
    for stored, state, size in found:
        if ended():
            break
        try:
            done.append(await _put_away(service, stored, state, size, actor, dry_run=dry_run))
        except PacesetterError as error:
            if dry_run or all(each.step == "keep" for each in done):
                raise  # nothing was put away yet
            log.warning("put_away_failed", session=stored.session.spec.name, reason=str(error))
            return Pruned([*done, _kept(stored, state, size, error)], stored.id)
    return Pruned(done, last)


async def keep_settings(
    service: Service,
    archive_after: float | None,
    purge_after: float | None,
    ended: Callable[[], bool],
) -> None:
    """Put away sessions that are older than the settings keep, in days.

    Args:
        service: The service.
        archive_after: Days after which a session that is over is archived; None for never.
        purge_after: Days after which an archived session is purged; None for never.
        ended: Returns whether the service stops; it is called before each session.
    """
    policies = []
    if purge_after is not None:  # first: it makes room on a full disk, which accepts no other write
        policies.append(Policy(purge_after * DAY, ("archived",), {}, purges=True))
    if archive_after is not None:
        policies.append(Policy(archive_after * DAY, OVER, {}, purges=False))
    for policy in policies:
        below: int | None = None
        while not ended():
            page = await prune(
                service, policy, "retention", dry_run=False, below=below, limit=100, ended=ended
            )
            below = page.next_below
            if below is None:
                break


async def _put_away(
    service: Service, stored: Stored, state: State, size: int, actor: str, *, dry_run: bool
) -> PutAway:
    session = stored.session
    name, seen = session.spec.name, (session.attempt.number, session.horizon)
    step: Literal["archive", "purge"] = "purge" if state == "archived" else "archive"
    try:
        if step == "archive" and not dry_run:
            left = (await service.writer.submit(Change(name, (Archive(seen),)))).entry.stored
            if left.session.status != "archived":
                kept_for = "it has gone on meanwhile"
                return PutAway(name, state, left.changed_at, "keep", size, kept_for)
        elif step == "purge":
            await (
                rehearse_purge(service, name) if dry_run else purge_session(service, name, actor)
            )
    except (
        ConflictError,
        SessionArchivedError,
        SessionHasForksError,
        SessionNotArchivedError,
        SessionNotFoundError,
    ) as refused:
        return _kept(stored, state, size, refused)
    if not dry_run:
        log.info("put_away", session=name, step=step, state=state, bytes=size, by=actor)
    return PutAway(name, state, stored.changed_at, step, size)


def _kept(stored: Stored, state: State, size: int, error: PacesetterError) -> PutAway:
    """Return a session that is kept because of an error, which is not about all of the call."""
    reason = str(error).replace(NOTHING_KEPT, "this session is as it was")
    return PutAway(stored.session.spec.name, state, stored.changed_at, "keep", size, reason)
