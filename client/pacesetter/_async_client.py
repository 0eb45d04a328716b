"""The client for programs that do many things at once in one thread."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

from pacesetter._async_carrying import AsyncCarrying
from pacesetter._async_transport import AsyncTransport
from pacesetter._client import DEFAULT_URL, checked_seconds
from pacesetter._operations import Operations

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11

    import httpx


class AsyncClient(Operations, AsyncCarrying):
    """A connection to a Pacesetter server for `asyncio`: the operations of `Client`, awaited.

    ```python
    async with AsyncClient() as client:
        async for row in client.status(states=["running"]):
            print(row["name"], row["lr"])
        await client.scale("vit-run-42", 0.5, reason="the loss rises")
    ```

    Operations that return a list page by page are iterated with `async for`; all others are
    awaited. Any number of them may run concurrently. Trainings are opened by `Client`: a training
    waits for its steps, and blocks its thread meanwhile.

    Args:
        url: The server's address; without one `PACESETTER_URL`, else `http://127.0.0.1:7070`.
        timeout: Seconds that one exchange may take.
        retry_for: Seconds for which a call is retried while the server is away.
        actor: Who gives the orders made here, for the record; where there is a token, it says so.
        token: The access token, where the server asks for one; without it `PACESETTER_TOKEN`. It
            goes to that address only, and into no log, error or pickle.
        transport: An httpx transport in place of the network, for tests and special wiring.

    Raises:
        ValueError: An argument makes no sense, the URL has a password in it, the token cannot be
            sent, or the environment names an unusable proxy.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 10.0,
        retry_for: float = 30.0,
        actor: str | None = None,
        token: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        url = url or os.environ.get("PACESETTER_URL") or DEFAULT_URL
        self._retry_for = checked_seconds("retry_for", retry_for)
        self.actor = actor
        self._transport = AsyncTransport(url, timeout=timeout, token=token, transport=transport)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.url

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    aclose = close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncClient of {self.url}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> AsyncClient:
        return self  # a handle, as a Client is

    def __reduce__(self) -> tuple[Any, ...]:
        make = functools.partial(  # without the token: pickles are left in files
            AsyncClient,
            timeout=self._transport.timeout,
            retry_for=self._retry_for,
            actor=self.actor,
            transport=self._transport.custom,
        )
        return make, (self.url,)
