"""Reading in SQL: what was sealed, reported, decided and published, from any thread."""

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Executable,
    Select,
    func,
    select,
    tuple_,
)

from pacesetter_service.catalogue.templates import Published
from pacesetter_service.core.attempts import (
    AttemptRef,
    Lineage,
    RestorePoint,
    Span,
    spans,
)
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.events import load_event
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.insight.explain import Recorded
from pacesetter_service.insight.history import Track, merged
from pacesetter_service.store import codec, feed, moments, newest, purging, record
from pacesetter_service.store.block_table import MEASUREMENTS, READINGS
from pacesetter_service.store.feed import FeedPage, Wanted
from pacesetter_service.store.listing import Listing, is_there, labelled, listed_by
from pacesetter_service.store.moments import HandedOut
from pacesetter_service.store.newest import Newest, SealedStep
from pacesetter_service.store.port import Stored
from pacesetter_service.store.replay import readings_between, readings_in, restore_point
from pacesetter_service.store.schema import (
    ancestors,
    attempts,
    events,
    sealed,
    sessions,
    templates,
)
from pacesetter_service.store.writing import (
    translated,
)

MAX_MOMENTS = 2
"""The most simultaneous snapshots; the other connections stay free for quick reads."""

Blocks = NDArray[np.float64]

PAGE = 50
"""How many events are read at a time if it is not known how many are wanted."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt, as the database has it: it ends where the next one begins.

    Attributes:
        attempt: Its number, from 1.
        start: Its first step.
        key: The key that all its ranks share.
        lineage: The attempts that its steps were trained in.
        actor: Who opened it.
        created_at: When it was opened; ISO 8601, in UTC.
    """

    attempt: int
    start: int
    key: str
    lineage: Lineage
    actor: str
    created_at: str


class Reads:
    """The readers' half of a store; callable from any thread."""

    def __init__(self, reader: Engine) -> None:
        self._reader = reader
        self._moments = threading.BoundedSemaphore(MAX_MOMENTS)

    def sealed_between(self, lineage: Lineage, width: int, start: int, end: int) -> Blocks:
        """Read sealed values of `width` series; float64, shape (width, end - start)."""
        pieces = [self._sealed(each, width) for each in spans(lineage, start, end)]
        return np.concatenate(pieces, axis=1)

    def _sealed(self, span: Span, width: int) -> Blocks:
        ref, start, end = span
        mine = (sealed.c.session_id == ref.session_id) & (sealed.c.attempt == ref.attempt)
        first = select(func.max(sealed.c.start)).where(mine, sealed.c.start <= start)
        query = (
            select(sealed.c.start, sealed.c["values"])
            .where(mine, sealed.c.start >= first.scalar_subquery(), sealed.c.start < end)
            .order_by(sealed.c.start)
        )
        rows = self._read(query)
        blocks = [np.frombuffer(row.values, "<f8").reshape(width, -1) for row in rows]
        values = np.concatenate(blocks, axis=1)
        begin = start - int(rows[0].start)
        return values[:, begin : begin + end - start]

    def statuses(self, most: int) -> dict[str, int]:
        """Count sessions by status, at most `most` of them."""
        some = select(sessions.c.status).where(is_there).limit(most).subquery()
        query = select(some.c.status, func.count()).group_by(some.c.status)
        return {str(status): int(count) for status, count in self._read(query)}

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Return a connection whose reads all see one moment.

        While it is held, the database's log can only grow: do not hold it while a caller reads.
        """
        with self._moments, translated(), self._reader.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection

    def sealed_end(self, ref: AttemptRef) -> int:
        """Return the first step that an attempt has not sealed."""
        query = (
            select(sealed.c.start + sealed.c.count)
            .where(sealed.c.session_id == ref.session_id, sealed.c.attempt == ref.attempt)
            .order_by(sealed.c.start.desc())
            .limit(1)
        )
        return next((int(row[0]) for row in self._read(query)), ref.start)

    def metrics_of(self, lineage: Lineage) -> list[str]:
        """Return the names of the metrics that were reported to a lineage's sessions."""
        with translated(), self._reader.connect() as connection:
            return list(record.metrics_of(connection, {ref.session_id for ref in lineage}))

    def readings_between(
        self, lineage: Lineage, metric: str, start: int, end: int
    ) -> list[Reading]:
        """Read a metric's readings of the steps `start` to `end`, by step and rank."""
        return readings_between(self._read, lineage, metric, start, end)

    def reported_between(self, lineage: Lineage, metric: str, start: int, end: int) -> Track:
        """Read what rank 0 reported of a metric at the steps `start` to `end`.

        A fork may have late reports on steps before its own.
        """
        found = []
        for ref, _, until in spans(lineage, start):
            every = READINGS.between(self._read, ref, metric, start, min(until, end))
            mine = every[every.beside[0] == 0]
            found.append(Track(mine.steps, mine.values))
        return merged(found)

    def measurements_between(self, lineage: Lineage, metric: str, start: int, end: int) -> Track:
        """Read what controllers saw of a metric at the steps `start` to `end`.

        They may have seen it in a later attempt, but not in one that was over by then.
        """
        found = []
        for ref, _, until in spans(lineage, start):
            every = MEASUREMENTS.between(self._read, ref, metric, start, end)
            mine = every[every.beside[1] <= until]
            found.append(Track(mine.steps, mine.values))
        return merged(found)

    def aged(
        self,
        *,
        before: str,
        statuses: Collection[str],
        labels_too: Mapping[str, str],
        below: int | None,
        limit: int,
    ) -> Iterator[Stored]:
        """Read sessions that were not written since a time, youngest first, one by one.

        So forks come before the sessions that they were forked from.

        Args:
            before: The time; ISO 8601, UTC.
            statuses: Only those of these statuses.
            labels_too: Labels that they all have.
            below: Only those with smaller ids.
            limit: The most sessions.
        """
        mine = sessions.c.status.in_(statuses)
        query = select(sessions).where(sessions.c.changed_at < before, mine)
        if below is not None:
            query = query.where(sessions.c.id < below)
        for label in labels_too.items():
            query = query.where(labelled(*label))
        return map(stored_in, self._read(query.order_by(sessions.c.id.desc()).limit(limit)))

    def size_of(self, session_id: int) -> int:
        """Return about how many bytes the rows of a session take."""
        with translated(), self._reader.connect() as connection:
            return purging.size_of(connection, session_id)

    def has_hidden(self) -> bool:
        """Return whether a session is being removed."""
        query = select(sessions.c.id).where(sessions.c.status == record.PURGING).limit(1)
        return bool(self._read(query))

    def first_attempt_of(self, stored: Stored) -> int:
        """Return the number of the attempt that a session began with.

        It is above 1 if a session of the same name was purged before. For sessions that are older
        than the attempts table, it is 1.
        """
        first = select(func.min(attempts.c.attempt)).where(attempts.c.session_id == stored.id)
        [[found]] = self._read(first)
        return found or 1

    def attempts_of(self, stored: Stored) -> list[Attempt]:
        """Read the attempts of a session, in order."""
        columns = [attempts.c[each.name] for each in fields(Attempt)]
        query = select(*columns).where(attempts.c.session_id == stored.id)
        return [
            Attempt(**{**row._asdict(), "lineage": codec.load_lineage(row.lineage)})
            for row in self._read(query.order_by(attempts.c.attempt))
        ]

    def page(self, listing: Listing, limit: int) -> Iterator[Stored]:
        """Read up to `limit` sessions of a list, in order, one by one.

        Their pending readings are left out.
        """
        query = listed_by(listing, self._reader.dialect.name)
        return map(stored_in, self._read(query.limit(limit)))

    def kin(self, stored: Stored, most: int) -> list[Stored]:
        """Read sessions that share steps with one, such as its forks, newest first."""
        own = {ref.session_id for ref in stored.lineage}
        sharing = select(ancestors.c.session_id).where(ancestors.c.ancestor_id.in_(own))
        related = sessions.c.id.in_(sharing) | sessions.c.id.in_(own)
        return self._newest(related & (sessions.c.id != stored.id), most)

    def of_template(self, reference: str, most: int) -> list[Stored]:
        """Read sessions that were made from a version of a template.

        Forks whose own description has no template count if their parent was made from it. Sessions
        that are over come first, however many are running, and of these the newest.
        """
        running = sessions.c.status == "active"
        return self._newest(sessions.c.template == reference, most, running)

    def _newest(
        self, condition: ColumnElement[bool], most: int, *order: ColumnElement[Any]
    ) -> list[Stored]:
        query = select(sessions).where(is_there, condition)
        newest_first = query.order_by(*order, sessions.c.changed_at.desc()).limit(most)
        return [stored_in(row) for row in self._read(newest_first)]

    def newest_of(
        self, lineages: Mapping[Lineage, int], most: int
    ) -> dict[Lineage, dict[str, Newest]]:
        """Read the newest values of each metric of many sessions.

        Args:
            lineages: The attempts that each was trained in, and for how many steps before the last
                one all reports of ranks are wanted too.
            most: The most metrics of a session.
        """
        with translated(), self._reader.connect() as connection:
            return newest.newest_of(connection, lineages, most)

    def sealed_at(self, wanted: Sequence[SealedStep]) -> list[NDArray[np.float64] | None]:
        """Read the values of many steps, one for each series; None if a step is not sealed."""
        with translated(), self._reader.connect() as connection:
            return newest.sealed_at(connection, wanted)

    def handed_out(self, ref: AttemptRef, steps: Sequence[int]) -> list[HandedOut]:
        """Read when the windows that hold some steps of an attempt were handed out."""
        with translated(), self._reader.connect() as connection:
            return moments.handed_out(connection, ref, steps)

    def feed_page(self, wanted: Wanted, behind: int, limit: int) -> FeedPage:
        """Read up to `limit` events of all sessions after a position, in order."""
        with translated(), self._reader.connect() as connection:
            return feed.page_of(connection, wanted, behind, limit)

    def newest_position(self) -> int:
        """Return the position of the newest event of all sessions; 0 if there was none."""
        with translated(), self._reader.connect() as connection:
            return feed.newest_position(connection)

    def readings_of(self, lineage: Lineage, names: Iterable[str] | None = None) -> list[Reading]:
        """Read all readings of a lineage, or those of some metrics, by metric, step and rank."""
        found = [
            reading
            for ref, _, end in spans(lineage)
            for metric, columns in READINGS.all_between(self._read, ref, names, 0, end).items()
            for reading in readings_in(metric, columns)
        ]
        return sorted(found, key=lambda each: (each.metric, each.step, each.rank))

    def events_after(
        self, stored: Stored, seq: int, *, limit: int, kinds: Sequence[str] = ()
    ) -> list[Recorded]:
        """Read up to `limit` events with numbers above `seq`, in order."""
        query = _events_of(stored, kinds).where(events.c.seq >= seq).order_by(events.c.seq)
        spec = stored.session.spec
        return [_recorded(row, stored, spec) for row in self._read(query.limit(limit))]

    def events_before(
        self, stored: Stored, seq: int, *, limit: int, kinds: Sequence[str] = ()
    ) -> list[Recorded]:
        """Read up to `limit` events with numbers below `seq`, newest first."""
        before = (events.c.seq >= 0) & (events.c.seq < seq - 1)
        query = _events_of(stored, kinds).where(before).order_by(events.c.seq.desc())
        spec = stored.session.spec
        return [_recorded(row, stored, spec) for row in self._read(query.limit(limit))]

    def events_until(
        self,
        stored: Stored,
        step: int,
        *,
        kinds: Sequence[str],
        since: int = 0,
        of_laws: bool = False,
    ) -> Iterator[Recorded]:
        """Read the events that hold from a step or earlier, newest first, page by page.

        They come from all attempts behind the step. Events after `stored` was read, or after it was
        forked, are left out.

        Args:
            stored: The session.
            step: The last step from which they may hold.
            kinds: Which kinds of events.
            since: The first step from which they may hold.
            of_laws: Only actions, and decisions by which another law took over.
        """
        query = select(events).where(events.c.kind.in_(kinds), events.c.at >= since)
        if of_laws:
            took_over = events.c.payload.contains('"transition":')
            query = query.where(events.c.kind.in_(("acted", "forked")) | took_over)
        query = query.order_by(events.c.at.desc(), events.c.seq.desc())
        # An attempt that was left at the first step may have events that hold from it.
        for span in reversed(list(spans(stored.lineage, max(since - 1, 0), step + 1))):
            inherited = _in_force(span, last=span.end == step + 1)
            known = query.where(inherited, _known_to(stored, span.ref))
            spec = stored.session.spec.at(span.ref.start)
            offset = 0
            while rows := self._read(known.limit(PAGE).offset(offset)):
                yield from (_recorded(row, stored, spec) for row in rows)
                offset += PAGE

    def template(self, name: str, version: int | None = None) -> Published | None:
        """Read one version of a template, or its newest; None if there is none."""
        query = select(templates).where(templates.c.name == name)
        if version is not None:
            query = query.where(templates.c.version == version)
        rows = self._read(query.order_by(templates.c.version.desc()).limit(1))
        return codec.load_template(rows[0]) if rows else None

    def templates(self, name: str) -> Iterator[Published]:
        """Read every version of a template, one by one."""
        query = select(templates).where(templates.c.name == name).order_by(templates.c.version)
        return map(codec.load_template, self._read(query))

    def newest_templates(self) -> Iterator[Published]:
        """Read the newest version of each template, one by one."""
        last = select(templates.c.name, func.max(templates.c.version)).group_by(templates.c.name)
        place = tuple_(templates.c.name, templates.c.version)
        query = select(templates).where(place.in_(last)).order_by(templates.c.name)
        return map(codec.load_template, self._read(query))

    def past(self, spec: SessionSpec, lineage: Lineage, step: int) -> RestorePoint:
        """Read what is needed to restore the state in which a step was sealed."""
        return restore_point(self._read, spec, lineage, step)

    def _read(self, query: Executable) -> Sequence[Any]:
        with translated(), self._reader.connect() as connection:
            return connection.execute(query).all()


def _events_of(stored: Stored, kinds: Sequence[str]) -> Select[Any]:
    query = select(events).where(events.c.session_id == stored.id)
    return query.where(events.c.kind.in_(kinds)) if kinds else query


def _recorded(row: Any, stored: Stored, spec: SessionSpec) -> Recorded:  # noqa: ANN401 - a row of `events`
    # Number 0 is the session's creation, which is in `sessions`.
    event = load_event(row.kind, row.payload, spec)
    # An imported fork brings along earlier events, with numbers below 0.
    own = row.session_id == stored.id and row.seq >= 0
    return Recorded(event, row.seq + 1, row.attempt, row.created_at, own=own)


def _in_force(span: Span, *, last: bool) -> ColumnElement[bool]:
    """Select the events of an attempt that hold within its span, or from the step it was left at.

    Measurements at that step were decided on already; orders for it are pending again.
    """
    ref, _, end = span
    mine = (events.c.session_id == ref.session_id) & (events.c.attempt == ref.attempt)
    if last:
        return mine & (events.c.at < end)
    return mine & ((events.c.at < end) | ((events.c.at == end) & (events.c.kind != "acted")))


def _known_to(stored: Stored, ref: AttemptRef) -> ColumnElement[bool]:
    if ref.session_id == stored.id:
        return events.c.seq < stored.events
    return events.c.created_at <= stored.created_at


def stored_in(row: Any) -> Stored:  # noqa: ANN401 - a row of `sessions`
    """Build a session from its row, without its pending readings."""
    # Sessions that are older than the attempts table have had only one attempt.
    lineage = codec.load_lineage(row.lineage)
    session = codec.load_session(row)
    lineage = lineage or (AttemptRef(row.id, session.attempt.number, session.spec.start_step),)
    told = row.events, row.created_at, lineage, row.version, row.changed_at
    return Stored(row.id, session, *told)
