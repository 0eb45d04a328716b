"""The OpenAPI document: what the framework finds out, and what it cannot know.

The hot endpoint and the bodies that the framework does not read itself are added, with the unions
of schedules, controllers and actions. Each call says which role it requires, and which problems it
may answer with. Clients are generated from this, so names of calls and models must not change.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pacesetter_service.api import answers, families, field_examples, wire
from pacesetter_service.api.access import ACCESS
from pacesetter_service.api.examples import EXAMPLES
from pacesetter_service.api.rates import PROBES
from pacesetter_service.api.sync import SyncRequest
from pacesetter_service.core.spec import NOT_YOURS

TAGS: Mapping[str, str] = {
    "sessions": "A session is one training whose learning rates are scheduled.",
    "values": "Learning rates: sealed ones, which are final, and forecasts.",
    "actions": "Changing a running session: scale its rate, hold it, let it cool down, and more.",
    "attempts": "Going on from a checkpoint, in the same session or in a new one.",
    "ranks": "Where the ranks of a training are, and with which rates they train.",
    "events": "What was decided, ordered and missed, and why a value is what it is.",
    "record": "What was trained with beside what was measured; export and import.",
    "schedules": "Laws of learning rates: the catalogue, previews, pitfalls and proposals.",
    "controllers": "Rules that read metrics and change the learning rate: the catalogue.",
    "templates": "A team's schedules, published under a name and a version.",
    "tokens": "Who may call, in which role, about which names.",
    "health": "Whether the service is alive and ready, what runs, and its figures.",
}
"""The topics of calls, in reading order."""


def body_of(*models: str) -> dict[str, Any]:
    """Describe a body that is one of several models."""
    references = [{"$ref": families.REFERENCE.format(model=model)} for model in models]
    schema = references[0] if len(references) == 1 else {"anyOf": references}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def answer_of(*models: str, **others: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Describe an answer 200 that is one of several models, or has another media type."""
    content = body_of(*models)["requestBody"]["content"] | others
    return {200: {"description": "Successful Response", "content": content}}


def completed(
    document: dict[str, Any], *models: type[BaseModel], optional: bool = True
) -> dict[str, Any]:
    """Add what the framework does not know to its OpenAPI document.

    Args:
        document: The framework's document.
        models: The bodies that the framework does not read itself.
        optional: Whether authentication is off.
    """
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    described: tuple[type[BaseModel], ...] = (SyncRequest, *answers.MODELS, *models)
    for model in described:
        schema = model.model_json_schema(ref_template=families.REFERENCE)
        schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
    for root in families.FAMILIES.values():
        schemas |= families.models(root)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    _add_what_stands_beside(schemas)
    for name, example in EXAMPLES.items():
        _show(schemas[name], example)
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():
            _say_default(field)
    document["paths"]["/v1/sessions/{name}/sync"] = {"post": _sync()}
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": _TOKENS}
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _guard(operation, ACCESS[f"{method.upper()} {path}"], optional=optional)
            _add_problems(operation, method, path)
            for parameter in operation.get("parameters", []):
                parameter.setdefault("description", _PARAMETERS.get(parameter["name"], ""))
    found: dict[str, Any] = families.plain(document)
    field_examples.complete(found["components"]["schemas"])
    return found


_PARAMETERS: Mapping[str, str] = {
    "accept": "which media type the answer is to have, of those that are listed",
    "after": "the event, or the version, after which to begin",
    "as": "the whole `record`, or its realised curve as a `table`",
    "before": "the earlier version",
    "count": "how many steps",
    "end": "the first step that is not to be shown",
    "group": "the parameter group, where their rates differ",
    "kind": "which kinds; may be repeated",
    "last-event-id": "the last event that the reader has got, as browsers send it by themselves",
    "limit": "how many there may be in the answer",
    "metric": "the metric that is meant",
    "number": "the order's number in its session",
    "page_token": "the `next_page_token` of the page before; empty for the first page",
    "points": "about how many points of a long curve are shown",
    "start": "the first step",
    "status": "sessions with this status; all if not given",
    "step": "the step",
}
"""Descriptions of parameters that have none where they are declared."""


def _add_what_stands_beside(schemas: dict[str, Any]) -> None:
    """Add models of bodies with fields besides those of the model that they are read as."""
    key = schemas.pop("FirstAttempt")["properties"]
    for name, model, fields in (
        ("NewSession", "SessionSpec", frozenset(NOT_YOURS)),
        ("NewSessionFromTemplate", "TemplateUse", frozenset()),
    ):
        schema = schemas[model]
        own = {each: field for each, field in schema["properties"].items() if each not in fields}
        schemas[name] = {**schema, "title": name, "properties": {**own, **key}}
    for name in ("PreviewRequest", "LintRequest"):
        for field in NOT_YOURS:
            del schemas[name]["properties"][field]
    order = schemas.pop("OrderFields")["properties"]
    for name in families.names_of("Action"):
        schemas[name]["properties"] |= order


def _show(schema: dict[str, Any], example: Mapping[str, Any]) -> None:
    """Add an example of a model, to the model and to its fields."""
    schema["examples"] = [example]
    for name, value in example.items():
        schema["properties"][name]["examples"] = [value]


def _say_default(field: dict[str, Any]) -> None:
    """Describe a default that is not a plain value in words: client generators reject it."""
    default = field.get("default")
    if isinstance(default, dict | list):
        del field["default"]
        if default:
            said = f"; by default `{json.dumps(default)}`"
            field["description"] = field.get("description", "") + said


def _guard(operation: dict[str, Any], access: str, *, optional: bool) -> None:
    """Add to a call the role that its token must have."""
    if access == "public":
        operation["security"] = []
        return
    operation["security"] = [{"bearer": [access]}, *([{}] if optional else [])]
    forbidden = _PROBLEMS[403].format(role=access)
    operation["responses"] |= {"401": _problem(_PROBLEMS[401]), "403": _problem(forbidden)}


_TOKENS = (
    "Tokens are made with POST /v1/tokens. Each has a role: viewer, trainer, operator or admin, of "
    "which each includes those before it, and may have a scope: the names of sessions and "
    "templates that it is for. Authentication is off until PACESETTER_ADMIN_TOKEN is set."
)

_PROBLEMS: Mapping[int, str] = {
    400: "The request cannot be read at all: its body, or an address with %00",
    401: "Without a valid token",
    403: "With a token whose role is not at least {role}, or whose scope does not hold the name",
    404: "There is nothing of that name",
    409: "It contradicts what there is; `code` says in which way",
    413: "The body is larger than the service takes; `detail` names the limit",
    414: "The address is longer than the service takes",
    415: "The body is said to be of another media type",
    421: "The service is asked by a name that is not its own: PACESETTER_ALLOWED_HOSTS has those",
    422: "The request is not valid, or makes no sense here; `errors` names each mistake",
    429: "There are more calls than the service lets through; Retry-After says when to come back",
    431: "The headers, or the address with them, are larger than the service takes",
    503: "The service is busy, or its database does not answer; ask again after Retry-After",
    507: "There is no room for more; what was recorded can be read",
}

_CONTRADICTED = frozenset(
    {
        "POST /v1/sessions",
        "PATCH /v1/sessions/{name}",
        "POST /v1/sessions/{name}/sync",
        "POST /v1/sessions/{name}/finish",
        "POST /v1/sessions/{name}/purge",
        "POST /v1/sessions/{name}/actions",
        "DELETE /v1/sessions/{name}/actions/{number}",
        "POST /v1/sessions/{name}/attempts",
        "POST /v1/sessions/{name}/take-back",
        "POST /v1/sessions/{name}/fork",
        "POST /v1/sessions/{name}/plan",
        "POST /v1/sessions/{name}/plan/apply",
        "POST /v1/import",
        "GET /v1/tokens",
        "POST /v1/tokens",
        "DELETE /v1/tokens/{token_id}",
    }
)
"""Calls that may conflict with the state: another spec, a later attempt, no authentication."""

_OF_THEMSELVES = frozenset(
    f"GET {path}"
    for path in (
        "/livez",
        "/version",
        "/metrics",
        "/v1/schedules",
        "/v1/schedules/{kind}",
        "/v1/controllers",
        "/v1/controllers/{kind}",
        "/v1/actions",
        "/v1/actions/{kind}",
    )
)
"""Calls that are answered without the database."""

_NAMING_OTHERS = frozenset({"POST /v1/sessions", "GET /v1/compare"})
"""Calls whose body or query names something that may not exist: a template, sessions."""

_LOOKING = ("preview", "lint", "recommend", "/plan")
"""Calls with a body that change nothing, by the end of their path."""


def _add_problems(operation: dict[str, Any], method: str, path: str) -> None:
    """Add to a call the problems that it may answer with."""
    call = f"{method.upper()} {path}"
    writes = method != "get" and not path.endswith(_LOOKING)
    takes_body = "requestBody" in operation
    occur = {
        400: True,
        404: "{" in path or call in _NAMING_OTHERS,
        409: call in _CONTRADICTED,
        413: takes_body,
        414: True,
        415: takes_body,
        421: True,
        422: True,  # a query parameter that the call does not take
        429: path not in PROBES,
        431: True,
        503: call not in _OF_THEMSELVES,
        507: writes,
    }
    responses = operation["responses"]
    for status, occurs in occur.items():
        responses.pop(str(status), None)
        if occurs:
            responses[str(status)] = _problem(_PROBLEMS[status], waits=status in (429, 503, 507))


def _problem(description: str, *, waits: bool = False) -> dict[str, Any]:
    reference = {"$ref": families.REFERENCE.format(model="Problem")}
    found: dict[str, Any] = {
        "description": description,
        "content": {"application/problem+json": {"schema": reference}},
    }
    if waits:
        seconds = {"type": "integer", "minimum": 0}
        after = {"description": "in how many seconds to ask again", "schema": seconds}
        found["headers"] = {"Retry-After": after}
    return found


def _sync() -> dict[str, Any]:
    window = {wire.WINDOW_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}
    answer = answer_of("SealedWindow", "SealedStep", "SessionPosition", **window)[200]
    body = body_of("SyncRequest")["requestBody"]
    return {
        "tags": ["values"],
        "summary": "Sync Session",
        "description": (
            "Report metrics and take values, in one round trip.\n\n"
            "Every field is optional. `want` asks for a window of steps, which may come shorter "
            "than asked but never empty; `step` is the short form for one step. Values are final: "
            f"asking again gives the same bits. With `Accept: {wire.WINDOW_MEDIA_TYPE}` the answer "
            "is one line of JSON followed by little-endian float64, series after series."
        ),
        "operationId": "sync_session",
        "parameters": [
            {
                "name": "name",
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
                "description": "The session's name.",
            }
        ],
        "requestBody": body,
        "responses": {"200": {**answer, "description": "The values, with the session's position"}},
    }
