"""What every address takes besides its own methods: HEAD where it takes GET, and OPTIONS."""

from collections.abc import Sequence

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacesetter_service.api import problems
from pacesetter_service.api.access import methods_at


def elsewhere(scope: Scope) -> Response:
    """Answer to a method that an address does not take: 405 with those that it does, or 404.

    To OPTIONS, which every address takes, it answers with these as well.
    """
    methods = methods_at(scope["path"])
    if scope["method"] == "OPTIONS" and methods:
        return Response(status_code=204, headers={"allow": allowed(methods)})
    return problems.of_nowhere(methods)


def allowed(methods: Sequence[str]) -> str:
    """Write methods as the header `Allow` has them."""
    return ", ".join(methods)


async def answer_head(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a HEAD as its GET is answered, without the body; a body without an end is not begun.

    Args:
        app: Answers the GET.
        scope: The call.
        receive: What its caller still says.
        send: What it is answered.
    """
    over = False

    async def head_only(message: Message) -> None:
        nonlocal over
        if over:
            return
        if message["type"] != "http.response.start":
            over = True  # from here on `receive` says that there is nobody to answer
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)

    await app({**scope, "method": "GET"}, receive, head_only)
