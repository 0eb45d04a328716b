"""Several trainings side by side: their curves over common places, and how their specs differ."""

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
"""Over what curves are laid beside each other: steps, or parts of each training's plan."""

FEWEST, MOST = 2, 10
"""How many sessions are compared at once."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the trainings.

    Attributes:
        name: The session's name.
        total_steps: The first step behind its plan; None if that has no end.
        places: For each step that is shown the step, or which part of the plan it is, from 0 to 1.
        history: Its curves.
    """

    name: str
    total_steps: int | None
    places: Sequence[float]
    history: History


@dataclass(frozen=True, slots=True)
class Difference:
    """A place in which specs differ, as a JSON pointer, and what stands there in each, if any."""

    pointer: str
    values: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Trainings side by side, in the order in which they were asked for."""

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
    """Return what is shown of several trainings.

    Args:
        service: The service.
        names: The sessions, `FEWEST` to `MOST`.
        by: Over what the curves are laid beside each other.
        points: About how many steps are shown of each.
        metrics: The metrics that are wanted; None for all. Not every session must have each.
        show: Makes the answer of it, on another thread than the event loop's.

    Raises:
        SessionNotFoundError: There is no session of one of these names.
        ArgumentError: These are too many or too few, or one has no fractions.
        BusyError: Too many costly answers are being made already.
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
    """Return the places in which some documents differ, each with what stands there in all."""
    names = list(specs)
    pointers = {each.pointer for name in names[1:] for each in diff(specs[names[0]], specs[name])}
    # Where one differs as a whole and another in a part of it, the whole is told.
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
    """Draw the curves of all trainings over each other, as SVG."""
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
