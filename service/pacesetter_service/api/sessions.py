"""Sessions: create, list, read, archive."""

from collections.abc import Coroutine
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, JsonValue, SkipValidation, TypeAdapter
from pydantic_core import to_json

from pacesetter_service.api import bodies, openapi, paging
from pacesetter_service.api.answers import Moment
from pacesetter_service.api.auth import refuse_name
from pacesetter_service.api.callers import answer, unless_gone
from pacesetter_service.api.context import Actor, Names, Service, SessionName
from pacesetter_service.api.listing import Asked, token_of
from pacesetter_service.api.schedules import FindingView, views
from pacesetter_service.api.status import StatusPage
from pacesetter_service.api.status import page as status_page
from pacesetter_service.catalogue.templates import TemplateUse
from pacesetter_service.core.actions.base import Reason
from pacesetter_service.core.commands import Finish
from pacesetter_service.core.ending import Outcome
from pacesetter_service.core.model import Count, Flag, Model, Step
from pacesetter_service.core.spec import (
    MAX_LABELS,
    AttemptKey,
    LabelName,
    LabelValue,
    SessionSpec,
    refuse_not_yours,
)
from pacesetter_service.core.status import State
from pacesetter_service.core.watching import plan_end
from pacesetter_service.runtime import operator, trainer
from pacesetter_service.runtime.queries import sessions, status
from pacesetter_service.runtime.queries.listing import EVERY_STATE, Page, Question
from pacesetter_service.runtime.service import Service as UseCases
from pacesetter_service.runtime.service import SessionInfo

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


class EndingView(BaseModel):
    """How a training has ended, according to its trainer."""

    outcome: Outcome = Field(description="how it ended, as its trainer says")
    step: int = Field(description="the first step that was not trained")
    reason: str = Field(description="why it ended, as its trainer says; empty if it did not say")


class FinishRequest(Model):
    """What a trainer says when its training is over."""

    outcome: Outcome = Field(default="completed", description="whether it was completed")
    reason: Reason = Field(default="", description="why it ended, for the record")
    step: Step | None = Field(
        default=None,
        description="the first step that was not trained; without it the first that no trainer has",
    )
    when_over: Flag = Field(
        default=False, description="change nothing unless the plan is over at that step"
    )
    attempt: Count | None = Field(
        default=None, description="the attempt that was trained; the running one if left out"
    )


class LabelsRequest(Model):
    """The changes of a session, as a JSON merge patch (RFC 7386)."""

    labels: dict[LabelName, LabelValue | None] = Field(
        max_length=2 * MAX_LABELS, description="labels to add or replace; null takes one away"
    )


class PurgeRequest(Model):
    """How to remove a session for good."""

    dry_run: Flag = Field(default=False, description="only refuse what would be refused")


class SessionView(BaseModel):
    """A session as it is now."""

    name: str = Field(description="the session's name")
    # Its validators ran when it was read, and must not run again.
    spec: SkipValidation[SessionSpec] = Field(description="how its creator described it")
    status: Literal["active", "finished", "archived"] = Field(
        description="whether it takes commands: `active`, `finished` or `archived`"
    )
    attempt: int = Field(description="the running attempt, from 1")
    attempt_key: str = Field(
        description="what the ranks of the running attempt share; empty if nothing"
    )
    carried: list[int] = Field(
        description="earlier attempts whose trainers go on in this one, after steps were taken back"
    )
    horizon: int = Field(description="the first step that is not sealed")
    revision: int = Field(description="how often its future has been changed")
    series: list[str] = Field(description="the names of its series, such as `lr` or `head.lr`")
    max_lookahead: int | None = Field(
        description="how many steps may be sealed from the one asked for on; null is no limit"
    )
    max_window: int = Field(description="the most steps that one call can seal or read")
    created_at: Moment = Field(description="when it was created")
    epoch: str = Field(description="the name of the database's history; `sync` takes it back")
    changed_at: Moment = Field(description="when something of it was written last, a sealing say")
    state: State = Field(
        description="what has become of it: its status, or `failed` of a finished one, or `silent`"
        " of an active one whose training was not heard of for longer than its pace explains"
    )
    ended: EndingView | None = Field(description="what its trainer said when it was over")
    plan_end: int | None = Field(description="the first step behind its plan, if that has an end")


class CreatedSession(SessionView):
    """A session that was created or found, with the known pitfalls of its spec."""

    warnings: list[FindingView] = Field(description="known pitfalls of the spec, the gravest first")


class FirstAttempt(BaseModel):
    """The key of a new session's first attempt, beside the fields of its spec."""

    attempt_key: AttemptKey | None = Field(
        default=None,
        description="what all ranks of the first attempt share: whose it is, as with a restart",
    )


class SessionPage(BaseModel):
    """A page of sessions, by name."""

    sessions: list[SessionView] = Field(description="the sessions, by name")
    next_page_token: str | None = Field(description=paging.NEXT)


_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


def asked_for(body: JsonValue) -> tuple[SessionSpec | TemplateUse, str]:
    """Read a spec, or the template to make it from, and the key of the first attempt.

    Raises:
        pydantic.ValidationError: The body is neither.
    """
    fields = dict(_OBJECT.validate_python(body))
    key = FirstAttempt.model_validate({"attempt_key": fields.pop("attempt_key", None)}).attempt_key
    refuse_not_yours(fields)
    kind = TemplateUse if "template" in fields else SessionSpec
    return kind.model_validate(fields), key or ""


@router.post(
    "",
    status_code=201,
    responses={200: {"model": CreatedSession}},
    openapi_extra=openapi.body_of("NewSession", "NewSessionFromTemplate"),
)
async def create_session(
    body: Annotated[tuple[SessionSpec | TemplateUse, str], bodies.read_by(asked_for)],
    request: Request,
    service: Service,
    response: Response,
    names: Names,
) -> CreatedSession:
    """Create a session; repeating the same body answers 200 with the same session.

    The body is a spec, or names a template: `{"name": …, "template": "a@3", "with": {…}}`. The
    answer's `warnings` name known pitfalls of the spec, as `/v1/schedules/lint` does. The body may
    also have an `attempt_key`, which says whose the first attempt is, as with a restart: it is not
    part of the spec, and is shown with the session.
    """
    asked, key = body
    refuse_name(names, asked.name, "name")
    if isinstance(asked, TemplateUse):
        refuse_name(names, asked.reference.name, "template")
    made = await unless_gone(request, operator.create_session(service, asked, key))
    response.status_code = 201 if made.created else 200
    response.headers["location"] = f"/v1/sessions/{made.info.session.spec.name}"
    warnings = views(made.findings, made.info.session.spec)
    return CreatedSession(**dict(view(made.info)), warnings=warnings)


@router.get("", response_model=SessionPage | StatusPage)
async def list_sessions(
    request: Request,
    service: Service,
    asked: Asked,
    rows: Annotated[
        Literal["full", "status"],
        Query(alias="view", description="`status`: where each training stands, in a row"),
    ] = "full",
) -> Response:
    """List sessions, a page at a time: those that the caller's token is for.

    Filters combine: `name` is a pattern, every `label` must match, one `state` must, and `since`
    leaves out sessions that were neither written nor heard of since then. Archived sessions are
    left out of the status view unless `state=archived` asks for them. A page may hold fewer than
    `limit` sessions: the last page is the one without a `next_page_token`.
    Pages stay correct while sessions are created, archived and removed. A session that changes
    while sessions are sorted by `changed_at` moves to another place, perhaps on a page that was
    read.
    """
    if rows == "status":
        return await answer(request, _statuses(service, asked))
    found = sessions.list_sessions(service, asked, lambda page: _page(page, asked))
    return await answer(request, found)


def _statuses(service: UseCases, asked: Question) -> Coroutine[Any, Any, bytes]:
    if asked.states == EVERY_STATE and asked.status is None:
        asked = replace(asked, states=EVERY_STATE - {"archived"})
    return status.list_statuses(service, asked, lambda page: status_page(page, asked.sort))


@router.get("/{name}")
async def read_session(name: SessionName, service: Service) -> SessionView:
    """Read a session."""
    return view(await sessions.read_session(service, name))


@router.patch("/{name}", openapi_extra=openapi.body_of("LabelsRequest"))
async def relabel_session(
    name: SessionName,
    body: Annotated[LabelsRequest, bodies.model(LabelsRequest)],
    service: Service,
    actor: Actor = "anonymous",
) -> SessionView:
    """Change the labels of a session, archived or not; labels that are not named stay.

    They are the only part of a session's description that can be changed.
    """
    return view(await operator.relabel_session(service, name, body.labels, actor))


@router.post("/{name}/finish", openapi_extra=openapi.body_of("FinishRequest"))
async def finish_session(
    name: SessionName,
    body: Annotated[FinishRequest, bodies.model(FinishRequest)],
    service: Service,
    actor: Actor = "anonymous",
) -> SessionView:
    """Report that a training is over; repeating the call changes nothing.

    The session is then `finished`: it accepts reports, but seals no further step. A trainer that
    goes on at that step or a later one, or that opens an attempt, makes it active again.
    """
    return view(await trainer.finish(service, name, Finish(**dict(body), actor=actor)))


@router.post("/{name}/purge", status_code=204, openapi_extra=openapi.body_of("PurgeRequest"))
async def purge_session(
    name: SessionName,
    body: Annotated[PurgeRequest, bodies.model(PurgeRequest)],
    service: Service,
    actor: Actor = "anonymous",
) -> None:
    """Remove an archived session for good, with everything that was recorded of it.

    It is gone immediately, and its name is free; its rows are removed in the background. A session
    whose steps a fork shares is refused. `DELETE` only archives, which can be repeated without
    harm, so purging is a separate call.
    """
    if body.dry_run:
        await operator.rehearse_purge(service, name)
    else:
        await operator.purge_session(service, name, actor)


@router.delete("/{name}", status_code=204)
async def archive_session(name: SessionName, service: Service) -> None:
    """Archive a session: it stays readable and takes no more commands."""
    await operator.archive_session(service, name)


def view(info: SessionInfo) -> SessionView:
    """Return the view of a session."""
    session, ended = info.session, info.session.control.ended
    return SessionView(
        name=session.spec.name,
        spec=session.spec,
        status=session.status,
        attempt=session.attempt.number,
        attempt_key=session.attempt.key,
        carried=list(session.attempt.carried),
        horizon=session.horizon,
        revision=session.revision,
        series=list(session.timelines),
        max_lookahead=session.spec.lookahead,
        max_window=session.max_window,
        created_at=info.created_at,
        epoch=info.epoch,
        changed_at=info.changed_at,
        state=info.state,
        ended=None if ended is None else EndingView.model_validate(ended, from_attributes=True),
        plan_end=plan_end(session),
    )


def _page(page: Page[SessionInfo], asked: Question) -> bytes:
    views = [view(info) for info in page.found]
    token = token_of(asked.sort, page.behind)
    return to_json(SessionPage(sessions=views, next_page_token=token))
