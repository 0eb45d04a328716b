"""Where trainings stand, one row for each session."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from pydantic_core import to_json

from pacesetter_service.api.answers import Moment
from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.api.listing import token_of
from pacesetter_service.core.model import Spelt
from pacesetter_service.runtime.queries import status
from pacesetter_service.runtime.queries.listing import Page, Sort
from pacesetter_service.runtime.queries.status import Status

router = APIRouter(prefix="/v1/sessions/{name}", tags=["sessions"])

RowState = Literal["running", "silent", "finished", "failed", "archived"]


class MetricView(BaseModel):
    """A metric's newest value, and the step that it was measured at."""

    value: Spelt = Field(description="the value; NaN and infinities are strings")
    step: int = Field(description="the step that it was measured at")


class RankCounts(BaseModel):
    """How many ranks the running attempt of a training has, and how they are doing."""

    expected: int = Field(description="the session's `ranks`")
    seen: int = Field(description="how many were heard of; none right after the service began")
    stale: int = Field(description="how many of them were not, for a minute")
    deviating: int = Field(description="how many train with other values than were sealed")


class StatusView(BaseModel):
    """Where the training of a session stands."""

    name: str = Field(description="the session's name")
    state: RowState = Field(description="what has become of the training")
    labels: dict[str, str] = Field(description="what it was labelled with")
    attempt: int = Field(description="the running attempt, from 1")
    revision: int = Field(description="how often its future was changed")
    step: int | None = Field(
        description="the newest step that was trained, as its ranks said; null before. Of a"
        " training that was not heard of since the service began it is the newest one on record: of"
        " one that reports nothing the last that it was given, beyond which it has not trained"
    )
    total_steps: int | None = Field(description="the first step behind its plan, if that has one")
    horizon: int = Field(description="the first step that is not sealed")
    lr: dict[str, float | None] = Field(
        description="at that step, or the first one before any was trained; of 64 groups at most"
    )
    metrics: dict[str, MetricView] = Field(
        description="the newest value of each; of 64 metrics at most"
    )
    last_heard: Moment | None = Field(description="when one of its ranks called last")
    created_at: Moment = Field(description="when it was created")
    changed_at: Moment = Field(description="when something of it was written last")
    ranks: RankCounts = Field(description="its ranks")
    orders: int = Field(description="how many orders wait to be carried out")
    seconds_left: float | None = Field(
        description="about how many seconds the rest of its plan takes, at the pace of its slowest"
        " rank; null if that is not known"
    )


class StatusPage(BaseModel):
    """A page of sessions, one row each."""

    sessions: list[StatusView] = Field(description="the sessions, as they were sorted")
    next_page_token: str | None = Field(
        description="what to send as `page_token` for the next page; null at the end"
    )


@router.get("/status")
async def read_status(name: SessionName, service: Service) -> StatusView:
    """Read where the training of a session stands, in one row."""
    return view(await status.read_status(service, name))


def page(found: Page[Status], sort: Sort) -> bytes:
    """Return a page of sessions, one row each."""
    rows = [view(each) for each in found.found]
    return to_json(StatusPage(sessions=rows, next_page_token=token_of(sort, found.behind)))


def view(found: Status) -> StatusView:
    """Return the view of where a training stands."""
    stored, session = found.stored, found.stored.session
    return StatusView(
        name=session.spec.name,
        state="running" if found.state == "active" else found.state,
        labels=session.spec.labels,
        attempt=session.attempt.number,
        revision=session.revision,
        step=found.step,
        total_steps=found.total_steps,
        horizon=session.horizon,
        lr=dict(found.lr),
        metrics={
            name: MetricView(value=each.value, step=each.step)
            for name, each in found.metrics.items()
        },
        last_heard=None if found.last_heard is None else _zulu(found.last_heard),
        created_at=_zulu(stored.created_at),
        changed_at=_zulu(stored.changed_at),
        ranks=RankCounts(
            expected=session.spec.ranks,
            seen=found.ranks.seen,
            stale=found.ranks.stale,
            deviating=found.ranks.deviating,
        ),
        orders=len(session.orders.waiting),
        seconds_left=found.seconds_left,
    )


def _zulu(moment: str) -> str:
    return moment.replace("+00:00", "Z")
