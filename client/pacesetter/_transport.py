"""HTTP: one connection pool for ever, every exchange bounded in time and size, retries.

The only module that knows httpx. Whatever this client sends is idempotent, so a request whose fate
is unknown may always be sent again. The pool is httpx's transport without its `Client`: no redirect
is followed, no cookie kept, no proxy found in the environment, and no line a second written to the
log of a training.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import httpx

from pacesetter._errors import (
    APIError,
    ClosedError,
    InvalidAnswerError,
    PacesetterError,
    ServerError,
    ServerUnavailableError,
    TransportError,
    api_error,
)
from pacesetter._fork import renew_in_child
from pacesetter._retry import delays, retry_after

# The server closes idle connections after 120 s: below that no request meets a dying one.
KEEP_ALIVE = 60.0
MAX_JSON = 32 * 1024 * 1024
CONNECT_TIMEOUT = 3.0
# What an exchange may need beyond its limit to end by itself, with a better error.
GRACE = 0.1

logger = logging.getLogger("pacesetter")


class Transport:
    """Sends requests to one server, and again while it is away.

    Args:
        url: base address, `http://` or `https://`.
        timeout: seconds that one exchange may take, answer included.
        transport: an httpx transport in place of the network, for tests and special wiring.
    """

    def __init__(
        self, url: str, *, timeout: float, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.custom = transport
        _check_url(self.url)
        self._closed = False
        self._inherited: list[httpx.BaseTransport] = []
        self._open()
        renew_in_child(self)

    def _open(self) -> None:
        self._pool = self.custom or httpx.HTTPTransport(
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE)
        )
        self._closer = weakref.finalize(self, self._pool.close)

    def after_fork(self) -> None:
        """Open a pool of the child's own; the parent's is kept, for closing it would disturb it."""
        self._closer.detach()
        self._inherited.append(self._pool)
        self._open()

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        self._closer()

    def json(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        wait: float = 0.0,
    ) -> dict[str, Any]:
        """Send a request and read the JSON object that answers it."""
        content = self.send(method, path, body=body, params=params, wait=wait)
        try:
            answer = json.loads(content) if content else {}
        except (ValueError, RecursionError) as error:
            raise InvalidAnswerError(
                f"{method} {path}: the answer is not JSON ({error}): check that {self.url} is "
                "a Pacesetter server"
            ) from error
        if not isinstance(answer, dict):
            raise InvalidAnswerError(
                f"{method} {path}: the answer is no JSON object: check that {self.url} is "
                "a Pacesetter server"
            )
        return answer

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        accept: str = "application/json",
        max_bytes: int = MAX_JSON,
        wait: float = 0.0,
    ) -> bytes:
        """Send a request, again and again for `wait` seconds while the server is away.

        Args:
            method: the HTTP method.
            path: below the base address, with its leading slash.
            body: sent as JSON.
            params: the query; None values are left out.
            accept: the media type wanted.
            max_bytes: the largest answer that is read.
            wait: seconds for which to retry; 0 tries once.

        Returns:
            The body of a 2xx answer.

        Raises:
            TransportError: the one try failed.
            ServerUnavailableError: all tries in `wait` seconds failed.
            APIError: the server answered with a problem that retrying cannot cure.
            InvalidAnswerError: the answer is too large, or a redirect.
        """
        if self._closed:
            raise ClosedError("the client is closed: make a new one")
        request = self._request(method, path, body, params, accept)
        outage = _Outage(self.url, wait)
        for delay in delays():
            try:
                limit = outage.limit(self.timeout)
                exchange = functools.partial(self._exchange, request, max_bytes, limit)
                content = exchange() if wait <= 0 else self._within(limit, exchange)
            except (TransportError, ServerError) as error:  # noqa: PERF203 - trying again is the point
                if wait <= 0:
                    raise
                time.sleep(outage.pause(delay, error))
            else:
                outage.over()
                return content
        raise AssertionError  # pragma: no cover - the delays never end

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
            method: the HTTP method.
            path: below the base address, with its leading slash.
            content: the body; with its type and, if it is known, its length in `headers`.
            headers: besides those that every request has.
            params: the query; None values are left out.
            accept: the media type wanted.
            silence: seconds without a byte after which the connection is given up.

        Raises:
            TransportError: the connection could not be had, or was lost.
            APIError: the server answered with a problem.
        """
        if self._closed:
            raise ClosedError("the client is closed: make a new one")
        request = self._request(method, path, None, params, accept)
        if content is not None:
            sent = {**request.headers, **(headers or {})}
            request = httpx.Request(method, request.url, content=content, headers=sent)
        elif headers:
            request.headers.update(headers)
        request.extensions["timeout"] = httpx.Timeout(silence, connect=CONNECT_TIMEOUT).as_dict()
        try:
            response = self._pool.handle_request(request)
            response.request = request
            assert isinstance(response.stream, httpx.SyncByteStream)  # noqa: S101 - for the checker
            with contextlib.closing(response):
                if not response.is_success:
                    _checked(response, _read(response, MAX_JSON, time.monotonic() + silence))
                yield iter(response.stream)
        except httpx.TransportError as error:
            raise self._failure(error) from None

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None,
        accept: str,
    ) -> httpx.Request:
        headers = {
            "accept": accept,
            "accept-encoding": "identity",
            "user-agent": "pacesetter-python",
        }
        content = None
        if body is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
        query = {key: value for key, value in (params or {}).items() if value is not None}
        return httpx.Request(
            method, self.url + path, content=content, params=query or None, headers=headers
        )

    def _within(self, seconds: float, exchange: Callable[[], bytes]) -> bytes:
        """Do an exchange in a thread that can be left alone.

        Looking up a name has no time limit, and those of sockets begin again with each byte: only
        so is a trainer's wait bounded whatever the network does.

        Raises:
            TransportError: it takes longer.
        """
        outcome: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()

        def work() -> None:
            try:
                outcome.put(exchange())
            except BaseException as error:
                outcome.put(error)

        try:
            threading.Thread(target=work, name="pacesetter-exchange", daemon=True).start()
        except RuntimeError:  # no more threads, or the interpreter ends
            return exchange()
        try:
            got = outcome.get(timeout=seconds + GRACE)
        except queue.Empty:
            raise TransportError(
                f"no answer from {self.url} in {seconds:.3g} s: see whether it is overloaded, or "
                "what stands between"
            ) from None
        if isinstance(got, BaseException):
            raise got
        return got

    def _exchange(self, request: httpx.Request, max_bytes: int, limit: float) -> bytes:
        request.extensions["timeout"] = httpx.Timeout(
            limit, connect=min(limit, CONNECT_TIMEOUT)
        ).as_dict()
        started = time.monotonic()
        try:
            response = self._pool.handle_request(request)
            response.request = request
            try:
                content = _read(response, max_bytes, started + limit)
            finally:
                response.close()
        except httpx.TransportError as error:
            raise self._failure(error) from None  # its cause repeats the text, five levels deep
        finally:
            if self._closed:  # meanwhile: what this has opened nobody else would close
                self._pool.close()
        return _checked(response, content)

    def _failure(self, error: httpx.TransportError) -> PacesetterError:
        text = str(error) or type(error).__name__
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            return InvalidAnswerError(f"{self.url}: {text}: check the URL")
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return InvalidAnswerError(f"{self.url}: {text}: install the server's certificate")
        return TransportError(
            f"no answer from {self.url} ({text}): start the server with `pacesetter serve`, "
            "or set PACESETTER_URL to where it runs"
        )


class _Outage:
    """One spell of retrying: it has an end, and is logged when it begins and when it is over."""

    def __init__(self, url: str, wait: float) -> None:
        self._url = url
        self._wait = wait
        self._began = time.monotonic()
        self._logged = False

    def limit(self, timeout: float) -> float:
        """Seconds that the next try may take."""
        if self._wait <= 0:
            return timeout
        return min(timeout, max(self._left(), 0.1))

    def pause(self, delay: float, error: PacesetterError) -> float:
        """Seconds to sleep before the next try.

        Raises:
            ServerUnavailableError: there is no time left for another.
        """
        wished = error.retry_after if isinstance(error, APIError) else None
        pause = max(delay, wished or 0.0)
        if self._left() <= 0:
            raise ServerUnavailableError(
                f"{self._url} was away for {self._wait:.3g} s, the longest wait allowed; "
                f"last: {error}"
            ) from error
        if not self._logged:
            self._logged = True
            logger.warning("%s; trying again for up to %.3g s", error, self._wait)
        return min(pause, self._left())

    def over(self) -> None:
        """The server answered."""
        if self._logged:
            logger.warning(
                "%s answers again after %.1f s", self._url, time.monotonic() - self._began
            )

    def _left(self) -> float:
        return self._began + self._wait - time.monotonic()


def _check_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no URL ({error}): write http://host:port") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(f"{url!r} is no URL of a server: write http://host:port")


def _read(response: httpx.Response, max_bytes: int, deadline: float) -> bytes:
    """The body as it came: no decompression, so its size is what was counted."""
    assert isinstance(response.stream, httpx.SyncByteStream)  # noqa: S101 - for the type checker
    chunks: list[bytes] = []
    size = 0
    for chunk in response.stream:
        size += len(chunk)
        if size > max_bytes:
            raise InvalidAnswerError(
                f"{response.request.url}: the answer is larger than the {max_bytes:,} bytes that "
                "can belong to it: check that the URL is Pacesetter's"
            )
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer came too slowly", request=response.request)
        chunks.append(chunk)
    return b"".join(chunks)


def _checked(response: httpx.Response, content: bytes) -> bytes:
    if response.is_success:
        return content
    if response.is_redirect or response.status_code < 400:
        raise InvalidAnswerError(
            f"{response.request.url} answered {response.status_code}: redirects are not followed, "
            "so give the client the final URL"
        )
    raise api_error(response.status_code, content, retry_after(response.headers.get("retry-after")))
