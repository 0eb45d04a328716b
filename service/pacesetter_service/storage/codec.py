"""How the state of a session is written as text, and read back to the bit."""

import json
from dataclasses import astuple, fields
from typing import Any

from pacesetter_service.core.actions import Action
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.controllers import Transition
from pacesetter_service.core.events import Acted, Archived, BoundaryPassed, Decided, Missed
from pacesetter_service.core.model import Model, jsonable
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.session import Session
from pacesetter_service.core.smoothing import SmootherState
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.templates import Published, Template
from pacesetter_service.core.timeline import Rewarm, Segment, Timeline

Logged = Decided | Missed | BoundaryPassed | Acted | Archived
"""The events that stand in the log as they are; the others have tables of their own."""


def dump_spec(spec: SessionSpec) -> str:
    """Write a spec; equal specs give equal text."""
    return _dump(jsonable(spec))


def load_spec(text: str) -> SessionSpec:
    """Read what `dump_spec` wrote."""
    return SessionSpec.model_validate(json.loads(text))


def dump_template(template: Template) -> str:
    """Write a template; equal templates give equal text."""
    return _dump(jsonable(template))


def load_template(row: Any) -> Published:  # noqa: ANN401 - a row of `templates`
    """Build a published template from its row."""
    template = Template.model_validate(json.loads(row.body))
    return Published(template, row.version, row.created_at, row.deprecated)


def dump_plan(session: Session) -> str:
    """Write the timelines; a schedule that many segments share is written once."""
    schedules: dict[str, int] = {}

    def number(schedule: Schedule) -> int:
        return schedules.setdefault(_dump(jsonable(schedule)), len(schedules))

    series = {
        name: [
            [
                each.start,
                number(each.schedule),
                each.clock,
                each.base,
                each.level,
                each.cause,
                each.scale,
                each.pace,
                each.rewarm and astuple(each.rewarm),
            ]
            for each in timeline.segments
        ]
        for name, timeline in session.timelines.items()
    }
    return _dump({"schedules": [json.loads(text) for text in schedules], "series": series})


def load_plan(text: str) -> dict[str, Timeline]:
    """Read what `dump_plan` wrote."""
    plan = json.loads(text)
    schedules = [Schedule.parse(data) for data in plan["schedules"]]
    return {
        name: Timeline(
            tuple(
                Segment(
                    start,
                    schedules[number],
                    clock,
                    base,
                    level,
                    cause,
                    scale,
                    pace,
                    rewarm and Rewarm(*rewarm),
                )
                for start, number, clock, base, level, cause, scale, pace, rewarm in segments
            )
        )
        for name, segments in plan["series"].items()
    }


def dump_control(session: Session) -> str:
    """Write the controllers' states, the readings that they await and what they told trainers."""
    return _dump(
        {
            "states": [state.model_dump() for state in session.controllers],
            "pending": [list(reading) for reading in session.pending.values()],
            "consumed": dict(session.consumed),
            "smoothers": {name: state.model_dump() for name, state in session.smoothers.items()},
            "notices": [astuple(notice) for notice in session.notices],
            "passed": session.passed,
        }
    )


def load_session(row: Any) -> Session:  # noqa: ANN401 - a row of `sessions`
    """Build a session from its row."""
    spec = load_spec(row.spec)
    control = json.loads(row.control)
    pending = [Reading(*each) for each in control["pending"]]
    return Session(
        spec=spec,
        timelines=load_plan(row.plan),
        controllers=tuple(
            controller.State.model_validate(state)
            for controller, state in zip(spec.rules, control["states"], strict=True)
        ),
        pending={reading.key: reading for reading in pending},
        consumed=control["consumed"],
        horizon=row.horizon,
        revision=row.revision,
        attempt=row.attempt,
        status=row.status,
        smoothers={
            name: SmootherState.model_validate(state)
            for name, state in control["smoothers"].items()
        },
        notices=tuple(Notice(*each) for each in control["notices"]),
        passed=control["passed"],
    )


def dump_event(event: Logged) -> tuple[str, int | None, str]:
    """Give the name of an event, the step from which it holds, and its payload."""
    match event:
        case Decided():
            return "decided", event.at, _dump(_fields(event))
        case Missed():
            return "missed", event.at, _dump(_fields(event))
        case BoundaryPassed():
            return "boundary_passed", event.at, _dump(_fields(event))
        case Acted():
            return "acted", event.at, _dump(_fields(event))
        case Archived():
            return "archived", None, "{}"


def load_event(row: Any, spec: SessionSpec) -> Logged:  # noqa: ANN401 - a row of `events`
    """Read what `dump_event` wrote about a session of this spec."""
    values: dict[str, Any] = json.loads(row.payload)
    match row.kind:
        case "decided":
            return _load_decided(values, spec)
        case "missed":
            return Missed(**values)
        case "boundary_passed":
            return BoundaryPassed(values["at"], tuple(values["missing"]))
        case "acted":
            return Acted(**{**values, "action": Action.parse(values["action"])})
        case "archived":
            return Archived()
        case kind:
            raise ValueError(f"an event of the kind {kind!r} was written by a newer service")


def _load_decided(values: dict[str, Any], spec: SessionSpec) -> Decided:
    state = spec.rules[values["controller"]].State
    values["before"] = state.model_validate(values["before"])
    values["after"] = state.model_validate(values["after"])
    values["levels"] = {name: (old, new) for name, (old, new) in values.get("levels", {}).items()}
    if "rewarm" in values:
        values["rewarm"] = tuple(values["rewarm"])
    if "transition" in values:
        values["transition"] = Transition.model_validate(values["transition"])
    return Decided(**values)


def _fields(event: Decided | Missed | BoundaryPassed | Acted) -> dict[str, Any]:
    """Give an event's fields as JSON types; those that say nothing are left out."""
    values = {each.name: getattr(event, each.name) for each in fields(event)}
    return {
        name: jsonable(value) if isinstance(value, Model) else value
        for name, value in values.items()
        if value is not None and value is not False and value != {}
    }


def _dump(data: object) -> str:
    """Write JSON; floats by their shortest exact form, infinities and NaN as Python spells them."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)
