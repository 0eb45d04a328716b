"""Whether a deployment works, seen from where a trainer runs: `pacesetter doctor`."""

from __future__ import annotations

import ipaddress
import json
import re
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from pacesetter._errors import (
    APIError,
    AuthenticationError,
    PacesetterError,
    PermissionDeniedError,
    printable,
)
from pacesetter._opening import path_of
from pacesetter._proxy import proxy_for
from pacesetter._transport import Transport
from pacesetter._words import in_python

TIMEOUT = 10.0
"""Seconds that one exchange may take."""

CALLS = 10
"""Calls whose latency is measured."""

SLOW = 0.25
"""Seconds from which a round trip is worth a warning."""

MOST_SKEW = 5.0
"""Seconds by which clocks may differ."""

LEAST_DAYS = 14
"""Days for which a certificate should still be good."""


class Check(NamedTuple):
    """One check: its name, OK, WARN or FAIL, what was found, and what to do."""

    check: str
    result: str
    detail: str
    advice: str = ""

    def line(self) -> str:
        """Return it as a line for people."""
        text = f"{self.result:<5} {self.check:<18} {self.detail}"
        return printable(f"{text} -> {self.advice}" if self.advice else text)


def as_json(checks: list[Check]) -> str:
    """Return all checks as one JSON object; `ok` is false if one has failed."""
    ok = all(each.result != "FAIL" for each in checks)
    return json.dumps({"ok": ok, "checks": [each._asdict() for each in checks]}, indent=2)


def checks(url: str, own_version: str, *, write: bool) -> Iterator[Check]:
    """Check a server; checks that need a server that answers are left out where none does.

    Args:
        url: Its address.
        own_version: The version of this package.
        write: Whether a session is created, asked for a value and archived.
    """
    try:
        server = Transport(url, timeout=TIMEOUT)
    except ValueError as error:
        yield Check("address", "FAIL", str(error), "correct --url, PACESETTER_URL or the token")
        return
    try:
        yield _address(urlsplit(url))
        try:
            server.send("GET", "/livez")
        except PacesetterError as error:
            advice = "check the address, that the service runs, and what is in between"
            yield Check("reachable", "FAIL", str(error), advice)
            return
        yield Check("reachable", "OK", f"{server.url} answers")
        yield from _certificate(urlsplit(url))
        yield _version(server, own_version)
        yield _ready(server)
        tokens = list(_token(server, urlsplit(url)))
        yield from tokens
        yield _clock(server)
        yield _latency(server)
        if write and all(each.result != "FAIL" for each in tokens):  # else it would repeat that
            yield from _round_trip(server)
    finally:
        server.close()


def _address(url: SplitResult) -> Check:
    if url.scheme == "http" and not _is_this_machine(_host(url)):
        advice = "use https:// across a network that you do not trust"
        return Check("address", "WARN", "the token travels in the clear", advice)
    return Check("address", "OK", url.geturl())


def _host(url: SplitResult) -> str:
    return url.hostname or ""  # the transport has refused an address without one


def _is_this_machine(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _certificate(url: SplitResult) -> Iterator[Check]:
    """Say for how long a certificate is valid; by now it is known to be trusted."""
    host, port = _host(url), url.port or 443
    if url.scheme != "https" or proxy_for(url.scheme, host, port) is not None:
        return
    try:
        with (
            socket.create_connection((host, port), TIMEOUT) as plain,
            Transport.trusted().wrap_socket(plain, server_hostname=host) as encrypted,
        ):
            certificate: Any = encrypted.getpeercert() or {}
            version = encrypted.version()
        days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / 86_400
    except (OSError, KeyError, ValueError) as error:
        yield Check("TLS", "WARN", f"its end is not known: {error}")
        return
    detail = f"{version}, good for {days:.0f} more days"
    late = days < LEAST_DAYS
    advice = "renew the certificate" if late else ""
    yield Check("TLS", "WARN" if late else "OK", detail, advice)


def _version(server: Transport, own: str) -> Check:
    try:
        found = str(server.json("GET", "/version").get("version"))
    except PacesetterError as error:
        return Check("version", "FAIL", str(error), "check that the URL is Pacesetter's")
    if found.split(".")[:2] == own.split(".")[:2]:
        return Check("version", "OK", f"server {found}, client {own}")
    advice = "install the same version of pacesetter on both sides"
    return Check("version", "WARN", f"server {found}, client {own}", advice)


def _ready(server: Transport) -> Check:
    try:
        server.send("GET", "/readyz")
    except PacesetterError as error:
        return Check("ready", "FAIL", str(error), "docs/operations.md says what to do")
    return Check("ready", "OK", "the database answers, and the writer gets on")


def _token(server: Transport, url: SplitResult) -> Iterator[Check]:
    try:
        server.json("GET", "/v1/sessions", params={"limit": 1})
    except AuthenticationError as error:
        said = in_python(str(error.problem.get("detail", error)), error.problem, advised=True)
        yield Check("token", "FAIL", said, "set PACESETTER_TOKEN to one that an admin made")
        return
    except PacesetterError as error:
        yield Check("token", "FAIL", str(error), "see the answer")
        return
    try:
        server.json("GET", "/v1/tokens")
    except PermissionDeniedError as error:
        role = re.search(r"has the role '(\w+)'", error.detail)
        yield Check("token", "OK", f"its role is {role[1]}" if role else error.detail)
    except APIError as error:
        if error.code != "authentication_off":
            yield Check("token", "WARN", str(error), "its role is not known")
        elif _is_this_machine(_host(url)):
            yield Check("token", "OK", "authentication is off")
        else:
            advice = "start the service with PACESETTER_ADMIN_TOKEN"
            yield Check("token", "WARN", "every caller may change every training", advice)
    except PacesetterError as error:
        yield Check("token", "WARN", str(error), "its role is not known")
    else:
        yield Check("token", "WARN", "its role is admin", "give jobs a token of a smaller role")


def _clock(server: Transport) -> Check:
    try:
        before = time.time()
        said = server.headers("/livez")["date"]
        here = (before + time.time()) / 2
        # The header states whole seconds.
        skew = max(0.0, abs(here - parsedate_to_datetime(said).timestamp() - 0.5) - 0.5)
    except (PacesetterError, KeyError, ValueError) as error:
        return Check("clock", "WARN", f"the server's time is not known: {error!r}")
    if skew > MOST_SKEW:
        advice = "set both clocks by NTP; tokens end by the server's"
        return Check("clock", "WARN", f"the clocks differ by {skew:.0f} s", advice)
    return Check("clock", "OK", "the clocks agree to some seconds")


def _latency(server: Transport) -> Check:
    seconds = []
    try:
        for _ in range(CALLS):
            began = time.perf_counter()
            server.send("GET", "/livez")
            seconds.append(time.perf_counter() - began)
    except PacesetterError as error:
        return Check("latency", "FAIL", str(error), "look for what cuts connections")
    seconds.sort()
    median, slowest = seconds[len(seconds) // 2], seconds[-1]
    detail = f"p50 {1e3 * median:.1f} ms, p99 {1e3 * slowest:.1f} ms, of {CALLS} calls"
    if median > SLOW:
        return Check("latency", "WARN", detail, "windows hide it; run the service nearer by")
    return Check("latency", "OK", detail)


def _round_trip(server: Transport) -> Iterator[Check]:
    """Create a session, take a value twice, and archive it."""
    name = f"doctor-{secrets.token_hex(6)}"
    spec = {"name": name, "base_lr": 0.1, "schedule": {"kind": "constant"}}
    try:
        server.json("POST", "/v1/sessions", body=spec)
        values = [
            server.json("POST", path_of(name) + "/sync", body={"step": 0}).get("lr")
            for _ in range(2)
        ]
    except PacesetterError as error:
        yield Check("round trip", "FAIL", str(error), "a trainer's token may do this")
        return
    if values != [0.1, 0.1]:
        advice = "report it, with the versions"
        yield Check("round trip", "FAIL", f"{values} in place of 0.1, twice", advice)
    else:
        yield Check("round trip", "OK", f"session {name} was created, and has sealed a value")
    try:
        server.send("DELETE", path_of(name))
    except PermissionDeniedError:
        advice = f"have an operator archive {name}"
        yield Check("archive", "WARN", "the token's role may not archive", advice)
    except PacesetterError as error:
        yield Check("archive", "FAIL", str(error), f"archive {name} later")
    else:
        yield Check("archive", "OK", f"session {name} was archived")
