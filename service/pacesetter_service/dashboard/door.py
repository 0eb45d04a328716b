"""Access to pages: each page names the role that it requires, and all others are denied."""

import re
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Literal
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacesetter_service.core.tokens import Role, includes
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.visitors import UNKNOWN, VISITOR, Visitor, visitor_with
from pacesetter_service.runtime import visits
from pacesetter_service.runtime.keyring import Keyring

COOKIE = "pacesetter_login"

FEED = b"text/event-stream; charset=utf-8"
"""The media type of the feeds that pages follow."""

CUT_OFF = b": this login is over\n\n"
"""The last line of a feed to a reader whose login has ended; a comment."""

NO_FORM = (
    "A change is made by a form of these pages, and a browser says so in the header Origin."
    " Programs use the API: see /docs."
)

NAME = "pacesetter_name"
"""The cookie with the name of an open service's visitor in the record."""

NAMED = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._@-]{0,62}[A-Za-z0-9])?")

Needed = Role | Literal["public"]


class Door:
    """ASGI middleware that passes on requests whose login has the role that the page requires.

    A change must come from one of our pages: browsers say in Origin where a form was, which was
    checked already (`api/browsers.py`). A request without Origin is not a browser's form.
    """

    def __init__(
        self, app: ASGIApp, keys: Keyring | None, routes: Sequence[tuple[Route, Needed]]
    ) -> None:
        """Guard the pages.

        Args:
            app: The application that shows them.
            keys: The valid tokens; None while authentication is off.
            routes: The role that each page requires.
        """
        self._app = app
        self._keys = keys
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, redirect to the login, or refuse."""
        request = Request(scope)
        visitor = self._visitor(request)
        scope = {**scope, VISITOR: visitor or UNKNOWN}
        answer = self._refusal(Request(scope), visitor)
        if answer is None and self._keys is not None:
            send = self._cut_off(request, send)
        await (answer or self._app)(scope, receive, send)

    def _cut_off(self, request: Request, send: Send) -> Send:
        """End a feed, which has no end of its own, once its reader's login is invalid."""
        feed = over = False

        async def watched(message: Message) -> None:
            nonlocal feed, over
            if message["type"] == "http.response.start":
                feed = (b"content-type", FEED) in message["headers"]
            elif feed and not over and self._visitor(request) is None:
                over = True
                await send({**message, "body": CUT_OFF, "more_body": False})
            if not over:
                await send(message)

        return watched

    def _visitor(self, request: Request) -> Visitor | None:
        if self._keys is None:
            name = request.cookies.get(NAME, "")
            return replace(UNKNOWN, name=name) if NAMED.fullmatch(name) else UNKNOWN
        token = visits.holder(self._keys, request.cookies.get(COOKIE, ""))
        return None if token is None else visitor_with(token)

    def _refusal(self, request: Request, visitor: Visitor | None) -> Response | None:
        """Return the answer instead of the page; None if the page may be shown."""
        needed = self._needed(request.scope)
        if request.method not in ("GET", "HEAD") and not request.headers.get("origin"):
            return site.refusal(request, HTTPStatus.FORBIDDEN, NO_FORM, known=visitor is not None)
        if needed == "public":
            return None
        if visitor is None:
            return _to_login(request)
        said = _denied(visitor, needed, request.scope["path_params"].get("name"))
        return site.refusal(request, HTTPStatus.FORBIDDEN, said) if said else None

    def _needed(self, scope: Scope) -> Needed | None:
        for route, needed in self._routes:
            match, found = route.matches(scope)
            if match == Match.FULL:
                scope["path_params"] = found["path_params"]
                return needed
        scope["path_params"] = {}
        return None


def _denied(visitor: Visitor, needed: Role | None, name: str | None) -> str:
    """Return why a visitor may not see a page about a name; empty if there is no reason."""
    if needed is not None and not includes(visitor.role, needed):
        return (
            f"Your token has the role {visitor.role}; this takes the role {needed}."
            " Log in with another token, or ask an admin for one."
        )
    if name is not None and not visitor.scope.holds(name):
        patterns = ", ".join(visitor.scope.patterns)
        return f"Your token is for the names {patterns}, and not for {name!r}."
    return ""


def _to_login(request: Request) -> Response:
    if request.headers.get("sec-fetch-dest", "document") != "document":  # a script asks
        return Response("Log in again.\n", HTTPStatus.UNAUTHORIZED, media_type="text/plain")
    asked = urlsplit(str(request.url))
    here = asked.path.removeprefix("/") + (f"?{asked.query}" if asked.query else "")
    wanted = {"to": here} if here and request.method == "GET" else {}
    return site.redirect(request, "login", **wanted)
