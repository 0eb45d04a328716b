"""Tables of what a kind takes, for the programs that write pages: from the catalogue's schemas."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pacesetter_service.api.families import FAMILIES

Schema = Mapping[str, Any]

LARGEST_EXACT = 2**53 - 1
"""The bound of all whole numbers in JSON, which says nothing of one of them."""

LONGEST = 1e18
"""The bound of all lengths, which says nothing of one of them either."""

LENGTHS = (
    'A *length* in place of steps is `{"epochs": 5}`, `{"fraction": 0.1}` of `total_steps`,'
    ' `{"samples": 1e6}` or `{"tokens": 1e9}`.'
)
"""What stands above tables that speak of lengths."""

NOUNS: Mapping[str, str] = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "`true` or `false`",
    "string": "a text",
    "null": "`null` alone",
}
"""By the type of a field, what it takes."""


def table_of(schema: Schema) -> Iterator[str]:
    """Return a kind's parameters as a table: first those that have to be given."""
    fields = {name: field for name, field in schema["properties"].items() if name != "kind"}
    if not fields:
        yield "It takes no parameters."
        return
    required, models = set(schema.get("required", [])), schema.get("$defs", {})
    yield "| parameter | what it is | takes | default |"
    yield "|---|---|---|---|"
    for name, field in sorted(fields.items(), key=lambda pair: pair[0] not in required):
        default = "" if name in required else f"`{json.dumps(field.get('default'))}`"
        cells = (f"`{name}`", field.get("description", ""), takes(field, models), default)
        yield "| " + " | ".join(map(_cell, cells)) + " |"


def takes(field: Schema, models: Mapping[str, Schema]) -> str:
    """Return what may stand in a field: its unit and range, or the words that it may be."""
    if "$ref" in field:
        return _of_model(field["$ref"].rpartition("/")[2], models)
    if "anyOf" in field:
        return _of_several(field["anyOf"], models)
    if "const" in field or "enum" in field:
        words = field["enum"] if "enum" in field else [field["const"]]
        return ", ".join(f"`{json.dumps(each)}`" for each in words)
    kind = str(field.get("type"))
    if kind in NOUNS:
        return " ".join(filter(None, (NOUNS[kind], _range(field))))
    return (_of_list if kind == "array" else _of_object)(field, models)


def _of_several(choices: list[Schema], models: Mapping[str, Schema]) -> str:
    """Return what may stand where there are several choices; null is told by the default."""
    there = [each for each in choices if each.get("type") != "null"]
    references = {str(each.get("$ref", "")).rpartition("/")[2] for each in there}
    if "Duration" not in references:
        return " or ".join(takes(each, models) for each in there)
    counts = [each for each in there if "$ref" not in each]
    bounds = {**counts[-1]}
    if any(each.get("const") == 0 for each in counts):
        bounds = {"minimum": 0}
    elif bounds.get("exclusiveMinimum") == 0:
        bounds.pop("minimum", None)  # the least that is taken is smaller than any step
    whole = "whole steps" if counts[-1].get("type") == "integer" else "steps"
    return " ".join(filter(None, (whole, _range(bounds), "or a length")))


def _range(field: Schema) -> str:
    low, above = field.get("minimum"), field.get("exclusiveMinimum")
    high, below = field.get("maximum"), field.get("exclusiveMaximum")
    high = None if high in {LARGEST_EXACT, LONGEST} else high
    low = None if low in {-LARGEST_EXACT, -LONGEST} else low
    if low is not None and high is not None:
        return f"from {low:g} to {high:g}"
    signs = (("≥", low), (">", above), ("≤", high), ("<", below))
    return ", ".join(f"{sign} {bound:g}" for sign, bound in signs if bound is not None)


def _of_list(field: Schema, models: Mapping[str, Schema]) -> str:
    if "prefixItems" in field:
        return "a list: " + ", ".join(takes(each, models) for each in field["prefixItems"])
    inner = takes(field.get("items", {}), models)
    return f"a list, each {inner}"


def _of_object(field: Schema, models: Mapping[str, Schema]) -> str:
    kinds = field.get("properties", {}).get("kind", {}).get("enum")
    if kinds is not None:
        return _family(sorted(kinds))
    inner = field.get("additionalProperties")
    if isinstance(inner, Mapping):
        return f"an object, for each name {takes(inner, models)}"
    return "an object"


def _of_model(name: str, models: Mapping[str, Schema]) -> str:
    model = models[name]
    kinds = model.get("properties", {}).get("kind", {}).get("enum")
    if kinds is not None:
        return _family(sorted(kinds))
    members = ", ".join(f"`{each}`" for each in model.get("properties", {}))
    return f"an object with {members}"


def _family(kinds: list[str]) -> str:
    name = next(name for name, root in FAMILIES.items() if sorted(root.kinds) == kinds).lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))
