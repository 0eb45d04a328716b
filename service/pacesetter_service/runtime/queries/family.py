"""How a training stands in the family of its template."""

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
    """Return what is shown of a training by its family, for each of its losses.

    Args:
        service: The service.
        name: The session's name.
        show: Makes the answer of it, where it is read.
        names: The sessions that the caller may speak of; others are no members.

    Raises:
        SessionNotFoundError: There is no session of that name.
        BusyError: Too many costly answers are being made already.
    """
    stored = (await service.writer.find(name)).stored
    return await service.reads.run(
        lambda check: show(stored.session, service.families.judged(stored, check, names))
    )
