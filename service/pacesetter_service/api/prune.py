"""Prune: old sessions are archived, and purged on request."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from pacesetter_service.api import bodies, openapi, paging
from pacesetter_service.api.answers import Moment
from pacesetter_service.api.callers import unless_gone
from pacesetter_service.api.context import Actor, Service
from pacesetter_service.core.model import MAX_STEP, Count, Flag, Model, NonNegative
from pacesetter_service.core.spec import MAX_LABELS, LabelName, LabelValue
from pacesetter_service.core.status import State
from pacesetter_service.runtime import retention
from pacesetter_service.runtime.retention import Policy

router = APIRouter(prefix="/v1/prune", tags=["sessions"])

LONGEST = 10**10
"""Three hundred years in seconds: calendars are limited too."""


class PruneRequest(Model):
    """Which sessions to put away, and how far."""

    older_than: NonNegative = Field(
        le=LONGEST,
        description="seconds for which nothing of a session was written: a sealing, an event, say",
    )
    states: tuple[State, ...] = Field(
        default=("finished", "failed", "archived"), min_length=1, description="in these states"
    )
    labels: dict[LabelName, LabelValue] = Field(
        default_factory=dict, max_length=MAX_LABELS, description="with all of these labels"
    )
    purge: Flag = Field(
        default=False, description="remove those for good that are archived already"
    )
    dry_run: Flag = Field(default=False, description="only show what it would do")
    limit: Annotated[Count, Field(le=500)] = Field(
        default=100, description="how many old sessions are looked at in this call"
    )
    page_token: str = Field(default="", max_length=64, description="of the page before")


class PutAwayView(BaseModel):
    """A session that was put away, or would be."""

    name: str = Field(description="the session's name")
    state: State = Field(description="before")
    changed_at: Moment = Field(description="when something of it was written last")
    step: Literal["archive", "purge", "keep"] = Field(
        description="what is done with it: `archive`, `purge`, or `keep`"
    )
    bytes: int = Field(description="about how many bytes its rows take")
    reason: str = Field(description="why it is kept, if it is")


class PrunePage(BaseModel):
    """A page of the sessions that were put away."""

    sessions: list[PutAwayView] = Field(description="the sessions that were put away, or would be")
    next_page_token: str | None = Field(description=paging.NEXT)


@router.post("", openapi_extra=openapi.body_of("PruneRequest"))
async def prune(
    body: Annotated[PruneRequest, bodies.model(PruneRequest)],
    service: Service,
    request: Request,
    actor: Actor = "anonymous",
) -> PrunePage:
    """Put old sessions away, one step each: sessions that are not archived yet are archived.

    With `purge`, sessions that are archived already are removed for good, forks before the sessions
    that they were forked from. So no session is removed in the call that archives it. A session
    that goes on meanwhile is left alone, and so is one whose steps other sessions share. If the
    database fails after some were put away, the page ends with the one that it failed for, a `keep`
    whose `reason` says so, and the next page begins after it.
    """
    policy = Policy(body.older_than, body.states, body.labels, body.purge)
    pruning = retention.prune(
        service,
        policy,
        actor,
        dry_run=body.dry_run,
        below=paging.number_in(body.page_token, MAX_STEP),
        limit=body.limit,
    )
    page = await unless_gone(request, pruning)
    views = [
        PutAwayView(
            name=each.name,
            state=each.state,
            changed_at=each.changed_at,
            step=each.step,
            bytes=each.size,
            reason=each.reason,
        )
        for each in page.sessions
    ]
    token = None if page.next_below is None else paging.token_of(page.next_below)
    return PrunePage(sessions=views, next_page_token=token)
