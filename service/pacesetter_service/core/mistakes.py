"""What is wrong with a value, told to users in their own terms: what they should write instead.

pydantic finds most mistakes, and words them for programmers: patterns, tuples, instances. The table
below has a sentence for each type of mistake that a request can make. A message that a model wrote
itself is kept as it is.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

_LONGEST_NAMED = 64
"""How many characters of a value a message repeats."""

Context = Mapping[str, Any]

_SENTENCES: Mapping[str, str | Callable[[Context, object], str]] = {
    "missing": "This is missing and has to be given",
    "extra_forbidden": "There is no such field; leave it out",
    "none_required": "Leave this out, or write null",
    "bool_type": "Write true or false, without quotes",
    "bool_parsing": "Write true or false",
    "string_type": lambda _, got: f"Write a text in quotes{_instead_of(got)}",
    "string_unicode": "This is no text in UTF-8",
    "string_too_short": lambda said, _: (
        f"Write {_several(said['min_length'], 'character')} or more"
    ),
    "string_too_long": lambda said, _: f"Write at most {_several(said['max_length'], 'character')}",
    "int_type": lambda _, got: f"Write a whole number{_not_whole(got)}",
    "int_parsing": "Write a whole number",
    "int_parsing_size": "Write a whole number below 2**53",
    "int_from_float": "Write a whole number, without a point in it",
    "float_type": lambda _, got: f"Write a number{_instead_of(got)}",
    "float_parsing": "Write a number",
    "finite_number": "Write a finite number, which NaN and infinity are not",
    "greater_than": lambda said, _: f"Write a number above {_number(said['gt'])}",
    "greater_than_equal": lambda said, _: f"Write a number that is {_number(said['ge'])} or more",
    "less_than": lambda said, _: f"Write a number below {_number(said['lt'])}",
    "less_than_equal": lambda said, _: f"Write a number that is at most {_number(said['le'])}",
    "too_short": lambda said, _: f"Write {_several(said['min_length'], 'entry')} or more",
    "too_long": lambda said, _: f"Write at most {_several(said['max_length'], 'entry')}",
    "list_type": lambda _, got: _a_list(got),
    "tuple_type": lambda _, got: _a_list(got),
    "set_type": lambda _, got: _a_list(got),
    "dict_type": lambda _, got: f"Write a JSON object: {{ … }}{_instead_of(got)}",
    "model_type": lambda _, got: f"Write a JSON object: {{ … }}{_instead_of(got)}",
    "model_attributes_type": lambda _, got: f"Write a JSON object: {{ … }}{_instead_of(got)}",
    "dataclass_type": lambda _, got: f"Write a JSON object: {{ … }}{_instead_of(got)}",
    "literal_error": lambda said, got: f"Write {said['expected']}{_meant(said['expected'], got)}",
    "enum": lambda said, got: f"Write {said['expected']}{_meant(said['expected'], got)}",
    "datetime_type": "Write a moment, such as 2026-01-31T12:00:00Z",
    "datetime_parsing": "Write a moment, such as 2026-01-31T12:00:00Z",
    "datetime_from_date_parsing": "Write a moment, such as 2026-01-31T12:00:00Z",
    "datetime_object_invalid": "Write a moment, such as 2026-01-31T12:00:00Z",
    "timezone_aware": "Say the moment's offset from UTC: end it with Z or +01:00",
    "json_invalid": lambda said, _: f"This is no JSON: {said['error']}",
    "invalid_key": "Write a text for the name of this",
    "recursion_loop": "This stands in itself; write it out",
}
"""For each of pydantic's error types a sentence, or a function of the context and the value."""


def said(error: Mapping[str, Any]) -> str:
    """Return what is wrong, without a full stop.

    Args:
        error: One of `ValidationError.errors()`, with its context and the value.
    """
    message: str = error["msg"]
    sentence = _SENTENCES.get(error["type"], message)
    if isinstance(sentence, str):
        return sentence
    return sentence(error.get("ctx", {}), error.get("input"))


def place_of(error: Mapping[str, Any]) -> tuple[str | int, ...]:
    """Return where a mistake is; a wrong key is reported where its value is."""
    place: tuple[str | int, ...] = tuple(error["loc"])
    return place[:-1] if is_of_a_name(error) else place


def is_of_a_name(error: Mapping[str, Any]) -> bool:
    """Return whether the last name of the place is wrong, and not the value there."""
    return bool(error["loc"]) and error["loc"][-1] == "[key]"


def refusal(place: tuple[str | int, ...], code: str, message: str) -> ValidationError:
    """Return the error, at its place, of a value that only its user can judge."""
    error = PydanticCustomError(code, "{message}", {"message": message})
    detail = InitErrorDetails(type=error, loc=place, input=None)
    return ValidationError.from_exception_data("request", [detail])


def placed(error: PydanticCustomError, *place: str | int) -> ValidationError:
    """Return the error that a model found in a part of itself, at the place of that part."""
    detail = InitErrorDetails(type=error, loc=place, input=None)
    return ValidationError.from_exception_data("request", [detail])


def misplaced(error: ValidationError, *place: str) -> ValidationError:
    """Return the same error, for values that lie deeper in a request."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("invalid", "{message}", {"message": said(each)}),
            loc=(*place, *each["loc"]),
            input=None,
        )
        for each in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data("request", details)


def first_mistake(error: ValidationError) -> str:
    """Describe the first mistake, and where it is."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, place_of(first)))
    return f"{place}: {said(first)}" if place else said(first)


def ended(text: str) -> str:
    """Return a sentence with a full stop at its end, unless it has an end already."""
    text = text.rstrip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def _instead_of(got: object) -> str:
    """Say what was found, where that helps."""
    return next((words for kind, words in _INSTEAD if isinstance(got, kind)), "")


_INSTEAD: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (type(None), ", not null"),
    (bool, ", not true or false"),
    (str, ", not a text"),
    ((int, float), ", not a number"),
    ((list, tuple), ", not a list"),
    (dict, ", not an object"),
)


def _not_whole(got: object) -> str:
    return ", without a point in it" if isinstance(got, float) else _instead_of(got)


def _a_list(got: object) -> str:
    if isinstance(got, dict):
        return "Write a list, with the object in brackets: [{ … }]"
    return f"Write a list: [ … ]{_instead_of(got)}"


def _several(count: int, what: str) -> str:
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{count:,} {what if count == 1 else plural}"


def _number(bound: float) -> str:
    return f"{bound:g}" if bound < 1e6 else f"{bound:.0f}"


def _meant(expected: str, got: object) -> str:
    """Return ` Did you mean 'x'?` for the nearest of the expected values, or nothing."""
    if not isinstance(got, str) or len(got) > _LONGEST_NAMED:
        return ""
    near = difflib.get_close_matches(got.lower(), re.findall(r"'([^']+)'", expected), n=1)
    return f". Did you mean {near[0]!r}?" if near else ""
