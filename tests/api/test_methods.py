"""Methods over HTTP: HEAD wherever there is a GET, what `Allow` says, and OPTIONS."""

import re
from collections.abc import Iterator

import httpx
import pytest

from pacesetter_service.api.access import ACCESS
from serving import open_http

READ = [call.removeprefix("GET ") for call in ACCESS if call.startswith("GET ")]
PATHS = sorted({call.partition(" ")[2] for call in ACCESS})


@pytest.fixture(name="http", scope="module")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a client of the shared service."""
    with open_http(server_url) as http:
        yield http


@pytest.fixture(name="name")
def _name(http: httpx.Client, unique_name: str) -> str:
    """Return a session with a record."""
    body = {"name": unique_name, "base_lr": 0.1}
    http.post("/v1/sessions", json=body).raise_for_status()
    sync = {"want": {"start": 0, "count": 4}, "progress": {"step": 0}}
    http.post(f"/v1/sessions/{unique_name}/sync", json=sync).raise_for_status()
    return unique_name


def filled(path: str, name: str) -> str:
    """Return an address that fits a path's pattern."""
    return re.sub(r"{\w+}", "none", path.replace("{name}", name))


@pytest.mark.parametrize("path", READ)
def test_a_head_says_what_its_get_would(http: httpx.Client, name: str, path: str) -> None:
    """Every readable address answers with the same status and type, and no body."""
    address = filled(path, name)
    params = {"step": "1"} if path.endswith(("/lr", "/explain")) else {}
    head = http.head(address, params=params)
    with http.stream("GET", address, params=params) as got:
        assert head.status_code == got.status_code
        assert head.headers.get("content-type") == got.headers.get("content-type")
    assert head.content == b""


def fits(path: str, address: str) -> bool:
    """Return whether an address fits a path's pattern."""
    return re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), address) is not None


@pytest.mark.parametrize("path", PATHS)
def test_allow_names_all_methods_of_an_address(http: httpx.Client, path: str) -> None:
    """A 405 and OPTIONS name the same methods: those of all routes there, HEAD and OPTIONS."""
    address = filled(path, "none")
    # /v1/schedules/lint is not the address of a kind of that name: a literal path comes first.
    fitting = [call.partition(" ") for call in ACCESS if fits(call.partition(" ")[2], address)]
    literal = [each for each in fitting if each[2] == address]
    methods = {method for method, _, _ in literal or fitting}
    wanted = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    refused = http.request("PUT", address)
    assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
    asked = http.options(address)
    assert (asked.status_code, asked.content) == (204, b"")
    for answer in (refused, asked):
        assert set(answer.headers["allow"].split(", ")) == wanted


@pytest.mark.parametrize("path", ["preview", "lint", "recommend"])
def test_a_call_has_its_address_for_itself(http: httpx.Client, path: str) -> None:
    """A GET there asks for no kind of that name: it is refused, and only POST is named."""
    for method in ("GET", "HEAD"):
        refused = http.request(method, f"/v1/schedules/{path}")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST, OPTIONS")


def test_a_head_of_what_cannot_be_read_is_refused(http: httpx.Client) -> None:
    """Without a GET there is no HEAD, and an unknown address is 404."""
    refused = http.head("/v1/import")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST, OPTIONS")
    assert http.head("/v1/nothing").status_code == http.options("/v1/nothing").status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize("path", ["/livez", "/v1/sessions/none", "/v1/compare"])
def test_a_method_that_is_not_taken_is_told_whatever_is_sent(
    http: httpx.Client, method: str, path: str
) -> None:
    """It is 405 with the allowed methods, even if the body is missing or not JSON."""
    taken = http.options(path).headers["allow"]
    for body in ({"json": {}}, {"content": b"x", "headers": {"Content-Type": "text/plain"}}, {}):
        answer = http.request(method, path, **body)
        if method in taken:
            assert answer.status_code != 405
        else:
            assert (answer.status_code, answer.headers["allow"]) == (405, taken)
