"""The ranks of a session: where each of them is, and whether it trains with what was sealed."""

import base64
from math import isfinite
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.api.sessions import invalid_parameter
from pacesetter_service.core.applied import Comparison, Precision
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.session import Session
from pacesetter_service.fleet import (
    MAX_RANKS,
    NEVER,
    Fleet,
    Muster,
    Patience,
    summary,
    wall_clock,
)

router = APIRouter(prefix="/v1/sessions/{name}/fleet", tags=["fleet"])

PAGE = 1_000
"""The most ranks in one answer."""

SHOWN = 100
"""How many ranks of a list are named."""


class AppliedValueView(BaseModel):
    """One value that an optimizer used, and what was sealed; NaN and infinities are strings."""

    series: str
    applied: float | str
    sealed: float
    precision: Precision


class AppliedView(BaseModel):
    """What a rank's optimizer used, as the rank said last."""

    step: int
    precision: Precision = Field(description="that of the value that agrees least")
    differing: int = Field(description="how many series differ")
    values: list[AppliedValueView] = Field(description="some of them, those that differ first")


class RankView(BaseModel):
    """One rank, as its calls have shown it."""

    rank: int
    attempt: int = Field(description="the attempt that it speaks for")
    step: int | None = Field(description="the furthest step that it asked for, reported or applied")
    behind: int | None = Field(description="steps behind the furthest rank of its attempt")
    behind_horizon: int | None = Field(description="steps behind the last one that is sealed")
    asked: int | None = Field(description="first step of the window that it asked for last")
    reported: int | None = Field(description="last step that it reported on")
    revision: int = Field(description="revision in the last answer that it got")
    applied: AppliedView | None
    deviates: bool
    stale: bool
    last_call: str
    seconds_ago: float


class RanksView(BaseModel):
    """How many ranks, and the first hundred of them."""

    count: int
    ranks: list[int]


class SummaryView(BaseModel):
    """The fleet in a few words; only ranks of the running attempt are counted as seen."""

    expected: int = Field(description="the session's `ranks`: those from which it awaits reports")
    seen: int
    current: int = Field(description="how many of the seen know of the session's newest revision")
    newest_step: int | None = Field(description="the furthest step of any rank")
    slowest: RankView | None = Field(description="the rank that is furthest behind")
    missing: RanksView = Field(description="expected, but not heard in the running attempt")
    stale: RanksView
    deviating: RanksView = Field(description="training with other values than were sealed")
    earlier_attempts: RanksView = Field(description="last heard in an attempt before this one")


class FleetView(BaseModel):
    """What is known of a session's ranks; of calls before `since` nothing is known."""

    attempt: int
    horizon: int
    revision: int
    since: str
    summary: SummaryView
    ranks: list[RankView]
    next_page_token: str | None


@router.get("")
async def read_fleet(
    name: SessionName,
    service: Service,
    stale_after: Annotated[
        float, Query(ge=0, le=31_536_000, description="seconds of silence that make a rank stale")
    ] = 60.0,
    max_behind: Annotated[
        int | None, Query(ge=0, le=MAX_STEP, description="steps behind that make a rank stale")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE)] = PAGE,
    page_token: Annotated[str, Query(max_length=64)] = "",
) -> FleetView:
    """Show where the ranks of a session are, and who trains with other values than were sealed.

    A rank is known by its `sync` calls. This is kept in memory alone: after a restart of the
    service it is empty until the ranks call again, and `since` says from when on calls are known.
    Ranks above 65,535 are not followed. `step` is as exact as what a rank says: one that sends
    neither reports nor `applied` is known by the windows that it asks for, which it does ahead.
    """
    first = _rank_in(page_token)
    session = (await service.ledger.find(name)).stored.session
    patience = Patience(stale_after, max_behind)
    return await run_in_threadpool(_view, session, service.fleet, patience, first, limit)


def _view(session: Session, fleet: Fleet, patience: Patience, first: int, limit: int) -> FleetView:
    muster = fleet.muster(session.spec.name)
    found = summary(session, muster, patience)

    def of_rank(rank: int) -> RankView:
        return _rank_view(rank, session, muster, patience, found.newest_step)

    numbers = sorted(rank for rank in muster.ranks if rank >= first)
    page = numbers[:limit]
    return FleetView(
        attempt=session.attempt,
        horizon=session.horizon,
        revision=session.revision,
        since=muster.since,
        summary=SummaryView(
            expected=session.spec.ranks,
            seen=found.seen,
            current=found.current,
            newest_step=found.newest_step,
            slowest=None if found.slowest is None else of_rank(found.slowest),
            missing=_ranks(found.missing),
            stale=_ranks(found.stale),
            deviating=_ranks(found.deviating),
            earlier_attempts=_ranks(found.earlier),
        ),
        ranks=[of_rank(rank) for rank in page],
        next_page_token=_token(numbers[limit]) if len(numbers) > limit else None,
    )


def _rank_view(
    rank: int, session: Session, muster: Muster, patience: Patience, newest_step: int | None
) -> RankView:
    heard = muster.ranks[rank]
    silent = max(muster.now - heard.at, 0.0)
    here = heard.attempt == session.attempt
    newest = NEVER if newest_step is None else newest_step
    placed = here and heard.step != NEVER
    return RankView(
        rank=rank,
        attempt=heard.attempt,
        step=_step(heard.step),
        behind=newest - heard.step if placed else None,
        behind_horizon=max(session.horizon - 1 - heard.step, 0) if placed else None,
        asked=_step(heard.asked),
        reported=_step(heard.reported),
        revision=heard.revision,
        applied=None if heard.applied is None else _applied_view(heard.applied),
        deviates=heard.deviates,
        stale=here and patience.is_over(heard, muster.now, newest),
        last_call=wall_clock(silent),
        seconds_ago=round(silent, 3),
    )


def _applied_view(applied: Comparison) -> AppliedView:
    return AppliedView(
        step=applied.step,
        precision=applied.precision,
        differing=applied.differing,
        values=[
            AppliedValueView(
                series=each.series,
                applied=each.applied if isfinite(each.applied) else str(each.applied),
                sealed=each.sealed,
                precision=each.precision,
            )
            for each in applied.values
        ],
    )


def _step(step: int) -> int | None:
    return None if step == NEVER else step


def _ranks(ranks: tuple[int, ...]) -> RanksView:
    return RanksView(count=len(ranks), ranks=list(ranks[:SHOWN]))


def _token(rank: int) -> str:
    return base64.urlsafe_b64encode(str(rank).encode()).decode()


def _rank_in(token: str) -> int:
    if not token:
        return 0
    try:
        rank = int(base64.b64decode(token, altchars=b"-_", validate=True).decode("ascii"))
    except ValueError as error:
        raise _no_token(token) from error
    if not 0 <= rank < MAX_RANKS:
        raise _no_token(token)
    return rank


def _no_token(token: str) -> Exception:
    return invalid_parameter(
        "page_token", "This is no page token; use next_page_token of the page before", token
    )
