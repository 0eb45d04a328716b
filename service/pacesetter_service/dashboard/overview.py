"""The first page: all sessions, those in trouble first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.core.status import State
from pacesetter_service.core.tokens import NameScope
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.facts import Facts
from pacesetter_service.dashboard.visitors import visitor_of
from pacesetter_service.runtime.queries.listing import SORTS, Page, Place, Question, Sort
from pacesetter_service.runtime.queries.status import Status, list_statuses
from pacesetter_service.runtime.service import Service

ROWS = 50
"""How many sessions a page has."""

TROUBLED = 10
"""How many sessions with each kind of trouble are shown above all others."""

RECENT = timedelta(days=7)
"""Sessions that failed longer ago are no longer in trouble."""

LONGEST = 200
"""The most characters of a search text."""

STATES: Mapping[str, frozenset[State]] = {
    "": frozenset({"active", "silent", "finished", "failed"}),
    "running": frozenset({"active"}),
    "silent": frozenset({"silent"}),
    "finished": frozenset({"finished"}),
    "failed": frozenset({"failed"}),
    "archived": frozenset({"archived"}),
    "ailing": frozenset({"active", "silent"}),
}
"""Which sessions are shown, by the parameter in an address."""

WORDS: Mapping[str, str] = {
    "": "all but archived",
    "ailing": "ranks in trouble",
}
"""The words for people, if they differ."""

ORDERS: Mapping[Sort, str] = {
    "-created_at": "newest first",
    "created_at": "oldest first",
    "-changed_at": "changed last",
    "name": "name",
    "-name": "name, from the end",
}


@dataclass(frozen=True, slots=True)
class Search:
    """A search, as an address says it."""

    text: str
    state: str
    label: str
    sort: Sort
    behind: Place | None

    @property
    def everything(self) -> bool:
        """Whether no session is left out, and this is the first page."""
        return not (self.text or self.state or self.label or self.behind)

    def query(self) -> dict[str, str]:
        """Return the query of an address with the same search."""
        return {
            "q": self.text,
            "state": self.state,
            "label": self.label,
            "sort": "" if self.sort == "-created_at" else self.sort,
        }


class Overview:
    """The page of all sessions."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """Show a page of sessions."""
        if unknown := _unknown_in(request):
            return site.refusal(request, HTTPStatus.BAD_REQUEST, unknown)
        search, names = _search_in(request), visitor_of(request).scope
        page = await self._page(search, names)
        rows = [Facts(each) for each in page.found]
        troubled: list[Facts] = []
        further: list[str] = []
        if search.everything:
            troubled, further = await self._troubled(names)
            above = {each.name for each in troubled}
            rows = [each for each in rows if each.name not in above]
        behind = {} if page.behind is None else {"key": page.behind.key, "name": page.behind.name}
        return site.show(
            request,
            "overview.html",
            rows=rows,
            troubled=troubled,
            further=further,
            words=WORDS,
            search=search,
            states=list(STATES),
            orders=ORDERS,
            more={**search.query(), **behind} if behind else None,
        )

    async def _page(self, search: Search, names: NameScope) -> Page[Status]:
        label, _, value = search.label.partition(":")
        question = Question(
            limit=ROWS,
            names=names,
            matching=_pattern(search.text),
            labels=[(label, value)] if label else [],
            states=STATES[search.state],
            ailing=search.state == "ailing",
            sort=search.sort,
            behind=search.behind,
        )
        return await list_statuses(self._service, question, lambda page: page)

    async def _troubled(self, names: NameScope) -> tuple[list[Facts], list[str]]:
        """Return the sessions in trouble, and the states that have more of them.

        First come running sessions with ranks that deviate or are silent: they can still be saved.
        Then come sessions that are silent altogether, and those that failed lately.
        """
        begin = Question(TROUBLED, names, sort="-changed_at")
        since = datetime.now(UTC) - RECENT
        questions = {
            "ailing": replace(begin, states=STATES["ailing"], ailing=True),
            "silent": replace(begin, states=STATES["silent"]),
            "failed": replace(begin, states=STATES["failed"], ailing=True, since=since),
        }
        found: dict[str, Facts] = {}
        further = []
        for state, question in questions.items():
            page = await list_statuses(self._service, question, lambda page: page)
            some = [Facts(each) for each in page.found]
            found |= {each.name: each for each in some if each.troubled and each.name not in found}
            if page.behind is not None:
                further.append(state)
        return list(found.values()), further


def _unknown_in(request: Request) -> str:
    """Return in words what an address asks for that does not exist; empty if everything does."""
    known: Mapping[str, Sequence[str]] = {"state": list(STATES), "sort": SORTS}
    for name, some in known.items():
        said = request.query_params.get(name, "")
        if said and said not in some:
            listed = ", ".join(filter(None, some))
            return f"There is no {name} {said[:LONGEST]!r}. Choose one of: {listed}."
    return ""


def _search_in(request: Request) -> Search:
    said = request.query_params
    sort: Sort = next((each for each in SORTS if each == said.get("sort")), "-created_at")
    key, name = said.get("key", ""), said.get("name", "")
    return Search(
        text=said.get("q", "").strip()[:LONGEST],
        state=said.get("state", ""),
        label=said.get("label", "").strip()[:LONGEST],
        sort=sort,
        behind=Place(key[:LONGEST], name[:LONGEST]) if key and name else None,
    )


def _pattern(text: str) -> str | None:
    """Return the pattern for a search by name: words without a star match inside of names."""
    if not text:
        return None
    return text if set("*?") & set(text) else f"*{text}*"
