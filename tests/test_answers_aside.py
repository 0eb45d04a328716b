"""Long answers are made off the event loop, where trainers' calls would have to wait for them."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from pacesetter_service.api import events, feed, global_feed
from pacesetter_service.api.app import create_app
from pacesetter_service.api.feed import Pulse, Readers
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.dashboard import live
from pacesetter_service.dashboard.live import Live
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.work import Create
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.feed import Wanted
from pacesetter_service.store.sqlite import SqliteStore
from pacesetter_service.turns import TURN

Reading = Callable[[Service], Awaitable[None]]


def _get(path: str) -> Reading:
    async def read(service: Service) -> None:
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            answer = await http.get(path)
        assert answer.raise_for_status().json()["events"]

    return read


async def _first_event(frames: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(frames):
        async for frame in frames:
            if b"data: " in frame:
                return


def _live(service: Service) -> Live:
    return Live(service, Pulse(9.0, 9.0), Readers(9))


READINGS: dict[str, Reading] = {
    "a page": _get("/v1/sessions/run/events"),
    "a page of all": _get("/v1/events"),
    "a stream": lambda service: _first_event(feed.frames(service, "run", -1, 9.0)),
    "a stream of all": lambda service: _first_event(global_feed.frames(service, Wanted(), 0, 9.0)),
    "a page's feed": lambda service: _first_event(_live(service)._frames("run", -1)),
    "a page's feed of all": lambda service: _first_event(
        _live(service)._frames_of_all(Wanted(), 0)
    ),
}

WORDED = ((events, "view"), (global_feed, "view"), (feed, "view"), (live, "_frame"))
"""What makes the answers of events, by its module."""


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_answers_of_events_are_made_on_another_thread(
    tmp_path: Path, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may have a thousand of them, and take a tenth of a second."""
    threads: set[threading.Thread] = set()

    def noting(made: Callable[..., Any]) -> Callable[..., Any]:
        def make(*args: Any) -> Any:
            threads.add(threading.current_thread())
            return made(*args)

        return make

    for module, name in WORDED:
        monkeypatch.setattr(module, name, noting(getattr(module, name)))
    store = SqliteStore(f"sqlite:///{tmp_path / 'own.db'}")
    writer = Writer(store)
    writer.start()
    service = Service.over(store, writer)

    async def scene() -> None:
        await writer.submit(Create(SessionSpec.model_validate({"name": "run", "base_lr": 0.1})))
        await reading(service)

    try:
        asyncio.run(scene())
    finally:
        service.close()
        writer.stop()
        store.close()
    assert threads
    assert threading.current_thread() not in threads


def test_threads_of_a_service_take_turns_of_a_millisecond() -> None:
    """With Python's own five, a sync waits long beside any answer that is computed."""
    code = (
        "import sys\n"
        "from pacesetter_service import __main__ as root\n"
        "def served(*_): print(sys.getswitchinterval()); sys.exit()\n"
        "root.logs.configure = served\n"
        "root.main([])\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(TURN, rel=1e-3)
    assert TURN < 0.005
