"""What every request passes first: bodies are JSON and of a bounded size.

Asking for the JSON media type is also what keeps a web page that somebody visits from posting to a
service on their own machine: browsers let pages send other types across origins without asking.
"""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacesetter_service.api import problems


class Gate:
    """ASGI middleware that refuses bodies it would not be wise to read."""

    def __init__(self, app: ASGIApp, max_body_size: int) -> None:
        self._app = app
        self._limit = max_body_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413 or 415."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS", "DELETE"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._limit:
            await problems.of_http(413)(scope, receive, send)
            return
        if not _is_json(headers.get(b"content-type", b"")):
            await problems.of_http(415)(scope, receive, send)
            return
        if b"transfer-encoding" in headers:  # nobody has said how long it will be
            receive = self._limited(receive)
        await self._app(scope, receive, send)

    def _limited(self, receive: Receive) -> Receive:
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limit:
                raise HTTPException(413)
            return message

        return limited


def _is_json(content_type: bytes) -> bool:
    media_type = content_type.partition(b";")[0].strip().lower()
    return media_type == b"application/json"
