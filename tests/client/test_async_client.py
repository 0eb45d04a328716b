"""What is particular to `AsyncClient`: tasks and loops."""

import asyncio
import copy
import subprocess
import sys

import httpx
import pytest

from little_servers import LittleServer, answer, answering, say_nothing
from pacesetter import AsyncClient, Client


def test_many_calls_are_under_way_at_once(server_url: str, unique_name: str) -> None:
    """Any number of tasks share a client, and so its connections."""

    async def all_at_once() -> list[float]:
        async with AsyncClient(server_url) as client:
            await client.create(unique_name, base_lr=0.5)
            answers = await asyncio.gather(*(client.lr(unique_name, n) for n in range(50)))
            return [each["step"] for each in answers]

    assert asyncio.run(all_at_once()) == list(range(50))


def test_a_client_goes_from_loop_to_loop() -> None:
    """Connections belong to a loop; in another loop new ones are opened."""
    with answering(lambda _: answer(200, b'{"api": "v1"}', connection="close")) as (server, _):
        client = AsyncClient(server.url)
        for _ in range(3):
            assert asyncio.run(_version(client))["api"] == "v1"
        asyncio.run(client.close())


async def _version(client: AsyncClient) -> dict[str, str]:
    return await client.version()


def test_a_call_can_be_cancelled() -> None:
    """The caller is free at once, and the client stays usable."""

    async def cancelled(url: str) -> None:
        async with AsyncClient(url, timeout=3_600) as client:
            task = asyncio.create_task(client.version())
            while not server.connections:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with LittleServer(say_nothing) as server:
        asyncio.run(cancelled(server.url))


def test_a_cancellation_that_comes_with_the_answer_is_not_lost() -> None:
    """A call is cancelled after each number of turns of the loop once, until it is too late."""

    def answered(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"api": "v1"})

    async def cancelled_after(turns: int) -> bool:
        transport = httpx.MockTransport(answered)
        async with AsyncClient("http://server", transport=transport) as client:
            task = asyncio.create_task(client.version())
            for _ in range(turns):
                await asyncio.sleep(0)
            in_time = task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() is in_time, f"after {turns} turns"
            return in_time

    turns = 0
    while asyncio.run(cancelled_after(turns)):
        turns += 1
    assert turns > 2


def test_an_iterator_can_be_left(server_url: str, unique_name: str) -> None:
    """A list that is not read to its end leaves nothing open."""

    async def left() -> None:
        async with AsyncClient(server_url) as client:
            await client.create(unique_name, base_lr=0.5)
            async for info in client.sessions(name=unique_name):
                assert info.name == unique_name
                break
            async for event in client.events(unique_name, follow=True):
                assert event["seq"] == 0
                break

    asyncio.run(left(), debug=True)


def test_copies_are_the_same_client(server_url: str) -> None:
    """It is a handle, as `Client` is."""
    client = AsyncClient(server_url)
    assert copy.deepcopy(client) is client


def test_trainings_need_no_asyncio(server_url: str) -> None:
    """A program that never uses `AsyncClient` does not import what it needs."""
    code = (
        "import sys, pacesetter\n"
        f"pacesetter.Client({server_url!r}).version()\n"
        "assert 'asyncio' not in sys.modules\n"
        "pacesetter.AsyncClient\n"
        "assert 'asyncio' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_both_look_for_the_server_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both read the argument, then `PACESETTER_URL`, then use this machine."""
    monkeypatch.delenv("PACESETTER_URL", raising=False)
    assert AsyncClient().url == Client().url == "http://127.0.0.1:7070"
    monkeypatch.setenv("PACESETTER_URL", "http://pace:1/")
    assert AsyncClient().url == Client().url == "http://pace:1"
