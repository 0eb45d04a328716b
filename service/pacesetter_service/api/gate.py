"""The gate before all endpoints: bodies must be JSON, and of a bounded size.

One address takes lines of JSON, and larger bodies. Requiring such a media type also keeps a web
page that a user visits from posting to a service on the user's machine: browsers let pages send
other types across origins without a preflight request.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacesetter_service.api import problems
from pacesetter_service.api.access import route_of

IMPORT_PATH = "/v1/import"

LINES = "application/x-ndjson"
"""The media type of lines of JSON."""


class Gate:
    """ASGI middleware that refuses bodies of another type, and those that are too large."""

    def __init__(self, app: ASGIApp, max_body_size: int, max_import_size: int = 0) -> None:
        self._app = app
        self._limit = max_body_size
        self._import_limit = max_import_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413 or 415."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS", "DELETE"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        lines = scope["path"] == IMPORT_PATH
        limit = self._import_limit if lines else self._limit
        if not length.isdigit() or int(length) > limit:
            await problems.of_http_error(_too_large(limit, lines=lines))(scope, receive, send)
            return
        media_type = headers.get(b"content-type", b"")
        # Nearly every call says exactly this, and needs no parsing.
        if lines or media_type != b"application/json":
            media_type = _media_type(media_type)
        if lines and media_type != LINES.encode():
            await problems.of_other_media_type(LINES)(scope, receive, send)
            return
        if not lines and media_type != b"application/json":
            # An address that does not exist accepts no media type: 404 comes first.
            taken = route_of(scope["method"], scope["path"]) is not None
            await (problems.of_http(415) if taken else self._app)(scope, receive, send)
            return
        if b"transfer-encoding" in headers:  # its length is unknown in advance
            receive = _limited(receive, _too_large(limit, lines=lines), limit)
        await self._app(scope, receive, send)


def _limited(receive: Receive, error: Exception, limit: int) -> Receive:
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise error
        return message

    return limited


def _too_large(limit: int, *, lines: bool) -> problems.TooLargeError:
    setting = "PACESETTER_MAX_IMPORT_SIZE" if lines else "PACESETTER_MAX_BODY_SIZE"
    return problems.TooLargeError(limit, setting)


def _media_type(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0].strip().lower()
