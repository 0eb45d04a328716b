"""Retries for a visitor, as the client does them for a program."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pacesetter_service.core.errors import ConflictError

T = TypeVar("T")

PAUSES = (0.1, 0.2, 0.4, 0.8)
"""The longest pauses before each retry, in seconds."""


async def persistently(work: Callable[[], Awaitable[T]]) -> T:
    """Return the result of a change; repeat the change if other writers came first.

    On a loaded machine, a trainer at another replica may come first each time that the writer
    tries. Nothing is kept then, so the change can be repeated.

    Raises:
        ConflictError: Others came first every time.
    """
    for pause in PAUSES:
        try:
            return await work()
        except ConflictError:
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - no secret
    return await work()
