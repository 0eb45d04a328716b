"""Families told apart by `kind`, as unions of an OpenAPI document: schedules, actions and others.

A model of the core that takes any member of a family names the family only: the members are written
down here once, each as a model of its own, and every place refers to their union.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Any

from pacesetter_service.api.examples import OF_FIELDS
from pacesetter_service.catalogue.kinds import parameters_of
from pacesetter_service.core.actions import Action
from pacesetter_service.core.controllers.base import Controller
from pacesetter_service.core.controllers.predicates import Predicate
from pacesetter_service.core.model import Tagged
from pacesetter_service.core.schedules.base import Schedule
from pacesetter_service.core.schedules.eases import Ease
from pacesetter_service.core.smoothing import Smoother

FAMILIES: dict[str, type[Tagged]] = {
    root.__name__: root for root in (Schedule, Ease, Controller, Predicate, Smoother, Action)
}
"""By the name of the union."""

EXAMPLES: dict[str, dict[str, Any]] = {
    "Schedule": {"kind": "warmup_cosine", "warmup_steps": 500, "total_steps": 10_000},
    "Ease": {"kind": "cosine"},
    "Controller": {"kind": "plateau", "metric": "val_loss", "factor": 0.5, "patience": 3},
    "Predicate": {"kind": "plateaued", "patience": 5},
    "Smoother": {"kind": "ema", "beta": 0.9},
    "Action": {"kind": "scale", "factor": 0.5, "reason": "the loss stands still"},
}
"""A typical member of each, for those who read or try out the description."""

REFERENCE = "#/components/schemas/{model}"


def names_of(union: str) -> list[str]:
    """Return the names of the models that a union is of."""
    root = FAMILIES[union]
    return [_name(kind, root) for kind in sorted(root.kinds)]


def models(root: type[Tagged]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the union of a family, each of its members, and what these refer to, with names."""
    names = {kind: _name(kind, root) for kind in sorted(root.kinds)}
    mapping = {kind: REFERENCE.format(model=name) for kind, name in names.items()}
    yield (
        root.__name__,
        {
            "description": _DESCRIPTION.format(about=inspect.cleandoc(root.__doc__ or "")),
            "oneOf": [{"$ref": reference} for reference in mapping.values()],
            "discriminator": {"propertyName": "kind", "mapping": mapping},
            "examples": [EXAMPLES[root.__name__]],
        },
    )
    for kind, name in names.items():
        yield from _member(kind, name, root.kinds[kind])


_DESCRIPTION = """\
{about}

Its `kind` says which one it is. A text in place of the object is a kind with its defaults."""


def _name(kind: str, root: type[Tagged]) -> str:
    words = re.split(r"[._]", kind)
    return "".join(word[:1].upper() + word[1:] for word in words) + root.__name__


def _member(kind: str, name: str, member: type[Tagged]) -> Iterator[tuple[str, dict[str, Any]]]:
    schema = parameters_of(member, REFERENCE)
    yield from schema.pop("$defs", {}).items()
    schema["title"] = name
    schema["properties"]["kind"].pop("default", None)
    # A kind is left out nowhere: a discriminator has to be there.
    schema["required"] = ["kind", *schema.get("required", [])]
    example = getattr(member, "example", None)
    if example is not None:
        schema["examples"] = [{"kind": kind, **example}]
        for field, value in example.items():
            schema["properties"].get(field, {}).setdefault("examples", [value])
    for field, told in schema["properties"].items():
        if field in OF_FIELDS:
            told.setdefault("examples", [OF_FIELDS[field]])
    yield name, schema


def plain(node: Any) -> Any:  # noqa: ANN401 - whatever stands in a document
    """Return a part of a document as generators of clients read it best.

    Every family is referred to, and what has any names is told by what it has under each of them.
    """
    if isinstance(node, list):
        return [plain(each) for each in node]
    if not isinstance(node, dict):
        return node
    union = _union_meant(node)
    if union is not None:
        kept = {key: node[key] for key in ("description", "default", "examples") if key in node}
        return {"$ref": REFERENCE.format(model=union), **kept}
    if len(named := node.get("patternProperties", {})) == 1:
        [(pattern, schema)] = named.items()
        rest = {key: each for key, each in node.items() if key != "patternProperties"}
        node = {**rest, "additionalProperties": schema, "propertyNames": {"pattern": pattern}}
    return {key: plain(each) for key, each in node.items()}


def _union_meant(node: dict[str, Any]) -> str | None:
    """Return the union that is meant by a field which takes any member of a family."""
    properties = node.get("properties")
    if not isinstance(properties, dict) or list(properties) != ["kind"]:
        return None
    kinds = properties["kind"].get("enum")
    return next((name for name, root in FAMILIES.items() if sorted(root.kinds) == kinds), None)
