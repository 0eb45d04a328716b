"""Several trainings side by side: their curves over a common axis, and how their specs differ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from pydantic import JsonValue

from pacesetter_service.catalogue.templates import diff
from pacesetter_service.core.model import jsonable
from pacesetter_service.core.watching import plan_end
from pacesetter_service.insight.run_pictures import Line, Panel, draw_run
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.queries.history import (
    MAX_METRICS,
    History,
    HistoryQuestion,
    read_history,
)
from pacesetter_service.runtime.service import Service

By = Literal["step", "fraction"]
"""The common axis of the curves: steps, or fractions of each training's plan."""

FEWEST, MOST = 2, 10
"""The fewest and the most sessions of one comparison."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the compared trainings.

    Attributes:
        name: The session's name.
        total_steps: The first step after its plan; None if the plan has no end.
        places: For each step that is shown, the step, or its fraction of the plan, from 0 to 1.
        history: Its curves.
    """

    name: str
    total_steps: int | None
    places: Sequence[float]
    history: History


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where specs differ, as a JSON pointer, and the value there in each, if any."""

    pointer: str
    values: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Trainings side by side, in the order that the caller named them."""

    by: By
    sessions: list[Compared]
    differences: list[Difference]


async def compare(
    service: Service,
    names: Sequence[str],
    by: By,
    points: int,
    metrics: Sequence[str] | None,
    show: Callable[[Comparison], T],
) -> T:
    """Return what `show` makes of several trainings side by side.

    Args:
        service: The service.
        names: The sessions, `FEWEST` to `MOST`.
        by: The common axis of the curves.
        points: About how many steps are shown of each.
        metrics: The wanted metrics; None for all. Not every session must have each.
        show: Makes the answer from the comparison, on a thread other than the event loop's.

    Raises:
        SessionNotFoundError: There is no session of one of these names.
        ArgumentError: These are too many or too few, or one has no fractions.
        BusyError: Too many costly answers are being prepared already.
    """
    names = list(dict.fromkeys(names))
    if not FEWEST <= len(names) <= MOST:
        message = f"Name {FEWEST} to {MOST} different sessions; these are {len(names)}"
        raise ArgumentError("session", message)
    found, specs = list[Compared](), dict[str, JsonValue]()
    for name in names:
        session = (await service.writer.find(name)).stored.session
        total, first = plan_end(session), session.spec.start_step
        if by == "fraction" and (total is None or total <= first):
            message = f"{name}'s plan has no end; compare it by `step`"
            raise ArgumentError("by", message)
        question = HistoryQuestion(None, None, points, None, by_rank=False, attempt=None)
        if metrics is not None:
            reported = await in_thread(_reported, service, name)
            question = replace(question, metrics=[each for each in metrics if each in reported])
        history = await read_history(service, name, question, lambda each: each)
        places: Sequence[float] = history.steps
        if by == "fraction":
            span = (total or 0) - first
            places = [(step - first) / span for step in history.steps]
        found.append(Compared(name, total, places, history))
        specs[name] = {**jsonable(session.spec), "name": None}
    comparison = Comparison(by, found, differences(specs))
    return await in_thread(show, comparison)


def _reported(service: Service, name: str) -> set[str]:
    stored = service.store.load(name)
    return set() if stored is None else set(stored.session.reported)


def differences(specs: Mapping[str, JsonValue]) -> list[Difference]:
    """Return the places where some documents differ, each with the values there."""
    names = list(specs)
    pointers = {each.pointer for name in names[1:] for each in diff(specs[names[0]], specs[name])}
    # If a place differs as a whole in one document and in parts in another, the whole is reported.
    outermost = [
        each
        for each in sorted(pointers)
        if not any(each.startswith(f"{other}/") for other in pointers)
    ]
    return [
        Difference(pointer, {name: _at(specs[name], pointer) for name in names})
        for pointer in outermost
    ]


def _at(document: JsonValue, pointer: str) -> JsonValue:
    for part in pointer.split("/")[1:]:
        if isinstance(document, dict):
            document = document.get(part)
        elif isinstance(document, list) and int(part) < len(document):
            document = document[int(part)]
        else:
            return None
    return document


def draw(comparison: Comparison) -> bytes:
    """Draw the curves of all trainings into the same axes, as SVG."""
    panels: dict[tuple[bool, str], list[Line]] = {}
    for is_series in (True, False):
        for each in comparison.sessions:
            found = each.history.series if is_series else each.history.metrics
            for name, values in found.items():
                lines = panels.setdefault((is_series, name), [])
                lines += [Line("", (), ())] * (comparison.sessions.index(each) - len(lines))
                lines.append(Line(each.name, each.places, values))
    shown = [
        Panel(name, lines, rates=is_series and name.endswith("lr"))
        for (is_series, name), lines in list(panels.items())[:MAX_METRICS]
    ]
    names = ", ".join(each.name for each in comparison.sessions)
    title = f"{names}, by {comparison.by}"
    return draw_run(title, shown, fraction=comparison.by == "fraction").encode()
