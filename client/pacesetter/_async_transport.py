"""Non-blocking HTTP: what `_transport` does, for tasks that share a thread with others.

Requests, bounds, retries and errors are the same, but an exchange is cut off by cancelling it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Mapping
from typing import Any

import httpx

from pacesetter._endpoint import (
    CONNECT_TIMEOUT,
    KEPT,
    LEAST_TIMEOUT,
    MAX_JSON,
    Endpoint,
    Trace,
    check_encoding,
    check_kind,
    checked_by,
    refuse_if_too_large,
    too_large,
    without_socks,
)
from pacesetter._errors import AuthenticationError, ServerError, TransportError
from pacesetter._plain import encoded
from pacesetter._retry import Spell, delays

GRACE = 0.1
"""Seconds beyond its limit that an exchange gets to end by itself, with a better error."""


class AsyncTransport(Endpoint):
    """Sends requests to one server, and retries while it is away, without blocking other tasks.

    Args:
        url: Base address, `http://` or `https://`.
        timeout: Seconds that one exchange may take, answer included.
        token: The access token, found as `Transport` finds it.
        transport: An httpx transport in place of the network, for tests and special wiring.

    Raises:
        ValueError: An argument, or the proxy that the environment names, cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        token: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, timeout=timeout, token=token, direct=transport is not None)
        self.custom = transport
        self._pool: httpx.AsyncBaseTransport = transport or _network(self.url, self._proxy)
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None

    async def close(self) -> None:
        """Close every connection; an event loop that has ended has closed its own."""
        self._closed = True
        if self._loop is None or self._loop() is asyncio.get_running_loop():
            await self._pool.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        accept: str = "application/json",
        wait: float = 0.0,
    ) -> bytes:
        """Send a request, and retry for `wait` seconds while the server is away.

        Args:
            method: The HTTP method.
            path: Below the base address, with its leading slash.
            body: Sent as JSON.
            params: The query; None values are left out.
            headers: Besides those that every request has.
            accept: The media type wanted.
            wait: Seconds for which to retry; 0 tries once.

        Returns:
            The body of a 2xx answer.

        Raises:
            TransportError: The one try failed.
            ServerUnavailableError: All tries in `wait` seconds failed.
            APIError: The server answered with a problem that retrying cannot cure.
            InvalidAnswerError: The answer is too large, compressed, or a redirect.
        """
        request = self._prepared(
            method, path, body=body, params=params, headers=headers, accept=accept
        )
        outage = Spell(self.url, wait)
        for delay in delays():
            limit = outage.limit(self.timeout)
            request.headers["prefer"] = f"wait={limit / 2:.2f}"
            try:
                content = await self._admitted(limit, request)
            except (TransportError, ServerError) as error:
                if wait <= 0:
                    raise
                await asyncio.sleep(outage.pause(delay, error))
            else:
                outage.over()
                return content
        raise AssertionError  # pragma: no cover - the delays never end

    async def send_once(
        self, method: str, path: str, *, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> bytes:
        """Send a JSON request that must reach the server only once, and return the answer.

        Raises:
            TransportError: The connection could not be made, was lost at an unknown moment, or the
                answer did not come in time.
            APIError: The server answered with a problem.
            ForeignAnswerError: The answer has no end.
        """
        deadline = time.monotonic() + self.timeout
        content = encoded(body)
        described = {"content-type": "application/json", "content-length": str(len(content))}

        async def pieces_of_it() -> AsyncIterator[bytes]:
            yield content

        async def exchange() -> bytes:
            async with self.stream(
                method,
                path,
                content=pieces_of_it(),
                headers={**described, **headers},
                accept="application/json",
                silence=self.timeout,
            ) as pieces:
                whole = bytearray()
                async for piece in pieces:
                    self._append(whole, piece, deadline)
                return bytes(whole)

        return await self._in_time(self.timeout, exchange())

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        content: AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        accept: str,
        silence: float,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send a request once, and read its answer piece by piece, however long it is.

        Args:
            method: The HTTP method.
            path: Below the base address, with its leading slash.
            content: The body; its type and, if known, its length are in `headers`.
            headers: Besides those that every request has.
            params: The query; None values are left out.
            accept: The media type wanted.
            silence: Seconds without a byte after which the connection is given up.

        Raises:
            TransportError: The connection could not be made, or was lost.
            APIError: The server answered with a problem.
        """
        sent = {"accept": accept, **(headers or {})}
        request = self._request(method, path, params, sent, content)
        try:
            async with contextlib.AsyncExitStack() as open_:
                pool = self._connections()
                if content is not None and self.custom is None:  # it can be sent only once
                    pool = _network(self.url, self._proxy)
                    open_.push_async_callback(pool.aclose)
                try:
                    response = await self._opened(request, silence, pool, open_)
                except AuthenticationError as error:
                    if not self._has_newer_token(request, error) or content is not None:
                        raise
                    response = await self._opened(self._signed(request), silence, pool, open_)
                assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - for the checker
                yield aiter(response.stream)
        except httpx.TransportError as error:
            raise self._failure(error) from None

    def _connections(self) -> httpx.AsyncBaseTransport:
        """Return the connections of the running event loop: those of another cannot be used."""
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop() is not loop:
            if self._loop is not None and self.custom is None:
                self._pool = _network(self.url, self._proxy)
            self._loop = weakref.ref(loop)
        return self._pool

    async def _admitted(self, seconds: float, request: httpx.Request) -> bytes:
        """Do an exchange; if the token is refused and its file holds a new one, retry with that."""
        try:
            return await self._within(seconds, request)
        except AuthenticationError as error:
            if not self._has_newer_token(request, error):
                raise
        return await self._within(seconds, self._signed(request))

    async def _within(self, seconds: float, request: httpx.Request) -> bytes:
        """Do an exchange within a number of seconds, whatever the network does."""
        return await self._in_time(seconds, self._exchange(request, seconds))

    async def _in_time(self, seconds: float, work: Coroutine[Any, Any, bytes]) -> bytes:
        """Return what an exchange brings within a number of seconds, or cancel it."""
        # Before Python 3.12, `asyncio.wait_for` loses a cancellation that comes with the answer.
        exchange = asyncio.ensure_future(work)
        exchange.add_done_callback(_look_at)
        try:
            done, _ = await asyncio.wait([exchange], timeout=seconds + GRACE)
        finally:
            if not exchange.done():
                exchange.cancel()
                await asyncio.wait([exchange])
        try:
            if not done:
                raise self._late(seconds)
            return exchange.result()
        finally:
            del exchange, done  # a failure holds this frame

    async def _exchange(self, request: httpx.Request, limit: float) -> bytes:
        deadline = time.monotonic() + limit
        try:
            response = await _answer(request, limit, self._connections())
            try:
                content = await _read(response, deadline)
            finally:
                await response.aclose()
        except httpx.ReadTimeout:
            raise self._late(limit) from None
        except httpx.TransportError as error:
            raise self._failure(error) from None
        return self._checked(response, content)

    async def _opened(
        self,
        request: httpx.Request,
        silence: float,
        pool: httpx.AsyncBaseTransport,
        open_: contextlib.AsyncExitStack,
    ) -> httpx.Response:
        """Return a successful answer, which stays open as long as the exit stack."""
        response = await _answer(request, silence, pool)
        open_.push_async_callback(response.aclose)
        if not response.is_success:
            self._checked(response, await _read(response, time.monotonic() + silence))
        check_encoding(response)
        check_kind(response)
        return response


def _network(url: str, proxy: str | None) -> httpx.AsyncBaseTransport:
    try:
        return httpx.AsyncHTTPTransport(verify=checked_by(url), proxy=proxy, limits=KEPT)
    except ImportError as error:
        raise without_socks() from error


def _look_at(exchange: asyncio.Future[bytes]) -> None:
    """Look at a failure, so that it is not reported as never retrieved if the caller has gone."""
    if not exchange.cancelled():
        exchange.exception()


async def _answer(
    request: httpx.Request, limit: float, pool: httpx.AsyncBaseTransport
) -> httpx.Response:
    """Return the answer to a request, without its body; resend it if a kept-alive connection fails.

    The other side may close such a connection at the very moment that it is used.
    """
    deadline = time.monotonic() + limit
    while True:
        left = max(deadline - time.monotonic(), LEAST_TIMEOUT)
        timeout = httpx.Timeout(left, connect=min(left, CONNECT_TIMEOUT))
        tried = Trace()
        request.extensions = {"timeout": timeout.as_dict(), "trace": _seen_by(tried)}
        try:
            response = await pool.handle_async_request(request)
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            if not tried.on_kept_connection or time.monotonic() >= deadline:
                raise
        else:
            response.request = request
            return response


def _seen_by(trace: Trace) -> Any:  # noqa: ANN401 - as httpcore wants it
    async def see(event: str, details: Mapping[str, Any]) -> None:
        trace(event, details)

    return see


async def _read(response: httpx.Response, deadline: float) -> bytes:
    """Return the body as received: without decompression, so that its size is what was counted."""
    assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - for the type checker
    refuse_if_too_large(response, MAX_JSON)
    content = bytearray()
    async for chunk in response.stream:
        content += chunk
        if len(content) > MAX_JSON:
            raise too_large(response, MAX_JSON)
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer came too slowly", request=response.request)
    return bytes(content)
