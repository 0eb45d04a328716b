"""One server over HTTP: requests to it, and what its answers mean.

Requests are sent by httpx's transports, without its clients. So no redirect is followed, and a
token goes nowhere else. No cookie is kept, and a training's log does not get a line every second.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any

import httpx

from pacesetter._errors import (
    AuthenticationError,
    ClosedError,
    ForeignAnswerError,
    InvalidAnswerError,
    PacesetterError,
    TransportError,
    api_error,
    printable,
)
from pacesetter._plain import encoded
from pacesetter._proxy import proxy_for
from pacesetter._retry import LateError, retry_after
from pacesetter._token import VARIABLE, Token

# The server closes idle connections after 120 s: below that, no request meets a dying one.
KEPT = httpx.Limits(keepalive_expiry=60.0)
MAX_JSON = 32 * 1024 * 1024
CONNECT_TIMEOUT = 3.0
LONGEST_TIMEOUT = 86_400.0
LEAST_TIMEOUT = 0.001  # 0 would tell a socket not to wait at all


class Endpoint:
    """A server, and how it is reached.

    Args:
        url: Base address, `http://` or `https://`.
        timeout: Seconds that one exchange may take, answer included.
        token: The access token; without one that of `PACESETTER_TOKEN`, or of the file that
            `PACESETTER_TOKEN_FILE` names, if one of them is set.
        direct: Whether to look for no proxy in the environment.

    Raises:
        ValueError: An argument, or the proxy that the environment names, cannot be used.
    """

    def __init__(self, url: str, *, timeout: float, token: str | None, direct: bool) -> None:
        parsed = checked_url(url)
        if not 0 < timeout <= LONGEST_TIMEOUT:  # refuses NaN too
            raise ValueError(f"timeout={timeout}: give seconds, up to a day of them")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._token = Token.of(token)
        self._proxy = None if direct else proxy_for(parsed.scheme, parsed.host, parsed.port)
        self._closed = False

    def _prepared(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        accept: str,
    ) -> httpx.Request:
        """Return a request whose body is JSON, if it has one."""
        sent, content = {"accept": accept}, None
        if body is not None:
            sent["content-type"] = "application/json"
            content = encoded(body)
        if headers:
            sent.update(headers)
        return self._request(method, path, params, sent, content)

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        content: bytes | Iterable[bytes] | AsyncIterable[bytes] | None,
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

    def _has_newer_token(self, request: httpx.Request, error: AuthenticationError) -> bool:
        sent = request.headers.get("authorization")
        if error.status != 401 or self._token is None or sent is None:
            return False
        return self._token.is_newer_than(sent)

    def _signed(self, request: httpx.Request) -> httpx.Request:
        if self._token is not None:
            request.headers["authorization"] = self._token.header
        return request

    def _checked(self, response: httpx.Response, content: bytes) -> bytes:
        """Return the body of an answer, if it is a valid one.

        Raises:
            APIError: The server answered with a problem.
            ForeignAnswerError: It answered something that Pacesetter never answers.
        """
        status = response.status_code
        if response.is_success:
            check_encoding(response)
            return content
        if status < 400:
            raise ForeignAnswerError(
                f"{response.request.url} answered {status}: redirects are not followed, "
                "so give the client the final URL"
            )
        if self._token is not None:
            sent = response.request.headers.get("authorization", "")
            content = self._token.hidden_in(content, sent)
        wished = retry_after(response.headers.get("retry-after"))
        raise api_error(status, content, wished, advice=self._advice(status))

    def _advice(self, status: int) -> str:
        """Return what to do about an answer, where that depends on how the client was made."""
        if status == 407:
            return "from a proxy: give its name and password in HTTP_PROXY or HTTPS_PROXY"
        if status != 401:
            return ""
        if self._token is None:
            return f"this client has no access token: set {VARIABLE} or give Client(token=...)"
        advice = "this client's access token does not hold: see whether it expired or was revoked"
        return advice if self._token.file is None else f"{advice}; it was read from a file again"

    def _late(self, seconds: float) -> LateError:
        return LateError(
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

    def _append(self, whole: bytearray, piece: bytes, deadline: float) -> None:
        """Append a piece to what has come of a JSON answer, within its bounds.

        Raises:
            LateError: The deadline has passed.
            ForeignAnswerError: The answer is larger than any of Pacesetter's.
        """
        whole += piece
        if len(whole) > MAX_JSON:
            raise self._strange(f"the answer is larger than {MAX_JSON:,} bytes")
        if time.monotonic() > deadline:
            raise self._late(self.timeout)

    def _strange(self, found: str) -> ForeignAnswerError:
        return ForeignAnswerError(f"{found}: check that {self.url} is a Pacesetter server")


class Trace:
    """Observes what becomes of a request."""

    def __init__(self) -> None:
        self.on_kept_connection: bool | None = None

    def __call__(self, event: str, _: Mapping[str, Any]) -> None:
        if self.on_kept_connection is None:  # the first thing done to a new one is to connect it
            self.on_kept_connection = event == "http11.send_request_headers.started"


def checked_by(url: str) -> bool | ssl.SSLContext:
    """Return what a server's certificate is verified with, if it has one.

    Reading the authorities that the machine trusts takes longer than all else, so it is done only
    where there is a certificate to verify. A context without authorities would refuse every server.
    """
    encrypted = url.lower().startswith("https:")
    return True if encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def without_socks() -> ValueError:
    """Return the error for a proxy that needs a missing package."""
    return ValueError(
        "the environment names a SOCKS proxy, which needs a package: pip install 'httpx[socks]'"
    )


def checked_url(url: str) -> httpx.URL:
    """Return the parts of a server's address.

    Raises:
        ValueError: It is not an address, or has parts that it must not have.
    """
    shown = url.rpartition("@")[2]
    try:
        parsed = httpx.URL(url)
        parsed.host.encode("idna")  # as for a name lookup
    except (httpx.InvalidURL, UnicodeError) as error:
        # Without the cause where there may be a password in it.
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


def check_encoding(response: httpx.Response) -> None:
    """Refuse a compressed answer, which was not asked for.

    Raises:
        ForeignAnswerError: It is compressed.
    """
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise ForeignAnswerError(
            f"{response.request.url} answered in the encoding {printable(encoding)!r}, which was "
            "not asked for: have the server, or the proxy in between, not compress"
        )


def check_kind(response: httpx.Response) -> None:
    """Refuse an answer of another media type than was asked for, such as a login page.

    Raises:
        ForeignAnswerError: It is one. JSON is not looked at: reading it tells.
    """
    wanted = response.request.headers["accept"]
    found = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if wanted not in {"application/json", "*/*", found}:
        raise ForeignAnswerError(
            f"{response.request.url} answered with {printable(found or 'no type')!r} in place of "
            f"{wanted}: see what stands between, and that the URL is Pacesetter's"
        )


def refuse_if_too_large(response: httpx.Response, max_bytes: int) -> None:
    """Refuse an answer whose own header says that it is too large.

    Raises:
        ForeignAnswerError: It does.
    """
    said = response.headers.get("content-length", "")
    if said.isascii() and said.isdigit() and int(said[:32]) > max_bytes:
        raise too_large(response, max_bytes)


def too_large(response: httpx.Response, max_bytes: int) -> ForeignAnswerError:
    """Return the error for an answer that is larger than any that can belong to the call."""
    return ForeignAnswerError(
        f"{response.request.url}: the answer is larger than the {max_bytes:,} bytes that can belong"
        " to it: check that the URL is Pacesetter's"
    )
