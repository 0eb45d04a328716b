"""What endpoints need from the app, named once as annotated types."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request

from pacesetter_service.ledger import Ledger
from pacesetter_service.storage.store import Store


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of the service that endpoints talk to."""

    store: Store
    ledger: Ledger


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Service = Annotated[Context, Depends(_context)]

SessionName = Annotated[str, Path(description="The session's name.")]
