"""What a web page may do here through its visitor's browser: nothing, unless it is our page.

A browser reaches services that its user can reach and the page's author cannot. The author may let
a name resolve to this machine (DNS rebinding). Then the page has the same origin as the service,
and only the Host header shows whose name it was. A page of another origin can send requests too,
although it cannot read the answers; such requests say so in Origin. And a page may show ours in a
frame.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacesetter_service.api import problems

ANY = "*"
"""Instead of names: any name is accepted."""

SETTING = "PACESETTER_ALLOWED_HOSTS"

MOST_KNOWN = 256
"""The most accepted Host headers that are remembered."""

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
"""Headers for browsers in every answer except the hot call's, which no browser makes."""

_OF_PAGES = [
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    ),
    (b"x-frame-options", b"DENY"),
]
"""Further headers of every page, unless it sets them itself."""

_NETWORK_LOCATION = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+?)\.?)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class _Location(NamedTuple):
    host: str
    port: str


class Hosts:
    """The names by which a service may be called."""

    def __init__(self, allowed: Iterable[str] = (), *, bound: str = "127.0.0.1") -> None:
        """Set the names of a service.

        Args:
            allowed: Names or addresses besides its own, without ports; `*` allows any.
            bound: The address that the service listens on. If it is every address of the machine,
                every address is accepted, and the machine's own name: none is another's domain.
        """
        names = {each.strip().strip("[]").rstrip(".").lower() for each in allowed}
        self._allowed = frozenset(names - {""})
        self._any = ANY in self._allowed
        self._names = {"localhost", bound.lower()} | self._allowed
        address = _address_in(bound)
        self._everywhere = not bound or (address is not None and address.is_unspecified)
        if self._everywhere:
            machine = socket.gethostname().lower()
            self._names |= {machine, machine.partition(".")[0]}

    def take(self, host: str) -> bool:
        """Return whether the service may be called by the name in a Host header."""
        if self._any:
            return True
        location = _location_in(host)
        if location is None:
            return False
        address = _address_in(location.host)
        ours = address is not None and (address.is_loopback or self._everywhere)
        return ours or location.host in self._names

    def take_origin(self, origin: str, host: str) -> bool:
        """Return whether a page may call: one that came from here, or from an allowed host."""
        if self._any:
            return True
        scheme, _, rest = origin.lower().partition("://")
        page, here = _location_in(rest), _location_in(host)
        if page is None or here is None or scheme not in _DEFAULT_PORTS:
            return False
        if page.host in self._allowed:
            return True
        # Behind a proxy that terminates TLS, our own page has another scheme than we have.
        ports = (page.port or _DEFAULT_PORTS[scheme], here.port or _DEFAULT_PORTS["http"])
        return page.host == here.host and (page.port == here.port or ports[0] == ports[1])


def _location_in(text: str) -> _Location | None:
    found = _NETWORK_LOCATION.fullmatch(text.lower())
    return None if found is None else _Location(found[1] or found[2], found[3] or "")


def _address_in(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class Browsers:
    """ASGI middleware that refuses requests of foreign pages, and sends browsers our rules."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts
        self._known: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 400, 403 or 421."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not (scope["method"] == "POST" and scope["path"].endswith("/sync")):
            send = _told(send)
        headers = dict(scope["headers"])
        # Most calls name one host, which was named before, and come from no page.
        if (
            headers.get(b"host") not in self._known
            or b"origin" in headers
            or len(headers) != len(scope["headers"])
        ):
            refusal = self._refused(scope)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refused(self, scope: Scope) -> ASGIApp | None:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        if len(hosts) > 1 or (not hosts and scope["http_version"] != "1.0"):
            detail = "Send exactly one Host header with a request of HTTP/1.1."
            return problems.problem(400, "host_missing", detail)
        # HTTP/1.0 has no Host header, and no browser speaks it.
        for host in hosts:
            if not self._hosts.take(host):
                return _host_refused(host)
            if len(self._known) < MOST_KNOWN:
                self._known.add(host.encode("latin-1"))
        for origin in origins:
            if not self._hosts.take_origin(origin, hosts[0] if hosts else ""):
                return _origin_refused(origin)
        return None


def _host_refused(host: str) -> ASGIApp:
    detail = (
        f"This service is not asked by the name {host!r}. Use the address that it listens on, or "
        f"start it with this name, without the port, in {SETTING}."
    )
    return problems.problem(421, "host_refused", detail)


def _origin_refused(origin: str) -> ASGIApp:
    detail = (
        f"A page of {origin!r} sent this, and this service takes no requests of other pages than "
        f"its own. If you trust that page, start the service with its host in {SETTING}."
    )
    return problems.problem(403, "origin_refused", detail)


def _told(send: Send) -> Send:
    """Add the headers for browsers to an answer."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            said = dict(headers)
            rules = _HEADERS
            if said.get(b"content-type", b"").startswith((b"text/html", b"image/svg")):
                rules = rules + _OF_PAGES
            headers += [each for each in rules if each[0] not in said]
            message = {**message, "headers": headers}
        await send(message)

    return told
