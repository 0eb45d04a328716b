"""Attempts and forks: going on from a checkpoint, in this session or in a new one."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, JsonValue
from pydantic_core import to_json

from pacesetter_service.api import bodies, paging, wire
from pacesetter_service.api.answers import Moment, SampledCurve
from pacesetter_service.api.auth import refuse_below, refuse_name
from pacesetter_service.api.callers import unless_gone
from pacesetter_service.api.context import Actor, Names, Service, SessionName
from pacesetter_service.api.openapi import body_of
from pacesetter_service.api.sessions import SessionView, view
from pacesetter_service.core.actions.base import Reason
from pacesetter_service.core.model import Count, Flag, Model, Step
from pacesetter_service.core.spec import AttemptKey, LabelName, LabelValue, Name
from pacesetter_service.runtime import forks, operator, trainer
from pacesetter_service.runtime.forks import ForkPlan, ForkRehearsal
from pacesetter_service.runtime.operator import TakeBackAnswer
from pacesetter_service.runtime.queries import sessions

router = APIRouter(prefix="/v1/sessions/{name}", tags=["attempts"])


class AttemptRequest(Model):
    """A restart from a checkpoint."""

    step: Step = Field(description="the first step that is to be trained again")
    key: AttemptKey = Field(
        description="what all ranks of the restart share: the same key gives the same attempt"
    )
    drop_actions: Flag = Field(
        default=False, description="forget operators' orders for that step and later ones"
    )
    batch_size: Count | None = Field(default=None, description="samples in one step from now on")


class AttemptView(BaseModel):
    """An attempt: it ends where the next one begins."""

    attempt: int = Field(description="its number, from 1")
    start: int = Field(description="its first step")
    key: str = Field(description="what its ranks share; empty if nothing")
    actor: str = Field(description="who opened it")
    created_at: Moment = Field(description="when it was opened")


class AttemptList(BaseModel):
    """The attempts of a session."""

    attempts: list[AttemptView] = Field(description="the attempts, the first one first")
    next_page_token: str | None = Field(default=None, description=paging.WHOLE)


class ForkRequest(Model):
    """A branch of a session."""

    name: Name = Field(description="of the new session")
    step: Step = Field(description="the first step of its own; those before are shared")
    labels: dict[LabelName, LabelValue] | None = Field(
        default=None,
        max_length=32,
        description="labels of the new session; those of this one if not given",
    )
    description: dict[str, JsonValue] | None = Field(
        default=None,
        description="fields of the session's spec that are to differ from that step on",
    )
    attempt_key: AttemptKey | None = Field(
        default=None, description="what all ranks of the first attempt share"
    )
    dry_run: Flag = Field(default=False, description="only show what it would do")


class ForkDryRun(BaseModel):
    """What a fork would do: curves from its first own step on, and what to beware of.

    The fork's curve ends before the first step whose value no trainer could use, if there is one.
    """

    start: int = Field(description="the first step of the fork, and of both curves")
    before: SampledCurve = Field(
        description="the curve of the session itself: what is sealed, then the forecast"
    )
    after: SampledCurve = Field(description="the curve of the fork")
    kept: dict[str, float] = Field(
        description="for each series the factor that stays of what was made of its rate, where"
        " the fork is described anew and it is not 1"
    )
    warnings: list[str] = Field(description="what to beware of")
    revision: int = Field(description="of the session that was looked at")


@router.post(
    "/attempts",
    status_code=201,
    responses={200: {"model": SessionView}},
    openapi_extra=body_of("AttemptRequest"),
)
async def open_attempt(
    name: SessionName,
    body: Annotated[AttemptRequest, bodies.model(AttemptRequest)],
    service: Service,
    request: Request,
    response: Response,
    actor: Actor = "anonymous",
) -> SessionView:
    """Open an attempt at the step of a checkpoint, or join it with the key that opened it (200).

    Schedules, controllers and smoothing are as they were when that step was handed out. Operators'
    orders for it and later steps stay; controllers' decisions beyond it do not. Earlier attempts
    can still be read, but can no longer seal or report. Dropping orders requires the role
    `operator`.
    """
    if body.drop_actions:
        refuse_below("operator", request.scope)
    info, created = await trainer.open_attempt(service, name, actor=actor, **dict(body))
    response.status_code = 201 if created else 200
    return view(info)


@router.get("/attempts")
async def list_attempts(name: SessionName, service: Service) -> AttemptList:
    """List the attempts of a session; the first one began with it."""
    found = await sessions.list_attempts(service, name)
    views = [AttemptView.model_validate(each, from_attributes=True) for each in found]
    return AttemptList(attempts=views)


class TakeBackRequest(Model):
    """Why an operator takes steps back."""

    reason: Reason = Field(default="", description="why, for the record")
    dry_run: Flag = Field(default=False, description="only show what it would do")


@router.post("/take-back", openapi_extra=body_of("TakeBackRequest"))
async def take_back(
    name: SessionName,
    body: Annotated[TakeBackRequest, bodies.model(TakeBackRequest)],
    service: Service,
    actor: Actor = "anonymous",
) -> TakeBackAnswer:
    """Reopen the sealed steps that no trainer holds, so that actions can change them.

    A call that looks far ahead seals steps that no trainer has reached. Steps that a trainer was
    given (it named its `attempt` or its `progress`) or has reported on stay as they are. The others
    are decided again, as after a restart, in a new attempt; the running trainers go on in it
    without noticing, and orders that were carried out there are pending again.
    """
    if body.dry_run:
        return await operator.rehearse_take_back(service, name)
    return await operator.take_back(service, name, actor, body.reason)


@router.post(
    "/fork",
    status_code=201,
    response_model=SessionView,
    responses={200: {"model": SessionView | ForkDryRun}},
    openapi_extra=body_of("ForkRequest"),
)
async def fork_session(
    name: SessionName,
    body: Annotated[ForkRequest, bodies.model(ForkRequest)],
    service: Service,
    request: Request,
    response: Response,
    names: Names,
    actor: Actor = "anonymous",
) -> SessionView | Response:
    """Create a session that shares the past of this one up to a step, and goes on by itself.

    Several cooldowns from one stable phase are several forks. Repeating the same body answers 200.
    With `dry_run` nothing is created, and the answer (200) is the curve before and after.

    With a `description` the fork goes on in another way: for longer, at another rate, or under
    other controllers. The description names what differs, and holds from the fork's step on, by the
    session's own count of steps. Series and start stay as they are. Changes of the rate stay as a
    factor: operators' scales, an unfinished rewarmup, and cuts of controllers that are described as
    before (these go on from their states; other controllers begin anew). Rates that were set,
    holds, retimings and laws that took over end with the law that they were ordered for. A series
    that is described as before goes on as it was.
    """
    refuse_name(names, body.name, "name")
    plan = ForkPlan(
        body.name, body.step, body.labels, body.description or {}, body.attempt_key or "", actor
    )
    if body.dry_run:
        rehearsing = forks.rehearse_fork(service, name, plan, _rehearsal)
        content = await unless_gone(request, rehearsing)
        return Response(content, media_type="application/json")
    info, created = await unless_gone(request, forks.fork_session(service, name, plan))
    response.status_code = 201 if created else 200
    response.headers["location"] = f"/v1/sessions/{body.name}"
    return view(info)


def _rehearsal(found: ForkRehearsal) -> bytes:
    answer = ForkDryRun(
        start=found.step,
        before=SampledCurve(**wire.curve(found.before)),
        after=SampledCurve(**wire.curve(found.after)),
        kept=dict(found.kept),
        warnings=found.warnings,
        revision=found.revision,
    )
    return to_json(answer)
