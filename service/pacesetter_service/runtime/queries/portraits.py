"""Pictures of a training: its curves, marked where it was decided on, ordered and resumed."""

from collections.abc import Mapping, Sequence
from itertools import islice

from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.insight.run_pictures import Bounds, Line, Mark, MarkKind, Panel, draw_run
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.queries.curves import Curve
from pacesetter_service.runtime.queries.history import History, HistoryQuestion, read_history
from pacesetter_service.runtime.queries.status import newest_trained
from pacesetter_service.runtime.queries.values import read_forecast
from pacesetter_service.runtime.service import Service
from pacesetter_service.store.port import Stored

MOST_MARKS = 400
"""The most marks that are drawn: the newest ones."""

MARKED: dict[str, MarkKind] = {
    "decided": "decision",
    "acted": "order",
    "attempt_opened": "attempt",
    "taken_back": "attempt",
    "forked": "attempt",
}
"""The kinds of events that are marked, and the marks."""

MOST_LINES = 12
"""The most series of a channel that are drawn: those of the first groups."""


async def draw_history(service: Service, name: str, question: HistoryQuestion) -> bytes:
    """Return a picture of a session's record, as SVG; raises as `read_history` does."""
    stored = (await service.writer.find(name)).stored
    end = stored.session.horizon if question.end is None else question.end

    def show(found: History) -> bytes:
        panels = panels_of(found.steps, found.series) + [
            Panel(metric, [Line(metric, found.steps, values)])
            for metric, values in found.metrics.items()
            if any(value is not None for value in values)
        ]
        title = f"{name}, attempt {found.attempt}: steps {found.start:,} to {found.end:,}"
        marks = _marks(service, stored, found.start, end)
        return draw_run(title, panels, marks=marks, bounds=Bounds(found.trained_until)).encode()

    return await read_history(service, name, question, show)


async def draw_forecast(
    service: Service, name: str, start: int | None, count: int | None, points: int
) -> bytes:
    """Return a picture of a session's forecast, as SVG; raises as `read_forecast` does."""
    stored = (await service.writer.find(name)).stored
    trained = await in_thread(newest_trained, service, stored)

    def show(found: Curve) -> bytes:
        first, last = found.steps[0], found.steps[-1]
        series = dict(zip(found.names, found.block.tolist(), strict=True))
        waiting = [
            Mark(order.at, "order", f"{order.actor}: {order.action.cause()}, to be carried out")
            for order in stored.session.orders.waiting
            if first <= order.at <= last
        ]
        bounds = Bounds(0 if trained is None else trained + 1, found.sealed_until)
        marks = [*_marks(service, stored, first, last + 1), *waiting]
        title = f"{name}: steps {first:,} to {last:,}, sealed before {found.sealed_until:,}"
        panels = panels_of(found.steps, series)
        return draw_run(title, panels, marks=marks, bounds=bounds).encode()

    return await read_forecast(service, name, start, count, points, show)


def panels_of(steps: Sequence[int], series: Mapping[str, list[float]]) -> list[Panel]:
    """Return a panel for each channel, with the series of all groups, or of the first ones."""
    channels: dict[str, list[Line]] = {}
    for name, values in series.items():
        channels.setdefault(name.rpartition(".")[2], []).append(Line(name, steps, values))
    return [
        Panel(
            lines[0].name
            if len(lines) == 1
            else f"{channel} of {len(lines)} groups"
            + (f", {MOST_LINES} of them shown" if len(lines) > MOST_LINES else ""),
            lines[:MOST_LINES],
            rates=channel == "lr",
        )
        for channel, lines in channels.items()
    ]


def _marks(service: Service, stored: Stored, start: int, end: int) -> list[Mark]:
    """Return marks for the newest changes of a session's curve at some steps."""
    spec, until = stored.session.spec, min(end, MAX_STEP) - 1
    if until < start:
        return []
    found = service.store.events_until(stored, until, kinds=list(MARKED), since=start)
    return [
        Mark(at, MARKED[recorded.event.kind], recorded.event.text(spec))
        for recorded in islice(found, MOST_MARKS)
        if (at := recorded.event.from_step) is not None
    ]
