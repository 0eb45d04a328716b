"""HTTP: one lasting connection pool, every exchange bounded in time and size, retries.

Everything that `send` sends is idempotent, so a request whose fate is unknown may always be sent
again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import ssl
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import httpx

from pacesetter._bounded import Bounded
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
from pacesetter._errors import (
    AuthenticationError,
    ForeignAnswerError,
    PacesetterError,
    ServerError,
    TransportError,
)
from pacesetter._fork import renew_in_child
from pacesetter._plain import encoded
from pacesetter._retry import Spell, delays

T = TypeVar("T")

# What trying again may cure.
AWAY: tuple[type[PacesetterError], ...] = (TransportError, ServerError)
# Seconds beyond its limit that an exchange gets to end by itself, with a better error.
GRACE = 0.1
# The number of abandoned exchanges that may hang before their connections are cut.
MOST_LEFT = 8


class Transport(Endpoint):
    """Sends requests to one server, and retries while it is away.

    Args:
        url: Base address, `http://` or `https://`.
        timeout: Seconds that one exchange may take, answer included.
        token: The access token; without one that of `PACESETTER_TOKEN`, or of the file that
            `PACESETTER_TOKEN_FILE` names, if one of them is set.
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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, timeout=timeout, token=token, direct=transport is not None)
        self.custom = transport
        self._cuts = 0
        self._inherited: list[httpx.BaseTransport] = []
        self._open()
        renew_in_child(self)

    def _open(self) -> None:
        self._bounded: Bounded[bytes] = Bounded()
        self._pool = self.custom or _network(self.url, self._proxy)
        self._closer = weakref.finalize(self, self._pool.close)

    def after_fork(self) -> None:
        """Open a new pool for the child; keep the parent's, which closing would disturb."""
        self._closer.detach()
        self._inherited.append(self._pool)
        self._open()

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        self._cuts += 1
        self._closer()

    def json(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        wait: float = 0.0,
        trains: bool = False,
    ) -> dict[str, Any]:
        """Send a request and read the JSON object that answers it.

        Args:
            method: See `send`, also for all arguments up to `wait`.
            path: See there.
            body: See there.
            params: See there.
            wait: See there.
            trains: Whether to retry as `ask` does.
        """
        reads = functools.partial(self._object, f"{method} {path}")
        if trains:
            return self.ask(reads, method, path, body=body, params=params, wait=wait)
        return reads(self.send(method, path, body=body, params=params, wait=wait))

    def _object(self, call: str, content: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(content) if content else {}
        except (ValueError, RecursionError) as error:
            raise self._strange(f"{call}: the answer is not JSON ({error})") from error
        if not isinstance(answer, dict):
            raise self._strange(f"{call}: the answer is no JSON object")
        return answer

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        accept: str = "application/json",
        max_bytes: int = MAX_JSON,
        wait: float = 0.0,
        timeout: float | None = None,
    ) -> bytes:
        """Send a request, and retry for `wait` seconds while the server is away.

        Args:
            method: The HTTP method.
            path: Below the base address, with its leading slash.
            body: Sent as JSON.
            params: The query; None values are left out.
            headers: Besides those that every request has.
            accept: The media type wanted.
            max_bytes: The largest answer that is read.
            wait: Seconds for which to retry; 0 tries once.
            timeout: Seconds that this exchange may take; by default as for every exchange.

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

        def exchange(limit: float) -> bytes:
            return self._admitted(limit, request, max_bytes)

        most = self.timeout if timeout is None else timeout
        return self._retried(exchange, request, most, wait, AWAY)

    def ask(
        self,
        reads: Callable[[bytes], T],
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        accept: str = "application/json",
        max_bytes: int = MAX_JSON,
        wait: float = 0.0,
    ) -> T:
        """Send a request as `send` does, and retry also while the answers are not Pacesetter's.

        To a training, a proxy's page or redirect is an outage like any other.

        Args:
            reads: Reads the body of a 2xx answer.
            method: See `send`, also for all other arguments.
            path: See there.
            body: See there.
            params: See there.
            accept: See there.
            max_bytes: See there.
            wait: See there.

        Returns:
            What was read.

        Raises:
            TransportError: The one try failed.
            ForeignAnswerError: The answer to the one try is not Pacesetter's.
            ServerUnavailableError: All tries in `wait` seconds failed.
            APIError: The server answered with a problem that retrying cannot cure.
        """
        request = self._prepared(
            method, path, body=body, params=params, headers=None, accept=accept
        )

        def exchange(limit: float) -> T:
            return reads(self._admitted(limit, request, max_bytes))

        return self._retried(exchange, request, self.timeout, wait, (*AWAY, ForeignAnswerError))

    def _retried(
        self,
        exchange: Callable[[float], T],
        request: httpx.Request,
        timeout: float,
        wait: float,
        cured: tuple[type[PacesetterError], ...],
    ) -> T:
        """Do an exchange, and repeat it for `wait` seconds while it raises what that may cure."""
        outage = Spell(self.url, wait)
        for delay in delays():
            limit = outage.limit(timeout)
            # A server that holds a call must answer in time; half is left for the network.
            request.headers["prefer"] = f"wait={limit / 2:.2f}"
            try:
                answer = exchange(limit)
            except cured as error:
                if wait <= 0:
                    raise
                time.sleep(outage.pause(delay, error))
            else:
                outage.over()
                return answer
        raise AssertionError  # pragma: no cover - the delays never end

    def send_once(
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

        def exchange() -> bytes:
            with self.stream(
                method,
                path,
                content=iter((content,)),
                headers={**described, **headers},
                accept="application/json",
                silence=self.timeout,
            ) as pieces:
                whole = bytearray()
                for piece in pieces:
                    self._append(whole, piece, deadline)
                return bytes(whole)

        try:
            return self._bounded.within(self.timeout + GRACE, exchange)
        except TimeoutError:
            raise self._late(self.timeout) from None

    def _admitted(self, seconds: float, request: httpx.Request, max_bytes: int) -> bytes:
        """Do an exchange; if the token is refused and its file holds a new one, retry with that.

        Raises:
            TransportError: It takes longer, or too many that took longer still hang.
            AuthenticationError: The token is not valid, and there is no other one.
        """
        try:
            return self._within(seconds, request, max_bytes)
        except AuthenticationError as error:
            if not self._has_newer_token(request, error):
                raise
        return self._within(seconds, self._signed(request), max_bytes)

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        content: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        accept: str,
        silence: float,
    ) -> Iterator[Iterator[bytes]]:
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
            with contextlib.ExitStack() as open_:
                pool = open_.enter_context(self._connections(repeatable=content is None))
                try:
                    response = self._opened(request, silence, pool, open_)
                except AuthenticationError as error:
                    # A body that was sent in part cannot be sent again; the next call has the newer
                    # token.
                    if not self._has_newer_token(request, error) or content is not None:
                        raise
                    response = self._opened(self._signed(request), silence, pool, open_)
                assert isinstance(response.stream, httpx.SyncByteStream)  # noqa: S101 - for the checker
                yield iter(response.stream)
        except httpx.TransportError as error:
            raise self._failure(error) from None

    def _opened(
        self,
        request: httpx.Request,
        silence: float,
        pool: httpx.BaseTransport,
        open_: contextlib.ExitStack,
    ) -> httpx.Response:
        """Return a successful answer, which stays open as long as the exit stack."""
        response = open_.enter_context(self._answered(request, silence, pool))
        if not response.is_success:
            self._checked(response, _read(response, MAX_JSON, time.monotonic() + silence))
        check_encoding(response)
        check_kind(response)
        return response

    @staticmethod
    def trusted() -> ssl.SSLContext:
        """Return the certificate authorities that connections are verified with."""
        return httpx.create_ssl_context()

    def headers(self, path: str) -> dict[str, str]:
        """Return the headers of the answer to a GET, each name in lower case.

        Raises:
            TransportError: The connection could not be made, or was lost.
        """
        request = self._request("GET", path, None, {"accept": "*/*"}, None)
        try:
            with self._answered(request, self.timeout, self._pool) as response:
                return dict(response.headers)
        except httpx.TransportError as error:
            raise self._failure(error) from None

    def _connections(self, *, repeatable: bool) -> AbstractContextManager[httpx.BaseTransport]:
        """Return the connections for a request: new ones, if its body can be read only once.

        A kept-alive connection may be closed as it is used, and such a request cannot be sent
        again.
        """
        if repeatable or self.custom is not None:
            return contextlib.nullcontext(self._pool)
        return contextlib.closing(_network(self.url, self._proxy))

    def _within(self, seconds: float, request: httpx.Request, max_bytes: int) -> bytes:
        """Do an exchange within a number of seconds, whatever the network does.

        Raises:
            TransportError: It takes longer, or too many that took longer still hang.
        """
        if self._bounded.left() >= MOST_LEFT:
            self._cuts += 1
            self._pool.close()  # the exchanges end at their next byte, or at the time limit for one
            raise TransportError(
                f"{MOST_LEFT} requests to {self.url} still hang after they were given up: see what "
                "stands between"
            )
        try:
            return self._bounded.within(
                seconds + GRACE, functools.partial(self._exchange, request, max_bytes, seconds)
            )
        except TimeoutError:
            raise self._late(seconds) from None

    def _exchange(self, request: httpx.Request, max_bytes: int, limit: float) -> bytes:
        deadline = time.monotonic() + limit
        try:
            with self._answered(request, limit, self._pool) as response:
                # A refusal of many reports is larger than any answer to them.
                largest = max_bytes if response.is_success else max(max_bytes, MAX_JSON)
                content = _read(response, largest, deadline)
        except httpx.ReadTimeout:
            raise self._late(limit) from None
        except httpx.TransportError as error:
            raise self._failure(error) from None  # its cause repeats the text, five levels deep
        finally:
            if self._closed:  # closed meanwhile: what this has opened is closed here or never
                self._pool.close()
        return self._checked(response, content)

    @contextlib.contextmanager
    def _answered(
        self, request: httpx.Request, limit: float, pool: httpx.BaseTransport
    ) -> Iterator[httpx.Response]:
        """Hold the answer to a request, without its body, and release its connection at the end."""
        cuts = self._cuts
        response = self._answer(request, limit, pool)
        try:
            yield response
        finally:
            response.close()
            if cuts != self._cuts:  # a closed pool forgets what was just connecting
                _disconnect(response)

    def _answer(
        self, request: httpx.Request, limit: float, pool: httpx.BaseTransport
    ) -> httpx.Response:
        """Return the answer to a request, without its body.

        The other side may close a kept-alive connection at the very moment that it is used. So a
        request that failed on one is immediately sent on another.
        """
        deadline = time.monotonic() + limit
        while True:
            left = max(deadline - time.monotonic(), LEAST_TIMEOUT)
            timeout = httpx.Timeout(left, connect=min(left, CONNECT_TIMEOUT))
            # Each try has its own: an abandoned one still reads its extensions.
            tried = Trace()
            request.extensions = {"timeout": timeout.as_dict(), "trace": tried}
            try:
                response = pool.handle_request(request)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                if not tried.on_kept_connection or time.monotonic() >= deadline:
                    raise
            else:
                response.request = request
                return response


def _network(url: str, proxy: str | None) -> httpx.BaseTransport:
    try:
        return httpx.HTTPTransport(verify=checked_by(url), proxy=proxy, limits=KEPT)
    except ImportError as error:
        raise without_socks() from error


def _disconnect(response: httpx.Response) -> None:
    """Close the connection of an answer, whether its pool still knows it or not."""
    stream = response.extensions.get("network_stream")  # a custom transport may have none
    if stream is not None:
        stream.close()


def _read(response: httpx.Response, max_bytes: int, deadline: float) -> bytes:
    """Return the body as received: without decompression, so that its size is what was counted."""
    assert isinstance(response.stream, httpx.SyncByteStream)  # noqa: S101 - for the type checker
    chunks: list[bytes] = []
    size = 0
    refuse_if_too_large(response, max_bytes)
    for chunk in response.stream:
        size += len(chunk)
        if size > max_bytes:
            raise too_large(response, max_bytes)
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer came too slowly", request=response.request)
        chunks.append(chunk)
    return b"".join(chunks)
