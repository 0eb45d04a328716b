"""The whole record of a session: exported from the tables, and imported into them.

An import is written in many small transactions, so that no trainer waits for a large one. It goes
into a session that no caller can see; the last transaction gives it its name. Leftovers of a fault
are removed when they are noticed, at the latest when the service starts again. Where several
processes share a database, they are removed when they are so old that no process can still be
working on them (`purging.py`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import IO, Any, NamedTuple

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError

from pacesetter_service.catalogue.templates import parse_reference
from pacesetter_service.core.attempts import AttemptRef, Lineage, spans
from pacesetter_service.core.cost import Check
from pacesetter_service.core.errors import (
    ImportRefusedError,
    NameTakenError,
    SessionNotFoundError,
)
from pacesetter_service.core.events import load_event
from pacesetter_service.core.model import MAX_STEP, jsonable
from pacesetter_service.core.session import Session
from pacesetter_service.core.sound import (
    refuse_odd_numbers,
    refuse_unsound_event,
    refuse_unsound_state,
)
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.store import codec
from pacesetter_service.store.block_table import MEASUREMENTS, READINGS
from pacesetter_service.store.blocks import Columns, pack
from pacesetter_service.store.port import Stored, first_version
from pacesetter_service.store.record_format import (
    MAX_LINE,
    MAX_ROWS,
    AttemptLine,
    Content,
    EndLine,
    EventLine,
    Fitting,
    Line,
    MeasurementsLine,
    Path,
    ReadingsLine,
    SealedLine,
    SessionLine,
    SnapshotLine,
    digits,
    dump,
    floats,
    parse,
)
from pacesetter_service.store.schema import (
    OF_A_SESSION,
    attempts,
    events,
    labels,
    measurement_blocks,
    metrics,
    reading_blocks,
    sealed,
    sessions,
    snapshots,
)
from pacesetter_service.store.writing import ignoring, session_row

IMPORTING = "importing"
"""The status of a session that is being imported, which no caller can see."""

PURGING = "purging"
"""The status of a session that is being removed, which no caller can see either."""

HIDDEN: tuple[str, ...] = (IMPORTING, PURGING)
"""The statuses of sessions that no caller may see."""

SEALED_AT_ONCE = 65_536
"""How many sealed values go into one line."""

# Out ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Chapter:
    """An attempt, with the record's number for it; one of another session only up to a step."""

    ref: AttemptRef
    number: int
    end: int


def export(connection: Connection, name: str, service: str) -> Iterator[bytes]:
    """Write the record of a session, line by line.

    Args:
        connection: Its reads all see one moment.
        name: The session's name.
        service: The version of this service.

    Raises:
        SessionNotFoundError: There is none of that name.
    """
    digest, number = hashlib.sha256(), 0
    for line in _lines(connection, name, service):
        text = dump(line)
        digest.update(text)
        number += 1
        yield text
    yield dump(EndLine(lines=number, sha256=digest.hexdigest()))


def _lines(connection: Connection, name: str, service: str) -> Iterator[Content]:
    query = select(sessions).where(sessions.c.name == name, sessions.c.status.not_in(HIDDEN))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise SessionNotFoundError(name)
    spec = codec.load_spec(row.spec)
    own = connection.execute(
        select(attempts).where(attempts.c.session_id == row.id).order_by(attempts.c.attempt)
    ).all()
    # Sessions that are older than the attempts table have had only one attempt.
    running = codec.load_lineage(row.lineage) or (AttemptRef(row.id, row.attempt, spec.start_step),)
    lineages = [running, *(codec.load_lineage(each.lineage) for each in own)]
    chapters = _chapters(row.id, lineages)
    numbers = {(each.ref.session_id, each.ref.attempt): each.number for each in chapters}

    def path(lineage: Lineage) -> Path:
        return tuple((numbers[ref.session_id, ref.attempt], ref.start) for ref in lineage)

    yield SessionLine(
        service=service,
        name=row.name,
        created_at=row.created_at,
        status=row.status,
        attempt=row.attempt,
        horizon=row.horizon,
        revision=row.revision,
        events=row.events,
        lineage=path(running),
        spec=jsonable(spec),
        plan=row.plan,
        control=row.control,
    )
    for each, lineage in zip(own, lineages[1:], strict=True):
        yield AttemptLine(**{**_kept(each, AttemptLine), "lineage": path(lineage)})
    for chapter in chapters:
        yield from _snapshots(connection, chapter)
    yield from _events(connection, row, chapters)
    for chapter in chapters:
        yield from _sealed(connection, chapter, len(spec.series()))
    names = metrics_of(connection, {chapter.ref.session_id for chapter in chapters})
    for chapter in chapters:
        for metric, metric_id in names.items():
            yield from _measurements(connection, chapter, metric, metric_id)
    for chapter in chapters:
        for metric, metric_id in names.items():
            yield from _readings(connection, chapter, metric, metric_id)


def _chapters(own: int, lineages: Iterable[Lineage]) -> list[_Chapter]:
    """Number all attempts: the session's own stay, those of others count from 0 downwards."""
    ends: dict[AttemptRef, int] = {}
    for lineage in lineages:
        for ref, _, end in spans(lineage):
            ends[ref] = max(ends.get(ref, 0), end)
    mine = [_Chapter(ref, ref.attempt, MAX_STEP) for ref in ends if ref.session_id == own]
    below = min([1, *(each.number for each in mine)])
    others = [ref for ref in ends if ref.session_id != own]
    shared = [_Chapter(ref, below - index, ends[ref]) for index, ref in enumerate(others, 1)]
    return sorted([*shared, *mine], key=lambda each: each.number)


def _snapshots(connection: Connection, chapter: _Chapter) -> Iterator[Content]:
    horizon = snapshots.c.horizon
    mine = select(snapshots).where(_in(snapshots, chapter), horizon <= chapter.end)
    query = mine.order_by(horizon)
    for row in _streamed(connection, query):
        yield SnapshotLine(**{**_kept(row, SnapshotLine), "attempt": chapter.number})


def _events(connection: Connection, session: Any, chapters: list[_Chapter]) -> Iterator[Content]:  # noqa: ANN401 - a row of `sessions`
    """Return the events; those of other sessions' attempts only if they hold for shared steps."""
    shared = [
        (chapter.number, row)
        for chapter in chapters
        if chapter.ref.session_id != session.id
        for row in connection.execute(_events_of(chapter, until=session.created_at))
    ]
    mine = select(events).where(events.c.session_id == session.id).order_by(events.c.seq)
    lowest = select(func.min(events.c.seq)).where(events.c.session_id == session.id)
    first = min(connection.scalar(lowest) or 0, 0) - len(shared)
    for number, (attempt, row) in enumerate(shared, first):
        yield EventLine(**{**_kept(row, EventLine), "number": number, "attempt": attempt})
    for row in _streamed(connection, mine):
        yield EventLine(**_kept(row, EventLine), number=row.seq)


def _events_of(chapter: _Chapter, *, until: str) -> Select[Any]:
    """Select an attempt's events that hold from its end or earlier, and were recorded by a time."""
    return (
        select(events)
        .where(_in(events, chapter))
        .where(events.c.at <= chapter.end, events.c.created_at <= until)
        .order_by(events.c.seq)
    )


def _sealed(connection: Connection, chapter: _Chapter, series: int) -> Iterator[Content]:
    """Return the sealed values, in blocks of one size however they were handed out."""
    size = max(SEALED_AT_ONCE // series, 1)
    table, start = sealed.c, chapter.ref.start
    query = (
        select(table.start, table["values"])
        .where(_in(sealed, chapter), table.start < chapter.end)
        .order_by(table.start)
    )
    pieces: list[Any] = []
    waiting = 0
    for row in _streamed(connection, query):
        block = np.frombuffer(row.values, "<f8").reshape(series, -1)
        pieces.append(block[:, : chapter.end - row.start])
        waiting += pieces[-1].shape[1]
        if waiting >= size:
            held = np.concatenate(pieces, axis=1)
            while held.shape[1] >= size:
                yield _block(chapter, start, held[:, :size])
                start, held = start + size, held[:, size:]
            pieces, waiting = [held], held.shape[1]
    if waiting:
        yield _block(chapter, start, np.concatenate(pieces, axis=1))


def _block(chapter: _Chapter, start: int, values: Any) -> SealedLine:  # noqa: ANN401 - an array
    return SealedLine(
        attempt=chapter.number,
        start=start,
        count=values.shape[1],
        values=digits(np.ascontiguousarray(values)),
    )


def metrics_of(connection: Connection, session_ids: Iterable[int]) -> dict[str, int]:
    """Return the ids of the metrics that were reported to any of the sessions, by name."""
    found: dict[str, int] = {}
    for session_id in session_ids:
        found |= {row.name: row.id for row in connection.execute(REPORTED, {"of": session_id})}
    return dict(sorted(found.items()))


REPORTED = text(
    "WITH RECURSIVE reported(id) AS ("
    " SELECT min(metric_id) FROM reading_blocks WHERE session_id = :of"
    " UNION ALL"
    " SELECT (SELECT min(metric_id) FROM reading_blocks"
    " WHERE session_id = :of AND metric_id > reported.id)"
    " FROM reported WHERE reported.id IS NOT NULL"
    ") SELECT metrics.id, metrics.name FROM reported JOIN metrics ON metrics.id = reported.id"
)
"""Finds each metric of a session by one index lookup, however many other sessions have."""


def _measurements(
    connection: Connection, chapter: _Chapter, metric: str, metric_id: int
) -> Iterator[Content]:
    series = chapter.ref.session_id, metric_id, chapter.ref.attempt
    for columns in MEASUREMENTS.stream(connection, series, MAX_ROWS):
        mine = columns[columns.beside[1] <= chapter.end]
        if mine:
            ranks, horizons = mine.beside.tolist()
            yield MeasurementsLine(
                attempt=chapter.number,
                metric=metric,
                steps=mine.steps.tolist(),
                ranks=ranks,
                horizons=horizons,
                values=digits(mine.values),
            )


def _readings(
    connection: Connection, chapter: _Chapter, metric: str, metric_id: int
) -> Iterator[Content]:
    series = chapter.ref.session_id, metric_id, chapter.ref.attempt
    for columns in READINGS.stream(connection, series, MAX_ROWS):
        mine = columns.between(0, chapter.end)
        if mine:
            [ranks] = mine.beside.tolist()
            yield ReadingsLine(
                attempt=chapter.number,
                metric=metric,
                steps=mine.steps.tolist(),
                ranks=ranks,
                values=digits(mine.values),
            )


def _in(table: Table, chapter: _Chapter) -> ColumnElement[bool]:
    """Select the rows that were written in a chapter."""
    ref = chapter.ref
    return (table.c.session_id == ref.session_id) & (table.c.attempt == ref.attempt)


def _kept(row: Any, line: type[Content]) -> dict[str, Any]:  # noqa: ANN401 - a row of a table
    """Return the columns of a row that are fields of a line too."""
    return {name: value for name, value in row._asdict().items() if name in line.model_fields}


def _streamed(connection: Connection, query: Select[Any]) -> Any:  # noqa: ANN401 - a result
    return connection.execution_options(yield_per=MAX_ROWS).execute(query)


# In -------------------------------------------------------------------------------------------


HEAD = {"line"}
"""The fields of a line that its row does not have."""


class Rows(NamedTuple):
    """Rows of one table, without the session's id; a metric is given by its name."""

    table: Table
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read once, and is consistent."""

    session: Session
    first: SessionLine


def examine(file: IO[bytes], name: str | None, check: Check = lambda: None) -> Record:
    """Read a whole record and refuse it if anything is wrong with it; nothing is written.

    Args:
        file: Holds the lines.
        name: The new name of the session; None to keep its name.
        check: Called at each line; raises if the caller has gone.

    Raises:
        ImportRefusedError: It is not a whole record.
        TooCostlyError: Sealing the session would make all other callers wait.
    """
    lines = _read(file)
    first = next(lines)
    assert isinstance(first, SessionLine)  # noqa: S101 - reading saw to it
    with _at_line(1):
        spec = SessionSpec.model_validate({**first.spec, "name": name or first.name})
        record = Record(_session(spec, first), first)
    for _ in rows_of(file, record, new=True):
        check()  # all that matters is whether it can be read
    return record


def rows_of(file: IO[bytes], record: Record, *, new: bool = False) -> Iterator[Rows]:
    """Read a record again, as rows to be written.

    Args:
        file: Holds the lines.
        record: The examined record.
        new: Whether its states and events must still be examined.

    Raises:
        ImportRefusedError: It is not a whole record.
        TooCostlyError: Something in it would make all other callers wait.
    """
    spec = record.session.spec
    fitting = Fitting(record.first, [series.name for series in spec.series()])
    starts = dict(record.first.lineage)
    number = 1
    for number, line in enumerate(_read(file), 1):
        if isinstance(line, SessionLine) and number == 1:
            continue
        with _at_line(number):
            fitting.check(line)
            if isinstance(line, AttemptLine):
                starts |= dict(line.lineage)
            # A fork may have earlier steps that were trained under another description.
            described = spec.at(starts.get(line.attempt, spec.described_from))
            found = _rows(described, line, number, new=new)
        if found is not None:
            yield found
    with _at_line(number + 1):
        fitting.finish()


def _read(file: IO[bytes]) -> Iterator[Content]:
    """Read the lines of a record, up to the last one, by which they are checked."""
    file.seek(0)
    digest, number = hashlib.sha256(), 0
    while text := file.readline(MAX_LINE + 1):
        number += 1
        if len(text) > MAX_LINE:
            raise ImportRefusedError(f"it is longer than {MAX_LINE} bytes", number)
        line: Line = parse(text, number)
        if isinstance(line, EndLine):
            _refuse_unless_whole(line, number, digest.hexdigest())
            if file.read(1):
                raise ImportRefusedError("something follows the last line", number + 1)
            return
        digest.update(text)
        yield line
    raise ImportRefusedError("the last line is missing, so it is not all there", number + 1)


def _refuse_unless_whole(end: EndLine, number: int, sha256: str) -> None:
    if end.lines != number - 1:
        raise ImportRefusedError(f"{number - 1} lines came of {end.lines}", number)
    if end.sha256 != sha256:
        raise ImportRefusedError("the checksum differs, so something was changed", number)


@contextmanager
def _at_line(number: int) -> Iterator[None]:
    """Name the line of a record at which something is wrong."""
    try:
        yield
    except ImportRefusedError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        said = " ".join(str(error).split())[:300]
        raise ImportRefusedError(said or type(error).__name__, number) from error


def _session(spec: SessionSpec, first: SessionLine) -> Session:
    if spec.template is not None:
        parse_reference(spec.template)
    refuse_odd_numbers(first.plan, first.control)
    state = codec.load_state(spec, first.plan, first.control, first.horizon, first.attempt)
    refuse_unsound_state(state)
    _text(codec.dump_state(state))
    return replace(state, revision=first.revision, status=first.status)


def _rows(spec: SessionSpec, line: Content, number: int, *, new: bool) -> Rows | None:  # noqa: PLR0911 - one return a line
    match line:
        case AttemptLine():
            return Rows(attempts, [line.model_dump(exclude=HEAD)])
        case SnapshotLine():
            return Rows(snapshots, [_snapshot_row(spec, line, new=new)])
        case EventLine():
            return Rows(events, [_event_row(spec, line, new=new)])
        case SealedLine():
            values = bytes.fromhex(line.values)
            return Rows(sealed, [{**line.model_dump(exclude=HEAD), "values": values}])
        case MeasurementsLine():
            beside = (line.ranks, line.horizons)
            return Rows(measurement_blocks, [_block_row(line, number, beside)])
        case ReadingsLine():
            return Rows(reading_blocks, [_block_row(line, number, (line.ranks,))])
        case SessionLine():
            return None


def _block_row(
    line: MeasurementsLine | ReadingsLine, number: int, beside: Sequence[Sequence[int]]
) -> dict[str, Any]:
    columns = Columns(
        np.array(line.steps, np.int64),
        np.array(beside, np.int64),
        floats(line.values, len(line.steps)),
    )
    key = {"attempt": line.attempt, "metric": line.metric, "number": number}
    return {**key, **pack(columns)._asdict()}


def _snapshot_row(spec: SessionSpec, line: SnapshotLine, *, new: bool) -> dict[str, Any]:
    state = codec.load_state(spec, line.plan, line.control, line.horizon)
    if new:
        refuse_odd_numbers(line.plan, line.control)
        refuse_unsound_state(state)
    return {
        "attempt": line.attempt,
        "horizon": line.horizon,
        "plan": _text(codec.dump_plan(state)),
        "control": _text(codec.dump_state(state)),
    }


def _event_row(spec: SessionSpec, line: EventLine, *, new: bool) -> dict[str, Any]:
    event = load_event(line.kind, line.payload, spec)
    if new:
        refuse_odd_numbers(line.payload)
        refuse_unsound_event(event, spec)
    return {
        "seq": line.number,
        "attempt": line.attempt,
        "kind": event.kind,
        "at": event.from_step,
        "payload": event.dump(),
        "created_at": line.created_at,
    }


def _text(text: str) -> str:
    """Return a text if a database can store it.

    Raises:
        ValueError: It contains half of a surrogate pair.
    """
    text.encode()
    return text


def begin(connection: Connection, session_id: int, record: Record) -> None:
    """Write a session that no caller can see yet.

    Raises:
        NameTakenError: There is one of its name.
    """
    _refuse_taken(connection, record.session.spec.name)
    session, first = record.session, record.first
    lineage = _lineage(session_id, first.lineage)
    version = first_version(session_id)
    stored = Stored(session_id, session, first.events, first.created_at, lineage, version)
    row = session_row(stored, datetime.now(UTC).isoformat(timespec="milliseconds"))
    # No session can have this name, so it takes none away.
    hidden = {"name": f"*{session_id}", "status": IMPORTING}
    connection.execute(insert(sessions), {**row, **hidden})


def add(connection: Connection, session_id: int, batch: Iterable[Rows]) -> None:
    """Write rows of a session that `begin` wrote.

    Raises:
        ImportRefusedError: One of them exists already.
    """
    for table, rows in batch:
        full = [{**row, "session_id": session_id} for row in rows]
        if table is attempts:
            full = [
                {**row, "lineage": codec.dump_lineage(_lineage(session_id, row["lineage"]))}
                for row in full
            ]
        statement = insert(table)
        if "metric_id" in table.c:
            names = {row["metric"] for row in full}
            numbered = [{"name": name} for name in sorted(names)]
            connection.execute(ignoring(connection.dialect, metrics), numbered)
            named = select(metrics.c.id).where(metrics.c.name == bindparam("metric"))
            statement = statement.values(metric_id=named.scalar_subquery())
        try:
            if full:
                connection.execute(statement, full)
        except IntegrityError as error:
            raise ImportRefusedError(f"one of its {table.name} comes twice") from error


def finish(connection: Connection, session_id: int, session: Session) -> None:
    """Name an imported session: from now on every caller sees it.

    Raises:
        NameTakenError: There is one of that name.
        ImportRefusedError: It took so long that it was considered interrupted.
    """
    name = session.spec.name
    _refuse_taken(connection, name)
    found = [
        {"session_id": session_id, "name": label, "value": value}
        for label, value in session.spec.labels.items()
    ]
    if found:
        connection.execute(insert(labels), found)
    mine = (sessions.c.id == session_id) & (sessions.c.status == IMPORTING)
    named = update(sessions).where(mine).values(name=name, status=session.status)
    if not connection.execute(named).rowcount:
        raise ImportRefusedError("it took so long that it was removed meanwhile: import it again")


def _refuse_taken(connection: Connection, name: str) -> None:
    if connection.scalar(select(sessions.c.id).where(sessions.c.name == name)) is not None:
        raise NameTakenError(name)


def drop(connection: Connection, session_id: int) -> None:
    """Remove what was written of an unfinished import; a session that has its name stays.

    A caller may not know whether its import was finished: if it was, trainers may already have been
    given its steps.
    """
    mine = (sessions.c.id == session_id) & (sessions.c.status == IMPORTING)
    # Locked if there are other writers: its end may still be on its way to the disk.
    if connection.execute(select(sessions.c.id).where(mine).with_for_update()).first() is None:
        return
    for table in OF_A_SESSION:
        connection.execute(delete(table).where(table.c.session_id == session_id))
    connection.execute(delete(sessions).where(mine))


def drop_unfinished(connection: Connection) -> None:
    """Remove the leftovers of imports that the end of the process interrupted."""
    query = select(sessions.c.id).where(sessions.c.status == IMPORTING)
    for session_id in connection.scalars(query).all():
        drop(connection, session_id)


def _lineage(session_id: int, path: Path) -> Lineage:
    return tuple(AttemptRef(session_id, attempt, start) for attempt, start in path)
