"""How the dashboard retries where other writers come first, as on a loaded machine."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pacesetter_service.core.errors import ConflictError, SessionNotFoundError
from pacesetter_service.dashboard import persistence


def failing(times: int, error: Exception) -> tuple[Callable[[], Awaitable[str]], list[int]]:
    """Return a change that fails that many times, and the list of its tries."""
    tries: list[int] = []

    async def change() -> str:
        tries.append(len(tries))
        if len(tries) <= times:
            raise error
        return "done"

    return change, tries


def test_a_change_is_repeated_until_it_is_kept() -> None:
    """A visitor who pressed once is not asked to press again."""
    change, tries = failing(len(persistence.PAUSES), ConflictError(["vit"]))
    assert asyncio.run(persistence.persistently(change)) == "done"
    assert len(tries) == len(persistence.PAUSES) + 1


def test_what_is_refused_is_not_repeated() -> None:
    """Only a conflict is, and that not for ever."""
    change, tries = failing(1, SessionNotFoundError("vit"))
    with pytest.raises(SessionNotFoundError):
        asyncio.run(persistence.persistently(change))
    assert len(tries) == 1
    change, _ = failing(1000, ConflictError(["vit"]))
    with pytest.raises(ConflictError):
        asyncio.run(persistence.persistently(change))
