"""What the charts of a session show: sealed values, the forecast, metrics, and what happened."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from markupsafe import Markup

from pacesetter_service.core.actions import Order
from pacesetter_service.core.session import Session
from pacesetter_service.core.watching import plan_end
from pacesetter_service.dashboard.drawing import Line, Mark, chart
from pacesetter_service.runtime.queries.curves import Curve
from pacesetter_service.runtime.queries.events import LoggedEvent, list_newest
from pacesetter_service.runtime.queries.history import (
    MAX_METRICS,
    History,
    HistoryQuestion,
    read_history,
)
from pacesetter_service.runtime.queries.sessions import read_session
from pacesetter_service.runtime.queries.values import read_forecast
from pacesetter_service.runtime.service import Service

AHEAD = 1_000
"""How many steps of a plan without an end are forecast, if less was trained."""

MARKED = ("decided", "acted", "attempt_opened", "taken_back", "forked", "noticed", "rate_deviated",
          "boundary_passed", "missed", "finished", "batch_resized", "reopened")  # fmt: skip
"""The kinds of events that are marked in a chart."""

MOST_VALUES = 2**19
"""How many values all curves of a session have together: of many groups each has fewer points."""

FEWEST = 20
"""How many points a curve has at least."""

MOST_MARKS = 200
"""How many of the newest events are marked in a chart."""

KINDS_OF_MARKS = {
    "decided": "decision",
    "acted": "order",
    "ordered": "waiting",
    "attempt_opened": "attempt",
    "taken_back": "attempt",
    "forked": "attempt",
    "finished": "attempt",
    "reopened": "attempt",
    "batch_resized": "order",
}
"""How marks look; what is not here is an alarm."""


@dataclass(frozen=True, slots=True)
class Record:
    """What was trained with and measured, and what would be.

    Attributes:
        past: The sealed values, with metrics.
        future: The values from its end on.
        marks: What happened, and what waits.
        per_epoch: Steps in an epoch, if the session says so.
    """

    past: History
    future: Curve
    marks: list[Mark]
    per_epoch: int | None

    def trace(self, series: str) -> tuple[list[int], list[float | None], list[float | None]]:
        """Return the steps of a series, its sealed values there, and those of its forecast."""
        row = self.future.names.index(series)
        ahead = self.future.block[row].tolist()
        before = self.past.series[series]
        steps = [*self.past.steps, *self.future.steps]
        # The forecast begins where the sealed values end, so that the curve has no gap.
        joint = before[-1:] if before else []
        sealed: list[float | None] = [*before, *([None] * len(ahead))]
        later: list[float | None] = [*([None] * (len(before) - len(joint))), *joint, *ahead]
        return steps, sealed, later

    def as_json(self, chosen: Sequence[str], trained: int | None) -> dict[str, object]:
        """Return what a script draws the same from, of some series."""
        steps: list[int] = []
        series: dict[str, dict[str, list[float | None]]] = {}
        for name in chosen:
            steps, sealed, ahead = self.trace(name)
            series[name] = {"sealed": sealed, "forecast": ahead}
        return {
            "steps": steps,
            "series": series,
            "metric_steps": self.past.steps,
            "metrics": {name: _finite(each) for name, each in self.past.metrics.items()},
            "marks": [
                {"step": each.step, "kind": each.kind, "text": each.text} for each in self.marks
            ],
            "horizon": self.past.end,
            "trained": trained,
            "per_epoch": self.per_epoch,
        }

    def picture(self, series: Sequence[str], trained: int | None, *, logarithmic: bool) -> Markup:
        """Draw some series: what is sealed, and the forecast dashed."""
        lines = []
        for colour, name in enumerate(series):
            steps, sealed, later = self.trace(name)
            lines.append(Line(name, steps, sealed, colour))
            lines.append(Line(name, steps, later, colour, "dashed"))
        ahead = None if trained is None else (trained + 1, self.past.end)
        return chart(
            lines,
            label=f"{', '.join(series)} by step: sealed until step {self.past.end}, then forecast",
            shade=ahead,
            marks=self.marks,
            from_zero=True,
            logarithmic=logarithmic,
            axis=self._axis(),
        )

    def picture_of(self, metric: str, colour: int, *, logarithmic: bool) -> Markup:
        """Draw a metric over the same axis."""
        line = Line(metric, self.past.steps, _finite(self.past.metrics[metric]), colour)
        return chart(
            [line],
            label=f"{metric} by step",
            marks=self.marks,
            logarithmic=logarithmic,
            height=200,
            axis=self._axis(),
        )

    def _axis(self) -> tuple[int, int]:
        ends = [*self.past.steps[:1], *self.future.steps[:1], *self.future.steps[-1:]]
        return min(ends, default=0), max([*ends, self.past.end])


def _finite(values: Sequence[float | None]) -> list[float | None]:
    return [each if each is not None and isfinite(each) else None for each in values]


async def read_record(
    service: Service, name: str, points: int, start: int | None = None, end: int | None = None,
    attempt: int | None = None,
) -> Record:  # fmt: skip
    """Return what a session's charts show, about `points` steps of it.

    Args:
        service: The service.
        name: The session's name.
        points: About how many steps are shown.
        start: The first one; None for the first of all.
        end: The first one that is not shown; None for where the plan ends.
        attempt: An earlier attempt; None for the running one.

    Raises:
        SessionNotFoundError: There is no session of that name.
        ArgumentError: It has no such attempt.
        BusyError: Too many costly answers are being made already.
    """
    info = await read_session(service, name)
    session, spec = info.session, info.session.spec
    if start is not None:
        start = min(max(start, spec.start_step), session.horizon)
        end = None if end is None else max(end, start)
    reported = sorted(session.reported)[:MAX_METRICS]
    points = min(points, max(MOST_VALUES // (len(session.timelines) + len(reported)), FEWEST))
    question = HistoryQuestion(start, end, points, reported or None, by_rank=False, attempt=attempt)
    past = await read_history(service, name, question, lambda found: found)
    if past.end < session.horizon:  # what is shown ends with steps that are sealed
        names = list(past.series)
        future = Curve(names, [], np.empty((len(names), 0)))
        return Record(
            past, future, await _marks(service, name, session.orders.waiting), spec.steps_per_epoch
        )
    last = max(spec.total_steps or 0, plan_end(session) or 0)
    if last <= past.end:
        last = past.end + _behind(session, past)
    if end is not None:
        last = min(last, max(end, past.end + 1))
    future = await read_forecast(
        service, name, past.end, last - past.end, max(points // 2, 20), lambda found: found
    )
    return Record(past, future, await _marks(service, name, info.session.orders.waiting),
                  spec.steps_per_epoch)  # fmt: skip


def _behind(session: Session, past: History) -> int:
    """Return how many steps are forecast of a session that has no plan, or is at its end."""
    if session.status != "active" or session.spec.total_steps or plan_end(session):
        return 1
    return max((past.end - past.start) // 4, AHEAD)


async def _marks(service: Service, name: str, waiting: Sequence[Order]) -> list[Mark]:
    newest = await list_newest(service, name, MOST_MARKS, MARKED)
    marks = [mark for event in reversed(newest) if (mark := mark_of(event)) is not None]
    for order in waiting:
        text = f"{order.actor} ordered for step {order.at}: {order.action.cause()}."
        marks.append(Mark(order.at, "waiting", text))
    return marks


def mark_of(event: LoggedEvent) -> Mark | None:
    """Return how an event is marked in a chart; None if it is about no step."""
    if event.at is None:
        return None
    return Mark(event.at, KINDS_OF_MARKS.get(event.kind, "alarm"), event.text)
