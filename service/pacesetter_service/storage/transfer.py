"""The whole record of a session: read from the tables, and written into them again.

An import is written in many small transactions, so that nobody waits for a large one, into a
session that nobody can see; the last transaction gives it its name. What a fault leaves behind is
removed when it is noticed, at the latest when the service starts again.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isnan
from types import SimpleNamespace
from typing import IO, Any, NamedTuple

import numpy as np
from sqlalchemy import (
    Connection,
    Select,
    Table,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError

from pacesetter_service.core.errors import (
    ImportRefusedError,
    NameTakenError,
    SessionNotFoundError,
)
from pacesetter_service.core.lineage import Life, Lineage, stretches
from pacesetter_service.core.model import MAX_STEP, jsonable
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.transfer import (
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
from pacesetter_service.storage import codec
from pacesetter_service.storage.schema import (
    attempts,
    events,
    labels,
    measurements,
    metrics,
    readings,
    sealed,
    sessions,
    snapshots,
)

IMPORTING = "importing"
"""The status of a session that is being written, and that nobody else can see."""

SEALED_AT_ONCE = 65_536
"""How many sealed values are put into one line."""

# Out ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Chapter:
    """A life, under the number that the record gives it; of other sessions' up to a step."""

    life: Life
    number: int
    end: int


def export(connection: Connection, name: str, service: str) -> Iterator[bytes]:
    """Write the record of a session, line by line.

    Args:
        connection: Reads all of one moment.
        name: The session's.
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
    query = select(sessions).where(sessions.c.name == name, sessions.c.status != IMPORTING)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise SessionNotFoundError(name)
    spec = codec.load_spec(row.spec)
    own = connection.execute(
        select(attempts).where(attempts.c.session_id == row.id).order_by(attempts.c.attempt)
    ).all()
    # Sessions from before attempts were kept have had one life only.
    running = codec.load_lineage(row.lineage) or (Life(row.id, row.attempt, spec.start_step),)
    lineages = [running, *(codec.load_lineage(each.lineage) for each in own)]
    chapters = _chapters(row.id, lineages)
    numbers = {(each.life.session_id, each.life.attempt): each.number for each in chapters}

    def path(lineage: Lineage) -> Path:
        return tuple((numbers[life.session_id, life.attempt], life.start) for life in lineage)

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
        yield AttemptLine(
            attempt=each.attempt,
            start=each.start,
            key=each.key,
            actor=each.actor,
            lineage=path(lineage),
            created_at=each.created_at,
        )
    for chapter in chapters:
        yield from _snapshots(connection, chapter)
    yield from _events(connection, row, chapters)
    for chapter in chapters:
        yield from _sealed(connection, chapter, len(spec.series()))
    names = metrics_of(connection, {chapter.life.session_id for chapter in chapters})
    for chapter in chapters:
        for metric, metric_id in names.items():
            yield from _measurements(connection, chapter, metric, metric_id)
    for chapter in chapters:
        for metric, metric_id in names.items():
            yield from _readings(connection, chapter, metric, metric_id)


def _chapters(own: int, lineages: Iterable[Lineage]) -> list[_Chapter]:
    """Number all lives: those of the session as they are, those of others from 0 downwards."""
    ends: dict[Life, int] = {}
    for lineage in lineages:
        for life, _, end in stretches(lineage):
            ends[life] = max(ends.get(life, 0), end)
    mine = [_Chapter(life, life.attempt, MAX_STEP) for life in ends if life.session_id == own]
    below = min([1, *(each.number for each in mine)])
    others = [life for life in ends if life.session_id != own]
    shared = [_Chapter(life, below - index, ends[life]) for index, life in enumerate(others, 1)]
    return sorted([*shared, *mine], key=lambda each: each.number)


def _snapshots(connection: Connection, chapter: _Chapter) -> Iterator[Content]:
    table, life = snapshots.c, chapter.life
    query = (
        select(snapshots)
        .where(table.session_id == life.session_id, table.attempt == life.attempt)
        .where(table.horizon <= chapter.end)
        .order_by(table.horizon)
    )
    for row in _streamed(connection, query):
        yield SnapshotLine(
            attempt=chapter.number, horizon=row.horizon, plan=row.plan, control=row.control
        )


def _events(connection: Connection, session: Any, chapters: list[_Chapter]) -> Iterator[Content]:  # noqa: ANN401 - a row of `sessions`
    """Give the events; of other sessions' lives those that hold for steps that are shared."""
    shared = [
        (chapter.number, row)
        for chapter in chapters
        if chapter.life.session_id != session.id
        for row in connection.execute(_events_of(chapter, until=session.created_at))
    ]
    mine = select(events).where(events.c.session_id == session.id).order_by(events.c.seq)
    lowest = select(func.min(events.c.seq)).where(events.c.session_id == session.id)
    first = min(connection.scalar(lowest) or 0, 0) - len(shared)
    for number, (attempt, row) in enumerate(shared, first):
        yield _event(row, number, attempt)
    for row in _streamed(connection, mine):
        yield _event(row, row.seq, row.attempt)


def _events_of(chapter: _Chapter, *, until: str) -> Select[Any]:
    """Select a life's events that hold up to its end, and were known at a time."""
    life = chapter.life
    return (
        select(events)
        .where(events.c.session_id == life.session_id, events.c.attempt == life.attempt)
        .where(events.c.at <= chapter.end, events.c.created_at <= until)
        .order_by(events.c.seq)
    )


def _event(row: Any, number: int, attempt: int) -> EventLine:  # noqa: ANN401 - a row of `events`
    return EventLine(
        number=number,
        attempt=attempt,
        kind=row.kind,
        payload=row.payload,
        created_at=row.created_at,
    )


def _sealed(connection: Connection, chapter: _Chapter, series: int) -> Iterator[Content]:
    """Give the sealed values, in blocks of one size however they were handed out."""
    size = max(SEALED_AT_ONCE // series, 1)
    table, life = sealed.c, chapter.life
    query = (
        select(table.start, table["values"])
        .where(table.session_id == life.session_id, table.attempt == life.attempt)
        .where(table.start < chapter.end)
        .order_by(table.start)
    )
    start, held = life.start, np.empty((series, 0))
    pieces: list[Any] = []
    waiting = 0
    for row in _streamed(connection, query):
        block = np.frombuffer(row.values, "<f8").reshape(series, -1)
        block = block[:, : chapter.end - row.start]
        pieces.append(block)
        waiting += block.shape[1]
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
    """Give the ids of the metrics that were reported to any of the sessions, by name."""
    reported = exists().where(
        readings.c.session_id.in_(list(session_ids)), readings.c.metric_id == metrics.c.id
    )
    query = select(metrics.c.name, metrics.c.id).where(reported).order_by(metrics.c.name)
    return {row.name: row.id for row in connection.execute(query)}


def _measurements(
    connection: Connection, chapter: _Chapter, metric: str, metric_id: int
) -> Iterator[Content]:
    table, life = measurements.c, chapter.life
    query = (
        select(table.step, table.value, table.ranks, table.horizon)
        .where(table.session_id == life.session_id, table.attempt == life.attempt)
        .where(table.metric_id == metric_id, table.horizon <= chapter.end)
        .order_by(table.step)
    )
    for rows in _streamed(connection, query).partitions(MAX_ROWS):
        yield MeasurementsLine(
            attempt=chapter.number,
            metric=metric,
            steps=[row.step for row in rows],
            ranks=[row.ranks for row in rows],
            horizons=[row.horizon for row in rows],
            values=_values(rows),
        )


def _readings(
    connection: Connection, chapter: _Chapter, metric: str, metric_id: int
) -> Iterator[Content]:
    table, life = readings.c, chapter.life
    query = (
        select(table.step, table.rank, table.value)
        .where(table.session_id == life.session_id, table.metric_id == metric_id)
        .where(table.attempt == life.attempt, table.step < chapter.end)
        .order_by(table.step, table.rank)
    )
    for rows in _streamed(connection, query).partitions(MAX_ROWS):
        yield ReadingsLine(
            attempt=chapter.number,
            metric=metric,
            steps=[row.step for row in rows],
            ranks=[row.rank for row in rows],
            values=_values(rows),
        )


def _values(rows: Iterable[Any]) -> str:
    return digits(np.array([np.nan if row.value is None else row.value for row in rows]))


def _streamed(connection: Connection, query: Select[Any]) -> Any:  # noqa: ANN401 - a result
    return connection.execution_options(yield_per=MAX_ROWS).execute(query)


# In -------------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """Rows of one table, without the session's id; those with a metric name it."""

    table: Table
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read once, and holds together."""

    session: Session
    first: SessionLine


def examine(file: IO[bytes], name: str | None) -> Record:
    """Read a whole record and refuse it if anything is wrong with it; nothing is written.

    Args:
        file: Holds the lines.
        name: What the session is to be called, if not as it was.

    Raises:
        ImportRefusedError: It is no whole record.
    """
    lines = _read(file)
    first = next(lines)
    assert isinstance(first, SessionLine)  # noqa: S101 - reading saw to it
    with _at_line(1):
        spec = SessionSpec.model_validate({**first.spec, "name": name or first.name})
        record = Record(_session(spec, first), first)
        _text(codec.dump_spec(spec))
    for _ in rows_of(file, record):
        pass  # that it can be read is what was to be known
    return record


def rows_of(file: IO[bytes], record: Record) -> Iterator[Rows]:
    """Read a record again, as rows to be written.

    Raises:
        ImportRefusedError: It is no whole record.
    """
    spec = record.session.spec
    fitting = Fitting(record.first, [series.name for series in spec.series()])
    number = 1
    for number, line in enumerate(_read(file), 1):
        if isinstance(line, SessionLine) and number == 1:
            continue
        with _at_line(number):
            fitting.check(line)
            found = _rows(spec, line)
        if found is not None:
            yield found
    with _at_line(number + 1):
        fitting.finish()


def _read(file: IO[bytes]) -> Iterator[Content]:
    """Read the lines of a record, up to the one that says whether they are all there."""
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
    """Say at which line of a record something is wrong."""
    try:
        yield
    except ImportRefusedError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        said = " ".join(str(error).split())[:300]
        raise ImportRefusedError(said or type(error).__name__, number) from error


def _session(spec: SessionSpec, first: SessionLine) -> Session:
    state = codec.load_state(spec, first.plan, first.control, first.horizon)
    _refuse_other_series(spec, state)
    return replace(state, revision=first.revision, attempt=first.attempt, status=first.status)


def _refuse_other_series(spec: SessionSpec, state: Session) -> None:
    if list(state.timelines) != [series.name for series in spec.series()]:
        raise ValueError("the series of a state are not those of the session")


def _rows(spec: SessionSpec, line: Content) -> Rows | None:  # noqa: PLR0911 - one return a line
    match line:
        case AttemptLine():
            return Rows(attempts, [_attempt_row(line)])
        case SnapshotLine():
            return Rows(snapshots, [_snapshot_row(spec, line)])
        case EventLine():
            return Rows(events, [_event_row(spec, line)])
        case SealedLine():
            values = floats(line.values, len(spec.series()) * line.count).astype("<f8").tobytes()
            head = {"attempt": line.attempt, "start": line.start, "count": line.count}
            return Rows(sealed, [{**head, "values": values}])
        case MeasurementsLine():
            columns = zip(line.steps, _nullable(line), line.ranks, line.horizons, strict=True)
            of: dict[str, Any] = {"attempt": line.attempt, "metric": line.metric}
            return Rows(
                measurements,
                [
                    {**of, "step": step, "value": value, "ranks": ranks, "horizon": horizon}
                    for step, value, ranks, horizon in columns
                ],
            )
        case ReadingsLine():
            columns_of = zip(line.steps, line.ranks, _nullable(line), strict=True)
            of = {"attempt": line.attempt, "metric": line.metric}
            return Rows(
                readings,
                [
                    {**of, "step": step, "rank": rank, "value": value}
                    for step, rank, value in columns_of
                ],
            )
        case SessionLine():
            return None


def _nullable(line: MeasurementsLine | ReadingsLine) -> list[float | None]:
    found = floats(line.values, len(line.steps)).tolist()
    return [None if isnan(value) else value for value in found]


def _attempt_row(line: AttemptLine) -> dict[str, Any]:
    return {
        "attempt": line.attempt,
        "start": line.start,
        "key": _text(line.key),
        "lineage": line.lineage,  # written once the session has its id
        "actor": _text(line.actor),
        "created_at": _text(line.created_at),
    }


def _snapshot_row(spec: SessionSpec, line: SnapshotLine) -> dict[str, Any]:
    state = codec.load_state(spec, line.plan, line.control, line.horizon)
    _refuse_other_series(spec, state)
    return {
        "attempt": line.attempt,
        "horizon": line.horizon,
        "plan": _text(codec.dump_plan(state)),
        "control": _text(codec.dump_state(state)),
    }


def _event_row(spec: SessionSpec, line: EventLine) -> dict[str, Any]:
    event = codec.load_event(SimpleNamespace(kind=line.kind, payload=line.payload), spec)
    kind, at, payload = codec.dump_event(event)
    return {
        "seq": line.number,
        "attempt": line.attempt,
        "kind": kind,
        "at": at,
        "payload": _text(payload),
        "created_at": _text(line.created_at),
    }


def _text(text: str) -> str:
    """Give a text that a database can keep.

    Raises:
        ValueError: Half of a surrogate pair is none.
    """
    text.encode()
    return text


def begin(connection: Connection, session_id: int, record: Record) -> None:
    """Write a session that nobody can see yet."""
    session, first = record.session, record.first
    connection.execute(
        insert(sessions),
        {
            "id": session_id,
            # No session can be called that, so it stands in nobody's way.
            "name": f"*{session_id}",
            "spec": codec.dump_spec(session.spec),
            "status": IMPORTING,
            "attempt": session.attempt,
            "horizon": session.horizon,
            "revision": session.revision,
            "events": first.events,
            "plan": codec.dump_plan(session),
            "control": codec.dump_control(session),
            "lineage": _lineage(session_id, first.lineage),
            "created_at": first.created_at,
        },
    )


def add(connection: Connection, session_id: int, batch: Iterable[Rows]) -> None:
    """Write rows of a session that `begin` wrote.

    Raises:
        ImportRefusedError: One of them is there already.
    """
    for table, rows in batch:
        full = [{**row, "session_id": session_id} for row in rows]
        if table is attempts:
            full = [{**row, "lineage": _lineage(session_id, row["lineage"])} for row in full]
        statement = insert(table)
        if "metric_id" in table.c:
            names = {row["metric"] for row in full}
            ignoring = sqlite.insert(metrics).on_conflict_do_nothing()
            connection.execute(ignoring, [{"name": name} for name in sorted(names)])
            named = select(metrics.c.id).where(metrics.c.name == bindparam("metric"))
            statement = statement.values(metric_id=named.scalar_subquery())
        try:
            if full:
                connection.execute(statement, full)
        except IntegrityError as error:
            raise ImportRefusedError(f"one of its {table.name} comes twice") from error


def finish(connection: Connection, session_id: int, session: Session) -> None:
    """Give an imported session its name: from now on everybody sees it.

    Raises:
        NameTakenError: There is one of that name.
    """
    name = session.spec.name
    refuse_taken(connection, name)
    found = [
        {"session_id": session_id, "name": label, "value": value}
        for label, value in session.spec.labels.items()
    ]
    if found:
        connection.execute(insert(labels), found)
    connection.execute(
        update(sessions).where(sessions.c.id == session_id).values(name=name, status=session.status)
    )


def refuse_taken(connection: Connection, name: str) -> None:
    """Refuse a name that a session has.

    Raises:
        NameTakenError: There is one.
    """
    if connection.scalar(select(sessions.c.id).where(sessions.c.name == name)) is not None:
        raise NameTakenError(name)


def drop(connection: Connection, session_id: int) -> None:
    """Remove what was written of a session that was not finished."""
    for table in (attempts, snapshots, events, sealed, measurements, readings, labels):
        connection.execute(delete(table).where(table.c.session_id == session_id))
    connection.execute(delete(sessions).where(sessions.c.id == session_id))


def drop_unfinished(connection: Connection) -> None:
    """Remove what imports left behind that the end of the process cut off."""
    query = select(sessions.c.id).where(sessions.c.status == IMPORTING)
    for session_id in connection.scalars(query).all():
        drop(connection, session_id)


def _lineage(session_id: int, path: Path) -> str:
    return codec.dump_lineage(tuple(Life(session_id, attempt, start) for attempt, start in path))
