"""Reports on their way to the server: appended by the trainer, removed once acknowledged."""

from __future__ import annotations

import logging
import math
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeAlias

from pacesetter._errors import printable

logger = logging.getLogger("pacesetter")

# Below the server's limits (10,000 values and 1 MiB a call) with room for long metric names.
VALUES_PER_BATCH = 4_000
KEPT_AT_MOST = 20_000
# The bound holds however fast a trainer reports, and whatever the server does.
HELD_AT_MOST = 100_000
# Names remembered as refused: a trainer may make up a new one at each step.
TOLD_AT_MOST = 1_000
# Services of version 0.1 point at a name with a `[key]` after it.
_POINTER = re.compile(r"/reports/(\d+)/(?:metrics/([^/]*)(/\[key\])?$)?")


class Scalar(Protocol):
    """A number, or an array of one element."""

    def __float__(self) -> float: ...


class Deferred:
    """A copy of a scalar on an accelerator, read by a thread that may wait for it.

    The copy is queued after the work that computes the value, and so is the event that signals its
    arrival: making the copy blocks no thread.
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

    The trainer's threads append: list operations are atomic in the interpreter, so the step path
    needs no lock. The holder of the session's lock removes. `bound` also removes, but only what is
    not on its way to the server.

    While the server is away, at most 20,000 reports are kept. Beyond that, every second one of the
    older half is dropped, so the curve stays and its resolution suffers.

    Attributes:
        entries: Steps with their metrics.
        refused: Counts what was dropped because the server refused it.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.refused = 0
        self._refused_names: set[str] = set()
        self._told: set[str] = set()
        self._thinned = 0
        self._on_the_way = 0  # the oldest, which their delivery removes by count
        self._removing = threading.Lock()

    def __len__(self) -> int:
        return len(self.entries)

    def batch(self, *, below: int | None = None) -> tuple[int, list[dict[str, Any]]]:
        """Return the number of the oldest reports that fit one call, and these in wire form.

        Args:
            below: End before the first report of this step or a later one.
        """
        number = values = 0
        wire = []
        with self._removing:
            waiting = self.entries[:VALUES_PER_BATCH]
            oldest = [entry for entry in map(self._accepted, waiting) if entry[1]]
            self.entries[: len(waiting)] = oldest
            self._on_the_way = len(oldest)
        for step, metrics in oldest:
            if number and values + len(metrics) > VALUES_PER_BATCH:
                break
            if below is not None and step >= below:
                break
            wire.append({"step": step, "metrics": encoded(metrics)})
            number += 1
            values += len(metrics)
        return number, wire

    def _accepted(self, entry: Entry) -> Entry:
        """Return a report without what the server would refuse again."""
        step, metrics = entry
        if self._refused_names.isdisjoint(metrics):
            return entry
        return step, {name: metrics[name] for name in metrics if name not in self._refused_names}

    def fit_one_batch(self) -> bool:
        """Return whether one call can carry them all."""
        return sum(len(metrics) for _, metrics in self.entries) <= VALUES_PER_BATCH

    def drop(self, number: int) -> None:
        """Remove the oldest `number` reports."""
        with self._removing:
            del self.entries[:number]
            self._on_the_way = 0

    def drop_from(self, step: int) -> int:
        """Remove the reports from a step on, which are measured again; return how many."""
        with self._removing:
            number = len(self.entries)
            kept = [entry for entry in self.entries[:number] if entry[0] < step]
            self.entries[:number] = kept
            self._on_the_way = 0
            return number - len(kept)

    def drop_pointed_at(self, number: int, errors: Iterable[Mapping[str, Any]]) -> bool:
        """Remove what the server points at in the oldest `number` reports, else all of them.

        Where the server points at a metric, only that value is removed; where it points at the
        name, all later values of the metric too.

        Returns:
            Whether single values were all that it pointed at, so that the rest may be sent again.
        """
        whole: set[int] = set()
        values: set[tuple[int, str]] = set()
        for error in errors:
            found = _POINTER.match(str(error.get("pointer")))
            if found is None:
                continue
            index, metric = int(found[1]), found[2]
            if metric is None:
                whole.add(index)
                continue
            name = metric.replace("~1", "/").replace("~0", "~")
            values.add((index, name))
            by_name = error.get("about") == "name" or found[3] is not None
            self._note_refused(name, str(error.get("detail")), by_name=by_name)
        dropped = self._drop_values(number, values)
        if whole or not dropped:
            self._drop_these(number, whole)
        return bool(dropped) and not whole

    def _note_refused(self, name: str, reason: str, *, by_name: bool) -> None:
        first = name not in self._told and len(self._told) < TOLD_AT_MOST
        if first:
            self._told.add(name)
            if by_name:
                self._refused_names.add(name)
        logger.log(
            logging.ERROR if first else logging.DEBUG,
            "the server refuses the metric %s (%s): it is left out of what is reported, all else "
            "is delivered; %s",
            printable(repr(name)),
            printable(reason),
            "give it another name" if by_name else "see what is reported",
        )

    def _drop_values(self, number: int, values: set[tuple[int, str]]) -> int:
        """Remove single metrics, each by the place of its report; return how many."""
        dropped = 0
        with self._removing:
            for index, (step, metrics) in enumerate(self.entries[:number]):
                kept = {name: each for name, each in metrics.items() if (index, name) not in values}
                if len(kept) < len(metrics):
                    dropped += len(metrics) - len(kept)
                    self.entries[index] = (step, kept)
        self.refused += dropped
        return dropped

    def any_outside(self, number: int, steps: range) -> bool:
        """Return whether any of the oldest `number` reports is of another step."""
        return any(step not in steps for step, _ in self.entries[:number])

    def drop_outside(self, number: int, steps: range) -> None:
        """Remove those of the oldest `number` reports that are of other steps, else all."""
        oldest = enumerate(self.entries[:number])
        self._drop_these(number, {index for index, (step, _) in oldest if step not in steps})

    def _drop_these(self, number: int, refused: set[int]) -> None:
        with self._removing:
            oldest = self.entries[:number]
            kept = [entry for index, entry in enumerate(oldest) if refused and index not in refused]
            self.entries[:number] = kept
            self._on_the_way = 0
        self.refused += len(oldest) - len(kept)

    def thin(self) -> None:
        """Keep few, as none can be delivered; for the holder of the lock, between calls."""
        with self._removing:
            self._on_the_way = 0
        self._thin(KEPT_AT_MOST)

    def bound(self) -> None:
        """Keep memory bounded whatever happens; any thread may call it."""
        self._thin(HELD_AT_MOST)

    def _thin(self, most: int) -> None:
        if len(self.entries) <= most:
            return
        with self._removing:
            before = len(self.entries)
            while (number := len(self.entries)) > most:
                del self.entries[max(1, self._on_the_way) : number // 2 : 2]
            lost, first = before - len(self.entries), not self._thinned
            self._thinned += lost
        if lost and first:
            logger.warning(
                "the server takes no reports, or not as fast as they come: from now on older ones "
                "are thinned out, more than %d are not kept; see that the server is there",
                most,
            )

    def delivered(self) -> None:
        """Log what an outage has cost, once it is over."""
        if self._thinned and not self.entries:
            logger.warning("reports are delivered again; %d were given up", self._thinned)
            self._thinned = 0


def capture(value: Any) -> Value:  # noqa: ANN401 - a Scalar, or what is no number at all
    """Return a metric as it is now, without waiting for an accelerator.

    Raises:
        TypeError: It is not a number.
    """
    if isinstance(value, str | bytes):
        raise TypeError(f"a metric must be a number, not {value!r}: report its value")
    if hasattr(value, "detach"):
        # Check it now, where the trainer sees the error: a copy is read in the background.
        if value.numel() != 1 or value.is_complex():
            raise TypeError(
                f"a metric must be one real number, not a tensor of {value.dtype} with the shape "
                f"{list(value.shape)}: report its mean, say"
            )
        if value.device.type != "cpu":
            return Deferred(value)
        value = value.detach()
    return float(value)


def check_name(name: str) -> None:
    """Refuse a metric's name that no server can take: it would cost other reports too.

    Raises:
        ValueError: It has half of a surrogate pair in it, as bytes have that were read as text.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"the name of the metric {name!r} is not text that can be sent: decode it properly, or "
            "give it another name"
        ) from None


def _event_after(device: Any) -> Any:  # noqa: ANN401 - torch's types, without importing torch
    torch = sys.modules.get("torch")
    event = getattr(torch, "Event", None)
    if event is None:
        return None
    mark = event(device=device)
    mark.record()
    return mark


def encoded(values: Mapping[str, Value]) -> dict[str, float | str]:
    """Return finite numbers as JSON numbers, and the others by name."""
    return {name: _encode(value) for name, value in values.items()}


def _encode(value: Value) -> float | str:
    number = float(value)
    if math.isfinite(number):
        return number
    return "nan" if math.isnan(number) else "inf" if number > 0 else "-inf"
