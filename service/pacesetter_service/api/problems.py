"""Errors on the wire: RFC 9457 problem+json, and the one table that knows their HTTP statuses."""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.core import errors

TYPE_PREFIX = "urn:pacesetter:problem:"

STATUSES: Mapping[type[errors.PacesetterError], tuple[int, str]] = {
    errors.SessionNotFoundError: (404, "session_not_found"),
    errors.UnknownKindError: (404, "unknown_kind"),
    errors.TemplateNotFoundError: (404, "template_not_found"),
    errors.SessionExistsError: (409, "session_exists"),
    errors.SessionArchivedError: (409, "session_archived"),
    errors.SessionFinishedError: (409, "session_finished"),
    errors.AwaitingMeasurementError: (503, "awaiting_measurement"),
    errors.ActionRefusedError: (422, "action_refused"),
    errors.OrderNotFoundError: (404, "order_not_found"),
    errors.AttemptRefusedError: (409, "attempt_refused"),
    errors.BatchRefusedError: (409, "batch_refused"),
    errors.SupersededAttemptError: (409, "superseded_attempt"),
    errors.StaleAttemptError: (409, "stale_attempt"),
    errors.StepOutOfRangeError: (422, "step_out_of_range"),
    errors.ScheduleNotFiniteError: (422, "schedule_not_finite"),
    errors.TooManyReportsError: (422, "too_many_reports"),
    errors.ImportRefusedError: (422, "import_refused"),
    errors.NameTakenError: (409, "name_taken"),
    errors.UnauthenticatedError: (401, "unauthenticated"),
    errors.ForbiddenError: (403, "forbidden"),
    errors.ActorRefusedError: (403, "actor_refused"),
    errors.TokenNotFoundError: (404, "token_not_found"),
    errors.AuthenticationOffError: (409, "authentication_off"),
    errors.OverloadedError: (503, "overloaded"),
    errors.StorageUnavailableError: (503, "storage_unavailable"),
}

HTTP_CODES: Mapping[int, tuple[str, str]] = {
    400: ("malformed_body", "The body can not be read. Send one JSON object, flatly nested."),
    404: ("not_found", "There is nothing at this address. See /docs for what there is."),
    405: (
        "method_not_allowed",
        "This address does not take that method. See /docs for what it does.",
    ),
    413: ("body_too_large", "The body is larger than this server takes. Send it in smaller parts."),
    415: (
        "unsupported_media_type",
        (
            "Send the body as JSON, with the header `content-type: application/json`"
            " (curl: use --json instead of --data)."
        ),
    ),
}

RETRY_AFTER_SECONDS = 1

log = structlog.get_logger("pacesetter.api")


def problem(
    status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: object
) -> Response:
    """Make a problem+json answer; `code` is stable and meant for programs, `detail` for people."""
    body = {
        "type": TYPE_PREFIX + code,
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "code": code,
        "detail": detail,
        **more,
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"retry-after": str(RETRY_AFTER_SECONDS), **(headers or {})}
    if status == HTTPStatus.UNAUTHORIZED:
        headers = {"www-authenticate": "Bearer", **(headers or {})}
    return Response(to_json(body), status, headers, "application/problem+json")


def of_error(error: errors.PacesetterError) -> Response:
    """Answer with what the core refused."""
    status, code = STATUSES[type(error)]
    return problem(status, code, str(error))


def of_http(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with what HTTP itself refuses."""
    code, detail = HTTP_CODES.get(status, ("http_error", HTTPStatus(status).description))
    return problem(status, code, detail, headers=headers)


def of_nowhere(methods: Sequence[str]) -> Response:
    """Answer to a call of nothing, at an address that takes some methods or none."""
    return of_http(405, {"allow": ", ".join(methods)}) if methods else of_http(404)


def of_other_media_type(wanted: str) -> Response:
    """Answer to a body of another media type than the one that is taken there."""
    detail = f"Send the body with the header `content-type: {wanted}`."
    return problem(415, "unsupported_media_type", detail)


def of_validation(found: Sequence[Mapping[str, Any]]) -> Response:
    """Answer with everything that is wrong with a request, each with a JSON pointer to it."""
    each = list(_describe(found))
    detail = "The request is not valid. " + " ".join(
        f"{item.get('pointer') or item.get('parameter') or 'body'}: {item['detail']}."
        for item in each[:3]
    )
    return problem(422, "validation_failed", detail, errors=each)


def install(app: FastAPI) -> None:
    """Make every error of an app a problem."""

    @app.exception_handler(errors.PacesetterError)
    async def refused(_request: Request, error: errors.PacesetterError) -> Response:
        return of_error(error)

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> Response:
        return of_http(error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid_request(_request: Request, error: RequestValidationError) -> Response:
        return of_validation(error.errors())

    @app.exception_handler(ValidationError)
    async def invalid_value(_request: Request, error: ValidationError) -> Response:
        return of_validation(error.errors(include_url=False))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return of_unforeseen(error, request.url.path)


def of_unforeseen(error: Exception, path: str) -> Response:
    """Answer for a fault of ours; what it is stands in the log alone."""
    log.error("unforeseen_error", path=path, exc_info=error)
    return problem(
        500,
        "internal",
        "The service failed at this. It is not your request's fault: see the service's log, retry,"
        " and report it if it happens again.",
    )


def _describe(found: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, str]]:
    for error in found:
        place, *path = error["loc"] if error["loc"] else ("body",)
        if place in ("query", "path", "header"):
            yield {"parameter": ".".join(map(str, path)), "detail": error["msg"]}
            continue
        if place != "body":
            path = [place, *path]
        if error["type"] == "json_invalid":
            path = []
        yield {"pointer": _pointer(path), "detail": error["msg"]}


def _pointer(path: Iterable[object]) -> str:
    """Write a JSON pointer, RFC 6901."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
