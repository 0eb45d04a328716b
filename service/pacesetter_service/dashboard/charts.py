"""The charts of a session: sealed values, the forecast, metrics, and what happened."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from pacesetter_service.core.actions import Order
from pacesetter_service.core.errors import StepOutOfRangeError
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.session import Session
from pacesetter_service.core.watching import plan_end
from pacesetter_service.dashboard.axes import Axis, Unit
from pacesetter_service.dashboard.drawing import Line, Mark, chart, has_place
from pacesetter_service.dashboard.facts import Facts
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.queries.attempt_ranges import list_trained_anew
from pacesetter_service.runtime.queries.curves import Curve
from pacesetter_service.runtime.queries.events import LoggedEvent, list_newest
from pacesetter_service.runtime.queries.history import (
    MAX_METRICS,
    History,
    HistoryQuestion,
    read_history,
)
from pacesetter_service.runtime.queries.moments import Moments, read_moments
from pacesetter_service.runtime.queries.sessions import read_session
from pacesetter_service.runtime.queries.values import read_forecast
from pacesetter_service.runtime.service import Service

AHEAD = 1_000
"""How many steps of an endless plan are forecast at least."""

MARKED = ("decided", "acted", "attempt_opened", "taken_back", "forked", "noticed", "rate_deviated",
          "boundary_passed", "missed", "finished", "batch_resized", "reopened")  # fmt: skip
"""The kinds of events that are marked in a chart."""

MOST_VALUES = 2**19
"""The most values of all curves of a session: with many groups, each has fewer points."""

FEWEST = 20
"""The fewest points of a curve."""

MOST_MARKS = 200
"""The most events that are marked in a chart: the newest ones."""

MOST_OVER = 5
"""The most ended attempts that are shown: the newest ones."""

FLAT = 4
"""A forecast that stays constant is shown for one part in this many of the trained steps."""

BEYOND = 20
"""One part in this many is shown after the end of a plan that is over."""

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
"""The looks of marks; events that are not here look like an alarm."""


@dataclass(frozen=True, slots=True)
class Over:
    """An ended attempt: those of its steps that a later one has trained again.

    Attributes:
        attempt: Its number.
        past: The values that it was trained with, and its measurements.
        moments: When its steps were trained.
    """

    attempt: int
    past: History
    moments: Moments

    def as_json(self, chosen: Sequence[str]) -> dict[str, object]:
        """Return the data from which a script draws the same, for some series."""
        return {
            "attempt": self.attempt,
            "steps": self.past.steps,
            "series": {name: self.past.series[name] for name in chosen},
            "metrics": {name: with_gaps(each) for name, each in self.past.metrics.items()},
            "moments": asdict(self.moments),
        }


@dataclass(frozen=True, slots=True)
class Record:
    """The past and the forecast of a session.

    Attributes:
        past: The sealed values, with metrics.
        future: The forecast values after them.
        marks: Past events, and pending orders.
        per_epoch: Steps in an epoch, if the session says so.
        moments: When steps were trained, and when future ones may be.
        over: Ended attempts, where a later one has trained the steps again.
    """

    past: History
    future: Curve
    marks: list[Mark]
    per_epoch: int | None
    moments: Moments = field(default_factory=Moments)
    over: list[Over] = field(default_factory=list)

    @property
    def units(self) -> list[Unit]:
        """The units that the axis of its charts can have."""
        found: list[Unit] = ["step"]
        if self.per_epoch:
            found.append("epoch")
        if self.moments.known:
            found.append("time")
        return found

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
        """Return the data from which a script draws the same, for some series."""
        steps: list[int] = []
        series: dict[str, dict[str, list[float | None]]] = {}
        for name in chosen:
            steps, sealed, ahead = self.trace(name)
            series[name] = {"sealed": sealed, "forecast": ahead}
        return {
            "steps": steps,
            "series": series,
            "metric_steps": self.past.steps,
            "metrics": {name: with_gaps(each) for name, each in self.past.metrics.items()},
            "marks": [
                {"step": each.step, "kind": each.kind, "text": each.text} for each in self.marks
            ],
            "horizon": self.past.end,
            "trained": trained,
            "per_epoch": self.per_epoch,
            "moments": asdict(self.moments),
            "over": [each.as_json(chosen) for each in self.over],
        }

    def picture(self, series: Sequence[str], trained: int | None, look: "Look") -> Markup:
        """Draw some series: sealed values, the forecast dashed, and ended attempts grey."""
        axis, lines = self._axis(look), []
        for each in self._beside(axis):
            at = axis.places(each.past.steps, each.moments)
            lines += [Line(name, at, each.past.series[name], 0, "over") for name in series]
        for colour, name in enumerate(series):
            steps, sealed, later = self.trace(name)
            places = axis.places(steps)
            lines.append(Line(name, places, sealed, colour))
            lines.append(Line(name, places, later, colour, "dashed"))
        shade = None
        if trained is not None:
            first, last = axis.places([trained + 1, self.past.end])
            shade = (first, last)
        return chart(
            lines,
            label=f"{', '.join(series)} by {look.unit}: sealed until step {self.past.end}, then"
            " forecast",
            shade=shade,
            marks=self._marked(axis),
            from_zero=True,
            logarithmic=look.logarithmic,
            axis=self._ends(axis),
            across=axis,
        )

    def picture_of(self, metric: str, colour: int, look: "Look") -> Markup:
        """Draw a metric over the same axis."""
        axis = self._axis(look)
        lines = [
            Line(
                metric,
                axis.places(each.past.steps, each.moments),
                with_gaps(each.past.metrics[metric]),
                0,
                "over",
            )
            for each in self._beside(axis)
            if metric in each.past.metrics
        ]
        values = with_gaps(self.past.metrics[metric])
        lines.append(Line(metric, axis.places(self.past.steps), values, colour))
        return chart(
            lines,
            label=f"{metric} by {look.unit}",
            marks=self._marked(axis),
            logarithmic=look.logarithmic,
            height=200,
            axis=self._ends(axis),
            across=axis,
        )

    def _axis(self, look: "Look") -> Axis:
        unit = look.unit if look.unit in self.units else "step"
        return Axis(unit, self.per_epoch or 1, self.moments)

    def _beside(self, axis: Axis) -> list[Over]:
        """Return the ended attempts whose places on the axis are known."""
        return [each for each in self.over if axis.unit != "time" or each.moments.known]

    def _marked(self, axis: Axis) -> list[Mark]:
        places = axis.places([each.step for each in self.marks])
        return [
            Mark(place, each.kind, each.text)
            for place, each in zip(places, self.marks, strict=True)
        ]

    def _ends(self, axis: Axis) -> tuple[float, float]:
        ends = [*self.past.steps[:1], *self.future.steps[:1], *self.future.steps[-1:]]
        places = axis.places([*ends, self.past.end])
        for each in self._beside(axis):
            places += axis.places([*each.past.steps[:1], *each.past.steps[-1:]], each.moments)
        return min(places), max(places)


class Look(NamedTuple):
    """How charts are drawn: over which unit, and on which scale."""

    unit: Unit = "step"
    logarithmic: bool = False


class Part(NamedTuple):
    """Which part of a record is shown.

    Attributes:
        start: The first step; None for the session's first.
        end: The first step that is not shown; None for the end of the plan.
        attempt: An earlier attempt; None for the running one.
        over: Whether ended attempts are shown beside the running one.
    """

    start: int | None = None
    end: int | None = None
    attempt: int | None = None
    over: bool = False


WHOLE = Part()


def with_gaps(values: Sequence[float | None]) -> list[float | None]:
    """Return values as a chart shows them: NaN, infinities and the largest floats become None."""
    return [each if has_place(each) else None for each in values]


async def read_record(service: Service, facts: Facts, points: int, part: Part = WHOLE) -> Record:
    """Return the record that a session's charts show, with about `points` steps.

    Raises:
        SessionNotFoundError: There is no session of that name.
        ArgumentError: It has no such attempt.
        BusyError: Too many costly answers are being prepared already.
    """
    name = facts.name
    session = (await read_session(service, name)).session
    spec, start, end = session.spec, part.start, part.end
    running = part.attempt is None or session.attempt.includes(part.attempt)
    if start is not None:
        start = min(max(start, spec.start_step), session.horizon)
        end = None if end is None else max(end, start)
    if running and start is None and end is None:
        end = _end_of_plan(session, facts.trained)
    reported = sorted(session.reported)[:MAX_METRICS]
    points = min(points, max(MOST_VALUES // (len(session.timelines) + len(reported)), FEWEST))
    question = HistoryQuestion(
        start, end, points, reported or None, by_rank=False, attempt=part.attempt
    )
    past = await read_history(service, name, question, lambda found: found)
    future = Curve(list(past.series), [], np.empty((len(past.series), 0)))
    if running and past.end >= session.horizon:  # otherwise the chart ends with sealed steps
        last = max(spec.total_steps or 0, plan_end(session) or 0)
        endless = last <= past.end
        if endless:
            last = past.end + _behind(session, past)
        if end is not None:
            last = min(last, max(end, past.end + 1))
        future = await read_forecast(
            service, name, past.end, last - past.end, max(points // 2, 20), lambda found: found
        )
        if endless and end is None:
            future = without_tail(future, max((past.end - past.start) // FLAT, FEWEST))
    over = await _over(service, session, points, part) if running and part.over else []
    ends = [past.start, past.end, *future.steps[-1:]]
    moments = await read_moments(service, facts.status, attempt=part.attempt)
    return Record(
        past,
        future,
        await _marks(service, name, session.orders.waiting),
        spec.steps_per_epoch,
        moments.reaching(min(ends), max(ends), facts.pace if running else None),
        [
            Over(number, each, await _moments_of(service, facts, number, each))
            for number, each in over
        ],
    )


async def _moments_of(service: Service, facts: Facts, attempt: int, past: History) -> Moments:
    """Return when the steps of an ended attempt were trained."""
    found = await read_moments(service, facts.status, attempt=attempt)
    return found.reaching(past.steps[0], past.steps[-1], facts.pace)


def _end_of_plan(session: Session, trained: int | None) -> int | None:
    """Return the end of the chart for a session that is sealed far beyond its plan, else None.

    Callers that only look may have had any number of steps sealed that no trainer will reach.
    """
    plan = max(session.spec.total_steps or 0, plan_end(session) or 0)
    if not plan:
        return None
    start = session.spec.start_step
    last = max(plan, start if trained is None else trained + 1)
    last += max((last - start) // BEYOND, 1)
    return last if last < session.horizon else None


def without_tail(curve: Curve, room: int) -> Curve:
    """Return a curve that ends `room` steps after it has become constant."""
    same = (curve.block == curve.block[:, -1:]).all(axis=0)
    flat = len(same) - int(np.argmin(same[::-1])) if not same.all() else 0
    last = curve.steps[flat] + room if curve.steps else 0
    if not curve.steps or last >= curve.steps[-1]:
        return curve
    steps = [*curve.steps[: flat + 1], last]
    block = np.concatenate([curve.block[:, : flat + 1], curve.block[:, -1:]], axis=1)
    return replace(curve, steps=steps, block=block)


async def _over(
    service: Service, session: Session, points: int, part: Part
) -> list[tuple[int, History]]:
    """Return the records of ended attempts, where a later one has trained the steps again."""
    among = (part.start or 0, MAX_STEP if part.end is None else part.end)
    found: list[tuple[int, History]] = []
    for attempt, first in await list_trained_anew(service, session, among, MOST_OVER):
        question = HistoryQuestion(
            first, part.end, max(points // 4, FEWEST), sorted(session.reported)[:MAX_METRICS],
            by_rank=False, attempt=attempt,
        )  # fmt: skip
        with suppress(StepOutOfRangeError, ArgumentError):  # it was purged, or changed meanwhile
            past = await read_history(service, session.spec.name, question, lambda past: past)
            if past.steps:
                found.append((attempt, past))
    return found


def _behind(session: Session, past: History) -> int:
    """Return how many steps are forecast for a session without a plan, or at its plan's end."""
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
    """Return the mark of an event in a chart; None if the event is about no step."""
    if event.at is None:
        return None
    return Mark(event.at, KINDS_OF_MARKS.get(event.kind, "alarm"), event.text)
