"""A batch: the combined effect of several jobs, before it is committed."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from pacesetter_service.core.attempts import (
    AttemptRef,
    Lineage,
    attempt_of,
    branch,
    of_session,
    refuse_another_start,
    refuse_beyond_horizon,
    refuse_opening,
    restore,
    resumed,
    taken_back,
)
from pacesetter_service.core.commands import Command, Reading
from pacesetter_service.core.cost import REPLAY, refuse_costly_session, replay_cost
from pacesetter_service.core.decide import decide
from pacesetter_service.core.draft import Draft
from pacesetter_service.core.errors import (
    SessionExistsError,
    SessionNotFoundError,
    SessionPurgedError,
)
from pacesetter_service.core.events import (
    AttemptOpened,
    Awaited,
    Event,
    Forked,
    Held,
    Measured,
    MeasurementsClosed,
    Observed,
    RateAgreed,
    Reported,
    Sealed,
    TakenBack,
)
from pacesetter_service.core.forking import differing, factors, forked
from pacesetter_service.core.reach import untaken
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.status import refuse_if_archived
from pacesetter_service.runtime.tails import SealedTail
from pacesetter_service.runtime.work import (
    Change,
    Create,
    Entry,
    Find,
    Fork,
    Open,
    Outcome,
    TakeBack,
    Work,
)
from pacesetter_service.store.port import Changes, Store, Stored, first_version


class Batch:
    """The uncommitted states of a batch: what its jobs have decided so far."""

    def __init__(self, read: Callable[[str], Entry | None], store: Store) -> None:
        self.now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._read = read
        self._store = store
        self._entries: dict[str, Entry] = {}
        self._missing: set[str] = set()
        self._changes: dict[str, Changes] = {}

    def do(self, work: Work) -> Outcome:
        """Decide one job; a refusal leaves the batch as it was."""
        match work:
            case Find(name):
                return Outcome(self._entry(name))
            case Change(name, commands):
                return Outcome(self._change(self._entry(name), commands))
            case Create(spec, key):
                return self._create(spec, key)
            case Open():
                return self._open(self._entry(work.name), work)
            case Fork():
                return self._fork(self._entry(work.source), work)
            case TakeBack():
                return self._take_back(self._entry(work.name), work)

    def changes(self) -> list[Changes]:
        """Return the changes to be written."""
        return list(self._changes.values())

    def unchanged(self) -> dict[str, int]:
        """Return the versions of the sessions that were only read; 0 for a name without a session.

        The answers and refusals that rest on them hold as long as these versions are current.
        """
        seen = dict.fromkeys(self._missing, 0)
        seen |= {name: entry.stored.version for name, entry in self._entries.items()}
        return {name: version for name, version in seen.items() if name not in self._changes}

    def entries(self) -> list[Entry]:
        """Return every session that the batch touched, in its newest state."""
        return list(self._entries.values())

    def _entry(self, name: str) -> Entry:
        entry = self._entries.get(name) or self._read(name)
        if entry is None:
            self._missing.add(name)
            if (purged_at := self._store.purged_at(name)) is not None:
                raise SessionPurgedError(name, purged_at)
            raise SessionNotFoundError(name)
        self._entries[name] = entry
        return entry

    def _create(self, spec: SessionSpec, key: str) -> Outcome:
        return self._found(spec) or self._begin(create(spec, key), ())

    def _found(self, spec: SessionSpec) -> Outcome | None:
        """Return the session of a spec if it exists; refuse if another one has taken its name."""
        with suppress(SessionNotFoundError):
            entry = self._entry(spec.name)
            known = entry.stored.session.spec
            # Labels may have been changed since, and do not make it another training.
            if known.model_copy(update={"labels": spec.labels}) != spec:
                raise SessionExistsError(spec.name)
            return Outcome(entry)
        return None

    def _begin(self, session: Session, past: Lineage) -> Outcome:
        """Begin a session, whose earlier steps were trained in the attempts of `past`.

        Raises:
            TooCostlyError: Sealing it would make all other callers wait.
        """
        refuse_costly_session(session)
        session = self._numbered(session)
        session_id = self._store.new_id()
        lineage = branch(past, AttemptRef(session_id, session.attempt.number, session.horizon))
        version = first_version(session_id)
        stored = Stored(session_id, session, 0, self.now, lineage, version, self.now)
        entry = Entry(stored, SealedTail.empty(session.horizon, len(session.timelines)))
        self._entries[session.spec.name] = entry
        self._changes[session.spec.name] = Changes(stored)
        return Outcome(entry, created=True)

    def _numbered(self, session: Session) -> Session:
        """Return a session with a number for its attempt that was never used under its name."""
        attempt, least = session.attempt, self._store.first_attempt(session.spec.name)
        if attempt.number >= least:
            return session
        return replace(session, attempt=replace(attempt, number=least))

    def _open(self, entry: Entry, work: Open) -> Outcome:
        stored, session = entry.stored, entry.stored.session
        if work.key == session.attempt.key:
            refuse_another_start(session, work.step, work.batch_size)
            return Outcome(entry)
        known = self._store.knows_attempt(stored.id, work.key)
        refuse_opening(session, work.step, work.key, known=known)
        past = self._store.past(session.spec, stored.lineage, work.step)
        keep = () if work.drop_actions else (*past.later, *session.orders.waiting)
        opened = resumed(
            session, restore(past, work.step), keep=keep, key=work.key, batch=work.batch_size
        )
        opened = self._numbered(opened)
        event = AttemptOpened(
            opened.attempt.number,
            work.step,
            work.key,
            work.actor,
            tuple(order.id for order in opened.orders.waiting),
        )
        return self._go_on_in(entry, opened, event, *past.repeated)

    def _take_back(self, entry: Entry, work: TakeBack) -> Outcome:
        stored, session = entry.stored, entry.stored.session
        refuse_if_archived(session)
        step = untaken(session)
        past = self._store.past(session.spec, stored.lineage, step)
        orders = (*past.later, *session.orders.waiting)
        opened = self._numbered(taken_back(session, restore(past, step), orders))
        event = TakenBack(
            opened.attempt.number,
            step,
            session.horizon,
            work.actor,
            work.reason,
            tuple(order.id for order in opened.orders.waiting),
        )
        return self._go_on_in(entry, opened, event, *past.repeated)

    def _go_on_in(
        self, entry: Entry, opened: Session, event: AttemptOpened | TakenBack, *again: Event
    ) -> Outcome:
        """Switch to an attempt that trains the steps from the event's step on again."""
        stored, name = entry.stored, opened.spec.name
        ref = AttemptRef(stored.id, opened.attempt.number, event.at)
        following = replace(stored, session=opened, lineage=branch(stored.lineage, ref))
        fresh = Entry(following, SealedTail.empty(event.at, len(opened.timelines)))
        self._changes[name] = Changes(following, before=stored, opened=event)
        self._record(fresh, following, opened, [event, *again])
        return Outcome(self._entries[name], created=True, horizon_before=stored.session.horizon)

    def _fork(self, source: Entry, work: Fork) -> Outcome:
        stored, session = source.stored, source.stored.session
        found = self._found(work.spec)
        if found is not None:
            return found
        refuse_beyond_horizon(session, work.step)
        past = self._store.past(session.spec, stored.lineage, work.step)
        branch = forked(restore(past, work.step), work.spec, work.key)
        self._begin(branch, stored.lineage)
        entry = self._entries[work.spec.name]
        differs = differing(session.spec, work.spec)
        kept = factors(branch) if differs else {}
        event = Forked(
            session.spec.name, session.attempt.number, work.step, work.actor, differs, kept
        )
        # A fork with its own description begins with its own law, which nothing has changed yet.
        again = () if differs else past.repeated
        self._record(entry, entry.stored, entry.stored.session, [event, *again])
        return Outcome(self._entries[work.spec.name], created=True)

    def _change(self, entry: Entry, commands: Sequence[Command]) -> Entry:
        draft = Draft(entry.stored.session)
        for command in commands:
            draft.follow(decide(draft.after, command))
        return self._record(entry, entry.stored, draft.after, draft.events)

    def _record(
        self, before: Entry, stored: Stored, after: Session, events: Sequence[Event]
    ) -> Entry:
        """Add events, and the session after them, to what will be written."""
        if not events:
            return before
        name, attempt = after.spec.name, after.attempt.number
        changes = self._changes.setdefault(name, Changes(before.stored, before=before.stored))
        tail, logged = before.tail, len(changes.log)
        for event in events:
            match event:
                case Reported(readings=readings):
                    changes.readings += _filed(stored, readings)
                case Measured():
                    changes.measured.append((attempt, event))
                case Sealed():
                    changes.sealed.append(event)
                    tail = tail.extended(event.block(after.timelines))
                case Observed() | MeasurementsClosed() | Held() | RateAgreed() | Awaited():
                    pass  # what they change is in the state
                case _:
                    changes.log.append(event)
        count = stored.events + len(changes.log) - logged
        replay = _due_snapshot(changes, before, events)
        changes.stored = self._moved(changes.before, stored, after, count)
        self._entries[name] = Entry(changes.stored, tail, replay)
        return self._entries[name]

    def _moved(self, before: Stored | None, stored: Stored, after: Session, events: int) -> Stored:
        """Return a session as its row will be; a reading that nothing waits for leaves it as is."""
        if before is None:
            return replace(stored, session=after, events=events)
        if after is before.session and events == before.events:
            return stored
        version = before.version + 1
        return replace(stored, session=after, events=events, version=version, changed_at=self.now)


def _filed(stored: Stored, readings: Sequence[Reading]) -> list[tuple[int, Reading]]:
    """Return readings, each with the attempt in which its step was trained.

    That need not be the newest attempt: trainers that it carries also report on steps before it.
    """
    own = of_session(stored.lineage, stored.id)
    if len(own) == 1:
        return [(own[0].attempt, each) for each in readings]
    return [(attempt_of(own, each.step).attempt, each) for each in readings]


def _due_snapshot(changes: Changes, before: Entry, events: Sequence[Event]) -> float:
    """Mark a snapshot for writing if one is due; return the cost of replaying what follows it.

    A snapshot is the state right after a sealing. It must not contain facts of the same horizon,
    because those are replayed on top of it.
    """
    cost = replay_cost(before.stored.session.spec, events)
    if not cost:
        return before.replay
    # A snapshot that an earlier job of the batch made due is written with the state after this job.
    replay = REPLAY if changes.snapshot else before.replay + cost
    changes.snapshot = isinstance(events[-1], Sealed) and replay >= REPLAY
    return 0.0 if changes.snapshot else replay
