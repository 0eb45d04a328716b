"""The ranks of a session as a map: which keep up, are silent, or train with other values."""

from typing import Literal, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.facts import read_facts
from pacesetter_service.runtime.queries.ranks import RanksReport, read_ranks
from pacesetter_service.runtime.rank_digests import STALE_AFTER
from pacesetter_service.runtime.ranks import NEVER, Patience
from pacesetter_service.runtime.service import Service

MAPPED = 4_096
"""The most ranks on the map: those with the smallest numbers."""

LISTED = 100
"""The most ranks with a problem that are listed."""

BEHIND = 50
"""How many steps behind the foremost rank make a rank slow."""

Condition = Literal["fine", "slow", "silent", "deviating", "missing"]


GRAVEST: tuple[Condition, ...] = ("deviating", "silent", "slow", "missing")


class Rank(NamedTuple):
    """A rank on the map.

    Attributes:
        number: Its number.
        condition: Its condition.
        step: The furthest step that it is known to have reached; None if it has not called.
        behind: How many steps it is behind the foremost rank.
        heard: Seconds since it last called.
        said: The values that it trained with instead of the sealed ones, in words.
    """

    number: int
    condition: Condition
    step: int | None = None
    behind: int | None = None
    heard: float | None = None
    said: str = ""


class RankPages:
    """The page of a session's ranks."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """Show the ranks of a session."""
        name = request.path_params["name"]
        facts = await read_facts(self._service, name)
        ranks = await read_ranks(self._service, name, Patience(STALE_AFTER), _ranks_of)
        counts = dict.fromkeys(("fine", "slow", "silent", "deviating", "missing"), 0)
        for rank in ranks:
            counts[rank.condition] += 1
        return site.show(
            request,
            "ranks.html",
            name=name,
            facts=facts,
            counts=counts,
            ranks=ranks[:MAPPED],
            total=len(ranks),
            listed=sorted(
                (each for each in ranks if each.condition != "fine"),
                key=lambda each: GRAVEST.index(each.condition),
            )[:LISTED],
        )


def _ranks_of(report: RanksReport) -> list[Rank]:
    """Return every rank that is expected or has called, by number."""
    session, snapshot = report.session, report.snapshot
    here = {
        number: heard
        for number, heard in snapshot.ranks.items()
        if heard.attempt == session.attempt.began_as
    }
    newest = report.summary.newest_step
    stale = set(report.summary.stale)
    found = []
    for number in sorted({*range(session.spec.ranks), *here}):
        heard = here.get(number)
        if heard is None:
            found.append(Rank(number, "missing"))
            continue
        step = None if heard.step == NEVER else heard.step
        behind = None if step is None or newest is None else newest - step
        said = ""
        condition: Condition = "fine"
        if heard.deviates:
            condition = "deviating"
            applied = heard.applied.values if heard.applied else ()
            said = ", ".join(
                f"{each.series} {each.applied!r} in place of {each.sealed!r}" for each in applied
            )
        elif number in stale:
            condition = "silent"
        elif behind is not None and behind > BEHIND:
            condition = "slow"
        silent = max(snapshot.now - heard.at, 0.0)
        found.append(Rank(number, condition, step, behind, silent, said))
    return found
