"""Authentication: every request passes here before anything reads it, and is denied by default."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacesetter_service.api import problems
from pacesetter_service.api.access import access_to, name_in, takes_any_scope, word_of
from pacesetter_service.api.methods import elsewhere
from pacesetter_service.api.places import HEADERS
from pacesetter_service.core.bounds import Bounds, refuse_kind
from pacesetter_service.core.errors import (
    ActorRefusedError,
    ForbiddenError,
    NotAllowedError,
    OutOfScopeError,
    PacesetterError,
    UnauthenticatedError,
)
from pacesetter_service.core.tokens import EVERYTHING, NameScope, Role, Token, includes
from pacesetter_service.runtime.keyring import Keyring

ROLE = "pacesetter.role"
"""The key of the caller's role in an authenticated request's scope."""

SCOPE = "pacesetter.scope"
"""The key of the names that the caller may use."""

BOUNDS = "pacesetter.bounds"
"""The key of the bounds on the caller's orders, if there are any."""

STORED_AFTER = 1.0
"""Seconds after which the use of a token is stored, with all uses noted meanwhile."""

HOLDER = "pacesetter.holder"
"""The key of the id of the caller's token, which is empty for the service's own."""

CUT_OFF = b": this token is not valid any more\n\n"
"""The last line of a feed to a reader whose token has become invalid; a comment."""


class Guard:
    """ASGI middleware that passes on calls whose token has the required role.

    A request that is passed on carries no secret any more, and names its author in the header
    Pacesetter-Actor: code behind the guard may trust that header.
    """

    def __init__(
        self, app: ASGIApp, keys: Keyring, store_uses: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Guard an application.

        Args:
            app: The guarded application.
            keys: The valid tokens.
            store_uses: Stores the uses that the keyring has noted.
        """
        self._app = app
        self._keys = keys
        self._store_uses = store_uses
        self._storing: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 403, 404 or 405."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:  # no other protocol is spoken here
            await send({"type": "websocket.close"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        needed = access_to(method, path)
        if needed == "public":
            await self._app(scope, receive, send)
            return
        try:
            secret = _secret(scope)
            caller = self._holder(secret)
            if needed is not None and not includes(caller.role, needed):
                raise ForbiddenError(caller.role, needed)
            if caller.scope.patterns and needed is not None:
                _refuse_outside(caller.scope, method, path)
            if caller.bounds is not None and needed is not None:
                _refuse_unbounded(caller.bounds, method, path)
            scope = _signed(scope, caller)
        except PacesetterError as error:
            place = {"parameter": HEADERS[str(error.field[0])]} if error.field else None
            await problems.of_error(error, place)(scope, receive, send)
            return
        if needed is None:
            await elsewhere(scope)(scope, receive, send)
            return
        await self._app(scope, receive, self._cut_off(send, secret) if method == "GET" else send)

    def _holder(self, secret: bytes) -> Token:
        caller = self._keys.holder(secret)
        if caller is None:
            raise UnauthenticatedError
        if self._storing is None and self._keys.has_uses:
            self._storing = asyncio.create_task(self._store_soon())
        return caller

    async def _store_soon(self) -> None:
        """Store the uses of a short period together; no caller waits for this."""
        try:
            await asyncio.sleep(STORED_AFTER)
            await self._store_uses()
        finally:
            self._storing = None

    def _cut_off(self, send: Send, secret: bytes) -> Send:
        """End a feed, which has no end of its own, once its reader's token is invalid."""
        feed = over = False

        async def watched(message: Message) -> None:
            nonlocal feed, over
            if message["type"] == "http.response.start":
                feed = any(
                    name == b"content-type" and value.startswith(b"text/event-stream")
                    for name, value in message["headers"]
                )
            elif feed and not over and self._keys.holder(secret) is None:
                over = True
                await send({**message, "body": CUT_OFF, "more_body": False})
            # The feed ends once it sees that its reader has gone; until then, nothing is sent.
            if not over:
                await send(message)

        return watched


def _secret(scope: Scope) -> bytes:
    """Return the secret in a request.

    Raises:
        UnauthenticatedError: There is none, or there are two.
    """
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, secret = found[0].partition(b" ") if len(found) == 1 else (b"", b"", b"")
    if scheme.lower() != b"bearer":
        raise UnauthenticatedError
    return bytes(secret.strip(b" "))


def _signed(scope: Scope, caller: Token) -> Scope:
    """Return a request without its secret, and with its caller as the author.

    Raises:
        ActorRefusedError: It names another caller as the author.
    """
    name, headers = caller.name.encode(), []
    for header in scope["headers"]:
        if header[0] == b"pacesetter-actor":
            if header[1] != name:
                raise ActorRefusedError(caller.name)
        elif header[0] != b"authorization":
            headers.append(header)
    signed = [*headers, (b"pacesetter-actor", name)]
    return {
        **scope,
        "headers": signed,
        ROLE: caller.role,
        SCOPE: caller.scope,
        HOLDER: caller.id,
        BOUNDS: caller.bounds,
    }


def _refuse_outside(names: NameScope, method: str, path: str) -> None:
    """Refuse a call about a name outside of its caller's scope, before anything looks it up.

    Raises:
        OutOfScopeError: It is about such a name, or no table says what it is about.
    """
    name = name_in(path)
    if name is not None:
        refuse_name(names, name)
    elif not takes_any_scope(method, path):
        raise OutOfScopeError(None, names.patterns)


def _refuse_unbounded(bounds: Bounds, method: str, path: str) -> None:
    """Refuse a call that changes something and that the bounds of its caller do not allow.

    Raises:
        NotAllowedError: They do not allow it.
    """
    word = word_of(method, path)
    if word is None:
        raise NotAllowedError(None, bounds.actions)
    if word:
        refuse_kind(bounds, word)


def bounds_of(scope: Scope) -> Bounds | None:
    """Return the bounds on the caller's orders; None for whatever its role allows."""
    found: Bounds | None = scope.get(BOUNDS)
    return found


def scope_of(scope: Scope) -> NameScope:
    """Return the names that the caller of a request may use."""
    found: NameScope = scope.get(SCOPE, EVERYTHING)  # there is none if authentication is off
    return found


def refuse_name(names: NameScope, name: str, *field: str) -> None:
    """Refuse a name in some field if it is outside of the caller's scope.

    Raises:
        OutOfScopeError: It is outside the caller's scope.
    """
    if not names.holds(name):
        raise OutOfScopeError(name, names.patterns).about(*field)


def refuse_below(needed: Role, scope: Scope) -> None:
    """Refuse a body that requires a higher role than its call does.

    Raises:
        ForbiddenError: The caller's role is not sufficient.
    """
    role = scope.get(ROLE)  # there is none if authentication is off
    if role is not None and not includes(role, needed):
        raise ForbiddenError(role, needed)
