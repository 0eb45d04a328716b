"""Lengths of time: in steps, or in a unit that the session's own numbers convert to steps.

A spec keeps the lengths as they were written. `resolve` returns the same tree in steps, and that
one is evaluated.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeGuard, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer
from pydantic_core import PydanticCustomError

from pacesetter_service.core.model import (
    Checked,
    Count,
    Model,
    NonNegative,
    OneOf,
    Positive,
    Step,
    Zero,
)

M = TypeVar("M", bound=Model)


class Duration(Checked):
    """A length in exactly one unit."""

    epochs: NonNegative | None = Field(
        default=None, description="epochs, of which the session's `steps_per_epoch` makes steps"
    )
    samples: NonNegative | None = Field(
        default=None, description="samples, of which the session's `batch_size` makes steps"
    )
    tokens: NonNegative | None = Field(
        default=None, description="tokens, of which the session's `tokens_per_step` makes steps"
    )
    fraction: Annotated[NonNegative, Field(le=1)] | None = Field(
        default=None, description="a part of the session's `total_steps`, from 0 to 1"
    )

    def _faults(self) -> Iterator[PydanticCustomError]:
        if sum(getattr(self, unit) is not None for unit in type(self).model_fields) != 1:
            yield PydanticCustomError("one_unit", "Name one unit")

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {unit: length for unit, length in handler(self).items() if length is not None}


_EXPECTED = (
    'Write {number}, or a length such as {{"epochs": 5}}, {{"fraction": 0.1}} of'
    ' total_steps, {{"samples": 1e6}} or {{"tokens": 1e9}}'
)


def _or_duration(number: str) -> OneOf:
    return OneOf(_EXPECTED.format(number=number))


# Within these bounds no step divided by a length overflows; the longest may outlast all steps.
Span = Annotated[Positive, Field(ge=1e-6, le=1e18)]

Length = Annotated[Span | Duration, _or_duration("a positive number of steps")]
"""A stretch of time that may be a fraction of a step."""

Stage = Annotated[Zero | Span | Duration, _or_duration("a number of steps, 0 or more")]
"""A stretch of time that may be a fraction of a step, or none at all."""

StepCount = Annotated[Count | Duration, _or_duration("a whole number of steps, at least 1")]
"""A whole number of steps, at least one."""

StepPoint = Annotated[Step | Duration, _or_duration("a whole number of steps")]
"""A whole number of steps from the start; 0 is the start itself."""


@dataclass(frozen=True, slots=True)
class Clock:
    """What a session knows about its own pace; a field is None if unknown."""

    total_steps: int | None = None
    steps_per_epoch: int | None = None
    batch_size: int | None = None
    tokens_per_step: int | None = None

    def steps(self, length: Duration) -> int:
        """Convert a length to steps, to the nearest whole one.

        Raises:
            PydanticCustomError: The session does not say what the unit comes to.
        """
        if length.epochs is not None:
            return round(length.epochs * self._known("steps_per_epoch", "epochs"))
        if length.samples is not None:
            return round(length.samples / self._known("batch_size", "samples"))
        if length.tokens is not None:
            return round(length.tokens / self._known("tokens_per_step", "tokens"))
        return round((length.fraction or 0.0) * self._known("total_steps", "a fraction"))

    def _known(self, field: str, unit: str) -> int:
        value: int | None = getattr(self, field)
        if value is None:
            raise PydanticCustomError(
                "unknown_pace",
                "A length in {unit} needs the session's {field}: give it beside the schedule",
                {"unit": unit, "field": field},
            )
        return value


def resolve(value: M, clock: Clock) -> M:
    """Return a model with all its lengths converted to steps; the same object if it has none.

    Raises:
        PydanticCustomError: The session does not say what some unit comes to.
        pydantic.ValidationError: A length comes to a number of steps that makes no sense there.
    """
    resolved: M = _resolve(value, clock)
    return resolved


def unresolved(value: Any, clock: Clock) -> tuple[str | int, ...]:  # noqa: ANN401 - as below
    """Return the place of the first length in a model that `resolve` refuses; empty if none is."""
    if isinstance(value, Model):
        children: Iterable[tuple[str | int, Any]] = [
            (name, getattr(value, name)) for name in type(value).model_fields
        ]
    elif isinstance(value, Mapping):
        children = value.items()
    else:
        children = enumerate(value) if isinstance(value, tuple) else ()
    for key, child in children:
        try:
            _resolve(child, clock)
        except (PydanticCustomError, ValidationError):
            return key, *unresolved(child, clock)
    try:
        _resolve(value, clock)
    except ValidationError as error:
        return tuple(error.errors(include_url=False)[0]["loc"][:1])
    except PydanticCustomError:
        pass
    return ()


def _resolve(value: Any, clock: Clock) -> Any:  # noqa: ANN401 - whatever stands in a model
    if isinstance(value, Duration):
        return clock.steps(value)
    if isinstance(value, Model):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        steps = {name: _resolve(field, clock) for name, field in fields.items()}
        if all(steps[name] is field for name, field in fields.items()):
            return value
        return type(value).model_validate(steps)
    if isinstance(value, tuple):
        parts = tuple(_resolve(part, clock) for part in value)
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else parts
    if isinstance(value, Mapping):
        members = {key: _resolve(member, clock) for key, member in value.items()}
        return value if all(members[key] is value[key] for key in value) else members
    return value


def known(length: int | float | Duration | None) -> TypeGuard[float]:  # noqa: PYI041 - ints too
    """Return whether a length is a number of steps already."""
    return not isinstance(length, Duration) and length is not None


def steps_of(length: float | Duration) -> float:
    """Return a length that has been resolved, as a number of steps."""
    if isinstance(length, Duration):
        raise UnresolvedLengthError
    return length


def whole(length: int | Duration) -> int:
    """Return a resolved length as a whole number of steps."""
    if isinstance(length, Duration):
        raise UnresolvedLengthError
    return length


class UnresolvedLengthError(ValueError):
    """A law was evaluated before its lengths were converted to steps: an error of the service."""
