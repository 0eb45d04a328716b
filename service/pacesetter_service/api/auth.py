"""Who calls: every request passes here before anything looks at it, and is denied by default."""

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
"""Where a request that was let in has its caller's role."""

SCOPE = "pacesetter.scope"
"""Where it has the names that its caller may speak of."""

BOUNDS = "pacesetter.bounds"
"""Where it has what its caller may order at most, if that has bounds."""

STORED_AFTER = 1.0
"""Seconds after which the use of a token is stored, with all that were noted meanwhile."""

HOLDER = "pacesetter.holder"
"""Where it has the id of its caller's token; empty for the service's own."""

CUT_OFF = b": this token is not valid any more\n\n"
"""The last that a feed says to who has lost the right to it; a comment."""


class Guard:
    """ASGI middleware that lets those pass whose token has the role that their call takes.

    What it passes on carries no secret any more, and names its author in the header
    Pacesetter-Actor: code behind the guard may believe that header.
    """

    def __init__(
        self, app: ASGIApp, keys: Keyring, store_uses: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Guard an application.

        Args:
            app: What is guarded.
            keys: The tokens that are valid.
            store_uses: Stores what the keys have noted of their uses.
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
        else:  # nothing here speaks anything else
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
        """Store together what is noted within a moment: no caller waits for it."""
        try:
            await asyncio.sleep(STORED_AFTER)
            await self._store_uses()
        finally:
            self._storing = None

    def _cut_off(self, send: Send, secret: bytes) -> Send:
        """End a feed, which has no end of its own, once its reader's token is worth nothing."""
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
            # The feed goes when it sees that its reader has gone; what it still says is unheard.
            if not over:
                await send(message)

        return watched


def _secret(scope: Scope) -> bytes:
    """Return what a request says that it is let in for.

    Raises:
        UnauthenticatedError: It says nothing, or two things.
    """
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, secret = found[0].partition(b" ") if len(found) == 1 else (b"", b"", b"")
    if scheme.lower() != b"bearer":
        raise UnauthenticatedError
    return bytes(secret.strip(b" "))


def _signed(scope: Scope, caller: Token) -> Scope:
    """Return a request without its secret, and in its caller's name.

    Raises:
        ActorRefusedError: It is in the name of another caller.
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
    """Refuse a call about a name that its caller may not speak of, before anything looks for it.

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
        NotAllowedError: They do not.
    """
    word = word_of(method, path)
    if word is None:
        raise NotAllowedError(None, bounds.actions)
    if word:
        refuse_kind(bounds, word)


def bounds_of(scope: Scope) -> Bounds | None:
    """Return what the caller of a request may order at most; None for whatever its role may."""
    found: Bounds | None = scope.get(BOUNDS)
    return found


def scope_of(scope: Scope) -> NameScope:
    """Return the names that the caller of a request may speak of."""
    found: NameScope = scope.get(SCOPE, EVERYTHING)  # there is none where authentication is off
    return found


def refuse_name(names: NameScope, name: str, *field: str) -> None:
    """Refuse a name that a caller may not speak of, and that stands in some field.

    Raises:
        OutOfScopeError: It is outside the caller's scope.
    """
    if not names.holds(name):
        raise OutOfScopeError(name, names.patterns).about(*field)


def refuse_below(needed: Role, scope: Scope) -> None:
    """Refuse what takes more than its call does, because of what its body asks for.

    Raises:
        ForbiddenError: The caller's role is not enough.
    """
    role = scope.get(ROLE)  # there is none where authentication is off
    if role is not None and not includes(role, needed):
        raise ForbiddenError(role, needed)
