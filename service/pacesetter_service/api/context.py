"""What endpoints need from the app, named once as annotated types."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Path, Request
from prometheus_client import CollectorRegistry

from pacesetter_service.api.auth import Keyring
from pacesetter_service.fleet import Fleet
from pacesetter_service.ledger import Ledger
from pacesetter_service.storage.store import Store


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of the service that endpoints talk to; without keys it asks nobody who they are."""

    store: Store
    ledger: Ledger
    fleet: Fleet
    metrics: CollectorRegistry
    keys: Keyring | None = None


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
        description="who orders this, for the record; who has a token is named by that",
    ),
]

SessionName = Annotated[str, Path(description="The session's name.")]
