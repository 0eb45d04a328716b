"""A feed ends with its reader, at whatever moment that is.

If its cancellation were swallowed, the feed would go on reading the database without a reader.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.queries import events, feed
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.signals import Signals
from pacesetter_service.runtime.tasks import ended
from pacesetter_service.runtime.work import Create
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.feed import Wanted
from pacesetter_service.store.sqlite import SqliteStore
from serving import PATIENCE

Feed = Callable[[Service], AsyncGenerator[Any, None]]

TURNS = 60
"""Turns of the event loop after which a reader leaves at the latest: a feed has read by then."""

FEEDS: dict[str, Feed] = {
    "of a session": lambda service: events.follow(service, "run", -1, 1e-9, list),
    "of all": lambda service: feed.follow_all(service, Wanted(), 0, 1e-9, list),
}


async def turns(count: int) -> None:
    """Let the event loop run its ready callbacks `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def over(task: "asyncio.Task[None]") -> bool:
    """Return whether a task ends that was cancelled."""
    done, _ = await asyncio.wait([task], timeout=PATIENCE)
    return bool(done)


@pytest.mark.parametrize("followed", FEEDS.values(), ids=FEEDS)
def test_a_feed_ends_at_whatever_moment_its_reader_leaves(
    tmp_path: Path, followed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cancelled after each number of turns of the loop once, and ends each time."""
    store = SqliteStore(f"sqlite:///{tmp_path / 'own.db'}")
    writer = Writer(store)
    writer.start()
    service = Service.over(store, writer)

    async def at_once(function: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(0)  # in place of a thread, whose time varies
        return function(*args)

    async def read(shown: list[int]) -> None:
        async with aclosing(followed(service)) as pages:
            async for _ in pages:
                shown[0] += 1

    async def scene() -> int:
        await writer.submit(Create(SessionSpec.model_validate({"name": "run", "base_lr": 0.1})))
        shown = [0]
        for count in range(TURNS):
            shown = [0]
            reader = asyncio.create_task(read(shown))
            await turns(count)
            reader.cancel()
            assert await over(reader), f"it goes on, cancelled after {count} turns"
            assert reader.cancelled()
        return shown[0]

    monkeypatch.setattr(events, "in_thread", at_once)
    monkeypatch.setattr(feed, "in_thread", at_once)
    try:
        assert asyncio.run(scene()) > 2, "no feed got to its second wait"
    finally:
        service.close()
        writer.stop()
        store.close()


def test_a_cancellation_that_comes_with_the_news_is_not_lost() -> None:
    """A reader may leave in the very moment in which something happens."""

    async def scene() -> bool:
        signals = Signals()
        waiting = asyncio.create_task(signals.news("run", PATIENCE))
        await turns(3)
        signals.tell("run")
        waiting.cancel()
        await asyncio.wait([waiting])
        return waiting.cancelled()

    assert asyncio.run(scene())


def test_ending_a_task_does_not_lose_the_cancellation_of_the_caller() -> None:
    """The task takes a while to end, and its owner is cancelled meanwhile."""

    async def slow_to_end(go: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await go.wait()

    async def scene() -> tuple[bool, bool]:
        go = asyncio.Event()
        task = asyncio.create_task(slow_to_end(go))
        await turns(1)
        owner = asyncio.create_task(ended(task))
        await turns(3)
        owner.cancel()
        await asyncio.wait([owner])
        go.set()
        await asyncio.wait([task])
        return owner.cancelled(), task.cancelled()

    assert asyncio.run(scene()) == (True, True)
