"""Tasks that are ended by the one that has begun them."""

import asyncio
from typing import Any


async def ended(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks, and wait until they have ended; their results and failures are ignored.

    Awaiting a cancelled task and suppressing its `CancelledError` would also suppress that of the
    caller, if the caller is cancelled at that moment: it would then go on for ever.

    Raises:
        CancelledError: The caller is cancelled meanwhile.
    """
    for task in tasks:
        task.add_done_callback(_look_at)
        task.cancel()
    if any(not task.done() for task in tasks):
        await asyncio.wait(tasks)


def _look_at(task: "asyncio.Future[Any]") -> None:
    """Look at the failure of a task, so that it is not reported as one that was never retrieved."""
    if not task.cancelled():
        task.exception()
