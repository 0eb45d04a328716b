"""The first page: all sessions, those in trouble first."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

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
"""How many of those in trouble stand above all others."""

RECENT = timedelta(days=7)
"""What failed longer ago is no trouble any more."""

LONGEST = 200
"""The most characters of what is searched for."""

STATES: Mapping[str, frozenset[State]] = {
    "": frozenset({"active", "silent", "finished", "failed"}),
    "running": frozenset({"active"}),
    "silent": frozenset({"silent"}),
    "finished": frozenset({"finished"}),
    "failed": frozenset({"failed"}),
    "archived": frozenset({"archived"}),
}

ORDERS: Mapping[Sort, str] = {
    "-created_at": "newest first",
    "created_at": "oldest first",
    "-changed_at": "changed last",
    "name": "name",
    "-name": "name, from the end",
}


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for, as the address says it."""

    text: str
    state: str
    label: str
    sort: Sort
    behind: Place | None

    @property
    def everything(self) -> bool:
        """Whether nothing is left out, and this is the first page."""
        return not (self.text or self.state or self.label or self.behind)

    def query(self) -> dict[str, str]:
        """Return what stands in an address of the same."""
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
        search, names = _search_in(request), visitor_of(request).scope
        page = await self._page(search, names)
        rows = [Facts(each) for each in page.found]
        troubled = []
        if search.everything:
            troubled = await self._troubled(names)
            above = {each.name for each in troubled}
            troubled += [each for each in rows if each.troubled and each.name not in above]
            rows = [each for each in rows if not each.troubled]
        behind = {} if page.behind is None else {"key": page.behind.key, "name": page.behind.name}
        return site.show(
            request,
            "overview.html",
            rows=rows,
            troubled=troubled,
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
            sort=search.sort,
            behind=search.behind,
        )
        return await list_statuses(self._service, question, lambda page: page)

    async def _troubled(self, names: NameScope) -> list[Facts]:
        """Return sessions that are silent, and those that have failed of late."""
        since = datetime.now(UTC) - RECENT
        kinds: tuple[tuple[Collection[State], datetime | None], ...] = (
            ({"silent"}, None),
            ({"failed"}, since),
        )
        found: list[Facts] = []
        for states, after in kinds:
            question = Question(TROUBLED, names, states=states, since=after, sort="-changed_at")
            page = await list_statuses(self._service, question, lambda page: page)
            found += [Facts(each) for each in page.found]
        return found


def _search_in(request: Request) -> Search:
    said = request.query_params
    sort: Sort = next((each for each in SORTS if each == said.get("sort")), "-created_at")
    key, name = said.get("key", ""), said.get("name", "")
    return Search(
        text=said.get("q", "").strip()[:LONGEST],
        state=said.get("state", "") if said.get("state", "") in STATES else "",
        label=said.get("label", "").strip()[:LONGEST],
        sort=sort,
        behind=Place(key[:LONGEST], name[:LONGEST]) if key and name else None,
    )


def _pattern(text: str) -> str | None:
    """Return the pattern of names that are searched for: words without a star are found within."""
    if not text:
        return None
    return text if set("*?") & set(text) else f"*{text}*"
