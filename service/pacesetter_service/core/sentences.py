"""Events as sentences, for whoever reads the log at night: what changed, by whom, and why."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

from pacesetter_service.core.controllers import Controller
from pacesetter_service.core.events import (
    Acted,
    Archived,
    AttemptOpened,
    BatchResized,
    BoundaryPassed,
    Cancelled,
    Decided,
    Forked,
    Logged,
    Missed,
    Ordered,
    RateDeviated,
)
from pacesetter_service.core.model import Model, jsonable
from pacesetter_service.core.spec import SessionSpec

SHOWN = 6
"""The most names, or fields of a state, that one sentence lists."""

LONGEST = 32
"""The most characters of a text in a state that are shown; longer ones are packed numbers."""


def sentence(event: Logged, spec: SessionSpec) -> str:  # noqa: PLR0911 - one return an event
    """Say what an event of a session with this spec was."""
    match event:
        case Decided(at=at):
            return f"From step {at} on: {', '.join(_effects(event))}. {grounds(event, spec)}"
        case Missed(step, metric, ranks, wanted, at):
            return (
                f"Step {step} has no measurement of {metric}: {ranks} of {wanted} ranks had"
                f" reported it when it could wait no longer, at step {at}."
            )
        case BoundaryPassed(at, missing):
            return (
                f"Step {at} was sealed without the measurement of {listed(missing)} that its"
                " decision waited for: the session's reaction.timeout was over."
            )
        case Ordered(order):
            return f"{order.actor} ordered for step {order.at}: {order.action.cause()}."
        case Acted(order):
            return f"From step {order.at} on, by {order.actor}: {order.action.cause()}."
        case BatchResized(at, before, after):
            was = f", where there were {before}" if before is not None else ""
            return f"From step {at} on, {after} samples are in one step{was}."
        case Cancelled(number_of_order, actor):
            return f"{actor} cancelled order {number_of_order}."
        case AttemptOpened(attempt, at, key, actor):
            return (
                f"{actor} opened attempt {attempt} at step {at} ({key}): the job went back there,"
                " and the attempt before it was fenced."
            )
        case Forked(session, attempt, at, actor):
            return f"{actor} forked this session from step {at} of {session}, attempt {attempt}."
        case RateDeviated(rank, step, series, applied, sealed):
            return (
                f"Rank {rank} trained step {step} with {series} = {applied!r}, but {sealed!r} was"
                " sealed: something else writes into its optimizer."
            )
        case Archived():
            return "The session was archived: it takes no more commands."


def grounds(event: Decided, spec: SessionSpec) -> str:
    """Say who decided, on seeing what, for which reason, and how its state moved."""
    reason = event.reason.rstrip(".")
    if reason.startswith(f"{event.metric} "):
        reason = "it" + reason.removeprefix(event.metric)
    moved = _moved(event.before, event.after)
    return (
        f"{who(event, spec)} saw {event.metric} {number(event.value)} at step {event.step};"
        f" {reason}." + (f" Its state: {moved}." if moved else "")
    )


def who(event: Decided, spec: SessionSpec) -> str:
    """Name the controller that decided, such as `plateau #0`: its kind and index in the spec."""
    return f"{kind_of(spec.controllers[event.controller])} #{event.controller}"


def change_of(event: Decided, series: str, law: str = "which") -> str:
    """Say what a decision did to one series; `law` is the word for what took over."""
    changes = list(_changes_of_all(event, law))
    if series in event.levels:
        changes.append(_of_level([event.levels[series]]))
    return ", ".join(changes)


def kind_of(member: Controller | Model) -> str:
    """Give the kind of a controller, schedule or action."""
    kind: str = jsonable(member)["kind"]
    return kind


def listed(names: tuple[str, ...] | list[str]) -> str:
    """Join names; of many the first ones, and how many more there are."""
    more = len(names) - SHOWN
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {more:,} more" if more > 0 else shown


def number(value: float) -> str:
    """Write a number for the eye: six digits."""
    return f"{value:.6g}"


def _effects(event: Decided) -> Iterator[str]:
    """Say everything that a decision did."""
    by_change: dict[str, list[str]] = {}
    for name, levels in event.levels.items():
        by_change.setdefault(_ratio(*levels), []).append(name)
    for change, names in by_change.items():
        ends = [event.levels[name] for name in names]
        yield f"{listed(names)} {_of_level(ends) if len(names) == 1 else change}"
    law = "" if event.transition is None else kind_of(event.transition.schedule)
    yield from _changes_of_all(event, law)
    if event.advice is not None:
        yield f'the trainer is told "{event.advice}"'
    if event.finish:
        yield "the session is finished"


def _changes_of_all(event: Decided, law: str) -> Iterator[str]:
    """Say what a decision did to every series that it touched, besides their levels."""
    if event.transition is not None:
        ways = {
            "base": "from its base",
            "level": "at the level reached",
            "continue": "from the last value",
        }
        yield f"{law} took over {ways[event.transition.value]}"
    if event.pace is not None:
        yield f"the schedule's clock set to go {number(event.pace)} steps in one"
    if event.rewarm is not None:
        steps, factor = event.rewarm
        yield f"rewarmed from {number(factor)} of the rate over {steps} steps"


def _of_level(levels: list[tuple[float, float]]) -> str:
    [(old, new)] = levels
    return f"{_ratio(old, new)} ({_apart(old, new)})"


def _ratio(old: float, new: float) -> str:
    if old == 0:
        return f"raised from 0 to {number(new)}"
    return f"{'cut' if new < old else 'raised'} to {_close(new / old)} of its level"


def _close(ratio: float) -> str:
    """Write a ratio with as many digits as tell it from 1."""
    return number(ratio) if number(ratio) != "1" else repr(ratio)


def _apart(old: float, new: float) -> str:
    """Write two numbers with as many digits as tell them from each other."""
    if number(old) == number(new):
        return f"{old!r} -> {new!r}"
    return f"{number(old)} -> {number(new)}"


def _moved(before: Model, after: Model) -> str:
    """Say which fields of a controller's state changed, and how."""
    old, new = before.model_dump(), after.model_dump()
    moved = [
        f"{name} {_shown(old.get(name))} -> {_shown(value)}"
        for name, value in new.items()
        if _shown(value) != _shown(old.get(name))
    ]
    return listed(moved)


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever stands in a state
    if isinstance(value, float):
        return number(value) if isfinite(value) else str(value)
    if isinstance(value, list | tuple | dict):
        return f"{len(value)} kept"
    text = str(value)
    return text if len(text) <= LONGEST else f"{len(text):,} characters"
