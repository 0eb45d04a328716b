"""The record of a session as lines of JSON: what each line holds, and when the lines fit together.

The first line is the session. The last one has the number of lines and their checksum. In between
are attempts, snapshots, events, sealed values, measurements and readings. Steps that a fork shares
with other sessions are included, as attempts of its own with numbers below 1: so a record is
complete, and refers to no other session.

Sealed values, measurements and readings are written as 16 hexadecimal digits each (float64, lowest
byte first), so they come back to the bit, including NaN and infinities. States and events are texts
inside the JSON, because they may contain infinities, which JSON does not know.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)

from pacesetter_service.core.errors import ImportRefusedError
from pacesetter_service.core.measuring import MetricName
from pacesetter_service.core.model import MAX_STEP

VERSION = 2
"""The version of the format; a service reads only its own. It rises when the content grows."""

MAX_LINE = 32 * 1024 * 1024
"""The longest line that is read, in bytes."""

MAX_ROWS = 1000
"""The most rows in one line."""

MAX_BLOCK = 2**20
"""The most sealed values in one line."""

MAX_COUNT = 2**31 - 1

Whole = Annotated[int, Field(ge=-MAX_COUNT, le=MAX_COUNT)]
Place = Annotated[int, Field(ge=0, le=MAX_STEP)]
Number = Annotated[int, Field(ge=-MAX_STEP, le=MAX_STEP)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]*$", max_length=16 * MAX_BLOCK)]
Ascii = Annotated[str, Field(pattern=r"^[\x20-\x7e]*$")]


def _moment(text: str) -> str:
    """Refuse a text that is not a moment as this service writes it; moments are sorted as texts.

    Raises:
        ValueError: It is not one.
    """
    moment = datetime.fromisoformat(text)
    if moment.isoformat(timespec="milliseconds") != text or moment.utcoffset() != timedelta(0):
        raise ValueError("no moment in UTC, to the millisecond")
    return text


Time = Annotated[str, AfterValidator(_moment)]
Ranks = Annotated[int, Field(ge=0, le=65_536)]

Path = tuple[tuple[Whole, Place], ...]
"""A lineage: attempts with their first steps; each ends where the next one begins."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Head(BaseModel):
    """The fields that the first line has in every version."""

    line: Literal["session"]
    format: Literal["pacesetter.session"]
    version: int
    service: str = "unknown"


class SessionLine(_Line):
    """The first line: the session, with its state when the record was made."""

    line: Literal["session"] = "session"
    format: Literal["pacesetter.session"] = "pacesetter.session"
    version: int = VERSION
    service: str
    name: str
    created_at: Time
    status: Literal["active", "finished", "archived"]
    attempt: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    horizon: Place
    revision: Place
    events: Place
    lineage: Path
    spec: dict[str, JsonValue]
    plan: str
    control: str


class AttemptLine(_Line):
    """An attempt of the session; attempts with numbers below 1 have no such line."""

    line: Literal["attempt"] = "attempt"
    attempt: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    start: Place
    key: Annotated[Ascii, Field(max_length=256)]
    actor: Annotated[Ascii, Field(max_length=128)]
    lineage: Path
    created_at: Time


class SnapshotLine(_Line):
    """A state from which later ones are restored."""

    line: Literal["snapshot"] = "snapshot"
    attempt: Whole
    horizon: Place
    plan: str
    control: str


class EventLine(_Line):
    """An event; those with numbers below 0 are from sessions that this one was forked from."""

    line: Literal["event"] = "event"
    number: Number
    attempt: Whole
    kind: Annotated[str, Field(max_length=32)]
    payload: str
    created_at: Time


class SealedLine(_Line):
    """Sealed values of `count` steps, series after series in the session's order."""

    line: Literal["sealed"] = "sealed"
    attempt: Whole
    start: Place
    count: Annotated[int, Field(ge=1, le=MAX_BLOCK)]
    values: Hex


class MeasurementsLine(_Line):
    """Measurements of a metric, each with its ranks and the first step that it could change."""

    line: Literal["measurements"] = "measurements"
    attempt: Whole
    metric: MetricName
    steps: Annotated[list[Place], Field(max_length=MAX_ROWS)]
    ranks: Annotated[list[Ranks], Field(max_length=MAX_ROWS)]
    horizons: Annotated[list[Place], Field(max_length=MAX_ROWS)]
    values: Hex


class ReadingsLine(_Line):
    """Readings of a metric."""

    line: Literal["readings"] = "readings"
    attempt: Whole
    metric: MetricName
    steps: Annotated[list[Place], Field(max_length=MAX_ROWS)]
    ranks: Annotated[list[Ranks], Field(max_length=MAX_ROWS)]
    values: Hex


class EndLine(_Line):
    """The last line: how many lines are before it, and their SHA-256 as they were sent."""

    line: Literal["end"] = "end"
    lines: int
    sha256: str


Content = (
    SessionLine
    | AttemptLine
    | SnapshotLine
    | EventLine
    | SealedLine
    | MeasurementsLine
    | ReadingsLine
)
Line = Content | EndLine

_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="line")])


def dump(line: Line) -> bytes:
    """Return a line as bytes, with its line break."""
    return line.model_dump_json().encode() + b"\n"


def parse(text: bytes, number: int) -> Line:
    """Read a line.

    Args:
        text: The line.
        number: The number of the line, from 1.

    Raises:
        ImportRefusedError: It is not a line of this format.
    """
    try:
        if number == 1:
            _refuse_other_versions(Head.model_validate_json(text))
        return _LINE.validate_json(text)
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False, include_input=False)
        place = ".".join(str(part) for part in first["loc"][-2:])
        raise ImportRefusedError(f"{place or 'the line'}: {first['msg']}", number) from None


def _refuse_other_versions(head: Head) -> None:
    if head.version != VERSION:
        raise ImportRefusedError(
            f"it is of version {head.version} of the format, and this service reads version"
            f" {VERSION}; use a service of the version that wrote it ({head.service})",
            1,
        )


def digits(values: NDArray[np.float64]) -> str:
    """Write values as hexadecimal digits."""
    return values.astype("<f8").tobytes().hex()


def floats(text: str, count: int) -> NDArray[np.float64]:
    """Read what `digits` wrote; float64, shape (count,).

    Raises:
        ValueError: The number of values is another one.
    """
    if len(text) != 16 * count:
        raise ValueError(f"{len(text)} digits are not {count} values of 16 digits each")
    return np.frombuffer(bytes.fromhex(text), "<f8").astype(np.float64)


class Fitting:
    """Checks every line of a record, and refuses those that do not fit the lines before."""

    def __init__(self, session: SessionLine, series: list[str]) -> None:
        self._session = session
        self._rates = np.array([name == "lr" or name.endswith(".lr") for name in series])
        self._lineages = {session.lineage}
        self._attempts: set[int] = set()
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._next_event: int | None = None
        self._last: dict[tuple[str, int, str], tuple[int, int]] = {}

    def check(self, line: Content) -> None:
        """Check the next line.

        Raises:
            ValueError: It does not fit.
        """
        match line:
            case AttemptLine():
                self._attempt(line)
            case EventLine():
                self._event(line)
            case SealedLine():
                self._sealed(line)
            case SessionLine():
                raise ValueError("there is a second session")
            case MeasurementsLine():
                self._columns(line, line.horizons)
            case ReadingsLine():
                self._columns(line, line.ranks)
            case SnapshotLine():
                pass  # its states are checked where they are stored

    def finish(self) -> None:
        """Check the end.

        Raises:
            ValueError: Something is missing.
        """
        session = self._session
        following = self._next_event or 0
        if max(following, 0) != session.events:
            raise ValueError(f"there are {max(following, 0)} of {session.events} events")
        running = session.lineage[-1:]
        if running:
            attempt, start = running[0]
            end = self._ends.get(attempt, start)
            if end != session.horizon:
                raise ValueError(
                    f"the horizon is {session.horizon}, but the running attempt is sealed up to"
                    f" step {end}"
                )
        if session.lineage[-1:] and session.lineage[-1][0] != session.attempt:
            raise ValueError("the lineage does not end in the running attempt")
        for lineage in self._lineages:
            for gap in self._gaps(lineage):
                raise ValueError(gap)

    def _attempt(self, line: AttemptLine) -> None:
        if line.attempt in self._attempts:
            raise ValueError(f"attempt {line.attempt} comes twice")
        if line.lineage[-1:] != ((line.attempt, line.start),):
            raise ValueError(f"the lineage of attempt {line.attempt} does not end in it")
        self._attempts.add(line.attempt)
        self._lineages.add(line.lineage)

    def _event(self, line: EventLine) -> None:
        following = self._next_event
        wanted = min(line.number, 0) if following is None else following
        if line.number != wanted:
            raise ValueError(f"event {line.number} comes where {wanted} should")
        self._next_event = wanted + 1

    def _sealed(self, line: SealedLine) -> None:
        series = len(self._rates)
        values = floats(line.values, series * line.count).reshape(series, -1)
        if not np.isfinite(values).all() or (values[self._rates] < 0).any():
            raise ValueError("a sealed value is no value to train with")
        start = self._starts.setdefault(line.attempt, line.start)
        end = self._ends.get(line.attempt, start)
        if line.start != end:
            raise ValueError(
                f"sealed values of attempt {line.attempt} go on at step {line.start}, not {end}"
            )
        self._ends[line.attempt] = line.start + line.count

    def _columns(self, line: MeasurementsLine | ReadingsLine, beside: list[int]) -> None:
        _same_lengths(line.steps, line.ranks, beside)
        floats(line.values, len(line.steps))
        key = line.line, line.attempt, line.metric
        # A step has one measurement, and a reading of each rank.
        ranks = line.ranks if isinstance(line, ReadingsLine) else [0] * len(line.steps)
        for place in zip(line.steps, ranks, strict=True):
            if place <= self._last.get(key, (-1, -1)):
                raise ValueError(
                    f"what was measured of {line.metric} at step {place[0]} comes twice, or is not"
                    " where it belongs by step and rank"
                )
            self._last[key] = place

    def _gaps(self, lineage: Path) -> Iterator[str]:
        """Return the steps of a lineage whose values are missing."""
        running = lineage == self._session.lineage
        last = [(0, self._session.horizon)] if running else []
        if not lineage:
            yield "a lineage is empty"
        for (attempt, start), (_, end) in pairwise([*lineage, *last]):
            from_step, until = self._starts.get(attempt, start), self._ends.get(attempt, start)
            if end < start:
                yield "a lineage goes back"
            if start < end and not (from_step <= start and end <= until):
                yield f"values of the steps {start} to {end - 1} of attempt {attempt} are missing"


def _same_lengths(*columns: list[int]) -> None:
    if len({len(column) for column in columns}) != 1:
        raise ValueError("the columns are of different lengths")
