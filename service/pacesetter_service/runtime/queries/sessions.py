"""Sessions, their attempts and their pending orders, as they are now."""

from collections.abc import Callable
from typing import TypeVar

from pacesetter_service.core.actions import Order
from pacesetter_service.core.cost import Check
from pacesetter_service.core.session import Session
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.queries.listing import Page, Question, read_page
from pacesetter_service.runtime.service import Service, SessionInfo, info_of, infos_of
from pacesetter_service.store.reads import Attempt

T = TypeVar("T")


async def read_session(service: Service, name: str) -> SessionInfo:
    """Return a session.

    Raises:
        SessionNotFoundError: There is none of that name.
    """
    stored = (await service.writer.find(name)).stored
    info = info_of(service, stored)
    if info.state == "silent":  # silent here; a session that is heard needs no look at the database
        [info] = await in_thread(infos_of, service, [stored])
    return info


async def list_sessions(
    service: Service, question: Question, show: Callable[[Page[SessionInfo]], T]
) -> T:
    """Return what `show` makes of a page of sessions.

    Args:
        service: The service.
        question: Which sessions, and which page.
        show: Makes the answer from the page, on the thread that reads the sessions.

    Raises:
        BusyError: Too many costly answers are being prepared already.
    """

    def answer(check: Check) -> T:
        return show(read_page(service, question, lambda rows: infos_of(service, rows), check))

    return await service.reads.run(answer)


async def list_attempts(service: Service, name: str) -> list[Attempt]:
    """Return the attempts of a session; the first one began with it.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    stored = (await service.writer.find(name)).stored
    return await in_thread(service.store.attempts_of, stored)


async def list_kin(service: Service, name: str, most: int) -> list[Session]:
    """Return sessions that share steps with one, such as its forks, newest first.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    stored = (await service.writer.find(name)).stored
    return [each.session for each in await in_thread(service.store.kin, stored, most)]


async def list_orders(service: Service, name: str) -> tuple[Order, ...]:
    """Return the pending orders of a session, by step.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    return (await service.writer.find(name)).stored.session.orders.waiting
