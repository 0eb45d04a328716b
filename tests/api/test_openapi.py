"""The OpenAPI document is true: real answers conform to it, and clients can rely on its names.

Clients are generated from it in `tests/test_generated_clients.py`.
"""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from pacesetter_service.api import app, families, openapi
from pacesetter_service.api.access import ACCESS
from pacesetter_service.api.examples import EXAMPLES
from pacesetter_service.api.field_examples import OF_FIELDS
from pacesetter_service.api.problems import HTTP_CODES, STATUSES
from pacesetter_service.catalogue import kinds as catalogue
from pacesetter_service.catalogue.glossary import CONTROLLERS, SCHEDULES
from pacesetter_service.core.controllers import Controller
from pacesetter_service.core.schedules import Schedule
from serving import open_http

Document = dict[str, Any]

OPERATIONS = {
    "archive_session",
    "cancel_order",
    "create_session",
    "create_token",
    "deprecate_template",
    "diff_versions",
    "explain_step",
    "export_session",
    "finish_session",
    "fork_session",
    "import_session",
    "is_alive",
    "is_ready",
    "lint_schedule",
    "list_actions",
    "list_attempts",
    "list_controllers",
    "list_events",
    "list_orders",
    "list_schedules",
    "list_sessions",
    "list_templates",
    "list_tokens",
    "list_versions",
    "open_attempt",
    "preview_schedule",
    "prune",
    "publish_template",
    "purge_session",
    "read_action",
    "read_controller",
    "read_forecast",
    "read_history",
    "read_merge",
    "read_metrics",
    "read_range_test",
    "read_ranks",
    "read_schedule",
    "read_session",
    "read_template",
    "read_values",
    "read_version",
    "recommend_schedule",
    "relabel_session",
    "revoke_token",
    "stream_events",
    "sync_session",
    "take_action",
    "take_back",
}
"""Names of the functions of generated clients: a name that is listed here stays."""


SCALE = {"kind": "scale", "factor": 0.5}


@pytest.fixture(name="http", scope="module")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


@pytest.fixture(name="document", scope="module")
def _document(http: httpx.Client) -> Document:
    """Return the document as it is served."""
    document: Document = http.get("/openapi.json").raise_for_status().json()
    return document


def operations(document: Document) -> Iterator[tuple[str, Document]]:
    """Return every call with its description."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_the_names_of_calls_stay(document: Document) -> None:
    """Every operation has one name, and a published name is not removed."""
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(names) == len(set(names))
    assert set(names) >= OPERATIONS


def test_calls_are_told_in_the_order_in_which_one_reads(document: Document) -> None:
    """Each call has one tag, and every tag is described."""
    assert [tag["name"] for tag in document["tags"]] == list(openapi.TAGS)
    assert all(tag["description"] for tag in document["tags"])
    assert {tag for _, each in operations(document) for tag in each["tags"]} == set(openapi.TAGS)
    assert all(each["description"] for _, each in operations(document))


def test_every_error_is_a_problem(document: Document) -> None:
    """Each status from 400 on that a call may answer has the one schema of problems."""
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for call, operation in operations(document):
        for status, answer in operation["responses"].items():
            if not status.startswith(("2", "3")):
                assert answer["content"] == {"application/problem+json": problem}, (call, status)


def test_what_a_body_can_be_refused_for_is_declared(document: Document) -> None:
    """A call that takes a body declares 413, 415 and 422; one with a name in its path, 404."""
    for call, operation in operations(document):
        statuses = set(operation["responses"])
        assert statuses >= {"400", "414", "431"}, call  # of an address, whatever the call
        if "requestBody" in operation:
            assert statuses >= {"400", "413", "415", "422"}, call
        if "{" in call:
            assert "404" in statuses, call
        if ACCESS[call] != "public":
            assert statuses >= {"401", "403", "429"}, call


def test_every_status_of_a_problem_is_declared_somewhere(document: Document) -> None:
    """No error has a status that the document lacks."""
    declared = {int(each) for _, found in operations(document) for each in found["responses"]}
    assert {status for status, _ in STATUSES.values()} <= declared
    assert set(HTTP_CODES) - {405, 499} <= declared  # an existing call allows its method


def undescribed(schema: Any, place: str) -> Iterator[str]:
    """Return the places of fields without a description."""
    if isinstance(schema, dict):
        for name, field in schema.get("properties", {}).items():
            if not isinstance(field, dict) or not field.get("description"):
                yield f"{place}.{name}"
        for name, part in schema.items():
            if name == "examples":
                continue
            yield from undescribed(part, f"{place}/{name}")
    elif isinstance(schema, list):
        for number, part in enumerate(schema):
            yield from undescribed(part, f"{place}/{number}")


def test_every_field_of_a_kind_has_an_example_or_a_default(document: Document) -> None:
    """An author of a schedule, a controller or an order sees what each field may hold."""
    schemas = document["components"]["schemas"]
    unions = [each["oneOf"] for each in schemas.values() if "discriminator" in each]
    kinds = {member["$ref"].rpartition("/")[2] for members in unions for member in members}
    bare = [
        f"{kind}.{name}"
        for kind in kinds
        for name, field in schemas[kind]["properties"].items()
        if name != "kind" and not {"examples", "default"} & set(field)
    ]
    assert len(kinds) > 200
    assert not bare


def test_every_field_says_what_it_means(document: Document) -> None:
    """No field of a model and no parameter lacks a description."""
    found = [
        place
        for name, schema in document["components"]["schemas"].items()
        for place in undescribed(schema, name)
    ]
    found += [
        f"{call} {each['name']}"
        for call, operation in operations(document)
        for each in operation.get("parameters", [])
        if not each.get("description")
    ]
    assert not found


def shown(field: Document) -> bool:
    """Return whether a field shows what it may hold: an example, an enum, or another model."""
    if {"examples", "enum", "const"} & set(field) or field.get("type") in {"boolean", "null"}:
        return True
    if "$ref" in field:
        return str(field["$ref"]) != "#/components/schemas/JsonValue"
    if "anyOf" in field:
        return all(map(shown, field["anyOf"]))
    inner = field.get("items", field.get("additionalProperties"))
    return isinstance(inner, dict) and "$ref" in inner and shown(inner)


def fields_of(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Return every field of every model, except those of kinds, which may have defaults instead."""
    for model, schema in document["components"]["schemas"].items():
        properties = schema.get("properties", {})
        if "const" not in properties.get("kind", {}):
            yield from ((model, name, field) for name, field in properties.items())


def test_every_field_of_a_model_shows_what_stands_there(document: Document) -> None:
    """Bodies and answers have an example of each number, name and text."""
    found = list(fields_of(document))
    assert len(found) > 400
    assert not [f"{model}.{name}" for model, name, field in found if not shown(field)]


def test_examples_are_what_their_fields_take(document: Document) -> None:
    """Each is valid for the schema of its field, and each in the table is used."""
    used = set()
    for model, name, field in fields_of(document):
        for number, example in enumerate(field.get("examples", [])):
            place = f"{model}/properties/{name}"
            assert not mistakes(document, place, example), (place, number)
            used |= {key for key in (f"{model}.{name}", name) if OF_FIELDS.get(key) == example}
    assert set(OF_FIELDS) <= used


UNITS = {
    r"seconds.*|.*_seconds|timeout|expires_in|older_than": "second",
    r".*_in_days": "days",
    r"bytes": "bytes",
}
"""The unit of numbers, by the field's name."""


def test_a_time_and_a_size_say_their_unit(document: Document) -> None:
    """Descriptions of numbers of seconds, days and bytes name the unit."""
    told = {
        f"{model}.{name}": unit in field["description"]
        for model, name, field in fields_of(document)
        for names, unit in UNITS.items()
        if re.fullmatch(names, name)
    }
    assert len(told) > 8
    assert all(told.values()), told


@pytest.mark.parametrize("union", families.FAMILIES)
def test_a_family_is_a_union_of_all_its_kinds(document: Document, union: str) -> None:
    """Each kind is a model that its `kind` identifies."""
    schemas, root = document["components"]["schemas"], families.FAMILIES[union]
    mapping = schemas[union]["discriminator"]["mapping"]
    assert set(mapping) == set(root.kinds)
    assert {each["$ref"] for each in schemas[union]["oneOf"]} == set(mapping.values())
    for kind, reference in mapping.items():
        member = schemas[reference.rpartition("/")[2]]
        assert member["properties"]["kind"]["const"] == kind
        assert "kind" in member["required"]
        for example in member.get("examples", []):
            assert root.parse(example)


def test_the_glossary_has_no_word_too_many() -> None:
    """Each entry explains a parameter of some kind."""
    for glossary, root in ((SCHEDULES, Schedule), (CONTROLLERS, Controller)):
        used = set()
        for kind, member in root.kinds.items():
            for name in member.model_fields:
                places = (f"{kind}.{name}", f"{kind.rpartition('.')[0]}.{name}", name)
                used.add(next((place for place in places if place in glossary), ""))
        assert set(glossary) <= used


def test_what_is_to_be_sent_has_an_example_that_is_taken(document: Document) -> None:
    """The example of each body is accepted by the model that parses it."""
    schemas = document["components"]["schemas"]
    assert len(EXAMPLES) > 15
    for name, example in EXAMPLES.items():
        assert schemas[name]["examples"] == [example]
        assert not mistakes(document, name, example), name
    for model in app.DESCRIBED:
        if model.__name__ in EXAMPLES:
            model.model_validate(EXAMPLES[model.__name__])


def mistakes(document: Document, model: str, value: object) -> list[str]:
    """Return how a value violates a model of the document."""
    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource("urn:api", resource)
    schema = {"$ref": f"urn:api#/components/schemas/{model}"}
    found = Draft202012Validator(schema, registry=registry).iter_errors(value)
    return [f"{each.json_path}: {each.message[:200]}" for each in found]


def refused(answer: httpx.Response) -> httpx.Response:
    """Check that an answer is a refusal, and return it."""
    assert answer.status_code >= 400
    return answer


def test_real_answers_are_what_the_document_says(
    http: httpx.Client, document: Document, unique_name: str
) -> None:
    """What the service encodes by hand, and what it sends through models, fits the schema."""
    at = f"/v1/sessions/{unique_name}"
    spec = {
        "name": unique_name,
        "groups": {"head": {"base_lr": 0.1}, "body": {"base_lr": 0.01, "schedule": "constant"}},
        "schedule": {"kind": "cosine", "total_steps": 100},
        "controllers": [{"kind": "plateau", "metric": "loss", "patience": 0, "notify": True}],
        "metrics": {"loss": {"smoothing": {"kind": "ema"}}},
        "max_lookahead": 8,
    }
    report = {"attempt": 1, "reports": [{"step": 0, "metrics": {"loss": "nan"}}]}
    answers: list[tuple[str, httpx.Response]] = [
        ("CreatedSession", http.post("/v1/sessions", json=spec)),
        ("SealedWindow", http.post(f"{at}/sync", json={"want": {"start": 0, "count": 4}})),
        ("SessionPosition", http.post(f"{at}/sync", json=report)),
        ("SealedStep", http.post(f"{at}/sync", json={"attempt": 1, "step": 9})),
        ("StepValues", http.get(f"{at}/lr?step=3")),
        ("RangeValues", http.get(f"{at}/lr?step=3&count=20")),
        ("ForecastCurve", http.get(f"{at}/forecast")),
        ("History", http.get(f"{at}/history?readings=true")),
        (
            "ActionAnswer",
            http.post(f"{at}/actions", json={"kind": "scale", "factor": 0.5, "at": 50}),
        ),
        ("DryRun", http.post(f"{at}/actions", json={"kind": "hold", "dry_run": True})),
        ("OrderList", http.get(f"{at}/actions")),
        ("AttemptList", http.get(f"{at}/attempts")),
        ("RanksPage", http.get(f"{at}/ranks")),
        ("EventPage", http.get(f"{at}/events")),
        ("ExplanationView", http.get(f"{at}/explain?step=3")),
        ("SessionView", http.get(at)),
        ("SessionPage", http.get("/v1/sessions?limit=5")),
        (
            "SampledCurve",
            http.post("/v1/schedules/preview", json=EXAMPLES["PreviewRequest"]),
        ),
        ("LintAnswer", http.post("/v1/schedules/lint", json=EXAMPLES["LintRequest"])),
        (
            "Recommendation",
            http.post("/v1/schedules/recommend", json=EXAMPLES["Situation"]),
        ),
        ("SchedulePage", http.get("/v1/schedules")),
        ("ControllerPage", http.get("/v1/controllers")),
        ("ActionPage", http.get("/v1/actions")),
        ("ScheduleKind", http.get("/v1/schedules/wsd")),
        ("ActionKind", http.get("/v1/actions/retime")),
        ("TemplateList", http.get("/v1/templates")),
        ("Problem", refused(http.get("/v1/tokens"))),
        ("Problem", refused(http.get("/v1/sessions/none"))),
        ("Problem", refused(http.post("/v1/sessions", json={"name": "my run"}))),
    ]
    for model, answer in answers:
        assert model == "Problem" or answer.status_code < 300, (model, answer.text)
        assert not mistakes(document, model, answer.json()), model


def test_a_catalogue_is_read_by_name_and_by_page(http: httpx.Client) -> None:
    """A pattern selects kinds; the pages together are complete, and the last one says so."""
    found = http.get("/v1/schedules?kind=torch.*").json()
    assert [each["kind"] for each in found["schedules"]] == [
        kind for kind in catalogue.schedules() if kind.startswith("torch.")
    ]
    assert found["next_page_token"] is None
    kinds, token = [], ""
    while token is not None:
        page = http.get("/v1/actions", params={"limit": 4, "page_token": token}).json()
        assert len(page["actions"]) <= 4
        kinds += [each["kind"] for each in page["actions"]]
        token = page["next_page_token"]
    assert kinds == catalogue.actions()


def test_each_action_is_ordered_by_its_example(http: httpx.Client, unique_name: str) -> None:
    """The catalogue's example of an action is accepted as the body of an order."""
    stages = [{"when": {"kind": "by_hand"}, "schedule": {"kind": "constant"}}]
    spec = {
        "name": unique_name,
        "base_lr": 0.01,
        "schedule": {"kind": "cosine", "total_steps": 100_000},
        "controllers": [{"kind": "switch", "metric": "loss", "stages": stages}],
    }
    assert http.post("/v1/sessions", json=spec).status_code == 201
    for each in http.get("/v1/actions").json()["actions"]:
        path = f"/v1/sessions/{unique_name}/actions"
        answer = http.post(path, json={**each["example"], "dry_run": True})
        if each["kind"] != "release":  # which requires a hold
            assert answer.status_code == 201, (each["kind"], answer.text)
    unknown = http.get("/v1/actions/scal")
    assert (unknown.status_code, "'scale'" in unknown.json()["detail"]) == (404, True)
