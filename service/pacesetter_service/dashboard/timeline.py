"""What happened, in one session or in all, newest first: filtered by kind or by actor."""

from collections.abc import Sequence
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.facts import read_facts
from pacesetter_service.dashboard.visitors import visitor_of
from pacesetter_service.runtime.pool import aside
from pacesetter_service.runtime.queries.events import KINDS, LoggedEvent, list_newest
from pacesetter_service.runtime.queries.feed import FedEvent, Wanted, begin_at, list_all
from pacesetter_service.runtime.service import Service

READ = 1_000
"""How many events are read at a time."""

SHOWN = 200
"""The most events that a page shows."""


class Timeline:
    """The page of what happened."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """Show what happened in a session."""
        if unknown := _unknown_in(request):
            return site.refusal(request, HTTPStatus.BAD_REQUEST, unknown)
        name = request.path_params["name"]
        facts = await read_facts(self._service, name)
        kind, actor = request.query_params.get("kind", ""), request.query_params.get("actor", "")
        found = await latest_events(
            self._service, name, SHOWN, [kind] if kind else None, actor.strip()
        )
        newest = await latest_events(self._service, name, 1)
        return await aside(
            site.show,
            request,
            "timeline.html",
            name=name,
            facts=facts,
            events=found,
            after=(newest[0].seq or 0) if newest else 0,
            kinds=sorted(KINDS),
            kind=kind,
            actor=actor,
            most=len(found) >= SHOWN,
        )

    async def show_all(self, request: Request) -> Response:
        """Show what happened in all sessions."""
        if unknown := _unknown_in(request):
            return site.refusal(request, HTTPStatus.BAD_REQUEST, unknown)
        said, wanted = request.query_params, wanted_in(request)
        until = said.get("until", "")
        found, newest = await _newest(
            self._service, wanted, int(until) if until.isdecimal() and len(until) < 17 else None
        )
        earlier = found[-1].position - 1 if len(found) >= SHOWN else 0
        return await aside(
            site.show,
            request,
            "timeline_of_all.html",
            found=found,
            newest=newest,
            earlier=earlier,
            kinds=sorted(KINDS),
            said={each: said.get(each, "") for each in ASKED},
        )


def _unknown_in(request: Request) -> str:
    """Return what an address asks for that there is not, in words; empty if there is all of it."""
    kind, label = (request.query_params.get(each, "").strip() for each in ("kind", "label"))
    if kind and kind not in KINDS:
        return f"There is no kind {kind[:200]!r}. Choose one of: {', '.join(sorted(KINDS))}."
    if label and ":" not in label:
        return f"{label[:200]!r} is no label. Write name:value, such as team:vision."
    return ""


ASKED = ("kind", "actor", "label", "session")
"""The filters of the timeline of all sessions."""

LOOKS_BACK = (500, 5_000, 50_000)
"""How many positions back wanted events are searched for: further if few are found."""


def wanted_in(request: Request) -> Wanted:
    """Return which events of all sessions an address selects."""
    said = {each: request.query_params.get(each, "").strip()[:200] for each in ASKED}
    name, colon, value = said["label"].partition(":")
    pattern = said["session"]
    return Wanted(
        names=visitor_of(request).scope,
        matching=(pattern if set("*?") & set(pattern) else f"*{pattern}*") if pattern else None,
        kinds=[said["kind"]] if said["kind"] in KINDS else [],
        actor=said["actor"] or None,
        labels=[(name, value)] if colon else [],
    )


async def _newest(
    service: Service, wanted: Wanted, until: int | None
) -> tuple[list[FedEvent], int]:
    """Return the newest wanted events up to a position, and the newest position of all."""
    newest = await begin_at(service, None, "until")
    last = newest if until is None else min(until, newest)
    found: list[FedEvent] = []
    for back in LOOKS_BACK:
        behind, more = max(last - back, 0), True
        begins, found = behind == 0, []
        while more and behind < last:
            page = await list_all(service, wanted, behind, READ, lambda page: page)
            found = [*found, *(each for each in page.events if each.position <= last)][-SHOWN:]
            behind, more = page.behind, page.more
        if begins or len(found) >= SHOWN:
            break
    return found[::-1], newest


async def latest_events(
    service: Service,
    name: str,
    count: int,
    kinds: Sequence[str] | None = None,
    actor: str = "",
) -> list[LoggedEvent]:
    """Return the newest events of a session, newest first.

    Args:
        service: The service.
        name: The session's name.
        count: The most events.
        kinds: The wanted kinds; None for all.
        actor: The actor whose events are wanted; empty for all.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    return await list_newest(
        service, name, count, kinds, lambda each: not actor or actor_of(each) == actor
    )


def actor_of(event: LoggedEvent) -> str:
    """Return the actor who caused an event; empty if it was neither an operator nor a trainer."""
    return "" if event.event is None else event.event.author
