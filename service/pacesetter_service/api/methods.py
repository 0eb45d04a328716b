"""Methods that every address accepts besides its own: OPTIONS, and HEAD if it accepts GET."""

from collections.abc import Sequence

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacesetter_service.api import problems
from pacesetter_service.api.access import methods_at


def elsewhere(scope: Scope) -> Response:
    """Answer a method that an address does not accept: 405 with those that it does, or 404.

    OPTIONS, which every address accepts, is answered with these methods as well.
    """
    methods = methods_at(scope["path"])
    if scope["method"] == "OPTIONS" and methods:
        return Response(status_code=204, headers={"allow": allowed(methods)})
    return problems.of_nowhere(methods)


def allowed(methods: Sequence[str]) -> str:
    """Return methods in the form of the header `Allow`."""
    return ", ".join(methods)


async def answer_head(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a HEAD as its GET, without the body; an endless body is not begun.

    Args:
        app: Answers the GET.
        scope: The call.
        receive: Receives further messages of its caller.
        send: Sends the answer.
    """
    over = False

    async def head_only(message: Message) -> None:
        nonlocal over
        if over:
            return
        if message["type"] != "http.response.start":
            over = True  # from here on `receive` reports that the caller has gone
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)

    await app({**scope, "method": "GET"}, receive, head_only)
