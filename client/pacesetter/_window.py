"""Windows: blocks of sealed values, decoded from the server's answer and checked before use.

The server is not trusted: an answer is accepted whole or refused whole.
"""

from __future__ import annotations

import json
import math
import re
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pacesetter._errors import (
    ForeignAnswerError,
    HistoryLostError,
    InvalidAnswerError,
    printable,
)
from pacesetter._notices import Notice

MEDIA_TYPE = "application/vnd.pacesetter.window"
MAX_HEADER = 256 * 1024
MAX_NOTICES = 256
MAX_MESSAGE = 4096
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DOUBLE = 8


class Window:
    """Sealed values of consecutive steps; they never change.

    Attributes:
        start: The first step.
        stop: The step after the last.
        columns: For each series, one value per step, as Python floats (a NumPy float in an
            optimizer would make `torch.load` refuse the checkpoint).
        mark: The index at which the loop that walks the window must call `SessionCore.window`
            again, to have the next one fetched or handed over.
        notices: What the trainer must know about these steps.
        sealed: False when the server was away and its values were made here instead.
    """

    __slots__ = ("columns", "mark", "notices", "sealed", "start", "stop")

    def __init__(
        self,
        start: int,
        columns: dict[str, list[float]],
        notices: tuple[Notice, ...] = (),
        *,
        sealed: bool = True,
    ) -> None:
        self.start = start
        self.stop = start + len(next(iter(columns.values())))
        self.columns = columns
        self.mark = self.stop - start
        self.notices = notices
        self.sealed = sealed

    def __contains__(self, step: int) -> bool:
        return self.start <= step < self.stop

    def __len__(self) -> int:
        return self.stop - self.start

    def part(self, start: int, stop: int) -> Window:
        """Return the steps of the window from `start` on and below `stop`."""
        first, last = start - self.start, stop - self.start
        columns = {name: column[first:last] for name, column in self.columns.items()}
        return Window(start, columns, sealed=self.sealed)

    def values(self, step: int) -> dict[str, float]:
        """Return the value of each series at a step of the window."""
        index = step - self.start
        return {name: column[index] for name, column in self.columns.items()}


def forecast(start: int, columns: Mapping[str, list[float]]) -> Window:
    """Return the forecast values of consecutive steps, as far as all series go."""
    count = min(map(len, columns.values()))
    return Window(start, {name: each[:count] for name, each in columns.items()}, sealed=False)


@dataclass(frozen=True)
class Expected:
    """What an answer to a sync must agree with.

    Attributes:
        attempt: The attempt that the session is in.
        series: Names, in the session's order.
        start: The step asked for; None when no window was requested.
        count: The most steps that may come.
        lr_bounds: Learning rates outside are refused.
        session: The session's name, for notices.
        epoch: The epoch of the server's database; None while none is known.
        held: The step after the last that was handed out to this client in this attempt.
    """

    attempt: int
    series: tuple[str, ...]
    start: int | None = None
    count: int = 0
    lr_bounds: tuple[float, float] = (0.0, math.inf)
    session: str = ""
    epoch: str | None = None
    held: int = 0

    @property
    def max_bytes(self) -> int:
        """The largest answer that can be right."""
        return MAX_HEADER + _DOUBLE * len(self.series) * self.count


@dataclass(frozen=True)
class Answer:
    """The content of an answer to a sync."""

    horizon: int
    revision: int
    max_lookahead: int | None
    window: Window | None
    epoch: str | None = None


def decode(content: bytes, expected: Expected) -> Answer:
    """Read one answer to a sync.

    Raises:
        ForeignAnswerError: It is no answer to a sync, or only the beginning of one.
        InvalidAnswerError: It is malformed, or is not what was asked for.
        HistoryLostError: It is of a database that has lost what was handed out before.
    """
    line, _, block = content.partition(b"\n")
    header = _header(line)
    attempt = _natural(header, "attempt")
    if attempt != expected.attempt:
        raise _refusal(f"attempt {attempt}, not {expected.attempt}")
    lookahead = header.get("max_lookahead")
    horizon, epoch = _natural(header, "horizon"), header.get("epoch")
    _refuse_lost(horizon, epoch, expected)
    return Answer(
        horizon=horizon,
        revision=_natural(header, "revision"),
        max_lookahead=None if lookahead is None else _natural(header, "max_lookahead"),
        window=None if expected.start is None else _window(header, block, expected),
        epoch=epoch,
    )


def _refuse_lost(horizon: int, epoch: object, expected: Expected) -> None:
    """Refuse a database that may contradict what was handed out.

    The horizon is compared with what was received here: it may recede for other trainers, but not
    below that.
    """
    if epoch is not None and not isinstance(epoch, str):
        raise _refusal(f"epoch {epoch!r}, no text")
    if epoch is not None and expected.epoch not in {None, epoch}:
        found = f"is in another epoch ({printable(epoch)}) than before ({expected.epoch})"
        raise _lost(found, "another_epoch", horizon)
    if horizon < expected.held:
        found = f"has sealed {horizon} steps, and had handed out {expected.held} to this training"
        raise _lost(found, "horizon_receded", horizon)


def _lost(found: str, code: str, horizon: int) -> HistoryLostError:
    return HistoryLostError(
        f"the server's database {found}: an older copy was restored, or it was replaced. Nothing "
        f"of the answer was used. Load a checkpoint of step {horizon} or an earlier one, or call "
        f"restart(step) with such a step; or have the newest database put back",
        status=409,
        code=code,
    )


def _header(line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _foreign(f"no JSON in its first line ({error})") from error
    if not isinstance(header, dict):
        raise _foreign("no JSON object in its first line")
    if "attempt" not in header:
        raise _foreign("no attempt")
    return header


def _natural(header: dict[str, Any], key: str) -> int:
    value = header.get(key)
    if type(value) is not int or value < 0:
        raise _refusal(f"{key} {value!r}, not a count")
    return value


def _window(header: dict[str, Any], block: bytes, expected: Expected) -> Window:
    count = _natural(header, "count")
    if _natural(header, "start") != expected.start:
        raise _refusal(f"start {header['start']}, not {expected.start}")
    if header.get("series") != list(expected.series):
        raise _refusal(f"series {header.get('series')!r}, not {list(expected.series)}")
    if not 1 <= count <= expected.count:
        raise _refusal(f"{count} steps, not 1 to {expected.count}")
    width = _DOUBLE * count
    size = width * len(expected.series)
    if len(block) < size:  # the connection may have been closed in the middle
        raise _foreign(f"{len(block)} bytes, not {size}")
    if len(block) > size:
        raise _refusal(f"{len(block)} bytes, not {size}")
    columns = {
        name: _column(name, block[at * width : (at + 1) * width], expected)
        for at, name in enumerate(expected.series)
    }
    assert expected.start is not None  # noqa: S101 - the caller's branch, for the type checker
    return Window(expected.start, columns, _notices(header, count, expected))


def _notices(header: dict[str, Any], count: int, expected: Expected) -> tuple[Notice, ...]:
    """Return the notices of a window; a server that has none may leave them out."""
    found = header.get("notices", [])
    if not isinstance(found, list) or len(found) > MAX_NOTICES:
        raise _refusal(f"notices that are no list of at most {MAX_NOTICES}")
    return tuple(_notice(each, count, expected) for each in found)


def _notice(found: object, count: int, expected: Expected) -> Notice:
    if not isinstance(found, dict):
        raise _refusal("a notice that is no JSON object")
    step, code, message = (found.get(key) for key in ("step", "code", "message"))
    start = expected.start or 0
    if type(step) is not int or not start <= step < start + count:
        raise _refusal(f"a notice of step {step!r}, which is not in the window")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise _refusal("a notice whose code is no name")
    if not isinstance(message, str) or len(message) > MAX_MESSAGE:
        raise _refusal(f"a notice whose message is no text of at most {MAX_MESSAGE} characters")
    good_step = found.get("good_step")
    if good_step is not None and (type(good_step) is not int or good_step < 0):
        raise _refusal(f"a notice whose good step is {good_step!r}")
    return Notice(expected.session, step, code, message, good_step)


def _column(name: str, block: bytes, expected: Expected) -> list[float]:
    return checked(name, doubles(block).tolist(), expected)


def doubles(column: bytes | Sequence[float]) -> array[float]:
    """Return a column with its bytes swapped to or from the wire's little-endian order."""
    found = array("d", column)
    if sys.byteorder == "big":
        found.byteswap()
    return found


def checked(name: str, values: list[float], expected: Expected) -> list[float]:
    """Return a series' values, if a training may use them.

    Raises:
        InvalidAnswerError: A value is not finite, or out of bounds.
    """
    low, high = _bounds(name, expected)
    # A finite sum means that every value is; it may overflow, hence the second test. It costs a
    # tenth of testing each, and NaN would slip through min and max.
    if not math.isfinite(sum(values)) and not all(map(math.isfinite, values)):
        raise _refusal(f"a value of {name} that is not finite")
    if min(values) < low or max(values) > high:
        raise _refusal(
            f"{name} from {min(values):g} to {max(values):g}, outside [{low:g}, {high:g}]"
        )
    return values


def _bounds(name: str, expected: Expected) -> tuple[float, float]:
    channel = name.rpartition(".")[2]
    if channel == "lr":
        return expected.lr_bounds
    return (0.0, 1.0) if channel == "momentum" else (0.0, math.inf)


def _foreign(found: str) -> ForeignAnswerError:
    return ForeignAnswerError(
        f"the answer is no window of Pacesetter's, or was cut off: it has {found}. See what stands "
        "between, and that the URL is Pacesetter's"
    )


def _refusal(found: str) -> InvalidAnswerError:
    return InvalidAnswerError(
        f"the server's window was refused, nothing of it was used: it has {found}. Check the "
        "session's values on the server, then run again"
    )
