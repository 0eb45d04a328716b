"""The form of a plan: its fields, and the question that they make."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import isfinite
from typing import get_args

from pydantic import JsonValue

from pacesetter_service.core.actions import Action
from pacesetter_service.core.actions.level import Cooldown
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.schedules.eases import AnyEase, Linear, Power
from pacesetter_service.core.session import Session
from pacesetter_service.dashboard.facts import Facts
from pacesetter_service.dashboard.orders import FieldError
from pacesetter_service.insight.planner import Planned
from pacesetter_service.runtime.queries.plan import Goal, PlanQuestion, Wanted, end_of

GOALS: Mapping[Goal, str] = {
    "lowest_loss": "lowest loss at an end",
    "fewest_steps": "fewest steps to a loss",
    "budget": "lowest loss within a budget",
}
"""The goals of a plan, in words."""

EASES: Mapping[str, AnyEase] = {"linear": Linear(), "1-sqrt": Power(power=0.5)}
"""The shapes of a cooldown in the form."""

MOST = 16
"""The most candidates that can be named."""

FIELDS: Mapping[str, str] = {
    "metric": "",
    "goal": "lowest_loss",
    "total": "",
    "loss": "",
    "steps": "",
    "look": "search",
    "lengths": "",
    "floor": "0",
    "shape": "linear",
    "orders": "",
    "epochs": "",
    "stage": "",
    "group": "",
}
"""The fields of the form, with their initial values."""


def said_in(query: Mapping[str, str], facts: Facts) -> dict[str, str]:
    """Return the values of the form's fields; the metric is the session's own loss by default."""
    said = {name: query.get(name, first).strip() for name, first in FIELDS.items()}
    if not said["metric"]:
        said["metric"] = likely_metric(facts) or ""
    return said


def likely_metric(facts: Facts) -> str | None:
    """Return the metric that people plan by: a loss on held-out data, or the loss."""
    known = sorted(facts.session.reported)
    losses = [each for each in known if "loss" in each.lower()]
    held_out = [each for each in losses if re.search("val|eval|test|held", each.lower())]
    return next(iter([*held_out, *losses]), facts.loss[0] if facts.loss else None)


def asked_in(said: Mapping[str, str]) -> dict[str, str]:
    """Return the fields that differ from their initial values, for an address."""
    return {name: text for name, text in said.items() if text and text != FIELDS.get(name)}


def question_in(said: Mapping[str, str], session: Session) -> PlanQuestion:
    """Return the question that a form asks.

    Raises:
        FieldError: A field cannot be read, or does not fit the goal.
        pydantic.ValidationError: A candidate is not an order.
        ArgumentError: No end is known.
        StepOutOfRangeError: The end is sealed already.
    """
    goal = said["goal"]
    if goal not in get_args(Goal):
        raise FieldError("goal", f"Goal: choose one of {', '.join(get_args(Goal))}.")
    question = PlanQuestion(
        said["metric"],
        goal,  # type: ignore[arg-type] # it is one, as was just seen
        total=None if goal == "budget" else _count_in(said, "total", "The training ends at step"),
        loss=_number_in(said, "loss", "Loss to come to", needed=goal == "fewest_steps"),
        steps=_count_in(said, "steps", "How many steps more", needed=goal == "budget"),
        group=said["group"] or None,
        stage=said["stage"] or None,
        epochs=_number_in(said, "epochs", "Passes over the data"),
    )
    if said["look"] != "own":
        return question
    if goal == "fewest_steps":
        raise FieldError("look", "The fewest steps to a loss are looked for: no candidate is named")
    own = tuple(_candidates_in(said, session, end_of(session, question)))
    if not 1 <= len(own) <= MOST:
        message = f"Candidates: name lengths of cooldowns, or orders; 1 to {MOST} of them."
        raise FieldError("lengths", message)
    return replace(question, candidates=own)


def _candidates_in(said: Mapping[str, str], session: Session, total: int) -> Iterator[Wanted]:
    floor = _number_in(said, "floor", "Floor") or 0.0
    shape = said["shape"] if said["shape"] in EASES else "linear"
    for text in said["lengths"].replace(",", " ").split():
        steps = _whole(text, "Lengths of cooldowns")
        action = Cooldown.model_validate(
            {"until": total, "to_fraction": floor, "ease": EASES[shape]}
        )
        to = "0" if floor == 0 else f"{floor:.4g} of the rate"
        label = f"cool down over {steps} steps to {to}, {shape}"
        yield Wanted(label, (Planned(total - steps, action),))
    for order in _orders_in(said["orders"]):
        at = order.pop("at", session.horizon)
        if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at <= MAX_STEP:
            raise FieldError("orders", f"Orders: `at` is a step, and no {at!r}.")
        given = Action.parse(order)
        yield Wanted(given.order(), (Planned(at, given),))


def _orders_in(text: str) -> list[dict[str, JsonValue]]:
    if not text:
        return []
    try:
        found = json.loads(text)
    except ValueError as error:
        raise FieldError("orders", f"Orders: this is no JSON: {error}.") from error
    orders = found if isinstance(found, list) else [found]
    if not all(isinstance(each, dict) for each in orders):
        raise FieldError("orders", 'Orders: write a list of objects, each with its "kind".')
    return orders


def _count_in(
    said: Mapping[str, str], name: str, label: str, *, needed: bool = False
) -> int | None:
    if said[name]:
        return _whole(said[name].replace(",", ""), label)
    if needed:
        raise FieldError(name, f"{label}: fill this in, or choose another goal.")
    return None


def _whole(text: str, label: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 17 and 0 < int(text) <= MAX_STEP):
        raise FieldError("total", f"{label}: write whole numbers above 0; {text!r} is none.")
    return int(text)


def _number_in(
    said: Mapping[str, str], name: str, label: str, *, needed: bool = False
) -> float | None:
    try:
        found = float(said[name]) if said[name] else None
    except ValueError as error:
        raise FieldError(name, f"{label}: write a number.") from error
    if found is None and needed:
        raise FieldError(name, f"{label}: fill this in, or choose another goal.")
    least = 0.0 if name == "floor" else 5e-324
    if found is not None and not (isfinite(found) and found >= least):
        raise FieldError(name, f"{label}: write a number {'from' if least == 0 else 'above'} 0.")
    return found
