"""Which proxy a server is reached through: the environment's, as other programs read it."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

SCHEMES = ("http", "https", "socks5", "socks5h")


def proxy_for(scheme: str, host: str, port: int | None) -> str | None:
    """Return the URL of the proxy for a server; None without one.

    `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` are read, in lower case too, and on
    macOS and Windows the system's settings. This machine itself is never reached through a proxy.
    The URL may hold a password, so it must not be shown.

    Args:
        scheme: The server's scheme, `http` or `https`.
        host: Its name or address.
        port: Its port, where the URL names one.

    Raises:
        ValueError: What the environment names is not a proxy.
    """
    proxies = getproxies()
    found = proxies.get(scheme) or proxies.get("all")
    if not found or _bypassed(host, port, proxies.get("no", "")):
        return None
    url = found if "://" in found else f"http://{found}"
    if not _usable(url):
        name = scheme if proxies.get(scheme) else "all"
        raise ValueError(
            f"{name.upper()}_PROXY is no URL of a proxy: write http://host:port, or have NO_PROXY "
            f"name {host}"
        )
    return url


def _usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its port is not a number
        return False


def _bypassed(host: str, port: int | None, exceptions: str) -> bool:
    """Return whether a server is reached without a proxy."""
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    if proxy_bypass(host) or (port is not None and proxy_bypass(f"{host}:{port}")):
        return True
    return address is not None and any(
        address in network for network in map(_network, exceptions.split(",")) if network
    )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return a range of addresses, which Python's own reading of `NO_PROXY` does not support."""
    try:
        return ipaddress.ip_network(text.strip().strip("[]"), strict=False)
    except ValueError:
        return None
