"""What endpoints need from the app, defined once as annotated types."""

from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request

from pacesetter_service.api.auth import bounds_of, scope_of
from pacesetter_service.core.bounds import Bounds
from pacesetter_service.core.model import MAX_STEP, Written
from pacesetter_service.core.tokens import NameScope
from pacesetter_service.runtime.service import Service as UseCases


async def _service(request: Request) -> UseCases:
    service: UseCases = request.app.state.service
    return service


Service = Annotated[UseCases, Depends(_service)]


async def _names(request: Request) -> NameScope:
    return scope_of(request.scope)


Names = Annotated[NameScope, Depends(_names)]
"""The names that the caller may use."""


async def _bounds(request: Request) -> Bounds | None:
    return bounds_of(request.scope)


OrderBounds = Annotated[Bounds | None, Depends(_bounds)]
"""The bounds on the caller's orders; None for whatever its role allows."""

Actor = Annotated[
    str,
    Written(
        r"^[\x20-\x7e]{0,128}$", "Write at most 128 characters of ASCII, all of them printable"
    ),
    Header(
        alias="Pacesetter-Actor",
        description="who orders this, for the record; who has a token is named by that",
    ),
]

AttemptQuery = Annotated[
    int | None, Query(ge=1, le=MAX_STEP, description="an earlier attempt; without it the newest")
]

Label = Annotated[
    str,
    Written(
        r"^[^:=]{1,64}:.{0,256}$",
        "Write a label as `name:value`, with a colon, such as team:vision",
    ),
]
"""A label by which sessions are filtered."""

SessionName = Annotated[str, Path(description="The session's name.")]
