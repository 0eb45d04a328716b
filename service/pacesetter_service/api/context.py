"""What endpoints need from the app, named once as annotated types."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Path, Request

from pacesetter_service.fleet import Fleet
from pacesetter_service.ledger import Ledger
from pacesetter_service.storage.store import Store


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of the service that endpoints talk to."""

    store: Store
    ledger: Ledger
    fleet: Fleet


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Service = Annotated[Context, Depends(_context)]

Actor = Annotated[
    str,
    Header(
        alias="Pacesetter-Actor",
        max_length=128,
        pattern=r"^[\x20-\x7e]*$",
        description="who orders this, for the record",
    ),
]

SessionName = Annotated[str, Path(description="The session's name.")]
