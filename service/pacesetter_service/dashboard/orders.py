"""The forms of orders: the fields of each action, and how they are read."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from pacesetter_service.core.actions import Action
from pacesetter_service.core.session import Session

Kind = Literal["number", "count", "choice", "flag", "json"]


class FieldError(Exception):
    """A field cannot be read.

    Attributes:
        field: The name of the field.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a form.

    Attributes:
        name: Its name in the action.
        label: Its name for people.
        kind: The form of its value.
        default: Its initial value.
        needed: Whether it must be filled in.
        hint: What it means.
        choices: The possible values, each with a word for it.
    """

    name: str
    label: str
    kind: Kind = "number"
    default: str = ""
    needed: bool = False
    hint: str = ""
    choices: tuple[tuple[str, str], ...] = ()

    def read(self, text: str) -> JsonValue:
        """Return the value that was entered.

        Raises:
            FieldError: It cannot be read.
        """
        if self.kind == "count":
            if not re.fullmatch(r"[0-9]{1,16}", text):
                raise FieldError(self.name, f"{self.label}: write a whole number, without a sign.")
            return int(text)
        if self.kind == "number":
            try:
                return float(text)
            except ValueError as error:
                message = f"{self.label}: write a number, such as 0.0003 or 3e-4."
                raise FieldError(self.name, message) from error
        if self.kind == "json":
            try:
                found: JsonValue = json.loads(text)
            except ValueError as error:
                raise FieldError(self.name, f"{self.label}: this is no JSON: {error}.") from error
            return found
        return text == "true" if self.kind == "flag" else text


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an action.

    Attributes:
        kind: The action.
        title: Its name for people.
        does: What it does, in a sentence.
        fields: Its fields.
    """

    kind: str
    title: str
    does: str
    fields: tuple[Field, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether its effect can be shown before anything is filled in."""
        return all(each.default or not each.needed for each in self.fields)

    def defaults(self) -> dict[str, str]:
        """Return the initial values of its fields."""
        return {each.name: each.default for each in self.fields}


_STEPS = Field("steps", "Over how many steps", "count", needed=True)

FORMS: Mapping[str, Form] = {
    form.kind: form
    for form in (
        Form(
            "scale",
            "Halve or multiply",
            "Multiplies the learning rate by a factor, in the middle of whatever it does.",
            (Field("factor", "Factor", default="0.5", needed=True),),
        ),
        Form(
            "set",
            "Set",
            "One learning rate from there on; the schedule, scales and holds end.",
            (
                Field("lr", "Learning rate", needed=True),
                Field("over", "Reached over how many steps", "count", hint="At once if empty."),
            ),
        ),
        Form("hold", "Hold", "The value of that step stays until it is released."),
        Form("release", "Release", "Goes on where hold stopped the clock."),
        Form(
            "cooldown",
            "Cool down",
            "Down to a floor, by one minus the square root of the way.",
            (
                _STEPS,
                Field(
                    "to_fraction",
                    "To which part of the present rate",
                    default="0",
                    hint="0 for all the way down.",
                ),
            ),
        ),
        Form(
            "retime",
            "Extend or shorten",
            "Makes the rest of the plan end at another step.",
            (
                Field("total_steps", "The plan ends at step", "count", needed=True),
                Field(
                    "policy",
                    "How",
                    "choice",
                    "rescale",
                    choices=(
                        ("rescale", "the rest of the law goes faster or slower"),
                        ("keep_then_tail", "keep the present rate first, then the rest as it is"),
                    ),
                ),
            ),
        ),
        Form(
            "rewarm",
            "Warm up again",
            "Times a factor that rises to 1 in a straight line.",
            (_STEPS, Field("factor", "From which factor", default="0")),
        ),
        Form(
            "replace",
            "Replace the schedule",
            "Another schedule from there on.",
            (
                Field("schedule", "Schedule", "json", needed=True, hint="JSON with a `kind`."),
                Field(
                    "clock",
                    "Its clock",
                    "choice",
                    "local",
                    choices=(
                        ("local", "begins at its own step 0"),
                        ("global", "is as far as if it had run from the start"),
                    ),
                ),
                Field(
                    "value",
                    "Its base rate",
                    "choice",
                    "base",
                    choices=(
                        ("base", "the session's"),
                        ("level", "what controllers have made of it"),
                        ("continue", "the value of that step"),
                    ),
                ),
            ),
        ),
        Form(
            "limit",
            "Limit",
            "Bounds for controllers and operators from there on; empty is unbounded.",
            (
                Field("min_lr", "Least learning rate", default="0"),
                Field("max_lr", "Greatest learning rate"),
                Field("max_change", "Greatest factor at once"),
                Field("lift", "Lift all limits", "flag", choices=(("", "no"), ("true", "yes"))),
            ),
        ),
        Form(
            "revert",
            "Back to the plan",
            "Ends scales, holds, settings and retimings; what controllers have cut stays cut.",
        ),
        Form(
            "switch",
            "Next stage",
            "Moves a switch controller to its next stage, whatever its predicate says.",
            (Field("controller", "Index of the controller", "count", "0", needed=True),),
        ),
    )
}


def forms_for(session: Session) -> list[Form]:
    """Return the forms that make sense for a session."""
    has_stages = any(getattr(each, "kind", "") == "switch" for each in session.spec.controllers)
    return [form for form in FORMS.values() if form.kind != "switch" or has_stages]


def suggested(form: Form, session: Session) -> dict[str, str]:
    """Return the initial values of a form, for a session."""
    said = form.defaults()
    total = session.spec.total_steps
    if form.kind == "retime" and total:
        said["total_steps"] = str(round(total * 1.2))
    if form.kind == "cooldown":
        said["steps"] = str(max((total or 10 * 100) // 10, 1))
    if form.kind == "rewarm":
        said["steps"] = str(max((total or 50 * 100) // 50, 1))
    if form.kind == "replace":
        left = max((total or session.horizon + 1000) - session.horizon, 1)
        said["schedule"] = json.dumps({"kind": "cosine", "total_steps": left})
    return said


def action_of(form: Form, said: Mapping[str, str], groups: list[str]) -> Action:
    """Return the action that a form orders.

    Args:
        form: The form.
        said: The entered values of its fields.
        groups: The chosen parameter groups; empty for all.

    Raises:
        FieldError: A required field is empty, or a field cannot be read.
        pydantic.ValidationError: The fields together do not make such an action.
    """
    fields: dict[str, JsonValue] = {"kind": form.kind, "reason": said.get("reason", "").strip()}
    for field in form.fields:
        text = said.get(field.name, "").strip()
        if text:
            fields[field.name] = field.read(text)
        elif field.needed:
            raise FieldError(field.name, f"{field.label}: fill this in.")
    if groups and form.kind not in {"limit", "switch"}:
        fields["groups"] = list(groups)
    return Action.parse(fields)
