"""How the state of a session is written as text, and read back to the bit."""

import json
from dataclasses import asdict, astuple, fields, replace
from typing import Any

from pacesetter_service.core.actions import Action, Order
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.controllers import Transition
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
from pacesetter_service.core.lineage import Life, Lineage
from pacesetter_service.core.model import Model, jsonable
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.pending import Pending
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.session import Session
from pacesetter_service.core.smoothing import SmootherState
from pacesetter_service.core.spec import Limits, SessionSpec
from pacesetter_service.core.templates import Published, Template
from pacesetter_service.core.timeline import Rewarm, Segment, Timeline


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

    def row(segment: Segment) -> list[Any]:
        values = {each.name: getattr(segment, each.name) for each in fields(Segment)}
        rewarm = segment.rewarm and astuple(segment.rewarm)
        return [*(values | {"schedule": number(segment.schedule), "rewarm": rewarm}).values()]

    series = {
        name: [row(each) for each in timeline.segments]
        for name, timeline in session.timelines.items()
    }
    return _dump({"schedules": [json.loads(text) for text in schedules], "series": series})


def load_plan(text: str) -> dict[str, Timeline]:
    """Read what `dump_plan` wrote."""
    plan = json.loads(text)
    schedules = [Schedule.parse(data) for data in plan["schedules"]]
    names = [each.name for each in fields(Segment)]

    def segment(row: list[Any]) -> Segment:
        values = dict(zip(names, row, strict=True))
        rewarm = values["rewarm"] and Rewarm(*values["rewarm"])
        return Segment(**values | {"schedule": schedules[values["schedule"]], "rewarm": rewarm})

    return {
        name: Timeline(tuple(map(segment, segments))) for name, segments in plan["series"].items()
    }


def dump_lineage(lineage: Lineage) -> str:
    """Write a lineage."""
    return _dump([astuple(life) for life in lineage])


def load_lineage(text: str) -> Lineage:
    """Read what `dump_lineage` wrote."""
    return tuple(Life(*each) for each in json.loads(text))


def dump_control(session: Session) -> str:
    """Write the controllers' states, operators' orders and what trainers were told.

    The readings that wait are left out: there may be very many, and they stand in their own table.
    """
    return _dump(_control(session))


def dump_state(session: Session) -> str:
    """Write what `dump_control` does, with the readings that wait."""
    pending = [list(reading) for reading in session.pending.readings()]
    return _dump({**_control(session), "pending": pending})


def _control(session: Session) -> dict[str, Any]:
    return {
        "states": [state.model_dump() for state in session.controllers],
        "consumed": dict(session.consumed),
        "smoothers": {name: state.model_dump() for name, state in session.smoothers.items()},
        "notices": [astuple(notice) for notice in session.notices],
        "passed": session.passed,
        "limits": jsonable(session.limits),
        "orders": [_order_fields(order) for order in session.orders],
        "ordered": session.ordered,
        "ordered_before": session.ordered_before,
        "keys": dict(session.keys),
        "attempt_start": session.attempt_start,
        "attempt_key": session.attempt_key,
        "attempt_batch": session.attempt_batch,
        "batch_size": session.batch_size,
        "finished": session.status == "finished",
    }


def load_session(row: Any) -> Session:  # noqa: ANN401 - a row of `sessions`
    """Build a session from its row, without the readings that wait."""
    state = load_state(load_spec(row.spec), row.plan, row.control, row.horizon)
    return replace(state, revision=row.revision, attempt=row.attempt, status=row.status)


def load_state(spec: SessionSpec, plan: str, control_text: str, horizon: int) -> Session:
    """Build a session from what `dump_plan` and `dump_control` or `dump_state` wrote."""
    control = json.loads(control_text)
    return Session(
        spec=spec,
        timelines=load_plan(plan),
        controllers=tuple(
            controller.State.model_validate(state)
            for controller, state in zip(spec.rules, control["states"], strict=True)
        ),
        pending=Pending(Reading(*each) for each in control.get("pending", ())),
        consumed=control["consumed"],
        horizon=horizon,
        smoothers={
            name: SmootherState.model_validate(state)
            for name, state in control["smoothers"].items()
        },
        notices=tuple(Notice(*each) for each in control["notices"]),
        passed=control["passed"],
        limits=Limits.model_validate(control["limits"]),
        orders=tuple(load_order(order) for order in control["orders"]),
        ordered=control["ordered"],
        ordered_before=control.get("ordered_before", 0),
        keys={key: (number, at, said) for key, (number, at, said) in control["keys"].items()},
        attempt_start=control["attempt_start"],
        attempt_key=control["attempt_key"],
        attempt_batch=control.get("attempt_batch"),
        batch_size=control["batch_size"],
        status="finished" if control.get("finished") else "active",
    )


_KINDS: dict[type[Logged], str] = {
    Decided: "decided",
    Missed: "missed",
    BoundaryPassed: "boundary_passed",
    Ordered: "ordered",
    Acted: "acted",
    BatchResized: "batch_resized",
    Cancelled: "cancelled",
    AttemptOpened: "attempt_opened",
    Forked: "forked",
    RateDeviated: "rate_deviated",
    Archived: "archived",
}


def dump_event(event: Logged) -> tuple[str, int | None, str]:
    """Give the name of an event, the step from which it holds, and its payload."""
    at = event.order.at if isinstance(event, Ordered | Acted) else getattr(event, "at", None)
    return _KINDS[type(event)], at, _dump(_fields(event))


def load_event(row: Any, spec: SessionSpec) -> Logged:  # noqa: ANN401, PLR0911 - a row of `events`
    """Read what `dump_event` wrote about a session of this spec."""
    values: dict[str, Any] = json.loads(row.payload)
    match row.kind:
        case "decided":
            return _load_decided(values, spec)
        case "missed":
            return Missed(**values)
        case "boundary_passed":
            return BoundaryPassed(values["at"], tuple(values["missing"]))
        case "ordered":
            notice = values.get("notice")
            return Ordered(load_order(values["order"]), notice and Notice(**notice))
        case "acted":
            return Acted(load_order(values["order"]))
        case "batch_resized":
            return BatchResized(values["at"], values.get("before"), values["after"])
        case "cancelled":
            return Cancelled(**values)
        case "attempt_opened":
            return AttemptOpened(**{**values, "kept": tuple(values.get("kept", ()))})
        case "forked":
            return Forked(**values)
        case "rate_deviated":
            return RateDeviated(**values)
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


def _fields(event: Logged) -> dict[str, Any]:
    """Give an event's fields as JSON types; those that say nothing are left out."""
    values = {each.name: getattr(event, each.name) for each in fields(event)}
    return {
        name: _plain(value)
        for name, value in values.items()
        if value is not None and value is not False and value != {}
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - a field of an event
    if isinstance(value, Model):
        return jsonable(value)
    if isinstance(value, Order):
        return _order_fields(value)
    return asdict(value) if isinstance(value, Notice) else value


def _order_fields(order: Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "at": order.at,
        "action": jsonable(order.action),
        "actor": order.actor,
        "key": order.key,
    }


def load_order(data: dict[str, Any]) -> Order:
    """Read an order, as it stands in events and in the control column."""
    return Order(**{**data, "action": Action.parse(data["action"])})


def _dump(data: object) -> str:
    """Write JSON; floats by their shortest exact form, infinities and NaN as Python spells them."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)
