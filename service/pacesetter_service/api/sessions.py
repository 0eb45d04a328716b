"""Sessions: create, list, read, archive."""

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, JsonValue
from starlette.concurrency import run_in_threadpool

from pacesetter_service.api import openapi, templates
from pacesetter_service.api.context import Context, Service, SessionName
from pacesetter_service.api.schedules import FindingView, findings
from pacesetter_service.core.commands import Archive
from pacesetter_service.core.lint import Subject
from pacesetter_service.core.model import refusal
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.templates import TemplateUse
from pacesetter_service.ledger import Change, Create
from pacesetter_service.storage.store import Stored

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


class SessionView(BaseModel):
    """A session as it is now."""

    name: str
    spec: SessionSpec
    status: Literal["active", "finished", "archived"]
    attempt: int
    horizon: int
    revision: int
    series: list[str]
    max_lookahead: int | None
    max_window: int
    created_at: str


class CreatedSession(SessionView):
    """A session that was asked for, with the known pitfalls of its spec."""

    warnings: list[FindingView]


class SessionPage(BaseModel):
    """A page of sessions, by name."""

    sessions: list[SessionView]
    next_page_token: str | None


@router.post(
    "",
    status_code=201,
    responses={200: {"model": CreatedSession}},
    openapi_extra=openapi.body_of("SessionSpec", "TemplateUse"),
)
async def create_session(
    body: Annotated[dict[str, JsonValue], Body()], service: Service, response: Response
) -> CreatedSession:
    """Create a session; the same body again answers 200 with the same session.

    The body is a spec, or names a template: `{"name": …, "template": "a@3", "with": {…}}`. The
    answer's `warnings` name known pitfalls of the spec, as `/v1/schedules/lint` does.
    """
    spec, warnings = await _spec_of(service, body)
    warnings += await run_in_threadpool(findings, Subject(spec))
    outcome = await service.ledger.submit(Create(spec))
    response.status_code = 201 if outcome.created else 200
    response.headers["location"] = f"/v1/sessions/{spec.name}"
    return CreatedSession(**dict(view(outcome.entry.stored)), warnings=warnings)


@router.get("")
async def list_sessions(
    service: Service,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    page_token: Annotated[str, Query(max_length=512)] = "",
    status: Literal["active", "finished", "archived"] | None = None,
    label: Annotated[
        str | None, Query(pattern=r"^[^:]+:.*$", description="`name:value`", max_length=322)
    ] = None,
) -> SessionPage:
    """List sessions by name, a page at a time."""
    name, _, value = (label or "").partition(":")
    found = await run_in_threadpool(
        service.store.page,
        after=_name_in(page_token),
        limit=limit + 1,
        status=status,
        label=(name, value) if label else None,
    )
    page = [view(stored) for stored in found[:limit]]
    more = len(found) > limit
    return SessionPage(sessions=page, next_page_token=_token(page[-1].name) if more else None)


@router.get("/{name}")
async def read_session(name: SessionName, service: Service) -> SessionView:
    """Read a session."""
    return view((await service.ledger.find(name)).stored)


@router.delete("/{name}", status_code=204)
async def archive_session(name: SessionName, service: Service) -> None:
    """Archive a session: it stays readable and takes no more commands."""
    await service.ledger.submit(Change(name, (Archive(),)))


async def _spec_of(
    service: Context, body: dict[str, JsonValue]
) -> tuple[SessionSpec, list[FindingView]]:
    """Read a spec, or make it from the template that the body names."""
    if "origin" in body:
        raise refusal(("origin",), "not_yours", "Name a template with `template` and `with`")
    if "forked_from" in body:
        raise refusal(("forked_from",), "not_yours", "Use POST /v1/sessions/{name}/fork")
    if "template" not in body:
        return SessionSpec.model_validate(body), []
    spec, published = await templates.spec_of(service, TemplateUse.model_validate(body))
    if published.deprecated is None:
        return spec, []
    warning = FindingView(
        code="template_deprecated",
        severity="warning",
        pointer="/template",
        message=f"{published.reference} is deprecated: {published.deprecated}",
        advice=f"look for a newer version: GET /v1/templates/{published.template.name}",
        source="the template's owners",
    )
    return spec, [warning]


def view(stored: Stored) -> SessionView:
    """Show a session."""
    session = stored.session
    return SessionView(
        name=session.spec.name,
        spec=session.spec,
        status=session.status,
        attempt=session.attempt,
        horizon=session.horizon,
        revision=session.revision,
        series=list(session.timelines),
        max_lookahead=session.spec.lookahead,
        max_window=session.max_window,
        created_at=stored.created_at,
    )


def _token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _name_in(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise invalid_parameter(
            "page_token", "This is no page token; use next_page_token of the page before", token
        ) from error


def invalid_parameter(name: str, message: str, value: Any) -> RequestValidationError:  # noqa: ANN401
    """Refuse a query parameter that only the endpoint itself can judge."""
    return RequestValidationError(
        [{"type": "value_error", "loc": ("query", name), "msg": message, "input": value}]
    )
