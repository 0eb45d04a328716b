"""What a trainer does: it reports, asks for its window, and opens an attempt."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from pacesetter_service.core.commands import Command, Finish, Hold, Reading, Report, Resize, Seal
from pacesetter_service.core.decide import is_sealed, seal_end
from pacesetter_service.core.errors import (
    AnotherEpochError,
    ConflictError,
    HorizonRecededError,
    StaleAttemptError,
    StorageUnavailableError,
    once_reported,
)
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.session import Session
from pacesetter_service.runtime.applied import (
    Finding,
    compared,
    log_deviations,
    refuse_incomparable,
)
from pacesetter_service.runtime.ranks import NEVER
from pacesetter_service.runtime.service import Service, SessionInfo, info_of
from pacesetter_service.runtime.windows import Block, sealed_window
from pacesetter_service.runtime.work import Entry, Open


@dataclass(frozen=True, slots=True)
class AppliedValues:
    """The values that a rank's optimizer really used at a step, by series."""

    step: int
    values: Mapping[str, float]


class SyncCall(NamedTuple):
    """What a trainer, or a caller that only looks, says and asks for in one call.

    It is a tuple, as the answer is: a frozen dataclass of this size would take a tenth of the hot
    call's time.

    Attributes:
        session: The name of the session.
        rank: The rank that calls.
        attempt: The attempt that it trains in, if it says so.
        trains: Whether a trainer calls; other callers only look.
        readings: The metric values that it reports.
        newest: The last step that it reports on; `NEVER` if it reports nothing.
        batch_size: Samples in one step from the horizon on, if it says so.
        applied: The values that its optimizer really used, if it says so.
        wish: The steps whose values it asks for, if it asks for any.
        stands: The step that it trains now; `NEVER` if it does not say.
        pace: Seconds that a step takes it, if it says so.
        epoch: The epoch of the database in the last answer, if it says so.
        given: The step after the last one that it was given in this attempt.
        patience: For how many seconds the call may be held until its step can be sealed.
    """

    session: str
    rank: int
    attempt: int | None
    trains: bool
    readings: tuple[Reading, ...]
    newest: int
    batch_size: int | None
    applied: AppliedValues | None
    wish: Seal | None
    stands: int
    pace: float | None
    epoch: str | None
    given: int
    patience: float


class SyncAnswer(NamedTuple):
    """The window that a trainer asked for, and what it should know with it.

    Attributes:
        session: The session after the call.
        attempt: The attempt, under the number that the caller knows: a trainer keeps its own number
            after steps were taken back.
        epoch: The epoch of the database.
        notices: The notices that the trainer gets with the window.
        start: The first step of the window.
        block: Its values, a row for each series; None if the call asked for none.
    """

    session: Session
    attempt: int
    epoch: str
    notices: list[Notice]
    start: int = 0
    block: Block | None = None


async def open_attempt(
    service: Service,
    name: str,
    step: int,
    key: str,
    actor: str,
    *,
    drop_actions: bool,
    batch_size: int | None,
) -> tuple[SessionInfo, bool]:
    """Open an attempt, or join it by its key; return the session, and whether this call opened it.

    Args:
        service: The service.
        name: The session's name.
        step: The first step that is trained again.
        key: The key that all ranks of the restart share.
        actor: Who opens the attempt.
        drop_actions: Whether operators' orders for that step and later ones are dropped.
        batch_size: Samples in one step from now on, if the trainer says so.

    Raises:
        SessionNotFoundError: There is no session of that name.
        AttemptRefusedError: The attempt cannot be opened like this.
        SupersededAttemptError: A later attempt has taken over from that one.
        StepOutOfRangeError: The step lies beyond the horizon.
        BatchRefusedError: The session does not allow that batch size.
    """
    work = Open(name, step, key, actor, drop_actions, batch_size)
    outcome = await service.writer.submit(work)
    return info_of(service, outcome.entry.stored), outcome.created


async def finish(service: Service, name: str, command: Finish) -> SessionInfo:
    """Record that a training is over, and return its session; repeating the call changes nothing.

    Raises:
        SessionNotFoundError: There is no session of that name.
        SessionArchivedError: It is archived.
        StaleAttemptError: The attempt was superseded.
        StepOutOfRangeError: The step lies beyond the horizon.
    """
    entry = await service.held.change(name, command)
    return info_of(service, entry.stored)


async def sync(service: Service, call: SyncCall) -> SyncAnswer:
    """Record what a trainer reports, and return the window that it asks for.

    Raises:
        SessionNotFoundError: There is no session of that name.
        StaleAttemptError: The attempt was superseded.
        AnotherEpochError: The database may have lost steps that the caller was given.
        HorizonRecededError: It has lost such steps.
        AwaitingMeasurementError: The step needs a measurement that did not come in time.
        PacesetterError: Something that the call says or asks for was refused.
    """
    entry = service.writer.peek(call.session)
    if entry is None:
        entry = await _found(service, call)
    epoch = service.store.epoch
    _refuse_lost(entry, call, epoch)
    used = call.applied
    finding = None if used is None else await _compared(service, entry, call, used)
    end = 0 if call.wish is None else seal_end(entry.stored.session, call.wish)
    if not _changes(entry.stored.session, call, finding, end):
        return await _answered(service, call, epoch, finding, entry, end)
    recorded = await _recorded(service, entry, call, finding)
    # The end is known for the session as it was found.
    known = end if recorded is entry else None
    try:
        return await _answered(service, call, epoch, finding, recorded, known)
    except (ConflictError, StorageUnavailableError) as error:
        raise once_reported(error) from None


async def _answered(
    service: Service,
    call: SyncCall,
    epoch: str,
    finding: Finding | None,
    entry: Entry,
    end: int | None,
) -> SyncAnswer:
    """Return the window that a call asks for, of a session in which all that it says is recorded.

    Args:
        service: The service.
        call: The call.
        epoch: The epoch of the database.
        finding: The values that its caller's optimizer used, compared with the sealed ones.
        entry: The session.
        end: Where the window ends; None if that is not known for this state of the session.
    """
    _refuse_stale(entry, call)
    _track(service, entry, call, finding)
    wish = call.wish
    if wish is None:
        session = entry.stored.session
        notices = _told(session, finding, 0, 0)
        return SyncAnswer(session, call.attempt or session.attempt.number, epoch, notices)
    if wish.start >= entry.stored.session.horizon:
        entry = await service.held.until_sealed(entry, wish, call.patience)
        _refuse_stale(entry, call)  # others have gone on meanwhile, perhaps in another attempt
        _track(service, entry, call, None)  # again: time and revisions went by
        end = None
    session = entry.stored.session
    if end is None:
        end = min(seal_end(session, wish), session.horizon)
    notices = _told(session, finding, wish.start, end)
    if entry.tail.holds(wish.start, end):
        block = entry.tail.window(wish.start, end)
    else:
        block = await sealed_window(service.store, entry, wish.start, end)
    attempt = call.attempt or session.attempt.number
    return SyncAnswer(session, attempt, epoch, notices, wish.start, block)


async def _found(service: Service, call: SyncCall) -> Entry:
    """Return a session as it is, or as last seen here if that is enough for the call."""
    entry = service.writer.remembered(call.session)
    if entry is not None and _is_enough(entry.stored.session, call):
        return entry
    return await service.writer.find(call.session)


def _is_enough(seen: Session, call: SyncCall) -> bool:
    """Return whether a state that other processes may have changed since is enough for a call.

    Values that a trainer's own attempt has sealed and handed out never change, and the writer
    decides changes on the newest state. Everything else that is answered about a session must not
    be older than the call.
    """
    wish, known = call.wish, call.trains and call.attempt is not None
    if not known or call.applied is not None or call.batch_size is not None:
        return False
    if not seen.attempt.includes(call.attempt) or call.given > seen.horizon:
        return False
    if wish is None:
        return bool(call.readings)
    # A report takes the call to the writer, and with it the wish for the step at the horizon.
    return wish.start < seen.horizon + bool(call.readings)


def _refuse_lost(entry: Entry, call: SyncCall, epoch: str) -> None:
    """Refuse a caller that was given steps that are missing here, before others are sealed instead.

    Raises:
        AnotherEpochError: They may be missing.
        HorizonRecededError: They are missing.
    """
    session = entry.stored.session
    if call.epoch is not None and call.epoch != epoch:
        raise AnotherEpochError(call.epoch, epoch, session.horizon)
    given = call.given if call.attempt is not None else 0
    if given > session.horizon and session.attempt.includes(call.attempt):
        raise HorizonRecededError(given, session.horizon)


def _refuse_stale(entry: Entry, call: SyncCall) -> None:
    """Refuse a call for a superseded attempt, whose sealed steps may differ by now.

    Raises:
        StaleAttemptError: The attempt is not the running one.
    """
    session = entry.stored.session
    if call.attempt is not None and not session.attempt.includes(call.attempt):
        raise StaleAttemptError(call.attempt, session.attempt.number)


async def _compared(service: Service, entry: Entry, call: SyncCall, used: AppliedValues) -> Finding:
    """Compare the values that the caller's optimizer used with the sealed ones."""
    session = entry.stored.session
    refuse_incomparable(session, call.rank, call.attempt, used.step, used.values)
    block = await sealed_window(service.store, entry, used.step, used.step + 1)
    sealed = dict(zip(session.timelines, block[:, 0].tolist(), strict=True))
    return compared(session, call.rank, used.step, used.values, sealed)


def _changes(session: Session, call: SyncCall, finding: Finding | None, end: int) -> bool:
    """Return whether a call changes its session; steps that are sealed already need no writer.

    Args:
        session: The session.
        call: The call.
        finding: The values that its caller's optimizer used, compared with the sealed ones.
        end: Where the window that it asks for ends. Becoming held by a trainer is a change, too.
    """
    wish, used = call.wish, call.applied
    return (
        bool(call.readings)
        or (wish is not None and not is_sealed(session, wish, end))
        or (used is not None and used.step >= session.held)
        or (call.batch_size is not None and call.batch_size != session.control.batch_size)
        or (finding is not None and finding.command is not None)
    )


async def _recorded(
    service: Service, entry: Entry, call: SyncCall, finding: Finding | None
) -> Entry:
    """Record what is new in a call, through the writer, and return the session after it."""
    session, used = entry.stored.session, call.applied
    commands: list[Command] = [Report(call.readings, call.attempt)] if call.readings else []
    if call.batch_size is not None and call.batch_size != session.control.batch_size:
        commands.append(Resize(call.batch_size, call.attempt))
    if used is not None and used.step >= session.held:
        commands.append(Hold(used.step + 1, call.attempt))
    if finding is not None and finding.command is not None:
        commands.append(finding.command)  # before the sealing, so that its notice is in the window
    if call.wish is not None:
        commands.append(call.wish)
    changed = await service.held.change(call.session, *commands)
    if finding is not None:
        log_deviations(call.session, session.attempt.number, finding.new)
    return changed


def _track(service: Service, entry: Entry, call: SyncCall, finding: Finding | None) -> None:
    """Record a call of a rank in the tracker, unless its attempt never existed."""
    if not call.trains:
        return
    session, attempt = entry.stored.session, entry.stored.session.attempt.began_as
    deviating = session.control.watch.deviating.get(call.rank, ())
    if call.attempt is not None and not session.attempt.includes(call.attempt):
        attempt, deviating = call.attempt, ()
    if attempt > session.attempt.number:
        return
    service.tracker.record_call(
        call.session,
        call.rank,
        attempt,
        session.revision,
        NEVER if call.wish is None else call.wish.start,
        call.newest,
        None if finding is None else finding.comparison,
        deviating,
        call.stands,
        call.pace,
    )


def _told(session: Session, finding: Finding | None, start: int, end: int) -> list[Notice]:
    """Return the notices of the steps from `start` to `end`, and those of the call's finding.

    The finding is about the caller's own rank, so its answer has these, whatever steps it holds.
    """
    notices = [notice for notice in session.control.notices if start <= notice.step < end]
    if finding is None or not finding.notices:
        return notices
    messages = {notice.message for notice in notices}
    return notices + [
        replace(notice, step=min(max(notice.step, start), end - 1)) if end else notice
        for notice in finding.notices
        if notice.message not in messages
    ]
