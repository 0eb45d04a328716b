"""The ranks of a session: where each of them is, and whether it trains with sealed values."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pacesetter_service.api import paging
from pacesetter_service.api.answers import Moment
from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.core.applied import Precision
from pacesetter_service.core.model import MAX_STEP, spelt
from pacesetter_service.runtime.queries import ranks
from pacesetter_service.runtime.queries.ranks import RanksReport
from pacesetter_service.runtime.ranks import MAX_RANKS, NEVER, Patience, wall_clock

router = APIRouter(prefix="/v1/sessions/{name}/ranks", tags=["ranks"])

PAGE = 1_000
"""The most ranks in one answer."""

SHOWN = 100
"""The most ranks of a list that are named."""


class AppliedValueView(BaseModel):
    """One value that an optimizer used, and the sealed one; NaN and infinities are strings."""

    model_config = ConfigDict(from_attributes=True)

    series: str = Field(description="the name of the series")
    applied: Annotated[float | str, BeforeValidator(spelt)] = Field(
        description="what the optimizer used"
    )
    sealed: float = Field(description="what was sealed")
    precision: Precision = Field(description="how well they agree: to the bit, as float32, or not")


class AppliedView(BaseModel):
    """The values that a rank's optimizer used, as the rank last said."""

    model_config = ConfigDict(from_attributes=True)

    step: int = Field(description="the step that it was used at")
    precision: Precision = Field(description="that of the value that agrees least")
    differing: int = Field(description="how many series differ")
    values: list[AppliedValueView] = Field(description="some of them, those that differ first")


class RankView(BaseModel):
    """One rank, as known from its calls."""

    rank: int = Field(description="its number, from 0")
    attempt: int = Field(description="the attempt that it speaks for")
    trained: int | None = Field(description="the newest step that it has trained, as it says")
    step: int | None = Field(description="the furthest step that it asked for, reported or applied")
    behind: int | None = Field(description="steps behind the furthest rank of its attempt")
    behind_horizon: int | None = Field(description="steps behind the last one that is sealed")
    asked: int | None = Field(description="first step of the window that it asked for last")
    reported: int | None = Field(description="last step that it reported on")
    revision: int = Field(description="revision in the last answer that it got")
    applied: AppliedView | None = Field(
        description="what its optimizer used, as it said last; null if it never did"
    )
    deviates: bool = Field(description="whether it trains with other values than were sealed")
    stale: bool = Field(
        description="whether it was silent, or fell behind, for longer than was asked for"
    )
    last_call: Moment = Field(description="when it called last")
    seconds_ago: float = Field(description="how many seconds ago that was")


class RanksView(BaseModel):
    """How many ranks, and the first hundred of them."""

    count: int = Field(description="how many there are")
    ranks: list[int] = Field(description="the numbers of the first hundred of them")


class SummaryView(BaseModel):
    """A summary of the ranks; only ranks of the running attempt count as seen."""

    expected: int = Field(description="the session's `ranks`: those from which it awaits reports")
    seen: int = Field(description="how many ranks have called in the running attempt")
    current: int = Field(description="how many of the seen know of the session's newest revision")
    newest_step: int | None = Field(
        description="the newest step that any rank has trained, as it says; not what it asked for"
    )
    slowest: RankView | None = Field(description="the rank that is furthest behind")
    missing: RanksView = Field(description="expected, but not heard in the running attempt")
    never_reported: RanksView = Field(
        description="expected, but without a report in the running attempt, heard or not"
    )
    stale: RanksView = Field(description="those that were silent, or fell behind")
    deviating: RanksView = Field(description="training with other values than were sealed")
    earlier_attempts: RanksView = Field(description="last heard in an attempt before this one")


class RanksPage(BaseModel):
    """What is known of a session's ranks; calls before `since` are unknown."""

    attempt: int = Field(description="the running attempt")
    horizon: int = Field(description="the first step that is not sealed")
    revision: int = Field(description="how often the session's future has been changed")
    since: Moment = Field(description="from when on calls are known")
    summary: SummaryView = Field(description="the ranks in a few words")
    ranks: list[RankView] = Field(description="the ranks of this page, by number")
    next_page_token: str | None = Field(description=paging.NEXT)


@router.get("")
async def read_ranks(
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
) -> RanksPage:
    """Show where a session's ranks are, and which train with values other than the sealed ones.

    A rank is known by its `sync` calls. On SQLite this is kept only in memory: after a restart of
    the service it is empty until the ranks call again, and `since` says from when on calls are
    known. Services that share a PostgreSQL database tell each other of their ranks every second.
    Ranks above 65,535 are not followed. `step` is as exact as what a rank says: one that sends
    neither reports nor `applied` is known by the windows that it asks for, which it does ahead.
    """
    first = paging.number_in(page_token, MAX_RANKS - 1) or 0
    patience = Patience(stale_after, max_behind)
    return await ranks.read_ranks(
        service, name, patience, lambda report: _view(report, first, limit)
    )


def _view(report: RanksReport, first: int, limit: int) -> RanksPage:
    session, snapshot, found = report.session, report.snapshot, report.summary

    def of_rank(rank: int) -> RankView:
        return _rank_view(rank, report)

    numbers = sorted(rank for rank in snapshot.ranks if rank >= first)
    page = numbers[:limit]
    return RanksPage(
        attempt=session.attempt.number,
        horizon=session.horizon,
        revision=session.revision,
        since=snapshot.since,
        summary=SummaryView(
            expected=session.spec.ranks,
            seen=found.seen,
            current=found.current,
            newest_step=found.newest_step,
            slowest=None if found.slowest is None else of_rank(found.slowest),
            missing=_ranks(found.missing),
            never_reported=_ranks(found.unreported),
            stale=_ranks(found.stale),
            deviating=_ranks(found.deviating),
            earlier_attempts=_ranks(found.earlier),
        ),
        ranks=[of_rank(rank) for rank in page],
        next_page_token=paging.token_of(numbers[limit]) if len(numbers) > limit else None,
    )


def _rank_view(rank: int, report: RanksReport) -> RankView:
    session, snapshot, furthest = report.session, report.snapshot, report.summary.furthest
    heard = snapshot.ranks[rank]
    silent = max(snapshot.now - heard.at, 0.0)
    here = heard.attempt == session.attempt.began_as
    newest = NEVER if furthest is None else furthest
    placed = here and heard.step != NEVER
    return RankView(
        rank=rank,
        attempt=session.attempt.number if here else heard.attempt,
        trained=_step(heard.trained),
        step=_step(heard.step),
        behind=newest - heard.step if placed else None,
        behind_horizon=max(session.horizon - 1 - heard.step, 0) if placed else None,
        asked=_step(heard.asked),
        reported=_step(heard.reported),
        revision=heard.revision,
        applied=heard.applied and AppliedView.model_validate(heard.applied),
        deviates=heard.deviates,
        stale=here and report.patience.is_over(heard, snapshot.now, newest),
        last_call=wall_clock(silent),
        seconds_ago=round(silent, 3),
    )


def _step(step: int) -> int | None:
    return None if step == NEVER else step


def _ranks(numbers: tuple[int, ...]) -> RanksView:
    return RanksView(count=len(numbers), ranks=list(numbers[:SHOWN]))
