"""HTTP: one connection pool for ever, every exchange bounded in time and size, retries.

The only module that knows httpx. Whatever this client sends is idempotent, so a request whose fate
is unknown may always be sent again. The pool is httpx's transport without its `Client`: no redirect
is followed, so a token goes nowhere else, no cookie is kept, and no line a second is written to the
log of a training.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import ssl
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import httpx

from pacesetter._bounded import Bounded
from pacesetter._errors import (
    APIError,
    AuthenticationError,
    AwaitingMeasurementError,
    ClosedError,
    InvalidAnswerError,
    PacesetterError,
    ServerError,
    ServerUnavailableError,
    TransportError,
    api_error,
    away,
    printable,
)
from pacesetter._fork import renew_in_child
from pacesetter._plain import encoded
from pacesetter._proxy import proxy_for
from pacesetter._retry import delays, retry_after
from pacesetter._token import VARIABLE, Token

# The server closes idle connections after 120 s: below that no request meets a dying one.
KEEP_ALIVE = 60.0
MAX_JSON = 32 * 1024 * 1024
CONNECT_TIMEOUT = 3.0
# What an exchange may need beyond its limit to end by itself, with a better error.
GRACE = 0.1
LONGEST_TIMEOUT = 86_400.0
LEAST_TIMEOUT = 0.001  # 0 would mean to a socket: do not wait at all
# Exchanges that were left alone and still hang, before the connections are cut under them.
MOST_LEFT = 8

logger = logging.getLogger("pacesetter")


class Transport:
    """Sends requests to one server, and again while it is away.

    Args:
        url: Base address, `http://` or `https://`.
        timeout: Seconds that one exchange may take, answer included.
        token: The access token; without one that of `PACESETTER_TOKEN`, or of the file that
            `PACESETTER_TOKEN_FILE` names, if one of them is set.
        transport: An httpx transport in place of the network, for tests and special wiring.

    Raises:
        ValueError: One of them, or the proxy that the environment names, cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        parsed = _checked_url(url)
        if not 0 < timeout <= LONGEST_TIMEOUT:  # refuses NaN too
            raise ValueError(f"timeout={timeout}: give seconds, up to a day of them")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.custom = transport
        self._token = Token.of(token)
        self._proxy = (
            proxy_for(parsed.scheme, parsed.host, parsed.port) if transport is None else None
        )
        self._closed = False
        self._cuts = 0
        self._inherited: list[httpx.BaseTransport] = []
        self._open()
        renew_in_child(self)

    def _open(self) -> None:
        self._bounded: Bounded[bytes] = Bounded()
        self._pool = self.custom or _network(self.url, self._proxy)
        self._closer = weakref.finalize(self, self._pool.close)

    def after_fork(self) -> None:
        """Open a pool of the child's own; the parent's is kept, for closing it would disturb it."""
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
    ) -> dict[str, Any]:
        """Send a request and read the JSON object that answers it."""
        content = self.send(method, path, body=body, params=params, wait=wait)
        try:
            answer = json.loads(content) if content else {}
        except (ValueError, RecursionError) as error:
            raise self._strange(f"{method} {path}: the answer is not JSON ({error})") from error
        if not isinstance(answer, dict):
            raise self._strange(f"{method} {path}: the answer is no JSON object")
        return answer

    def _strange(self, found: str) -> InvalidAnswerError:
        return InvalidAnswerError(f"{found}: check that {self.url} is a Pacesetter server")

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
            method: The HTTP method.
            path: Below the base address, with its leading slash.
            body: Sent as JSON.
            params: The query; None values are left out.
            accept: The media type wanted.
            max_bytes: The largest answer that is read.
            wait: Seconds for which to retry; 0 tries once.

        Returns:
            The body of a 2xx answer.

        Raises:
            TransportError: The one try failed.
            ServerUnavailableError: All tries in `wait` seconds failed.
            APIError: The server answered with a problem that retrying cannot cure.
            InvalidAnswerError: The answer is too large, compressed, or a redirect.
        """
        headers, content = {"accept": accept}, None
        if body is not None:
            headers["content-type"] = "application/json"
            content = encoded(body)
        request = self._request(method, path, params, headers, content)
        outage = _Outage(self.url, wait)
        for delay in delays():
            limit = outage.limit(self.timeout)
            # A server that holds a call is to answer in time; half is left for the way.
            request.headers["prefer"] = f"wait={limit / 2:.2f}"
            try:
                content = self._admitted(limit, request, max_bytes)
            except (TransportError, ServerError) as error:
                if wait <= 0:
                    raise
                time.sleep(outage.pause(delay, error))
            else:
                outage.over()
                return content
        raise AssertionError  # pragma: no cover - the delays never end

    def _admitted(self, seconds: float, request: httpx.Request, max_bytes: int) -> bytes:
        """Do an exchange; if the token is refused and its file has another one, do it with that.

        Raises:
            TransportError: It takes longer, or too many that did still hang.
            AuthenticationError: The token does not hold, and there is no other one.
        """
        try:
            return self._within(seconds, request, max_bytes)
        except AuthenticationError as error:
            if not self._has_newer_token(request, error):
                raise
        return self._within(seconds, self._signed(request), max_bytes)

    def _has_newer_token(self, request: httpx.Request, error: AuthenticationError) -> bool:
        sent = request.headers.get("authorization")
        if error.status != 401 or self._token is None or sent is None:
            return False
        return self._token.is_newer_than(sent)

    def _signed(self, request: httpx.Request) -> httpx.Request:
        if self._token is not None:
            request.headers["authorization"] = self._token.header
        return request

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
            content: The body; with its type and, if it is known, its length in `headers`.
            headers: Besides those that every request has.
            params: The query; None values are left out.
            accept: The media type wanted.
            silence: Seconds without a byte after which the connection is given up.

        Raises:
            TransportError: The connection could not be had, or was lost.
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
                    # What was sent of a body cannot be sent again; the next call has the newer one.
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
        """Return an answer that is one, and stays open as long as the stack."""
        response = open_.enter_context(self._answered(request, silence, pool))
        if not response.is_success:
            self._checked(response, _read(response, MAX_JSON, time.monotonic() + silence))
        _check_encoding(response)
        return response

    @staticmethod
    def trusted() -> ssl.SSLContext:
        """Return the certificate authorities that connections are checked by."""
        return httpx.create_ssl_context()

    def headers(self, path: str) -> dict[str, str]:
        """Return what stands in the head of the answer to a GET, each name in lower case.

        Raises:
            TransportError: The connection could not be had, or was lost.
        """
        request = self._request("GET", path, None, {"accept": "*/*"}, None)
        try:
            with self._answered(request, self.timeout, self._pool) as response:
                return dict(response.headers)
        except httpx.TransportError as error:
            raise self._failure(error) from None

    def _connections(self, *, repeatable: bool) -> AbstractContextManager[httpx.BaseTransport]:
        """Return the connections for a request: new ones, if its body can be read only once.

        A kept connection may be closed as it is used, and such a request cannot be sent again.
        """
        if repeatable or self.custom is not None:
            return contextlib.nullcontext(self._pool)
        return contextlib.closing(_network(self.url, self._proxy))

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        content: bytes | Iterable[bytes] | None,
    ) -> httpx.Request:
        if self._closed:
            raise ClosedError("the client is closed: make a new one")
        sent = {"accept-encoding": "identity", "user-agent": "pacesetter-python", **headers}
        if self._token is not None:
            sent["authorization"] = self._token.header
        query = {key: value for key, value in (params or {}).items() if value is not None}
        return httpx.Request(
            method, self.url + path, content=content, params=query or None, headers=sent
        )

    def _within(self, seconds: float, request: httpx.Request, max_bytes: int) -> bytes:
        """Do an exchange that takes no longer, whatever the network does.

        Raises:
            TransportError: It takes longer, or too many that did still hang.
        """
        if self._bounded.left() >= MOST_LEFT:
            self._cuts += 1
            self._pool.close()  # they end at their next byte, or by the time limit for one
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
            if self._closed:  # meanwhile: what this has opened is closed here or never
                self._pool.close()
        return self._checked(response, content)

    @contextlib.contextmanager
    def _answered(
        self, request: httpx.Request, limit: float, pool: httpx.BaseTransport
    ) -> Iterator[httpx.Response]:
        """Hold the answer to a request, up to its body, and let go of its connection."""
        cuts = self._cuts
        response = self._answer(request, limit, pool)
        try:
            yield response
        finally:
            response.close()
            if cuts != self._cuts:  # a pool that is closed forgets what was connecting just then
                _disconnect(response)

    def _answer(
        self, request: httpx.Request, limit: float, pool: httpx.BaseTransport
    ) -> httpx.Response:
        """Return the answer to a request, up to its body.

        A connection that was kept may be closed by the other side at the moment that it is used: so
        a request that one has failed goes at once to another.
        """
        deadline = time.monotonic() + limit
        while True:
            left = max(deadline - time.monotonic(), LEAST_TIMEOUT)
            timeout = httpx.Timeout(left, connect=min(left, CONNECT_TIMEOUT))
            # Each try has its own: one that was left alone still reads its extensions.
            tried = _Trace()
            request.extensions = {"timeout": timeout.as_dict(), "trace": tried}
            try:
                response = pool.handle_request(request)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                if not tried.on_kept_connection or time.monotonic() >= deadline:
                    raise
            else:
                response.request = request
                return response

    def _checked(self, response: httpx.Response, content: bytes) -> bytes:
        """Return the body of an answer, if it is one.

        Raises:
            APIError: The server answered with a problem.
            InvalidAnswerError: It answered something that is no answer of ours.
        """
        status = response.status_code
        if response.is_success:
            _check_encoding(response)
            return content
        if status < 400:
            raise InvalidAnswerError(
                f"{response.request.url} answered {status}: redirects are not followed, "
                "so give the client the final URL"
            )
        if self._token is not None:
            sent = response.request.headers.get("authorization", "")
            content = self._token.hidden_in(content, sent)
        wished = retry_after(response.headers.get("retry-after"))
        raise api_error(status, content, wished, advice=self._advice(status))

    def _advice(self, status: int) -> str:
        """Return what to do about an answer, where that hangs on how the client was made."""
        if status == 407:
            return "from a proxy: give its name and password in HTTP_PROXY or HTTPS_PROXY"
        if status != 401:
            return ""
        if self._token is None:
            return f"this client has no access token: set {VARIABLE} or give Client(token=...)"
        advice = "this client's access token does not hold: see whether it expired or was revoked"
        return advice if self._token.file is None else f"{advice}; it was read from a file again"

    def _late(self, seconds: float) -> _LateError:
        return _LateError(
            f"no answer from {self.url} in {seconds:.3g} s: see whether it is overloaded, or "
            "what stands between"
        )

    def _failure(self, error: httpx.TransportError) -> PacesetterError:
        text = printable(str(error) or type(error).__name__)
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            return InvalidAnswerError(f"{self.url}: {text}: check the URL")
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return InvalidAnswerError(f"{self.url}: {text}: install the server's certificate")
        if isinstance(error, httpx.ProxyError) and text.startswith("407"):
            return api_error(407, b"", advice=self._advice(407))
        return TransportError(
            f"no answer from {self.url} ({text}): start the server with `pacesetter serve`, "
            "or set PACESETTER_URL to where it runs"
        )


class _LateError(TransportError):
    """The server may be there, and did not answer in the time that there was."""


class _Outage:
    """One spell of retrying: it has an end, and is logged when it begins and when it is over."""

    def __init__(self, url: str, wait: float) -> None:
        self._url = url
        self._wait = wait
        self._began = time.monotonic()
        self._logged = False
        self._cut = False
        self._awaited: AwaitingMeasurementError | None = None

    def limit(self, timeout: float) -> float:
        """Return the seconds that the next try may take."""
        if self._wait <= 0:
            return timeout
        limit = min(timeout, max(self._left(), 0.1))
        self._cut = limit < timeout
        return limit

    def pause(self, delay: float, error: PacesetterError) -> float:
        """Return the seconds to sleep before the next try.

        Raises:
            ServerUnavailableError: There is no time left for another.
        """
        wished = error.retry_after if isinstance(error, APIError) else None
        pause = max(delay, wished or 0.0)
        if isinstance(error, AwaitingMeasurementError):
            self._awaited = error
        elif not (self._cut and isinstance(error, _LateError)):
            self._awaited = None  # the server is no longer there
        if self._left() <= 0:
            if self._awaited is not None:
                raise ServerUnavailableError(
                    f"waited for {self._wait:.3g} s, and may not any longer: {self._awaited}"
                ) from self._awaited
            raise away(self._url, self._wait, error) from error
        if not self._logged:
            self._logged = True
            logger.warning("%s; trying again for up to %.3g s", error, self._wait)
        return max(min(pause, self._left()), 0.0)  # time goes by between two looks at it

    def over(self) -> None:
        """Log that the server answers again, if its silence was logged."""
        if self._logged:
            logger.warning(
                "%s answers again after %.1f s", self._url, time.monotonic() - self._began
            )

    def _left(self) -> float:
        return self._began + self._wait - time.monotonic()


class _Trace:
    """Sees what becomes of a request."""

    def __init__(self) -> None:
        self.on_kept_connection: bool | None = None

    def __call__(self, event: str, _: Mapping[str, Any]) -> None:
        if self.on_kept_connection is None:  # the first thing done to a new one is to connect it
            self.on_kept_connection = event == "http11.send_request_headers.started"


def _network(url: str, proxy: str | None) -> httpx.BaseTransport:
    # Reading the authorities that the machine trusts takes longer than all else: only where there
    # is something to check with them. A context that knows none would refuse every server.
    encrypted = url.lower().startswith("https:")
    verify = True if encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    limits = httpx.Limits(keepalive_expiry=KEEP_ALIVE)
    try:
        return httpx.HTTPTransport(verify=verify, proxy=proxy, limits=limits)
    except ImportError as error:
        raise ValueError(
            "the environment names a SOCKS proxy, which needs a package: pip install 'httpx[socks]'"
        ) from error


def _checked_url(url: str) -> httpx.URL:
    """Return the parts of a server's address.

    Raises:
        ValueError: It is none, or has parts that it may not have.
    """
    shown = url.rpartition("@")[2]
    try:
        parsed = httpx.URL(url)
        parsed.host.encode("idna")  # as a name is looked up
    except (httpx.InvalidURL, UnicodeError) as error:
        # Without its cause where there may be a password in it.
        reason = f" ({error})" if shown == url else ""
        raise ValueError(f"{shown!r} is no URL{reason}: write http://host:port") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(f"{shown!r} is no URL of a server: write http://host:port")
    if parsed.userinfo:
        raise ValueError(
            f"the URL of {parsed.host} has a user or a password in it, and URLs are logged: write "
            f"http://host:port, and give an access token by Client(token=...) or {VARIABLE}"
        )
    if parsed.query or parsed.fragment:
        raise ValueError(
            f"{shown!r} has a query or a fragment: write http://host:port or http://host/prefix"
        )
    if "v1" in parsed.path.split("/"):
        root = shown.partition("/v1")[0]
        raise ValueError(f"{shown!r} has the API's own /v1 in it: write {root}, without it")
    return parsed


def _disconnect(response: httpx.Response) -> None:
    """Close the connection that an answer came by, whether its pool still knows it or not."""
    stream = response.extensions.get("network_stream")  # a transport in its place may have none
    if stream is not None:
        stream.close()


def _check_encoding(response: httpx.Response) -> None:
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise InvalidAnswerError(
            f"{response.request.url} answered in the encoding {printable(encoding)!r}, which was "
            "not asked for: have the server, or the proxy in between, not compress"
        )


def _read(response: httpx.Response, max_bytes: int, deadline: float) -> bytes:
    """Return the body as it came: no decompression, so its size is what was counted."""
    assert isinstance(response.stream, httpx.SyncByteStream)  # noqa: S101 - for the type checker
    chunks: list[bytes] = []
    size = 0
    said = response.headers.get("content-length", "")
    if said.isascii() and said.isdigit() and int(said[:32]) > max_bytes:
        raise _too_large(response, max_bytes)
    for chunk in response.stream:
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(response, max_bytes)
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer came too slowly", request=response.request)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(response: httpx.Response, max_bytes: int) -> InvalidAnswerError:
    return InvalidAnswerError(
        f"{response.request.url}: the answer is larger than the {max_bytes:,} bytes that can belong"
        " to it: check that the URL is Pacesetter's"
    )
