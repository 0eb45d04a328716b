"""How the state of a session is written as text, and read back to the bit."""

import json
from typing import Any

from pacesetter_service.core.commands import Reading
from pacesetter_service.core.events import Acted, Archived, LevelsCut
from pacesetter_service.core.model import jsonable
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.templates import Published, Template
from pacesetter_service.core.timeline import Segment, Timeline

Logged = LevelsCut | Acted | Archived
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
                each.origin,
                each.base,
                each.level,
                each.cause,
                each.scale,
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
                Segment(start, schedules[number], origin, base, level, cause, scale)
                for start, number, origin, base, level, cause, scale in segments
            )
        )
        for name, segments in plan["series"].items()
    }


def dump_control(session: Session) -> str:
    """Write the controllers' states and the readings that they await."""
    return _dump(
        {
            "states": [state.model_dump() for state in session.controllers],
            "pending": [list(reading) for reading in session.pending.values()],
            "consumed": dict(session.consumed),
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
            for controller, state in zip(spec.controllers, control["states"], strict=True)
        ),
        pending={reading.key: reading for reading in pending},
        consumed=control["consumed"],
        horizon=row.horizon,
        revision=row.revision,
        attempt=row.attempt,
        status=row.status,
    )


def dump_event(event: Logged) -> tuple[str, str]:
    """Give the name and the payload of an event that stands in the log."""
    match event:
        case LevelsCut():
            return "levels_cut", _dump(
                {
                    "controller": event.controller,
                    "step": event.step,
                    "value": event.value,
                    "at": event.at,
                    "levels": {name: list(pair) for name, pair in event.levels.items()},
                    "reason": event.reason,
                }
            )
        case Acted():
            return "acted", _dump({"action": jsonable(event.action), "at": event.at})
        case Archived():
            return "archived", "{}"


def _dump(data: object) -> str:
    """Write JSON; floats by their shortest exact form, infinities and NaN as Python spells them."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)
