"""The axis below a chart: steps, epochs, or the times at which steps were trained."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil, floor, log10
from typing import Literal, get_args

from pacesetter_service.dashboard.wording import count
from pacesetter_service.runtime.queries.moments import Moments

Unit = Literal["step", "epoch", "time"]
UNITS: tuple[Unit, ...] = get_args(Unit)

TINY = 1e-290

MINUTE, HOUR, DAY = 60, 3600, 86_400

SPACES = (1, 2, 5, 10, 15, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE,
          30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY,
          14 * DAY, 28 * DAY, 91 * DAY, 364 * DAY)  # fmt: skip
"""Possible seconds between two times below a chart."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The places of steps, and the labels there.

    Attributes:
        unit: The unit of the axis.
        per_epoch: Steps in an epoch.
        moments: When steps were trained.
    """

    unit: Unit = "step"
    per_epoch: int = 1
    moments: Moments = field(default_factory=Moments)

    def places(self, steps: Sequence[float], moments: Moments | None = None) -> list[float]:
        """Return the places of steps: the steps themselves, or when they were trained.

        Args:
            steps: The steps.
            moments: When these steps were trained, if they were trained in another attempt.
        """
        if self.unit != "time":
            return list(steps)
        clock = self.moments if moments is None else moments
        return [clock.at(step) for step in steps]

    def ticks(self, first: float, last: float, about: int) -> list[float]:
        """Return the places of the labels."""
        if self.unit == "time":
            space = _space((last - first) / about)
            return [space * n for n in range(ceil(first / space), int(last / space) + 1)]
        size = self.per_epoch if self.unit == "epoch" else 1
        return [size * each for each in ticks(first / size, last / size, about)]

    def text(self, place: float, first: float, last: float) -> str:
        """Return the label at a place of an axis from `first` to `last`."""
        if self.unit == "epoch":
            return f"{place / self.per_epoch:,.6g}"
        if self.unit == "step":
            return count(place)
        moment, long = datetime.fromtimestamp(place, UTC), last - first
        if long > 4 * DAY:
            return moment.strftime("%b %d")
        if long > DAY // 2:
            return moment.strftime("%b %d %H:%M")
        return moment.strftime("%H:%M" if long > 8 * MINUTE else "%H:%M:%S")


STEPS = Axis()


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers between two numbers."""
    raw = (high - low) / about
    power = 10.0 ** floor(log10(max(raw, TINY)))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999), raw)
    return [n * step for n in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def _space(about: float) -> float:
    longest = SPACES[-1]
    return next((each for each in SPACES if each >= about), longest * ceil(about / longest))
