"""Attempts and forks: going on from a checkpoint, in this session or in a new one."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from pacesetter_service.api.auth import refuse_below
from pacesetter_service.api.context import Actor, Service, SessionName
from pacesetter_service.api.sessions import SessionView, view
from pacesetter_service.core.model import Count, Flag, Step
from pacesetter_service.core.spec import LabelName, LabelValue, Name
from pacesetter_service.ledger import Fork, Open

router = APIRouter(prefix="/v1/sessions/{name}", tags=["attempts"])


class AttemptRequest(BaseModel):
    """A restart from a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: Step = Field(description="the first step that is to be trained again")
    key: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[\x20-\x7e]+$")] = Field(
        description="what all ranks of the restart share: the same key gives the same attempt"
    )
    drop_actions: Flag = Field(
        default=False, description="forget operators' orders for that step and later ones"
    )
    batch_size: Count | None = Field(default=None, description="samples in one step from now on")


class AttemptView(BaseModel):
    """A life of the job: it ends where the next one begins."""

    attempt: int
    start: int
    key: str
    actor: str
    created_at: str


class ForkRequest(BaseModel):
    """A branch of a session."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="of the new session")
    step: Step = Field(description="the first step of its own; those before are shared")
    labels: dict[LabelName, LabelValue] | None = Field(default=None, max_length=32)


@router.post("/attempts", status_code=201, responses={200: {"model": SessionView}})
async def open_attempt(
    name: SessionName,
    body: AttemptRequest,
    service: Service,
    request: Request,
    response: Response,
    actor: Actor = "somebody",
) -> SessionView:
    """Open an attempt at the step of a checkpoint, or join it with the key that opened it (200).

    Schedules, controllers and smoothing are as they were when that step was handed out. Orders of
    operators for it and later steps stay; decisions of controllers beyond it do not. Earlier
    attempts can still be read, and can no longer seal or report. To drop orders takes the role
    `operator`.
    """
    if body.drop_actions:
        refuse_below("operator", request.scope)
    outcome = await service.ledger.submit(
        Open(name, body.step, body.key, actor, body.drop_actions, body.batch_size)
    )
    response.status_code = 201 if outcome.created else 200
    return view(outcome.entry.stored)


@router.get("/attempts")
async def list_attempts(name: SessionName, service: Service) -> list[AttemptView]:
    """List the attempts of a session; the first one began with it."""
    stored = (await service.ledger.find(name)).stored
    return [
        AttemptView(
            attempt=each.number,
            start=each.start,
            key=each.key,
            actor=each.actor,
            created_at=each.created_at,
        )
        for each in await run_in_threadpool(service.store.attempts_of, stored)
    ]


@router.post("/fork", status_code=201, responses={200: {"model": SessionView}})
async def fork_session(
    name: SessionName,
    body: ForkRequest,
    service: Service,
    response: Response,
    actor: Actor = "somebody",
) -> SessionView:
    """Create a session that shares the past of this one up to a step, and goes on by itself.

    Several cooldowns from one stable phase are several forks. The same body again answers 200.
    """
    spec = (await service.ledger.find(name)).stored.session.spec
    changes: dict[str, object] = {"name": body.name}
    if body.labels is not None:
        changes["labels"] = body.labels
    changes["forked_from"] = {"session": name, "step": body.step}
    own = spec.model_validate({**spec.model_dump(mode="json"), **changes})
    outcome = await service.ledger.submit(Fork(name, own, body.step, actor))
    response.status_code = 201 if outcome.created else 200
    response.headers["location"] = f"/v1/sessions/{body.name}"
    return view(outcome.entry.stored)
