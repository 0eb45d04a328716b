"""Families of models with a `kind`, as unions in an OpenAPI document: schedules, actions, others.

A model of the core that takes any member of a family names only the family. The members are
described here once, each as a separate model, and every place refers to their union.
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
"""The families by the name of their union."""

EXAMPLES: dict[str, dict[str, Any]] = {
    "Schedule": {"kind": "warmup_cosine", "warmup_steps": 500, "total_steps": 10_000},
    "Ease": {"kind": "cosine"},
    "Controller": {"kind": "plateau", "metric": "val_loss", "factor": 0.5, "patience": 3},
    "Predicate": {"kind": "plateaued", "patience": 5},
    "Smoother": {"kind": "ema", "beta": 0.9},
    "Action": {"kind": "scale", "factor": 0.5, "reason": "the loss stands still"},
}
"""A typical member of each, for reading and trying out the description."""

REFERENCE = "#/components/schemas/{model}"


def names_of(union: str) -> list[str]:
    """Return the names of the models in a union."""
    root = FAMILIES[union]
    return [_name(kind, root) for kind in sorted(root.kinds)]


def models(root: type[Tagged]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the union of a family, its members, and the models that these refer to, by name."""
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
    # A kind is always required: a discriminator must be present.
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
    """Return a part of a document as client generators read it best.

    Every family becomes a reference, and an object with arbitrary names is described by its values.
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
    """Return the union for a field that takes any member of a family."""
    properties = node.get("properties")
    if not isinstance(properties, dict) or list(properties) != ["kind"]:
        return None
    kinds = properties["kind"].get("enum")
    return next((name for name, root in FAMILIES.items() if sorted(root.kinds) == kinds), None)
