"""What a web page can do here through the browser of its visitor."""

import json
import re
import socket
from collections.abc import Iterator
from hashlib import sha256

import httpx
import pytest

from pacesetter_service.api.browsers import Hosts
from pacesetter_service.api.pages import ASSETS
from serving import open_http

LISTED = "pacesetter.invalid"
"""The name that the shared service is allowed to have (see conftest.py)."""


@pytest.fixture(name="http", scope="module")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a connection to the shared service."""
    with open_http(server_url) as http:
        yield http


HERE = ["localhost", "LOCALHOST:7070", "localhost.", "127.0.0.1", "127.8.0.1:80", "[::1]:7070"]
ELSEWHERE = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil.example:7070",
    "10.0.0.7:7070",
    "[fe80::1]",
    "127.1",
    "2130706433",
    "localhost:7070:7070",
    "localhost@evil.example",
    "localhost/",
    " localhost",
    "",
    "*",
    "[::1",
    "\xe9vil.example",
]


@pytest.mark.parametrize("host", HERE)
def test_a_service_is_asked_by_the_names_of_this_machine(host: str) -> None:
    """Loopback is accepted under each of its names, in any notation that a client may send."""
    assert Hosts().take(host)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_a_service_is_not_asked_by_foreign_names(host: str) -> None:
    """Any name that a foreign domain could have, resolved to this machine, is refused."""
    assert not Hosts().take(host)


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", ""])
def test_a_service_on_every_address_is_asked_by_each_and_by_the_machines_name(bound: str) -> None:
    """Bare addresses are safe, as no domain looks like one; no domain has the machine's name."""
    hosts = Hosts(bound=bound)
    machine = socket.gethostname()
    for host in (*HERE, "10.0.0.7:7070", "[fe80::1]", machine, f"{machine.upper()}:7070"):
        assert hosts.take(host)
    assert not hosts.take("evil.example")
    assert not hosts.take("127.1")


def test_a_service_on_one_address_is_asked_by_it() -> None:
    """Its own address or name is accepted, and no other."""
    assert Hosts(bound="10.0.0.7").take("10.0.0.7:7070")
    assert not Hosts(bound="10.0.0.7").take("10.0.0.8:7070")
    assert Hosts(bound="node17").take("node17:7070")


def test_the_list_adds_names() -> None:
    """A listed name is accepted with any port, and a star accepts every name."""
    hosts = Hosts([" LR.example.com ", "[fe80::1]", ""])
    for host in ("lr.example.com", "LR.EXAMPLE.COM.:443", "[fe80::1]:7070", "localhost"):
        assert hosts.take(host)
    assert not hosts.take("")
    assert not hosts.take("www.lr.example.com")
    assert Hosts(["*"]).take("evil.example")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:7070", "localhost:7070"),
        ("http://localhost", "localhost:80"),
        ("https://lr.example.com", "lr.example.com"),  # a proxy terminates TLS
        ("https://lr.example.com", "lr.example.com:443"),
        ("http://[::1]:7070", "[::1]:7070"),
    ],
)
def test_a_page_of_ours_may_ask(origin: str, host: str) -> None:
    """A page that was loaded from the host that it calls is the service's own."""
    assert Hosts().take_origin(origin, host)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost:3000",
        "http://127.0.0.1:7070",
        "http://localhost:7070.evil.example",
        "http://evil.example/localhost:7070",
        "null",
        "",
        "file://",
        "chrome-extension://localhost:7070",
    ],
)
def test_another_page_may_not_ask(origin: str) -> None:
    """A page of another host, or of another port of this one, is foreign."""
    assert not Hosts().take_origin(origin, "localhost:7070")
    assert Hosts(["*"]).take_origin(origin, "localhost:7070")


def test_pages_of_listed_hosts_may_ask() -> None:
    """A listed host is trusted, by whatever name the service is called."""
    hosts = Hosts(["dashboard.example.com"])
    assert hosts.take_origin("https://dashboard.example.com:8443", "localhost:7070")
    assert not hosts.take_origin("https://www.example.com", "localhost:7070")


def test_a_foreign_host_is_refused_whatever_is_asked(http: httpx.Client, unique_name: str) -> None:
    """DNS rebinding reaches neither pages nor the hot call; the answer says why."""
    body = {"name": unique_name, "base_lr": 0.1}
    http.post("/v1/sessions", json=body).raise_for_status()
    sync = f"/v1/sessions/{unique_name}/sync"
    for method, path in [("GET", "/livez"), ("GET", "/docs"), ("POST", sync), ("TRACE", "/x")]:
        answer = http.request(
            method, path, json={} if method == "POST" else None, headers={"host": "evil.example"}
        )
        assert (answer.status_code, answer.json()["code"]) == (421, "host_refused")
        assert "'evil.example'" in answer.json()["detail"]
        assert "PACESETTER_ALLOWED_HOSTS" in answer.json()["detail"]
    assert http.post(sync, json={}, headers={"host": LISTED}).status_code == 200


def test_a_request_names_one_host(server_url: str) -> None:
    """With no host, or with two, nothing is done; HTTP/1.0 has none."""
    address = server_url.removeprefix("http://").split(":")

    def status(head: str) -> int:
        with socket.create_connection((address[0], int(address[1]))) as wire:
            wire.sendall(f"GET /livez {head}connection: close\r\n\r\n".encode())
            return int(wire.recv(100).split()[1])

    assert status("HTTP/1.1\r\n") == 400
    assert status("HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n") == 400
    assert status("HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n") == 400
    assert status("HTTP/1.1\r\nhost: localhost\r\n") == 200
    assert status("HTTP/1.0\r\n") == 200
    assert status("HTTP/1.0\r\nhost: evil.example\r\n") == 421


def test_a_foreign_page_is_refused_whatever_it_asks(http: httpx.Client, unique_name: str) -> None:
    """Its request is not carried out, though it could not have read the answer."""
    http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.1}).raise_for_status()
    sync = f"/v1/sessions/{unique_name}/sync"
    foreign = {"origin": "http://evil.example"}
    for method, path in [("POST", sync), ("GET", "/v1/sessions"), ("OPTIONS", sync)]:
        answer = http.request(
            method, path, json={"step": 5} if method == "POST" else None, headers=foreign
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_refused")
    assert http.get(f"/v1/sessions/{unique_name}").json()["horizon"] == 0
    ours = {"origin": str(http.base_url).rstrip("/")}
    assert http.post(sync, json={"step": 5}, headers=ours).status_code == 200


@pytest.mark.parametrize("method", ["TRACE", "PUT", "PROPFIND"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/livez", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/sessions", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/v1/sessions/x", {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}),
        ("/v1/sessions/x/sync", {"POST", "OPTIONS"}),
        ("/v1/import", {"POST", "OPTIONS"}),
    ],
)
def test_a_method_that_nothing_takes_is_405(
    http: httpx.Client, method: str, path: str, allowed: set[str]
) -> None:
    """This comes before any check of its body, with the methods that the address allows."""
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed
    assert http.request(method, "/nowhere").status_code == 404


def test_a_method_that_another_address_takes_is_405_with_all_that_this_one_takes(
    http: httpx.Client,
) -> None:
    """The framework alone would name those of one of several routes."""
    answer = http.post("/v1/sessions/x", json={})
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}


@pytest.mark.parametrize("path", ["/docs/", "/v1/sessions/", "/livez/"])
def test_nothing_is_redirected(http: httpx.Client, path: str) -> None:
    """A redirect would lead wherever the caller's Host header points."""
    answer = http.get(path)
    assert answer.status_code == 404
    assert "location" not in answer.headers


@pytest.mark.parametrize("path", ["/livez", "/docs", "/nowhere", "/openapi.json", "/metrics"])
def test_browsers_are_told_our_rules(http: httpx.Client, path: str) -> None:
    """No answer is sniffed for another type, and no page passes its address on."""
    answer = http.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_page_runs_its_own_scripts_alone_and_in_no_frame(http: httpx.Client) -> None:
    """Everything on the page is served here: it has no inline script and calls no other site."""
    page = http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["x-frame-options"] == "DENY"
    policy = dict(
        rule.strip().split(" ", 1) for rule in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "http" not in page.text
    assert not re.search(r"<script[^>]*>[^<]|<style|style=|onload=", page.text)
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        if not address.startswith("data:"):
            found = http.get(str(page.url.join(address)))
            assert found.status_code == 200, address
            again = {"if-none-match": found.headers.get("etag", "none")}
            assert http.get(found.url, headers=again).status_code in (200, 304)
    assert http.get("/docs/nothing.js").status_code == 404


def test_the_files_of_the_page_are_those_that_were_published() -> None:
    """Each file of Swagger UI equals, to the byte, that of the version in its manifest."""
    manifest = json.loads((ASSETS / "swagger-ui.json").read_text())
    found = {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in (ASSETS / "swagger-ui").iterdir()
    }
    assert found == manifest["sha256"]
    assert "LICENSE" in found
    assert f"-{manifest['version']}.tgz" in manifest["source"]


def test_a_picture_runs_nothing(http: httpx.Client) -> None:
    """An SVG picture is a document too, whose scripts a browser would run."""
    answer = http.post(
        "/v1/schedules/preview",
        json={"base_lr": 0.1, "schedule": {"kind": "constant"}},
        headers={"accept": "image/svg+xml"},
    )
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
