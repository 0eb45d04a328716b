"""Errors on the wire: RFC 9457 problem+json, and the only table of their HTTP statuses."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import ErrorDetails, to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from pacesetter_service.api.access import methods_at
from pacesetter_service.api.advice import advice_of
from pacesetter_service.api.places import Place, place_in, pointer_to
from pacesetter_service.calls import current_id
from pacesetter_service.complaints import Complaints, bad_requests
from pacesetter_service.core import errors
from pacesetter_service.core.mistakes import ended, is_of_a_name, place_of, said
from pacesetter_service.runtime.arguments import MAX_ERRORS, ArgumentError

TYPE_PREFIX = "urn:pacesetter:problem:"

STATUSES: Mapping[type[errors.PacesetterError], tuple[int, str]] = {
    errors.SessionNotFoundError: (404, "session_not_found"),
    errors.SessionPurgedError: (404, "session_purged"),
    errors.SessionNotArchivedError: (409, "session_not_archived"),
    errors.SessionHasForksError: (409, "session_has_forks"),
    errors.UnknownKindError: (404, "unknown_kind"),
    errors.TemplateNotFoundError: (404, "template_not_found"),
    errors.SessionExistsError: (409, "session_exists"),
    errors.SessionArchivedError: (409, "session_archived"),
    errors.SessionFinishedError: (409, "session_finished"),
    errors.AwaitingMeasurementError: (503, "awaiting_measurement"),
    errors.ActionRefusedError: (422, "action_refused"),
    errors.OrderNotFoundError: (404, "order_not_found"),
    errors.AttemptRefusedError: (409, "attempt_refused"),
    errors.NothingToTakeBackError: (409, "nothing_to_take_back"),
    errors.PlanStaleError: (409, "plan_stale"),
    errors.BatchRefusedError: (409, "batch_refused"),
    errors.SupersededAttemptError: (409, "superseded_attempt"),
    errors.StaleAttemptError: (409, "stale_attempt"),
    errors.StepOutOfRangeError: (422, "step_out_of_range"),
    errors.TooFarAheadError: (422, "step_out_of_range"),
    errors.NoTableError: (422, "step_out_of_range"),
    errors.ScheduleNotFiniteError: (422, "schedule_not_finite"),
    errors.TooManyReportsError: (422, "too_many_reports"),
    errors.TooManyMetricsError: (422, "too_many_metrics"),
    errors.TooCostlyError: (422, "too_costly"),
    errors.ImportRefusedError: (422, "import_refused"),
    errors.NameTakenError: (409, "name_taken"),
    errors.UnauthenticatedError: (401, "unauthenticated"),
    errors.ForbiddenError: (403, "forbidden"),
    errors.OutOfScopeError: (403, "out_of_scope"),
    errors.NotAllowedError: (403, "not_allowed"),
    errors.BeyondBoundsError: (403, "beyond_bounds"),
    errors.RevisionChangedError: (409, "revision_changed"),
    errors.ActorRefusedError: (403, "actor_refused"),
    errors.TokenNotFoundError: (404, "token_not_found"),
    errors.AuthenticationOffError: (409, "authentication_off"),
    errors.ConflictError: (503, "contended"),
    errors.OverloadedError: (503, "overloaded"),
    errors.AnotherEpochError: (409, "another_epoch"),
    errors.HorizonRecededError: (409, "horizon_receded"),
    errors.BusyError: (503, "busy"),
    errors.TooManyReadersError: (503, "too_many_readers"),
    errors.StalledError: (503, "stalled"),
    errors.StorageUnavailableError: (503, "storage_unavailable"),
    errors.StorageFullError: (507, "storage_full"),
    errors.NoTemporaryFileError: (503, "storage_unavailable"),
    errors.StorageReplacedError: (503, "storage_replaced"),
}

HTTP_CODES: Mapping[int, tuple[str, str]] = {
    400: (
        "malformed_body",
        "The body cannot be read. Send one JSON object in UTF-8, nested no deeper than a spec is.",
    ),
    404: ("not_found", "There is nothing at this address. See /docs for what there is."),
    405: ("method_not_allowed", "This address does not take that method. See /docs."),
    413: ("body_too_large", "The body is larger than this server takes. Send it in smaller parts."),
    499: ("caller_gone", "The caller went away before there was an answer."),
    415: (
        "unsupported_media_type",
        (
            "Send the body as JSON, with the header `content-type: application/json`"
            " (curl: -H 'content-type: application/json' -d '…')."
        ),
    ),
}

RETRY_AFTER_SECONDS = 1

BLAMED = frozenset({400, 401, 403, 405, 413, 415, 421, 422})
"""Statuses of requests that our clients send only if something is wrong; they are logged."""

LONGEST_LOGGED = 300
"""The most characters of a detail that are logged."""

log = structlog.get_logger("pacesetter.api")


unforeseen_errors = Complaints(lambda **details: log.error("unforeseen_error", **details))


def problem(
    status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: object
) -> Response:
    """Make a problem+json answer, and log it if the request is to blame for it."""
    if status in BLAMED:
        bad_requests.tell(code, status=status, detail=_one_line(detail))
    return document(status, code, detail, headers=headers, **more)


def document(
    status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: object
) -> Response:
    """Make a problem+json answer; `code` is stable and meant for programs, `detail` for people.

    If the caller is not to blame, it contains the id of the call, by which to search the log.
    """
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and (request_id := current_id()) is not None:
        more = {**more, "request_id": request_id}
    body = {
        "type": TYPE_PREFIX + code,
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "code": code,
        "detail": detail,
        **more,
    }
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE):
        headers = {"retry-after": str(RETRY_AFTER_SECONDS), **(headers or {})}
    if status == HTTPStatus.UNAUTHORIZED:
        headers = {"www-authenticate": "Bearer", **(headers or {})}
    return Response(to_json(body), status, headers, "application/problem+json")


def of_error(error: errors.PacesetterError, place: Place | None = None) -> Response:
    """Answer with a refusal of the core.

    Args:
        error: The refusal.
        place: Where the field is that it is about, if it is about one.
    """
    status, code = STATUSES[type(error)]
    advice = advice_of(error)
    more = {
        **({"advice": advice} if advice else {}),
        **({"errors": [{**place, "detail": str(error)}]} if place else {}),
    }
    return problem(status, code, f"{error} {advice}".strip(), headers=None, **more)


def of_refusal(error: errors.PacesetterError, request: Request) -> Response:
    """Answer a request with a refusal of the core."""
    return of_error(error, place_in(request, error.field) if error.field else None)


def of_http(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with a refusal of HTTP itself."""
    known = HTTP_CODES.get(status)
    code, detail = known or ("http_error", HTTPStatus(status).description)
    if status == HTTPStatus.BAD_REQUEST:
        mistakes = [{"pointer": "", "detail": detail}]
        return problem(status, code, detail, headers=headers, errors=mistakes)
    return problem(status, code, detail, headers=headers)


def of_nowhere(methods: Sequence[str]) -> Response:
    """Answer a call that does not exist, at an address that accepts other methods or none."""
    if not methods:
        return of_http(404)
    allowed = ", ".join(methods)
    detail = f"This address takes {allowed} and no other method. See /docs for what they do."
    return problem(405, "method_not_allowed", detail, headers={"allow": allowed})


class TooLargeError(HTTPException):
    """A body has more bytes than its address accepts."""

    def __init__(self, limit: int, setting: str) -> None:
        super().__init__(
            413,
            f"The body is larger than the {limit:,} bytes that this server takes here. Send it in"
            f" smaller parts, or raise {setting} on the server.",
        )


def of_http_error(error: HTTPException) -> Response:
    """Answer with a refusal of HTTP itself about which more is known."""
    if isinstance(error, TooLargeError):
        return problem(413, "body_too_large", error.detail)
    return of_http(error.status_code, error.headers)


def of_other_media_type(wanted: str) -> Response:
    """Answer a body whose media type its address does not accept."""
    detail = f"Send the body with the header `content-type: {wanted}`."
    return problem(415, "unsupported_media_type", detail)


class InvalidBodyError(Exception):
    """A body is not valid: its first mistakes, and the number of all."""

    def __init__(self, error: ValidationError) -> None:
        super().__init__("the body is not valid")
        self.first = first_of(error)
        self.count = error.error_count()


def first_of(error: ValidationError) -> list[ErrorDetails]:
    """Return the mistakes that are reported."""
    return error.errors(include_url=False)[:MAX_ERRORS]


def of_validation(found: Sequence[Mapping[str, Any]], count: int | None = None) -> Response:
    """Answer with the first mistakes of a request, each with a pointer to it.

    Args:
        found: The mistakes, or the first of them.
        count: The number of all mistakes, if these are not all.
    """
    count = len(found) if count is None else count
    each = list(_describe(found[:MAX_ERRORS]))
    detail = "The request is not valid. " + " ".join(map(_sentence, each[:3]))
    more = count - len(each)
    if not more:
        return problem(422, "validation_failed", detail, errors=each)
    detail += f" There are {count} mistakes in it; `errors` has the first {len(each)}."
    return problem(422, "validation_failed", detail, errors=each, more_errors=more)


def of_argument(error: ArgumentError, request: Request) -> Response:
    """Answer with a mistake in a field that only a use case could judge."""
    part = "query" if "parameter" in place_in(request, (error.argument,)) else "body"
    found = {"type": "value_error", "loc": (part, error.argument), "msg": error.message}
    return of_validation([found])


def install(app: FastAPI) -> None:
    """Turn every error of an app into a problem."""
    for kind, answer in _ANSWERS.items():
        app.add_exception_handler(kind, _by(answer))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:  # the framework names one route's
            return of_nowhere(methods_at(request.url.path))
        return of_http_error(error)

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> Response:
        return document(400, *HTTP_CODES[400])  # no client reads this

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return of_unforeseen(error, request.url.path)


_ANSWERS: Mapping[type[Exception], Callable[[Any, Request], Response]] = {
    errors.PacesetterError: of_refusal,
    RequestValidationError: lambda error, _: of_validation(error.errors()),
    ValidationError: lambda error, _: of_validation(first_of(error), error.error_count()),
    ArgumentError: of_argument,
    InvalidBodyError: lambda error, _: of_validation(error.first, error.count),
}


def _by(
    answer: Callable[[Any, Request], Response],
) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(request: Request, error: Exception) -> Response:
        return answer(error, request)

    return handle


def of_unforeseen(error: Exception, path: str) -> Response:
    """Answer for a fault of the service; only the log says what it is."""
    unforeseen_errors.tell(type(error).__name__, path=path, exc_info=error)
    return problem(
        500,
        "internal",
        "The service failed at this. It is not your request's fault: see the service's log, retry,"
        " and report it if it happens again.",
    )


def _one_line(detail: str) -> str:
    """Return a text with a caller's words in a form that is safe in a log."""
    return "".join(each if each.isprintable() else " " for each in detail[:LONGEST_LOGGED])


def _sentence(mistake: Mapping[str, str]) -> str:
    place = mistake.get("pointer") or mistake.get("parameter")
    return ended(f"{place}: {mistake['detail']}" if place else mistake["detail"])


def _describe(found: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, str]]:
    for error in found:
        place, *path = place_of(error) or ("body",)
        if path and place in ("query", "path", "header"):
            named = [part for part in path if isinstance(part, str)]  # no index of its values
            yield {"parameter": ".".join(named), "detail": said(error)}
            continue
        if place != "body":
            path = [place, *path]
        if error["type"] == "json_invalid":
            path = []
        mistake = {"pointer": pointer_to(path), "detail": said(error)}
        yield {**mistake, "about": "name"} if is_of_a_name(error) else mistake
