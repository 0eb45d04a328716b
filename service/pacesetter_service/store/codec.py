"""How the state of a session is written as text, and read back to the bit."""

import json
from collections.abc import Callable
from dataclasses import asdict, astuple, fields, replace
from functools import lru_cache, wraps
from typing import Any, TypeVar

from pydantic import TypeAdapter

from pacesetter_service import catalogue  # noqa: F401 - whose kinds stand in specs
from pacesetter_service.catalogue.templates import Published, Template
from pacesetter_service.core.actions import Action, Order
from pacesetter_service.core.attempts import AttemptRef, Lineage
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.ending import Ending
from pacesetter_service.core.limits import Limits
from pacesetter_service.core.measuring import Pending
from pacesetter_service.core.model import jsonable
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.session import Attempt, Control, OrderBook, Session
from pacesetter_service.core.smoothing import SmootherState
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.timeline import End, Rewarm, Segment, Timeline, Timelines
from pacesetter_service.core.wait import Wait
from pacesetter_service.core.watching import Absence, Sighting, Watch

REMEMBERED = 512
"""How many decoded specs, and how many plans, are kept: pages list the same ones again.

The longest page shows 500. The cache fills up in time, and a spec takes some 11 kilobytes, a plan
three: each session has its own spec, because of its name, and each order makes a new plan.
"""

LONGEST_REMEMBERED = 8_192
"""The longest text whose value is kept, in characters; a table of values may have millions."""

V = TypeVar("V")


def _remembered(read: Callable[[str], V]) -> Callable[[str], V]:
    """Cache the immutable values that a function reads from texts."""
    remember = lru_cache(maxsize=REMEMBERED)(read)

    @wraps(read)
    def reading(text: str) -> V:
        return remember(text) if len(text) <= LONGEST_REMEMBERED else read(text)

    return reading


def dump_spec(spec: SessionSpec) -> str:
    """Write a spec; equal specs give equal text."""
    return _dump(jsonable(spec))


@_remembered
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
    """Write the timelines; a schedule that several segments share is written once."""
    schedules: dict[str, int] = {}
    seen: dict[int, int] = {}

    def number(schedule: Schedule) -> int:
        if id(schedule) not in seen:  # a thousand groups may share a schedule of a megabyte
            text = _dump(jsonable(schedule))
            seen[id(schedule)] = schedules.setdefault(text, len(schedules))
        return seen[id(schedule)]

    def plain(value: object) -> object:
        if isinstance(value, Schedule):
            return number(value)
        return astuple(value) if isinstance(value, Rewarm | End) else value

    def row(segment: Segment) -> list[object]:
        return [plain(getattr(segment, each.name)) for each in fields(segment)]

    series = {
        name: [row(each) for each in timeline.segments]
        for name, timeline in session.timelines.items()
    }
    return _dump({"schedules": [json.loads(text) for text in schedules], "series": series})


@_remembered
def load_plan(text: str) -> Timelines:
    """Read what `dump_plan` wrote."""
    plan = json.loads(text)
    schedules = [Schedule.parse(data) for data in plan["schedules"]]
    names = [each.name for each in fields(Segment)]

    def segment(row: list[Any]) -> Segment:
        # Rows that an older service wrote lack the newest fields.
        values = dict(zip(names, row, strict=False))
        values["schedule"] = schedules[values["schedule"]]
        values["rewarm"] = values["rewarm"] and Rewarm(*values["rewarm"])
        values["end"] = End(*values["end"]) if values.get("end") else None
        return Segment(**values)

    return Timelines(
        (name, Timeline(tuple(map(segment, segments)))) for name, segments in plan["series"].items()
    )


_ORDERS: TypeAdapter[tuple[Order, ...]] = TypeAdapter(tuple[Order, ...])


def dump_lineage(lineage: Lineage) -> str:
    """Write a lineage."""
    return _dump([astuple(ref) for ref in lineage])


def load_lineage(text: str) -> Lineage:
    """Read what `dump_lineage` wrote."""
    return tuple(AttemptRef(*each) for each in json.loads(text))


def dump_control(session: Session) -> str:
    """Write the controllers' states, the operators' orders and what trainers were told.

    Pending readings are left out: there may be very many, and they have their own table.
    """
    return _dump(_control(session))


def dump_state(session: Session) -> str:
    """Write what `dump_control` does, with the pending readings."""
    pending = [list(reading) for reading in session.pending.readings()]
    return _dump({**_control(session), "pending": pending})


def _control(session: Session) -> dict[str, Any]:
    control, attempt, orders = session.control, session.attempt, session.orders
    return {
        "states": [state.model_dump() for state in control.states],
        "consumed": dict(control.consumed),
        "smoothers": {name: state.model_dump() for name, state in control.smoothers.items()},
        "notices": [astuple(notice) for notice in control.notices],
        "passed": control.passed,
        "limits": jsonable(control.limits),
        "orders": _ORDERS.dump_python(orders.waiting, mode="json"),
        "ordered": orders.given,
        "ordered_before": orders.given_before,
        "keys": dict(orders.keys),
        "counted": dict(orders.counted),
        "attempt_start": attempt.start,
        "attempt_key": attempt.key,
        "attempt_batch": attempt.batch,
        "carried": attempt.carried,
        "batch_size": control.batch_size,
        "watch": asdict(control.watch),
        "wait": control.wait and astuple(control.wait),
        "ended": control.ended and astuple(control.ended),
        "finished": session.status == "finished",
    }


def load_session(row: Any) -> Session:  # noqa: ANN401 - a row of `sessions`
    """Build a session from its row, without its pending readings."""
    state = load_state(load_spec(row.spec), row.plan, row.control, row.horizon, row.attempt)
    return replace(state, held=row.held, revision=row.revision, status=row.status)


def load_state(
    spec: SessionSpec, plan: str, control_text: str, horizon: int, attempt: int = 1
) -> Session:
    """Build a session from what `dump_plan` and `dump_control` or `dump_state` wrote.

    A snapshot gets an attempt number when an attempt is opened from it.
    """
    control = json.loads(control_text)
    return Session(
        spec=spec,
        timelines=load_plan(plan),
        control=_load_control(spec, control),
        pending=Pending(Reading(*each) for each in control.get("pending", ())),
        horizon=horizon,
        held=horizon,
        attempt=Attempt(
            number=attempt,
            start=control["attempt_start"],
            key=control["attempt_key"],
            batch=control.get("attempt_batch"),
            carried=tuple(control.get("carried", ())),
        ),
        orders=OrderBook(
            waiting=tuple(
                Order(**{**order, "action": Action.parse(order["action"])})
                for order in control["orders"]
            ),
            given=control["ordered"],
            given_before=control.get("ordered_before", 0),
            keys={key: (number, at, said) for key, (number, at, said) in control["keys"].items()},
            counted={name: tuple(at) for name, at in control.get("counted", {}).items()},
        ),
        status="finished" if control.get("finished") else "active",
    )


def _load_control(spec: SessionSpec, control: dict[str, Any]) -> Control:
    return Control(
        states=tuple(
            controller.State.model_validate(state)
            for controller, state in zip(spec.rules, control["states"], strict=True)
        ),
        consumed=control["consumed"],
        smoothers={
            name: SmootherState.model_validate(state)
            for name, state in control["smoothers"].items()
        },
        notices=tuple(Notice(*each) for each in control["notices"]),
        passed=control["passed"],
        limits=Limits.model_validate(control["limits"]),
        batch_size=control["batch_size"],
        watch=_load_watch(control["watch"]) if "watch" in control else Watch(),
        wait=Wait(*control["wait"]) if control.get("wait") else None,
        ended=Ending(*control["ended"]) if control.get("ended") else None,
    )


def _load_watch(data: dict[str, Any]) -> Watch:
    return Watch(
        seen={name: Sighting(**each) for name, each in data["seen"].items()},
        absent={
            name: Absence(each["since"], tuple(each["ranks"]))
            for name, each in data["absent"].items()
        },
        names=tuple(data["names"]),
        # An older service did not record the step.
        told=tuple((code, about, at[0] if at else 0) for code, about, *at in data["told"]),
        deviating={int(rank): tuple(each) for rank, each in data.get("deviating", {}).items()},
    )


def _dump(data: object) -> str:
    """Write JSON: floats in their shortest exact form, infinities and NaN as Python spells them."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)
