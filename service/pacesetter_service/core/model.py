"""What every model of the core shares: frozen, strict, and helpful about misspelt names.

A *family* is a set of models that differ by their `kind` (schedules, eases, controllers). A new
member is one new class: naming its family's root as a parent registers it.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
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


def _no_flag(value: Any) -> Any:  # noqa: ANN401 - whatever stands in JSON
    """Refuse true and false, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "Write a number, and not true or false")
    return value


Zero = Annotated[Literal[0], BeforeValidator(_no_flag)]
ZeroOrOne = Annotated[Literal[0, 1], BeforeValidator(_no_flag)]


def spelt(value: Any) -> Any:  # noqa: ANN401 - whatever stands in JSON
    """Return JSON types with NaN and infinities, which JSON lacks, spelt out."""
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, dict):
        return {key: spelt(each) for key, each in value.items()}
    return [spelt(each) for each in value] if isinstance(value, list | tuple) else value


Spelt = Annotated[float, PlainSerializer(spelt, float | Literal["nan", "inf", "-inf"])]
"""A number that may be NaN or infinite; JSON then spells it out."""


class OneOf:
    """Annotation for a union: one error at the field itself, instead of one for each member."""

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


class Written:
    """Annotation for a text with a pattern: the error states the rule in words."""

    def __init__(self, pattern: str, rule: str) -> None:
        self._pattern = pattern
        self._rule = rule

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        text = dict(handler(source)) | {"pattern": self._pattern}
        return core_schema.custom_error_schema(
            cast("core_schema.CoreSchema", text),
            custom_error_type="miswritten",
            custom_error_message=self._rule,
        )


Level = Annotated[
    Literal["base"] | Real, OneOf('Write a finite number, or "base" for the base value')
]
"""A value that a law starts from or aims at: a number, or `"base"`, the base value of its group."""


MAX_HINTED = 128
"""The longest name for which a similar known name is searched."""

_hints_left: ContextVar[Iterator[int] | None] = ContextVar("hints_left", default=None)


@contextmanager
def few_hints(most: int) -> Iterator[None]:
    """Limit the search for what was meant to the first few mistakes.

    A body may contain many thousands of mistakes, and only the first are reported.
    """
    token = _hints_left.set(iter(range(most)))
    try:
        yield
    finally:
        _hints_left.reset(token)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the nearest known name, or nothing."""
    left = _hints_left.get()
    if len(name) > MAX_HINTED or (left is not None and next(left, None) is None):
        return ""
    near = _nearest(name, tuple(known))
    return f" Did you mean {near!r}?" if near else ""


@lru_cache(maxsize=1024)
def _nearest(name: str, known: tuple[str, ...]) -> str | None:
    near = difflib.get_close_matches(name, known, n=1)
    if not near and len(name) > 1:  # `lr` means `base_lr`, if no other name contains it
        parts = [each for each in known if name in each.split("_")]
        near = parts if len(parts) == 1 else []
    return near[0] if near else None


_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
"""Control characters, line ends, and marks that reverse the direction of the text around them."""


def printable(text: str) -> str:
    """Refuse text by a user that a log or a terminal would not show as it is written.

    Raises:
        PydanticCustomError: It has a character that controls how text is shown.
    """
    found = _UNPRINTABLE.search(text)
    if found:
        raise PydanticCustomError(
            "unprintable",
            "There is a character U+{code} at place {place}, which controls how text is shown:"
            " write plain text",
            {"code": f"{ord(found[0]):04X}", "place": found.start()},
        )
    return text


def _printable_lines(text: str) -> str:
    printable(text.replace("\n", " ").replace("\t", " "))
    return text


Line = Annotated[str, AfterValidator(printable)]
"""One line of text, without characters that control how it is shown."""

Lines = Annotated[str, AfterValidator(_printable_lines)]
"""The same, of several lines."""


class Model(BaseModel):
    """A frozen value whose fields are exactly the declared ones."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_inf_nan="strings",
        validate_default=True,
        # There are about a hundred models, of which a process uses few: each is built on first use.
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


class Checked(Model):
    """A model that checks its values together, once each of them is valid by itself."""

    def _faults(self) -> Iterable[PydanticCustomError | ValidationError]:
        """Return the faults in how the fields combine; only the first fault is reported."""
        return ()

    @model_validator(mode="after")
    def _without_faults(self) -> Self:
        for fault in self._faults():
            raise fault
        return self


class Tagged(Checked):
    """A member of a family; the family's root is declared with `class Root(Tagged, family="…")`."""

    family: ClassVar[str]
    kinds: ClassVar[dict[str, type[Any]]]
    redirects: ClassVar[dict[str, str]]
    """Names that people look for here and that are no members, with what to use instead."""
    usual: ClassVar[tuple[str, ...]] = ()
    """The kinds that a message names first."""

    def __init_subclass__(cls, *, family: str | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, family: str | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__pydantic_init_subclass__(**kwargs)
        if family is not None:
            cls.family = family
            cls.kinds = {}
            cls.redirects = {}
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
                "Write the {family} as an object with a `kind`, such as {some}",
                {"family": cls.family, "some": f'{{"kind": "{cls._some()[0]}"}}'},
            )
        kind = data.get("kind")
        if kind is None:
            raise ValidationError.from_exception_data(cls.__name__, [cls._no_kind()])
        member = cls.kinds.get(kind) if isinstance(kind, str) else None
        if member is None:
            raise ValidationError.from_exception_data(cls.__name__, [cls._unknown_kind(kind)])
        parsed: Self = member.model_validate(data)
        return parsed

    @classmethod
    def _no_kind(cls) -> InitErrorDetails:
        error = PydanticCustomError(
            "missing_kind",
            "Say which {family} this is by its `kind`, such as {some}",
            {"family": cls.family, "some": ", ".join(map(repr, cls._some()))},
        )
        return InitErrorDetails(type=error, loc=("kind",), input=None)

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
        if kind in cls.redirects:
            return f" {cls.redirects[kind]}"
        more = ", …" if len(cls.kinds) > _FEW else ""
        known = f" Name one of: {', '.join(cls._some())}{more}"
        return did_you_mean(kind, cls.kinds) or known

    @classmethod
    def _some(cls) -> list[str]:
        """Name some kinds: the usual ones first, and none of another library."""
        others = sorted(kind for kind in cls.kinds if kind not in cls.usual and "." not in kind)
        return [*cls.usual, *others][:_FEW]


_FEW = 12
"""How many kinds a message names."""


class AnyOf:
    """Annotation for a field that takes any member of a family: `Annotated[Root, AnyOf(Root)]`.

    A union of all members would have to be rebuilt whenever a member is added, and would answer a
    misspelt kind with a hundred errors. Looking the kind up costs nothing and answers with one.
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
        return self.described()

    def described(self) -> dict[str, Any]:
        """Return the JSON schema: a title and the kinds, whose own schemas are elsewhere."""
        return {
            "type": "object",
            "title": self._root.__name__,
            "properties": {"kind": {"type": "string", "enum": sorted(self._root.kinds)}},
            "required": ["kind"],
        }


def _dump_member(member: Model, info: SerializationInfo) -> dict[str, Any]:
    return member.model_dump(mode=info.mode)


def jsonable(model: Model) -> dict[str, Any]:
    """Return the model as JSON types; parsing that again gives an equal model."""
    return model.model_dump(mode="json")
