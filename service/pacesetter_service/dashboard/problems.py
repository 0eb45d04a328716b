"""The page of problems: what is wrong with which session, and what to do about it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.core.errors import PacesetterError
from pacesetter_service.core.tokens import NameScope
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.facts import Facts
from pacesetter_service.dashboard.troubles import Trouble, diverging, troubles_of
from pacesetter_service.dashboard.visitors import visitor_of
from pacesetter_service.runtime.queries.history import HistoryQuestion, read_history
from pacesetter_service.runtime.queries.listing import Place, Question
from pacesetter_service.runtime.queries.status import list_statuses
from pacesetter_service.runtime.service import Service

PAGE = 200
"""How many sessions are examined at a time."""

MOST = 500
"""The most sessions that are examined: those that were written last."""

RECENT = timedelta(days=7)
"""Events longer ago are no longer a problem."""

LOOKED_INTO = 40
"""The most sessions whose loss is examined: running ones that were written last."""

POINTS = 40
"""About how many values of a loss are examined."""

MOST_STEPS = 200_000
"""How many steps back the loss is examined."""


@dataclass(frozen=True, slots=True)
class Found:
    """A session with what is wrong with it."""

    facts: Facts
    troubles: list[Trouble]


class Problems:
    """The page of problems."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """Show what is wrong."""
        every = await self._recent(visitor_of(request).scope)
        found, looked = [], 0
        for facts in every:
            troubles = troubles_of(facts)
            if facts.state == "running" and looked < LOOKED_INTO:
                looked += 1
                troubles += await divergence(self._service, facts)
            if troubles:
                found.append(Found(facts, troubles))
        found.sort(key=lambda each: all(trouble.gravity != "bad" for trouble in each.troubles))
        return site.show(
            request, "problems.html", found=found, looked_at=len(every), most=len(every) >= MOST
        )

    async def _recent(self, names: NameScope) -> list[Facts]:
        since = datetime.now(UTC) - RECENT
        behind: Place | None = None
        found: list[Facts] = []
        while len(found) < MOST:
            question = Question(
                PAGE,
                names,
                states=frozenset({"active", "silent", "failed"}),
                since=since,
                sort="-changed_at",
                behind=behind,
            )
            page = await list_statuses(self._service, question, lambda page: page)
            found += [Facts(each) for each in page.found]
            behind = page.behind
            if behind is None:
                break
        return found


async def divergence(service: Service, facts: Facts) -> list[Trouble]:
    """Return a trouble if the loss of a session goes up; empty if it does not."""
    if facts.loss is None or "loss" not in facts.loss[0].lower():
        return []
    name, session = facts.loss[0], facts.session
    start = max(session.horizon - MOST_STEPS, session.spec.start_step)
    question = HistoryQuestion(start, None, POINTS, [name], by_rank=False, attempt=None)
    try:
        values = await read_history(service, facts.name, question, lambda past: past.metrics[name])
    except PacesetterError:  # it has begun again, or was purged, since it was read
        return []
    return list(diverging(name, [each for each in values if each is not None]))
