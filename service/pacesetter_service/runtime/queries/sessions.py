"""Sessions, their attempts and the orders that wait: as they are now."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pacesetter_service.core.actions import Order
from pacesetter_service.core.cost import Check
from pacesetter_service.core.tokens import NameScope
from pacesetter_service.runtime.pool import checked, in_thread
from pacesetter_service.runtime.service import Service, SessionInfo, info_of, infos_of
from pacesetter_service.store.reads import Attempt

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Some sessions, by name, and whether there are more of them."""

    sessions: list[SessionInfo]
    more: bool


async def read_session(service: Service, name: str) -> SessionInfo:
    """Return a session.

    Raises:
        SessionNotFoundError: There is none of that name.
    """
    stored = (await service.writer.find(name)).stored
    info = info_of(service, stored)
    if info.state == "silent":  # here; who is heard needs no look at the database
        [info] = await in_thread(infos_of, service, [stored])
    return info


async def list_sessions(
    service: Service,
    show: Callable[[SessionPage], T],
    *,
    after: str,
    limit: int,
    status: str | None,
    label: tuple[str, str] | None,
    names: NameScope,
) -> T:
    """Return what is shown of a page of sessions.

    Args:
        service: The service.
        show: Makes the answer of the page, where the sessions are read.
        after: Only those whose names come after this one.
        limit: The most sessions.
        status: Only those of this status; None for all.
        label: Only those with this label and value; None for all.
        names: Only those that the caller may speak of.

    Raises:
        BusyError: Too many costly answers are being made already.
    """

    def answer(check: Check) -> T:
        page = service.store.page(
            after=after, limit=limit + 1, status=status, label=label, names=names
        )
        found = infos_of(service, checked(page, check))
        return show(SessionPage(found[:limit], len(found) > limit))

    return await service.reads.run(answer)


async def list_attempts(service: Service, name: str) -> list[Attempt]:
    """Return the attempts of a session; the first one began with it.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    stored = (await service.writer.find(name)).stored
    return await in_thread(service.store.attempts_of, stored)


async def list_orders(service: Service, name: str) -> tuple[Order, ...]:
    """Return the orders of a session that wait to be carried out, by step.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    return (await service.writer.find(name)).stored.session.orders.waiting
