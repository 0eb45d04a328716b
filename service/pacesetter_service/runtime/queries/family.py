"""How a training compares with the family of its template."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from pacesetter_service.core.session import Session
from pacesetter_service.core.tokens import EVERYTHING, NameScope
from pacesetter_service.runtime.families import Kin
from pacesetter_service.runtime.service import Service

T = TypeVar("T")


async def read_family(
    service: Service,
    name: str,
    show: Callable[[Session, Sequence[Kin]], T],
    names: NameScope = EVERYTHING,
) -> T:
    """Return what `show` makes of a training's comparison with its family, by each of its losses.

    Args:
        service: The service.
        name: The session's name.
        show: Makes the answer from the comparison, on the thread that reads it.
        names: The sessions that the caller may see; others are not members.

    Raises:
        SessionNotFoundError: There is no session of that name.
        BusyError: Too many costly answers are being prepared already.
    """
    stored = (await service.writer.find(name)).stored
    return await service.reads.run(
        lambda check: show(stored.session, service.families.judged(stored, check, names))
    )
