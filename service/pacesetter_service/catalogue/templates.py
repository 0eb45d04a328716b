"""Templates: specs with holes, published under a name and a version, and never changed.

A hole is `{"$": "total_steps"}`; it takes the place of a whole value. Filling substitutes JSON for
JSON; after that the spec is validated like any other.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.mistakes import misplaced, refusal
from pacesetter_service.core.model import Count, Line, Lines, Model, Step, Written, did_you_mean
from pacesetter_service.core.spec import Name, SessionSpec, refuse_unreadable

HOLE = "$"

MAX_FILLED = 1_048_576
"""The most characters that the filled holes may have in all: one value may fill many holes."""

TemplateName = Annotated[
    str,
    Written(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        "Write 1 to 64 letters (A to Z), digits, dots, hyphens and underscores, beginning with a"
        " letter or a digit: no blanks, no slashes",
    ),
]
ParameterName = Annotated[
    str,
    Written(
        r"^[a-z][a-z0-9_]{0,63}$",
        "Name a parameter by 1 to 64 small letters, digits and underscores, beginning with a"
        " letter",
    ),
]

DeprecationReason = Annotated[Line, Field(min_length=1, max_length=500)]
"""Why a version should no longer be used."""

_REFERENCE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})@([1-9][0-9]{0,8})$")


class TemplateReference(NamedTuple):
    """One version of a template; written `name@version`."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class Parameter(Model):
    """A hole's meaning. One without a default must be filled; `example` shows with what."""

    description: Annotated[Lines, Field(max_length=500)] = Field(
        default="", description="what it means"
    )
    default: JsonValue = Field(default=None, description="what fills the hole if nothing is given")
    example: JsonValue = Field(
        default=None,
        description="what the hole may be filled with; the template is tried with it",
    )

    @model_validator(mode="after")
    def _something_to_try(self) -> Self:
        if self.default is None and self.example is None:
            raise PydanticCustomError(
                "no_example", "Give a `default`, or an `example` for a parameter that must be given"
            )
        return self

    @property
    def trial(self) -> JsonValue:
        """A value that must be valid, to try the template with."""
        return self.example if self.default is None else self.default


class Template(Model):
    """What is published: a spec without a name, with holes, and what the holes mean."""

    name: TemplateName = Field(description="how the template is called")
    description: Annotated[Lines, Field(max_length=2000)] = Field(
        default="", description="what it is for, for people"
    )
    parameters: Annotated[dict[ParameterName, Parameter], Field(max_length=64)] = Field(
        default_factory=dict, description="what fills its holes, by name"
    )
    spec: dict[str, JsonValue] = Field(
        description='the spec of a session, without a name; `{"$": "parameter"}` stands where a'
        " parameter goes"
    )

    @model_validator(mode="before")
    @classmethod
    def _not_too_deep(cls, data: Any) -> Any:  # noqa: ANN401 - whatever a caller sent
        refuse_unreadable(data)
        return data

    @model_validator(mode="after")
    def _holes_and_parameters_agree(self) -> Self:
        holes = set(_holes(self.spec))
        for unknown in sorted(holes - set(self.parameters)):
            raise PydanticCustomError(
                "unknown_hole",
                "The spec has a hole {hole}, which is no parameter.{hint}",
                {"hole": unknown, "hint": did_you_mean(unknown, self.parameters)},
            )
        for unused in sorted(set(self.parameters) - holes):
            raise PydanticCustomError(
                "unused_parameter",
                'The parameter {name} fills nothing; put {{"$": "{name}"}} where it belongs',
                {"name": unused},
            )
        return self

    @model_validator(mode="after")
    def _works(self) -> Self:
        if "name" in self.spec:
            raise PydanticCustomError(
                "named_template", "Leave `name` out of the spec: each session brings its own"
            )
        trial = {name: parameter.trial for name, parameter in self.parameters.items()}
        try:
            SessionSpec.model_validate({**_bounded(self.spec, trial), "name": "trial"})
        except ValidationError as error:
            raise misplaced(error, "spec") from None
        return self


class TemplateUse(Model):
    """A session to be made from a template: `{"name": …, "template": "a@3", "with": {…}}`."""

    name: Name = Field(description="how the session is to be called")
    template: str = Field(description="the template with its version, such as `vit@3`")
    given: Annotated[dict[str, JsonValue], Field(alias="with", max_length=64)] = Field(
        default_factory=dict, description="values for the template's parameters, by name"
    )
    ranks: Count | None = Field(default=None, description="how many ranks report metrics")
    start_step: Step | None = Field(default=None, description="the first step of the session")
    labels: dict[str, str] = Field(
        default_factory=dict, description="labels beside the template's own"
    )

    @model_validator(mode="before")
    @classmethod
    def _not_too_deep(cls, data: Any) -> Any:  # noqa: ANN401 - whatever a caller sent
        refuse_unreadable(data)
        return data

    @field_validator("template")
    @classmethod
    def _names_a_version(cls, text: str) -> str:
        return str(parse_reference(text))

    @property
    def reference(self) -> TemplateReference:
        """The template and the version."""
        return parse_reference(self.template)

    def spec(self, template: Template) -> SessionSpec:
        """Return the session's spec.

        Raises:
            pydantic.ValidationError: The parameters are not the template's, or with these values
                the spec makes no sense.
        """
        body = fill(template, self.given)
        own = {"ranks": self.ranks, "start_step": self.start_step}
        body |= {name: value for name, value in own.items() if value is not None}
        body["labels"] = {**body.get("labels", {}), **self.labels}
        body["origin"] = {"template": self.template, "values": self.given}
        return SessionSpec.model_validate({**body, "name": self.name})


class Published(NamedTuple):
    """A template, the version that it was given, and why it should no longer be used."""

    template: Template
    version: int
    created_at: str
    deprecated: str | None = None

    @property
    def reference(self) -> TemplateReference:
        """The reference under which sessions name it."""
        return TemplateReference(self.template.name, self.version)


def parse_reference(text: str) -> TemplateReference:
    """Read `name@version`.

    Raises:
        PydanticCustomError: It is none; a version must be named, so that a spec stays what it is.
    """
    match = _REFERENCE.match(text)
    if match is None:
        raise PydanticCustomError(
            "not_a_reference", "Name a template with its version, such as vit-pretrain@3"
        )
    return TemplateReference(match[1], int(match[2]))


def fill(template: Template, given: Mapping[str, JsonValue]) -> dict[str, Any]:
    """Return the template's spec with its holes filled, from what was given and the defaults.

    Raises:
        pydantic.ValidationError: A parameter is unknown, or one without a default was not given.
    """
    known = ", ".join(template.parameters) or "none"
    for name in given:
        if name not in template.parameters:
            hint = did_you_mean(name, template.parameters)
            message = f"The template has no such parameter.{hint} It has: {known}"
            raise refusal(("with", name), "unknown_parameter", message)
    for name, parameter in template.parameters.items():
        if name not in given and parameter.default is None:
            message = f"The template needs {name} ({parameter.description or 'it has no default'})"
            raise refusal(("with",), "missing_parameter", message)
    values = {name: given.get(name, each.default) for name, each in template.parameters.items()}
    return _bounded(template.spec, values)


class Difference(NamedTuple):
    """One place in which two JSON documents differ; None stands for a missing value."""

    pointer: str
    before: JsonValue
    after: JsonValue


def diff(before: JsonValue, after: JsonValue, pointer: str = "") -> Iterator[Difference]:
    """Return the places in which two JSON documents differ, as deep as they can be named.

    Laws and rules of different `kind` differ as a whole: their fields mean different things.
    """
    if isinstance(before, dict) and isinstance(after, dict) and _of_one_kind(before, after):
        for key in sorted(before.keys() | after.keys()):
            yield from diff(before.get(key), after.get(key), f"{pointer}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from diff(*pair, f"{pointer}/{index}")
    elif before != after:
        yield Difference(pointer, before, after)


def _of_one_kind(before: dict[str, JsonValue], after: dict[str, JsonValue]) -> bool:
    return before.get("kind") == after.get("kind")


def _holes(value: JsonValue) -> Iterator[str]:
    hole = _hole(value)
    if hole is not None:
        yield hole
    elif isinstance(value, dict):
        for member in value.values():
            yield from _holes(member)
    elif isinstance(value, list):
        for member in value:
            yield from _holes(member)


def _bounded(spec: dict[str, JsonValue], values: Mapping[str, JsonValue]) -> dict[str, Any]:
    """Fill a spec's holes, unless that makes it larger than a body may be."""
    sizes = {name: len(json.dumps(value)) for name, value in values.items()}
    if sum(sizes[hole] for hole in _holes(spec)) > MAX_FILLED:
        message = "The values are too large for the number of places that they fill; shorten them"
        raise refusal(("with",), "too_large", message)
    filled: dict[str, Any] = _filled(spec, values)
    return filled


def _filled(value: Any, values: Mapping[str, JsonValue]) -> Any:  # noqa: ANN401 - any JSON
    hole = _hole(value)
    if hole is not None:
        return values[hole]
    if isinstance(value, dict):
        return {key: _filled(member, values) for key, member in value.items()}
    if isinstance(value, list):
        return [_filled(member, values) for member in value]
    return value


def _hole(value: JsonValue) -> str | None:
    name = value.get(HOLE) if isinstance(value, dict) and len(value) == 1 else None
    return name if isinstance(name, str) else None
