"""One way to call either client: `AsyncClient`'s awaitables are waited for."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pacesetter import AsyncClient, Client


class Waiting:
    """An `AsyncClient` whose operations return when they are done, as those of `Client` do."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self.client = client
        self._runner = runner

    @property
    def url(self) -> str:
        """The server's address."""
        return self.client.url

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return an operation; one that lists returns the whole list."""
        operation = getattr(self.client, name)

        async def done(asked: Any) -> Any:
            if inspect.isawaitable(asked):
                return await asked
            return [each async for each in asked]

        return lambda *args, **kwargs: self._runner.run(done(operation(*args, **kwargs)))


@contextmanager
def opened(kind: str, url: str, **options: Any) -> Iterator[Any]:
    """Open one of the clients, by the name of its class."""
    if kind == "Client":
        with Client(url, **options) as client:
            yield client
        return
    with asyncio.Runner() as runner:
        client = AsyncClient(url, **options)
        yield Waiting(client, runner)
        runner.run(client.close())


KINDS = ("Client", "AsyncClient")
