"""A batch: what several jobs lead to together, before it is committed."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

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
    """States on the way: what a batch's jobs have decided so far, visible to it alone."""

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
        """Return what is to be written."""
        return list(self._changes.values())

    def unchanged(self) -> dict[str, int]:
        """Return the versions of the sessions that were only looked at; 0 for none of that name.

        What was answered or refused for them holds as long as they are what they were.
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
        """Return the session of a spec if there is one; its name may be taken by another one."""
        with suppress(SessionNotFoundError):
            entry = self._entry(spec.name)
            known = entry.stored.session.spec
            # Labels may have been changed since, and make no other training of it.
            if known.model_copy(update={"labels": spec.labels}) != spec:
                raise SessionExistsError(spec.name)
            return Outcome(entry)
        return None

    def _begin(self, session: Session, past: Lineage) -> Outcome:
        """Begin a session, after the attempts that its past was trained in.

        Raises:
            TooCostlyError: Sealing it would keep all others waiting.
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
        """Return a session whose new attempt has a number that none of its name has had."""
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
        """Go over to an attempt that trains the steps from the event's on anew."""
        stored, name = entry.stored, opened.spec.name
        ref = AttemptRef(stored.id, opened.attempt.number, event.at)
        following = replace(stored, session=opened, lineage=branch(stored.lineage, ref))
        fresh = Entry(following, SealedTail.empty(event.at, len(opened.timelines)))
        self._changes[name] = Changes(following, before=stored, opened=event)
        self._record(fresh, following, [event, *again])
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
        # A fork that is described anew begins with a law of its own, which nothing has changed yet.
        again = () if differs else past.repeated
        self._record(entry, entry.stored, [event, *again])
        return Outcome(self._entries[work.spec.name], created=True)

    def _change(self, entry: Entry, commands: Sequence[Command]) -> Entry:
        draft = Draft(entry.stored.session)
        for command in commands:
            draft.follow(decide(draft.after, command))
        stored = entry.stored
        if draft.after is not stored.session:  # of readings that nothing waits for it is the same
            stored = replace(stored, session=draft.after)
        return self._record(entry, stored, draft.events)

    def _record(self, before: Entry, after: Stored, events: Sequence[Event]) -> Entry:
        if not events:
            return before
        name, attempt = after.session.spec.name, after.session.attempt.number
        changes = self._changes.setdefault(name, Changes(before.stored, before=before.stored))
        tail = before.tail
        for event in events:
            match event:
                case Reported(readings=readings):
                    changes.readings += _filed(after, readings)
                case Measured():
                    changes.measured.append((attempt, event))
                case Sealed(values=values):
                    changes.sealed.append(event)
                    block = np.stack([values[name] for name in after.session.timelines])
                    tail = tail.extended(block)
                case Observed() | MeasurementsClosed() | Held() | RateAgreed() | Awaited():
                    pass  # what they change stands in the state
                case _:
                    changes.log.append(event)
                    after = replace(after, events=after.events + 1)
        replay = _due_snapshot(changes, before, events)
        changes.stored = after
        if changes.before is not None and changes.is_of_state:
            version = changes.before.version + 1
            changes.stored = after = replace(after, version=version, changed_at=self.now)
        self._entries[name] = Entry(after, tail, replay)
        return self._entries[name]


def _filed(stored: Stored, readings: Sequence[Reading]) -> list[tuple[int, Reading]]:
    """Return readings, each with the attempt in which its step was trained.

    That need not be the newest: trainers that it carries report on steps from before it, too.
    """
    own = of_session(stored.lineage, stored.id)
    if len(own) == 1:
        return [(own[0].attempt, each) for each in readings]
    return [(attempt_of(own, each.step).attempt, each) for each in readings]


def _due_snapshot(changes: Changes, before: Entry, events: Sequence[Event]) -> float:
    """Write a snapshot if it is time; return what replaying what comes after it costs.

    It is of the state behind a sealing: facts of the same horizon must not stand in it, for they
    are replayed from there on.
    """
    cost = replay_cost(before.stored.session.spec, events)
    if not cost:
        return before.replay
    # One that an earlier job of the batch was due is written with the state behind this one.
    replay = REPLAY if changes.snapshot else before.replay + cost
    changes.snapshot = isinstance(events[-1], Sealed) and replay >= REPLAY
    return 0.0 if changes.snapshot else replay
