"""JSON as YAML that readers of YAML 1.1 and of 1.2 understand alike."""

import re
from collections.abc import Iterator

from pydantic import JsonValue

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
"""Texts that need no quotes, unless they are words with another meaning."""

_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
"""Words that some reader takes for something other than a text, in any case."""

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def as_yaml(value: JsonValue) -> str:
    """Return a JSON value as a YAML document with only its data, a line for each member.

    Numbers come back to the bit. The document has no anchors, tags or folded lines.
    """
    return "\n".join(_lines(value)) + "\n"


def _lines(value: JsonValue) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, member in value.items():
            yield from _led(f"{_text(key)}:", member, "  ")
    elif isinstance(value, list) and value:
        for member in value:
            yield from _led("-", member, "  ")
    else:
        yield _scalar(value)


def _led(head: str, member: JsonValue, indent: str) -> Iterator[str]:
    """Return the lines of a member after its key or its dash."""
    lines = list(_lines(member))
    if not (isinstance(member, dict | list) and member):
        yield f"{head} {lines[0]}"
    elif head == "-":
        yield f"- {lines[0]}"
        yield from (indent + each for each in lines[1:])
    else:
        yield head
        yield from (indent + each for each in lines)


def _scalar(value: JsonValue) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return _text(value)
    return "{}" if isinstance(value, dict) else "[]" if isinstance(value, list) else str(value)


def _number(value: float) -> str:
    """Write a number so that YAML 1.1 reads it as one too: with a point before the exponent."""
    digits, exponential, exponent = repr(value).partition("e")
    if exponential and "." not in digits:
        digits += ".0"
    return digits + exponential + exponent


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(_ESCAPES.get(each) or _character(each) for each in text) + '"'


def _character(character: str) -> str:
    """Write a character in a quoted text; a character that is not printable by its number."""
    if character.isprintable():
        return character
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
