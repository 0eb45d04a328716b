"""Reports on their way to the server: appended by the trainer, removed once acknowledged."""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeAlias

logger = logging.getLogger("pacesetter")

# Below the server's limits (10,000 values and 1 MiB a call) with room for long metric names.
VALUES_PER_BATCH = 4_000
KEPT_AT_MOST = 20_000
_POINTER = re.compile(r"/reports/(\d+)/")


class Scalar(Protocol):
    """A number, or an array of one element."""

    def __float__(self) -> float: ...


class Deferred:
    """A copy of a scalar on an accelerator, read when a thread that may wait for it does so.

    The copy is queued behind the work that computes the value, and so is the event that tells when
    it is there: taking it makes nobody wait.
    """

    __slots__ = ("_copy", "_ready")

    def __init__(self, tensor: Any) -> None:  # noqa: ANN401 - a torch tensor, if torch were here
        self._copy = tensor.detach().clone()
        self._ready = _event_after(tensor.device)

    def __float__(self) -> float:
        if self._ready is not None:
            self._ready.synchronize()
        return float(self._copy)


Value: TypeAlias = float | Deferred
Entry: TypeAlias = tuple[int, dict[str, Value]]


class Reports:
    """Reports that the server has not acknowledged, oldest first.

    The trainer's thread only appends; only the holder of the session's wire removes. With the
    interpreter's own atomicity of list operations that needs no lock on the step path.

    While the server is away at most about 20,000 reports are kept: beyond that every second one of
    the older half is given up, so the curve stays and its resolution suffers.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._thinned = 0

    def __len__(self) -> int:
        return len(self.entries)

    def batch(self) -> tuple[int, list[dict[str, Any]]]:
        """The oldest reports that fit one call, in the form of the wire, and their number."""
        number = values = 0
        wire = []
        for step, metrics in self.entries[:VALUES_PER_BATCH]:
            if number and values + len(metrics) > VALUES_PER_BATCH:
                break
            wire.append({"step": step, "metrics": encoded(metrics)})
            number += 1
            values += len(metrics)
        return number, wire

    def fit_one_batch(self) -> bool:
        """Whether one call can carry them all."""
        return sum(len(metrics) for _, metrics in self.entries) <= VALUES_PER_BATCH

    def drop(self, number: int) -> None:
        """Remove the oldest `number` reports."""
        del self.entries[:number]

    def drop_from(self, step: int) -> int:
        """Remove the reports of a step and later ones, which are measured again; gives how many."""
        number = len(self.entries)
        kept = [entry for entry in self.entries[:number] if entry[0] < step]
        self.entries[:number] = kept
        return number - len(kept)

    def drop_pointed_at(self, number: int, errors: Iterable[Mapping[str, Any]]) -> None:
        """Remove those of the oldest `number` reports that the server points at, else all."""
        found = (_POINTER.match(str(error.get("pointer"))) for error in errors)
        self._drop_these(number, {int(match[1]) for match in found if match})

    def drop_outside(self, number: int, steps: range) -> None:
        """Remove those of the oldest `number` reports that are of other steps, else all."""
        oldest = enumerate(self.entries[:number])
        self._drop_these(number, {index for index, (step, _) in oldest if step not in steps})

    def _drop_these(self, number: int, refused: set[int]) -> None:
        oldest = enumerate(self.entries[:number])
        self.entries[:number] = [
            entry for index, entry in oldest if refused and index not in refused
        ]

    def thin(self) -> None:
        """Keep memory bounded while nothing can be delivered."""
        before = len(self.entries)
        if before <= KEPT_AT_MOST:
            return
        del self.entries[1 : before // 2 : 2]
        if not self._thinned:
            logger.warning(
                "the server takes no reports: from now on older ones are thinned out, more than "
                "%d are not kept; bring the server back to stop this",
                KEPT_AT_MOST,
            )
        self._thinned += before - len(self.entries)

    def delivered(self) -> None:
        """Say what a time without a server has cost, once it is over."""
        if self._thinned and not self.entries:
            logger.warning("reports are delivered again; %d were given up", self._thinned)
            self._thinned = 0


def capture(value: Any) -> Value:  # noqa: ANN401 - a Scalar, or what is no number at all
    """A metric as it is now, without waiting for an accelerator.

    Raises:
        TypeError: it is no number.
    """
    if isinstance(value, str | bytes):
        raise TypeError(f"a metric must be a number, not {value!r}: report its value")
    if hasattr(value, "detach"):
        if value.device.type != "cpu":
            return Deferred(value)
        value = value.detach()
    return float(value)


def _event_after(device: Any) -> Any:  # noqa: ANN401 - torch's types, without importing torch
    torch = sys.modules.get("torch")
    event = getattr(torch, "Event", None)
    if event is None:
        return None
    mark = event(device=device)
    mark.record()
    return mark


def encoded(values: Mapping[str, Value]) -> dict[str, float | str]:
    """Numbers as JSON has them, and the others by name."""
    return {name: _encode(value) for name, value in values.items()}


def _encode(value: Value) -> float | str:
    number = float(value)
    if math.isfinite(number):
        return number
    return "nan" if math.isnan(number) else "inf" if number > 0 else "-inf"
