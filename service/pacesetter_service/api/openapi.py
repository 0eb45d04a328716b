"""OpenAPI entries of what the framework does not know the types of, the hot endpoint first."""

from typing import Any

from pydantic import BaseModel

from pacesetter_service.api import wire
from pacesetter_service.api.access import ACCESS
from pacesetter_service.api.sync import SyncRequest

_REFERENCE = "#/components/schemas/{model}"


def completed(document: dict[str, Any], *models: type[BaseModel]) -> dict[str, Any]:
    """Add `POST /v1/sessions/{name}/sync` to an OpenAPI document, and the models it lacks."""
    components = document.setdefault("components", {}).setdefault("schemas", {})
    described: tuple[type[BaseModel], ...] = (SyncRequest, *models)
    for model in described:
        schema = model.model_json_schema(ref_template=_REFERENCE)
        components |= schema.pop("$defs", {}) | {model.__name__: schema}
    document["paths"]["/v1/sessions/{name}/sync"] = {"post": _operation()}
    return document


def guarded(document: dict[str, Any], *, optional: bool) -> dict[str, Any]:
    """Say of each call in an OpenAPI document which role its token must have.

    Args:
        document: What is added to.
        optional: Whether authentication is off.
    """
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": _TOKENS}
    }
    forbidden = "With a token whose role is not at least {}, or whose scope does not hold the name"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            access = ACCESS[f"{method.upper()} {path}"]
            if access == "public":
                operation["security"] = []
                continue
            operation["security"] = [{"bearer": [access]}, *([{}] if optional else [])]
            operation["responses"] |= {
                "401": {"description": "Without a valid token"},
                "403": {"description": forbidden.format(access)},
            }
    return document


_TOKENS = (
    "Tokens are made with POST /v1/tokens. Each has a role: viewer, trainer, operator or admin, of "
    "which each includes those before it, and may have a scope: the names of sessions and "
    "templates that it is for. Authentication is off until PACESETTER_ADMIN_TOKEN is set."
)


def body_of(*models: str) -> dict[str, Any]:
    """Describe a body that is one of several models."""
    schema = {"anyOf": [{"$ref": _REFERENCE.format(model=model)} for model in models]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _operation() -> dict[str, Any]:
    window = {
        "application/json": {"schema": {"type": "object"}},
        wire.WINDOW_MEDIA_TYPE: {
            "schema": {"type": "string", "format": "binary"},
        },
    }
    return {
        "tags": ["values"],
        "summary": "Report metrics and take values, in one round trip",
        "description": (
            "Every field is optional. `want` asks for a window of steps, which may come shorter "
            "than asked but never empty; `step` is the short form for one step. Values are final: "
            f"asking again gives the same bits. With `Accept: {wire.WINDOW_MEDIA_TYPE}` the answer "
            "is one line of JSON followed by little-endian float64, series after series."
        ),
        "operationId": "sync_session",
        "parameters": [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        ],
        "requestBody": {
            "content": {
                "application/json": {"schema": {"$ref": _REFERENCE.format(model="SyncRequest")}}
            }
        },
        "responses": {
            "200": {"description": "The window, with the session's position", "content": window},
            "4XX": {"description": "A problem (RFC 9457)"},
            "503": {"description": "Overloaded or without its database; retry"},
        },
    }
