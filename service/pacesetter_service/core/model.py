"""What every model of the core shares: frozen, strict, and helpful about misspelt names.

A *family* is a set of models told apart by their `kind` (schedules, eases, controllers). A new
member is one new class: naming its family's root as a parent registers it.
"""

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializationInfo,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

MAX_STEP = 2**53 - 1
"""The largest step: every step below it is exact as float64 and as a JSON number."""

Real = Annotated[float, Strict(), Field(allow_inf_nan=False)]
NonNegative = Annotated[Real, Field(ge=0)]
Positive = Annotated[Real, Field(gt=0)]
Fraction = Annotated[Real, Field(ge=0, le=1)]
Count = Annotated[int, Strict(), Field(ge=1, le=MAX_STEP)]
Step = Annotated[int, Strict(), Field(ge=0, le=MAX_STEP)]
Flag = Annotated[bool, Strict()]


class OneOf:
    """Annotation for a union: one error at the field itself, not one for each of its members."""

    def __init__(self, expected: str) -> None:
        self._expected = expected

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        union = dict(handler(source))
        return core_schema.union_schema(
            union["choices"],
            custom_error_type="not_one_of",
            custom_error_message=self._expected,
        )


Level = Annotated[
    Literal["base"] | Real, OneOf('Input should be a finite number, or "base" for the base value')
]
"""A value that a law starts from or aims at: a number, or `"base"`, the base value of its group."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Give ` Did you mean 'x'?` for the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


class Model(BaseModel):
    """A frozen value whose fields are exactly the declared ones."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_inf_nan="strings",
        validate_default=True,
        # There are some hundred models, of which a process uses a few: each is built when it is.
        defer_build=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _name_what_is_unknown(cls, data: Any) -> Any:  # noqa: ANN401 - whatever a caller sent
        if not isinstance(data, dict):
            return data
        known = cls._known_names()
        unknown = [key for key in data if key not in known]
        if unknown:
            raise ValidationError.from_exception_data(
                cls.__name__, [cls._unknown_field(str(key)) for key in unknown[:10]]
            )
        return data

    @classmethod
    def _known_names(cls) -> set[str]:
        return {field.alias or name for name, field in cls.model_fields.items()}

    @classmethod
    def _unknown_field(cls, name: str) -> InitErrorDetails:
        known = sorted(cls._known_names())
        error = PydanticCustomError(
            "unknown_field",
            "There is no such field.{hint} Known here: {known}",
            {"hint": did_you_mean(name, known), "known": ", ".join(known)},
        )
        return InitErrorDetails(type=error, loc=(name,), input=name)


def refusal(place: tuple[str | int, ...], code: str, message: str) -> ValidationError:
    """Make the error of one value that only its user can judge, at its place."""
    error = PydanticCustomError(code, "{message}", {"message": message})
    detail = InitErrorDetails(type=error, loc=place, input=None)
    return ValidationError.from_exception_data("request", [detail])


class Tagged(Model):
    """A member of a family; the family's root is declared with `class Root(Tagged, family="…")`."""

    family: ClassVar[str]
    kinds: ClassVar[dict[str, type[Any]]]
    elsewhere: ClassVar[dict[str, str]]
    """Names that people look for here and that are no members, and what to do instead."""

    def __init_subclass__(cls, *, family: str | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, family: str | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__pydantic_init_subclass__(**kwargs)
        if family is not None:
            cls.family = family
            cls.kinds = {}
            cls.elsewhere = {}
        elif "kind" in cls.model_fields:
            cls.kinds[cls.model_fields["kind"].default] = cls

    @classmethod
    def parse(cls, data: object) -> Self:
        """Build the member that `data["kind"]` names; a bare string is a kind with its defaults."""
        if isinstance(data, cls):
            return data
        if isinstance(data, str):
            data = {"kind": data}
        if not isinstance(data, dict):
            raise PydanticCustomError(
                "not_tagged",
                "Expected the {family}: an object with a `kind`, such as {some}",
                {"family": cls.family, "some": next(iter(cls.kinds))},
            )
        kind = data.get("kind")
        member = cls.kinds.get(kind) if isinstance(kind, str) else None
        if member is None:
            raise ValidationError.from_exception_data(cls.__name__, [cls._unknown_kind(kind)])
        parsed: Self = member.model_validate(data)
        return parsed

    @classmethod
    def _unknown_kind(cls, kind: object) -> InitErrorDetails:
        error = PydanticCustomError(
            "unknown_kind",
            "There is no such kind of {family}.{hint}",
            {"family": cls.family, "hint": cls._hint(str(kind))},
        )
        return InitErrorDetails(type=error, loc=("kind",), input=kind)

    @classmethod
    def _hint(cls, kind: str) -> str:
        if kind in cls.elsewhere:
            return f" {cls.elsewhere[kind]}"
        known = f" Name one of: {', '.join(sorted(cls.kinds)[:12])}, …"
        return did_you_mean(kind, cls.kinds) or known


class AnyOf:
    """Annotation for a field that takes any member of a family: `Annotated[Root, AnyOf(Root)]`.

    A union of all members would have to be rebuilt whenever a member is added, and would answer a
    misspelt kind with a hundred errors; looking the kind up costs nothing and answers with one.
    """

    def __init__(self, root: type[Tagged]) -> None:
        self._root = root

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._root.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(
                _dump_member, info_arg=True
            ),
        )

    def __get_pydantic_json_schema__(
        self, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {
            "type": "object",
            "title": self._root.__name__,
            "properties": {"kind": {"type": "string", "enum": sorted(self._root.kinds)}},
            "required": ["kind"],
        }


def _dump_member(member: Model, info: SerializationInfo) -> dict[str, Any]:
    return member.model_dump(mode=info.mode)


def jsonable(model: Model) -> dict[str, Any]:
    """Give the model as JSON types; parsing that again gives an equal model."""
    return model.model_dump(mode="json")
