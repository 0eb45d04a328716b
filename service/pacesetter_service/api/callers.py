"""Callers who go away: work for them is abandoned."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from pacesetter_service.runtime.tasks import ended

GONE = 499
"""The recorded status of a call whose caller did not wait for the answer."""

T = TypeVar("T")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what a use case returns, or abandon it once its caller has gone.

    Args:
        request: The call; its body, if it has one, must have been read.
        work: The use case.

    Raises:
        HTTPException: The caller has gone.
        Exception: What the use case raises.
    """
    answer = asyncio.ensure_future(work)
    tasks: list[asyncio.Future[Any]] = [answer]
    try:
        await asyncio.sleep(0)  # work that waits for nothing is done by then
        if not answer.done():
            tasks.append(asyncio.ensure_future(gone(request.receive)))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise HTTPException(GONE)
    finally:
        await ended(*tasks)
        del answer, tasks  # the exception holds this frame


async def answer(
    request: Request, work: Coroutine[Any, Any, bytes], media_type: str = "application/json"
) -> Response:
    """Answer with the bytes that a use case returns, unless its caller has gone."""
    return Response(await unless_gone(request, work), media_type=media_type)


async def gone(receive: Receive) -> None:
    """Wait until the caller has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
