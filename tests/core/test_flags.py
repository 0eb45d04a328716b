"""True and false are no numbers: no field of any kind takes them for 1 and 0."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from pacesetter_service.core.actions import Action
from pacesetter_service.core.controllers import Controller
from pacesetter_service.core.controllers.predicates import Predicate
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.schedules.eases import Ease

FAMILIES = (Schedule, Controller, Action, Predicate, Ease)


def takes_flags(schema: Any) -> bool:
    """Return whether a JSON schema has a place for true or false."""
    if isinstance(schema, dict):
        return schema.get("type") == "boolean" or any(map(takes_flags, schema.values()))
    return any(map(takes_flags, schema)) if isinstance(schema, list) else False


def fields() -> Iterator[tuple[str, type[BaseModel], str]]:
    """Yield each field of each kind that has no place for a flag."""
    for family in FAMILIES:
        for kind, model in sorted(family.kinds.items()):
            for name, field in model.model_fields.items():
                schema = TypeAdapter(field.rebuild_annotation()).json_schema()
                if name != "kind" and not takes_flags(schema):
                    yield f"{family.__name__} {kind}: {name}", model, name


FIELDS = list(fields())


def test_many_fields_are_tried() -> None:
    """The search has found the fields of all families."""
    assert len(FIELDS) > 600


@pytest.mark.parametrize("flag", [True, False])
def test_no_number_is_true_or_false(flag: bool) -> None:
    """Each such field refuses both; a field that took one would repair its input silently."""
    taken = []
    for what, model, name in FIELDS:
        try:
            model.model_validate({name: flag})
        except ValidationError as error:
            places = {each["loc"][0] for each in error.errors() if each["loc"]}
            if name not in places:
                taken.append(what)
        else:
            taken.append(what)
    assert taken == []
