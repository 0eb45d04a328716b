"""Access by tokens, over HTTP against real services: who is let in, how far, and what is left."""

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr
from sqlalchemy import event

from forked import ForkedService
from pacesetter_service.__main__ import _reaches_beyond, _settings_or_exit, main
from pacesetter_service.api import auth
from pacesetter_service.api.access import ACCESS, Access, access_to
from pacesetter_service.api.app import App, create_app
from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.core.tokens import EVERYTHING, ROLES, Role, Token
from pacesetter_service.runtime import keyring
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.tokens import create_token, store_uses
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.settings import SECRETS, read_settings
from pacesetter_service.store import tokens
from pacesetter_service.store.sqlite import SqliteStore
from proof.shim import Shim
from serving import PATIENCE, RunningService, open_http

ADMIN = "the-admins-own-token-that-nobody-guesses"

Secrets = dict[str, str]


def bearer(secret: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"authorization": f"Bearer {secret}"}


def issue(http: httpx.Client, name: str, role: str, **more: Any) -> dict[str, Any]:
    """Issue a token as the admin, and return the answer."""
    body = {"name": name, "role": role, **more}
    answer = http.post("/v1/tokens", json=body, headers=bearer(ADMIN))
    assert answer.status_code == 201, answer.text
    issued: dict[str, Any] = answer.json()
    return issued


@pytest.fixture(name="guarded_url", scope="module")
def _guarded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a service that requires tokens, shared by the tests of this module."""
    database = tmp_path_factory.mktemp("guarded") / "pacesetter.db"
    with RunningService(database, admin_token=ADMIN, feed_heartbeat=0.1) as service:
        yield service.url


@pytest.fixture(name="anyio_backend")
def _anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(name="http")
def _http(guarded_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of that service, without a token."""
    with open_http(guarded_url) as client:
        yield client


@pytest.fixture(name="secrets", scope="module")
def _secrets(guarded_url: str) -> Secrets:
    """Return a secret of each role, and the admin's own."""
    with open_http(guarded_url) as http:
        made = {role: str(issue(http, f"the {role}", role)["token"]) for role in ROLES}
    return {**made, "the service's own": ADMIN}


@pytest.fixture(name="build")
def _build(tmp_path: Path) -> Iterator[Callable[[str | None], App]]:
    """Return a function that builds the application in the test's own process."""
    store = SqliteStore(f"sqlite:///{tmp_path / 'pacesetter.db'}")
    writer = Writer(store)
    writer.start()
    yield lambda admin: create_app(
        Service.over(store, writer, None if admin is None else SecretStr(admin))
    )
    writer.stop()
    store.close()


def send(http: httpx.Client, call: str, headers: dict[str, str]) -> httpx.Response:
    """Send a call that finds nothing and changes nothing, by its method and path."""
    method, _, path = call.partition(" ")
    content = {"content": "{}"} if method == "POST" else {}
    headers = {"content-type": "application/json", **headers}
    path = re.sub(r"{\w+}", "none", path.replace("{asset}", "docs.js"))
    with http.stream(method, path, headers=headers, **content) as answer:
        if answer.headers.get("content-type") != "text/event-stream; charset=utf-8":
            answer.read()  # a feed never ends
    return answer


# Which calls there are --------------------------------------------------------------------------


def test_every_route_is_classified(build: Callable[[str | None], App]) -> None:
    """A route that the table lacks, and no caller could reach, fails here; so does the reverse."""
    routes = set()
    for route in iter_route_contexts(build(None).routes):
        assert route.methods, f"{route.path} takes what the guard knows nothing of"
        routes |= {f"{method} {route.path}" for method in route.methods - {"HEAD"}}
    assert routes == set(ACCESS)


@pytest.mark.parametrize("call", ACCESS)
def test_the_pattern_of_a_call_is_its_own(call: str) -> None:
    """Whatever stands for a parameter, a path is never taken for a call of another role."""
    method, _, path = call.partition(" ")
    words = {word for each in ACCESS for word in each.split("/") if word.isalpha()}
    literal = {each.partition(" ")[2] for each in ACCESS if "{" not in each}
    for word in ("none", "a.b", "ü x\n", *words):
        address = re.sub(r"{\w+}", lambda _: word, path)  # noqa: B023 - used here
        is_of_another = address != path and address in literal
        assert access_to(method, address) == (None if is_of_another else ACCESS[call])


def test_an_address_that_is_none_of_them_is_nobodys() -> None:
    """A path that only resembles a call has no role."""
    for path in ("/v1/tokens/", "/v1/sessions/a/b/sync", "//livez", "/livez/", "/V1/sessions", ""):
        assert all(access_to(method, path) is None for method in ("GET", "POST", "DELETE", "PUT"))
    assert access_to("PATCH", "/v1/sessions") is None


# Which callers are let in -----------------------------------------------------------------------


@pytest.mark.parametrize("call", ACCESS)
def test_only_what_is_public_answers_without_a_token(http: httpx.Client, call: str) -> None:
    """Every other call is 401, and says that a token is required and how to send it."""
    answer = send(http, call, {})
    if ACCESS[call] == "public":
        assert answer.status_code == 200
        return
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Authorization: Bearer" in answer.json()["detail"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("call", [each for each in ACCESS if ACCESS[each] != "public"])
def test_a_role_reaches_as_far_as_it_says(
    http: httpx.Client, secrets: Secrets, role: Role, call: str
) -> None:
    """A call either passes, to find nothing, or is 403 and names the role that it requires."""
    needed = ACCESS[call]
    assert needed != "public"
    answer = send(http, call, bearer(secrets[role]))
    if ROLES.index(role) >= ROLES.index(needed):
        assert answer.status_code not in (401, 403), answer.text
        return
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert f"the role '{needed}'" in answer.json()["detail"]


def test_the_roles_are_what_the_table_knows() -> None:
    """The table names every role, from `viewer` to `admin`, and no other."""
    assert set(ACCESS.values()) == {*ROLES, "public"}
    assert ROLES == ("viewer", "trainer", "operator", "admin")
    assert set(get_args(get_args(Access)[0])) == set(ROLES)


def test_the_services_own_token_opens_everything(http: httpx.Client, secrets: Secrets) -> None:
    """The holder of the admin's token is an admin."""
    for call in ACCESS:
        assert send(http, call, bearer(ADMIN)).status_code not in (401, 403)


def test_a_job_needs_no_more_than_a_trainers_token(
    http: httpx.Client, secrets: Secrets, unique_name: str
) -> None:
    """A trainer's token can create a session, fetch its values, report and restart it."""
    trainer = bearer(secrets["trainer"])
    spec = {"name": unique_name, "base_lr": 0.1}
    assert http.post("/v1/sessions", json=spec, headers=trainer).status_code == 201
    path = f"/v1/sessions/{unique_name}"
    assert http.post(f"{path}/sync", json={"step": 0}, headers=trainer).json()["lr"] == 0.1
    report = {"reports": [{"step": 0, "metrics": {"loss": 1.0}}]}
    assert http.post(f"{path}/sync", json=report, headers=trainer).status_code == 200
    again = {"step": 1, "key": "restart"}
    assert http.post(f"{path}/attempts", json=again, headers=trainer).status_code == 201
    assert http.get(f"{path}/lr?step=0", headers=trainer).json()["lr"] == 0.1
    scale = {"kind": "scale", "factor": 0.5}
    assert http.post(f"{path}/actions", json=scale, headers=trainer).status_code == 403


WRONG: dict[str, Callable[[str], list[tuple[str, str]]]] = {
    "another secret": lambda _: [("authorization", "Bearer ps_0123456789ab_" + "A" * 43)],
    "one letter more": lambda right: [("authorization", f"Bearer {right}x")],
    "one letter less": lambda right: [("authorization", f"Bearer {right[:-1]}")],
    "what the database has": lambda right: [("authorization", f"Bearer {digest(right)}")],
    "the admin's, nearly": lambda _: [("authorization", f"Bearer {ADMIN[:-1]}")],
    "another scheme": lambda right: [("authorization", f"Basic {right}")],
    "no scheme": lambda right: [("authorization", right)],
    "no secret": lambda _: [("authorization", "Bearer")],
    "letters beyond ASCII": lambda _: [("authorization", "Bearer ÿþ")],
    "two tokens": lambda right: [("authorization", f"Bearer {right}")] * 2,
    "a parameter": lambda _: [],
}


def digest(secret: str) -> str:
    """Return the SHA-256 of a secret."""
    return sha256(secret.encode()).hexdigest()


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_a_wrong_token_is_refused_like_none(
    http: httpx.Client, secrets: Secrets, headers: Callable[[str], list[tuple[str, str]]]
) -> None:
    """The answers are equal to the byte, so a wrong token reveals nothing and is not echoed."""
    right = secrets["admin"]
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers(right)]
    wrong = http.get("/v1/sessions", params={"access_token": right}, headers=raw)
    none = http.get("/v1/sessions")
    assert (wrong.status_code, wrong.content) == (401, none.content)
    assert wrong.headers["www-authenticate"] == "Bearer"


def test_the_name_of_the_scheme_has_no_case(http: httpx.Client, secrets: Secrets) -> None:
    """RFC 9110 says so."""
    for scheme in ("Bearer", "bearer", "BEARER"):
        headers = {"authorization": f"{scheme} {secrets['viewer']}"}
        assert http.get("/v1/sessions", headers=headers).status_code == 200


def test_an_address_that_nobody_classified_is_not_there(
    http: httpx.Client, secrets: Secrets
) -> None:
    """With a token it is 404, or 405 with the allowed methods; without one it is 401."""
    nowhere = http.get("/v2/nothing", headers=bearer(secrets["admin"]))
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not_found")
    path = "/v1/sessions/none"
    unknown = http.put(path, headers=bearer(secrets["admin"]))
    assert (unknown.status_code, unknown.json()["code"]) == (405, "method_not_allowed")
    assert set(unknown.headers["allow"].split(", ")) == {
        "GET",
        "HEAD",
        "PATCH",
        "DELETE",
        "OPTIONS",
    }
    assert http.get("/v2/nothing").status_code == http.put(path).status_code == 401


def test_a_new_route_is_closed_until_it_is_classified(build: Callable[[str | None], App]) -> None:
    """Not even an admin reaches it, nor does a caller of an open service."""

    async def endpoint() -> None: ...

    async def status(app: App) -> int:
        app.add_api_route("/v1/new", endpoint)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return (await http.get("/v1/new", headers=bearer(ADMIN))).status_code

    assert asyncio.run(status(build(ADMIN))) == 404
    assert asyncio.run(status(build(None))) == 404


def test_what_is_let_in_carries_no_secret() -> None:
    """Past the guard, the caller's name stands where the token was."""
    seen = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["headers"])

    async def nothing(*_: object) -> None:
        raise AssertionError

    headers = [(b"accept", b"*/*"), (b"authorization", f"Bearer {ADMIN}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/v1/sessions", "headers": headers}
    guard = auth.Guard(inside, keyring.Keyring(ADMIN), nothing)
    asyncio.run(guard(scope, nothing, nothing))
    assert seen == [[(b"accept", b"*/*"), (b"pacesetter-actor", b"admin")]]


def test_a_websocket_is_closed(build: Callable[[str | None], App]) -> None:
    """The guard lets only HTTP through."""
    sent = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/sessions", "headers": []}
    asyncio.run(build(ADMIN)(scope, receive, send))
    assert sent == [{"type": "websocket.close"}]


# Tokens are made and revoked
# -----------------------------------------------------------------------


def test_a_secret_is_shown_once(http: httpx.Client) -> None:
    """It is in the answer that creates it, which must not be cached, and in no list."""
    body = {"name": "shown once", "role": "viewer", "expires_in_days": 30}
    answer = http.post("/v1/tokens", json=body, headers=bearer(ADMIN))
    assert answer.headers["cache-control"] == "no-store"
    issued = answer.json()
    assert re.fullmatch(rf"ps_{issued['id']}_[\w-]{{43}}", issued["token"])
    listed = http.get("/v1/tokens", headers=bearer(ADMIN))
    assert {key: issued[key] for key in issued if key != "token"} in listed.json()["tokens"]
    for hidden in (issued["token"], digest(issued["token"]), ADMIN, digest(ADMIN)):
        assert hidden not in listed.text


def test_a_revoked_token_is_worth_nothing_at_once(http: httpx.Client, secrets: Secrets) -> None:
    """The next call with it is refused; another token of the same name still works."""
    first, second = issue(http, "twice", "admin"), issue(http, "twice", "viewer")
    path = f"/v1/tokens/{first['id']}"
    assert http.delete(path, headers=bearer(first["token"])).status_code == 204  # the reader stays
    assert http.get("/v1/sessions", headers=bearer(first["token"])).status_code == 401
    assert http.get("/v1/sessions", headers=bearer(second["token"])).status_code == 200
    again = http.delete(path, headers=bearer(ADMIN))
    assert (again.status_code, again.json()["code"]) == (404, "token_not_found")


def test_a_feed_ends_when_the_token_of_its_reader_is_revoked(
    http: httpx.Client, unique_name: str
) -> None:
    """It says so and ends, though nothing happens to the session."""
    reader = issue(http, "reader", "viewer")
    spec = {"name": unique_name, "base_lr": 0.1}
    http.post("/v1/sessions", json=spec, headers=bearer(ADMIN)).raise_for_status()
    path = f"/v1/sessions/{unique_name}/events/stream"
    with http.stream("GET", path, headers=bearer(reader["token"])) as answer:
        chunks = answer.iter_text()
        assert "retry:" in next(chunks)
        http.delete(f"/v1/tokens/{reader['id']}", headers=bearer(ADMIN)).raise_for_status()
        deadline, rest = time.monotonic() + PATIENCE, ""
        for chunk in chunks:  # without that, heartbeats go on for ever
            rest += chunk
            assert time.monotonic() < deadline
    assert rest.endswith(auth.CUT_OFF.decode())
    assert http.get(path, headers=bearer(reader["token"])).status_code == 401


def test_a_token_expires(http: httpx.Client) -> None:
    """It is valid until then and refused from then on."""
    later = issue(http, "later", "viewer", expires_in_days=1)
    soon = issue(http, "soon", "viewer", expires_in_days=1 / 86_400)
    deadline = time.monotonic() + PATIENCE
    while http.get("/v1/sessions", headers=bearer(soon["token"])).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert http.get("/v1/sessions", headers=bearer(soon["token"])).status_code == 401
    assert http.get("/v1/sessions", headers=bearer(later["token"])).status_code == 200


def test_an_end_is_given_as_seconds_or_as_a_moment(http: httpx.Client) -> None:
    """It is shown with the token, in UTC; seconds count from its creation."""
    at = issue(http, "at", "viewer", expires_at="2035-06-01T02:00:00+02:00")
    assert at["expires_at"] == "2035-06-01T00:00:00.000+00:00"
    made = issue(http, "in", "viewer", expires_in=3600)
    begun, end = (datetime.fromisoformat(made[key]) for key in ("created_at", "expires_at"))
    assert abs((end - begun).total_seconds() - 3600) < PATIENCE
    listed = http.get("/v1/tokens", headers=bearer(ADMIN)).json()["tokens"]
    ends = {each["id"]: each["expires_at"] for each in listed}
    assert [ends[each["id"]] for each in (at, made)] == [at["expires_at"], made["expires_at"]]


def test_the_last_use_is_shown_and_outlives_the_service(tmp_path: Path) -> None:
    """An unused token says so; a use is listed at once, and stored soon."""
    database = tmp_path / "pacesetter.db"

    def stored() -> str | None:
        connection = sqlite3.connect(database)
        [(found,)] = connection.execute("SELECT last_used_at FROM tokens").fetchall()
        connection.close()
        return None if found is None else str(found)

    def shown(http: httpx.Client) -> str | None:
        [found] = http.get("/v1/tokens", headers=bearer(ADMIN)).json()["tokens"]
        return None if found["last_used_at"] is None else str(found["last_used_at"])

    with RunningService(database, admin_token=ADMIN) as service:
        with open_http(service.url) as http:
            alice = issue(http, "alice", "viewer")
            assert alice["last_used_at"] is shown(http) is None
            assert http.get("/v1/tokens", headers=bearer(alice["token"])).status_code == 403
            used = shown(http)
            assert used is not None
            assert used >= alice["created_at"]
            deadline = time.monotonic() + PATIENCE
            while stored() is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert http.get("/v1/sessions", headers=bearer(alice["token"])).status_code == 200
            assert shown(http) == stored() == used
        service.kill()
        service.start()
        with open_http(service.url) as http:
            assert shown(http) == used


def test_a_use_is_noted_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds for any number of calls; a use that could not be stored is taken again."""
    keys = keyring.Keyring(ADMIN, [Token("1", "alice", "viewer", digest("s"), "", None)])
    taken = []
    for now in (0.0, 59.9, 60.0, 61.0, 121.0):
        monkeypatch.setattr(keyring, "time", lambda now=now: now + 1e9)
        assert keys.holder(b"s") is not None
        assert keys.holder(b"wrong") is None
        assert keys.holder(ADMIN.encode()) is not None
        taken.append(keys.take_uses())
    seconds = [datetime.fromisoformat(each["1"]).timestamp() - 1e9 for each in taken if each]
    assert seconds == [0, 60, 121]
    keys.put_back(taken[0])
    assert keys.take_uses() == taken[0]
    assert keys.replace([Token("1", "alice", "viewer", digest("s"), "", None)], since=0)
    assert keys.tokens()[0].last_used_at == taken[-1]["1"]
    assert not keys.has_uses


@pytest.mark.anyio
@pytest.mark.parametrize("failure", [StorageUnavailableError("no disk"), ZeroDivisionError()])
async def test_a_use_that_could_not_be_stored_is_stored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """No failure loses when a token was last used, whether or not it was foreseen."""

    def fails(*_: object) -> None:
        raise failure

    store = SqliteStore(f"sqlite:///{tmp_path}/pacesetter.db")
    writer = Writer(store)
    writer.start()
    service = Service.over(store, writer, SecretStr(ADMIN))
    try:
        keys = service.keys
        assert keys is not None
        _, secret = await create_token(service, "alice", "viewer", None, EVERYTHING, "admin")
        assert keys.holder(secret.encode()) is not None
        monkeypatch.setattr(tokens, "note_uses", fails)
        with suppress(ZeroDivisionError):
            await store_uses(service, keys)
        assert keys.has_uses
    finally:
        service.close()
        writer.stop()
        store.close()


def test_a_token_is_good_to_the_moment_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment itself is no longer included."""
    token = Token("1", "alice", "viewer", digest("s"), "", "2030-01-01T00:00:00.000+00:00")
    keys = keyring.Keyring(ADMIN, [token])
    for now, held in ((1893455999.999, True), (1893456000.0, False)):
        monkeypatch.setattr(keyring, "time", lambda now=now: now)
        assert (keys.holder(b"s") is not None) is held


BAD_TOKENS: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": ""}, "name"),
    "a name that ends in a space": ({"name": "alice "}, "name"),
    "a name that no header can carry": ({"name": "Zoë"}, "name"),
    "a name of two lines": ({"name": "alice\nbob"}, "name"),
    "the admin's name": ({"name": "admin"}, "Choose another one"),
    "nobody's name": ({"name": "anonymous"}, "Choose another one"),
    "an unknown role": ({"role": "root"}, "'operator'"),
    "a time that is over": ({"expires_in_days": 0}, "above 0"),
    "two ends": ({"expires_in_days": 1, "expires_in": 1}, "Give one of"),
    "a moment that is over": ({"expires_at": "2001-01-01T00:00:00Z"}, "a moment to come"),
    "a moment beyond all": ({"expires_at": "9999-01-01T00:00:00Z"}, "a hundred years"),
    "a moment nowhere": ({"expires_at": "2030-01-01T00:00:00"}, "offset"),
    "a secret of one's own": ({"token": "please"}, "token"),
}


@pytest.mark.parametrize(("changes", "hint"), BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_a_token_that_makes_no_sense_is_not_made(
    http: httpx.Client, changes: dict[str, Any], hint: str
) -> None:
    """It is refused, with the place of the mistake."""
    body = {"name": "alice", "role": "viewer", **changes}
    answer = http.post("/v1/tokens", json=body, headers=bearer(ADMIN))
    assert answer.status_code == 422
    assert hint in answer.json()["detail"]


def test_tokens_outlive_the_service(tmp_path: Path) -> None:
    """After a power failure, issued tokens still work and revoked ones stay revoked."""
    database = tmp_path / "pacesetter.db"
    with RunningService(database, admin_token=ADMIN) as service:
        with open_http(service.url) as http:
            kept, gone = issue(http, "kept", "operator"), issue(http, "gone", "operator")
            http.delete(f"/v1/tokens/{gone['id']}", headers=bearer(ADMIN)).raise_for_status()
        service.kill()
        service.start()
        with open_http(service.url) as http:
            assert http.get("/v1/sessions", headers=bearer(kept["token"])).status_code == 200
            assert http.get("/v1/tokens", headers=bearer(kept["token"])).status_code == 403
            assert http.get("/v1/sessions", headers=bearer(gone["token"])).status_code == 401


def test_a_token_that_another_program_has_removed_is_refused_once_it_is_revoked(
    tmp_path: Path,
) -> None:
    """Its row is gone already, so the answer is 404; memory does not keep the token valid."""
    database = tmp_path / "pacesetter.db"
    with RunningService(database, admin_token=ADMIN) as service, open_http(service.url) as http:
        alice = issue(http, "alice", "viewer")
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("DELETE FROM tokens")
        connection.close()
        gone = http.delete(f"/v1/tokens/{alice['id']}", headers=bearer(ADMIN))
        assert gone.status_code == 404
        assert http.get("/v1/sessions", headers=bearer(alice["token"])).status_code == 401


def test_what_is_not_on_the_disk_does_not_hold(tmp_path: Path) -> None:
    """If the database fails, no token is issued or revoked, and the answer says so."""
    database = tmp_path / "pacesetter.db"
    with RunningService(database, admin_token=ADMIN) as service, open_http(service.url) as http:
        alice = issue(http, "alice", "viewer")
        connection = sqlite3.connect(database)
        connection.execute("DROP TABLE tokens")
        connection.close()
        body = {"name": "bob", "role": "viewer"}
        made = http.post("/v1/tokens", json=body, headers=bearer(ADMIN))
        gone = http.delete(f"/v1/tokens/{alice['id']}", headers=bearer(ADMIN))
        assert made.status_code == gone.status_code == 503
        assert http.get("/v1/sessions", headers=bearer(alice["token"])).status_code == 200
        listed = http.get("/v1/tokens", headers=bearer(ADMIN)).json()["tokens"]
        assert [each["name"] for each in listed] == ["alice"]


def test_a_token_that_is_perhaps_revoked_is_refused(tmp_path: Path) -> None:
    """It stays listed until it is certainly revoked, by a repeated call."""
    shim = Shim(tmp_path)
    database = tmp_path / "pacesetter.db"
    with (
        RunningService(database, shim.start, admin_token=ADMIN) as service,
        open_http(service.url) as http,
    ):
        made = issue(http, "ann", "viewer")
        http.headers.update(bearer(ADMIN))
        shim.order(bad_flush=1)
        answer = http.delete(f"/v1/tokens/{made['id']}")
        assert (answer.status_code, shim.fired) == (503, 1)
        assert "whether this call was kept is not known" in answer.json()["detail"]
        assert http.get("/v1/sessions", headers=bearer(made["token"])).status_code == 401
        assert listed(http) == ["ann"]
        assert http.delete(f"/v1/tokens/{made['id']}").status_code == 204
        assert listed(http) == []
    shim.close()


def test_a_token_that_is_perhaps_made_is_listed(tmp_path: Path) -> None:
    """So it can be revoked, though nobody was given its secret."""
    shim = Shim(tmp_path)
    database = tmp_path / "pacesetter.db"
    with (
        RunningService(database, shim.start, admin_token=ADMIN) as service,
        open_http(service.url) as http,
    ):
        http.headers.update(bearer(ADMIN))
        shim.order(bad_flush=1)
        answer = http.post("/v1/tokens", json={"name": "ann", "role": "viewer"})
        assert (answer.status_code, shim.fired) == (503, 1)
        [there] = http.get("/v1/tokens").json()["tokens"]
        assert there["name"] == "ann"
        assert http.delete(f"/v1/tokens/{there['id']}").status_code in {204, 404}
        assert listed(http) == []
    shim.close()


def listed(http: httpx.Client) -> list[str]:
    """Return whose tokens are listed."""
    return [each["name"] for each in http.get("/v1/tokens").json()["tokens"]]


# Under which name -------------------------------------------------------------------------------


def test_the_record_names_the_holder(
    http: httpx.Client, secrets: Secrets, unique_name: str
) -> None:
    """Orders, cancellations, attempts and forks carry the name of the token's holder."""
    alice = bearer(issue(http, "alice", "operator")["token"])
    path = f"/v1/sessions/{unique_name}"
    spec = {"name": unique_name, "base_lr": 0.1}
    http.post("/v1/sessions", json=spec, headers=alice).raise_for_status()
    scale = {"kind": "scale", "factor": 0.5, "at": 9}
    named = {**alice, "pacesetter-actor": "alice"}
    http.post(f"{path}/actions", json=scale, headers=alice).raise_for_status()
    http.post(f"{path}/actions", json=scale, headers=named).raise_for_status()
    http.post(f"{path}/actions", json=scale, headers=bearer(ADMIN)).raise_for_status()
    orders = http.get(f"{path}/actions", headers=alice).json()["orders"]
    assert [order["actor"] for order in orders] == ["alice", "alice", "admin"]
    http.delete(f"{path}/actions/2", headers=alice).raise_for_status()
    http.post(f"{path}/attempts", json={"step": 0, "key": "k"}, headers=alice).raise_for_status()
    attempts = http.get(f"{path}/attempts", headers=alice).json()["attempts"]
    assert attempts[-1]["actor"] == "alice"
    fork = {"name": f"{unique_name}-fork", "step": 0}
    http.post(f"{path}/fork", json=fork, headers=alice).raise_for_status()
    for name, kind in ((unique_name, "cancelled"), (fork["name"], "forked")):
        found = http.get(f"/v1/sessions/{name}/events", params={"kind": kind}, headers=alice)
        assert "alice" in found.json()["events"][0]["text"]


@pytest.mark.parametrize("role", ["trainer", "the service's own"])
def test_nobody_speaks_in_another_name(
    http: httpx.Client, secrets: Secrets, unique_name: str, role: str
) -> None:
    """A header with another name is refused, not overruled, on the hot call too."""
    mine = bearer(secrets[role])
    spec = {"name": unique_name, "base_lr": 0.1}
    sync = f"/v1/sessions/{unique_name}/sync"
    for call, body in (("/v1/sessions", spec), (sync, {"step": 0})):
        answer = http.post(call, json=body, headers={**mine, "pacesetter-actor": "bob"})
        assert (answer.status_code, answer.json()["code"]) == (403, "actor_refused")
        assert "Leave the header Pacesetter-Actor out" in answer.json()["detail"]
    name = "admin" if role == "the service's own" else "the trainer"
    twice = [*mine.items(), ("pacesetter-actor", name), ("pacesetter-actor", "bob")]
    assert http.post("/v1/sessions", json=spec, headers=twice).status_code == 403
    assert http.get(f"/v1/sessions/{unique_name}", headers=mine).status_code == 404


def test_a_trainer_drops_no_orders(http: httpx.Client, secrets: Secrets, unique_name: str) -> None:
    """It restarts with its pending orders; dropping them requires the role that may cancel them."""
    trainer, operator = bearer(secrets["trainer"]), bearer(secrets["operator"])
    spec, path = {"name": unique_name, "base_lr": 0.1}, f"/v1/sessions/{unique_name}"
    http.post("/v1/sessions", json=spec, headers=trainer).raise_for_status()
    http.post(f"{path}/sync", json={"step": 4}, headers=trainer).raise_for_status()
    drop = {"step": 2, "key": "back", "drop_actions": True}
    answer = http.post(f"{path}/attempts", json=drop, headers=trainer)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "'operator'" in answer.json()["detail"]
    assert http.get(path, headers=trainer).json()["attempt"] == 1
    assert http.post(f"{path}/attempts", json=drop, headers=operator).status_code == 201


# What it costs, and what it leaves --------------------------------------------------------------


def test_the_hot_call_asks_no_database_who_calls(
    build: Callable[[str | None], App], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call for sealed values makes no statement, whether its token is valid or not."""
    monkeypatch.setattr(auth, "STORED_AFTER", PATIENCE)  # uses are stored separately, now and then
    app = build(ADMIN)
    statements: list[str] = []
    store = app.state.service.store
    for engine in (store._reader, store._writer):
        event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))

    async def calls() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            body = {"name": "alice", "role": "trainer"}
            made = await http.post("/v1/tokens", json=body, headers=bearer(ADMIN))
            alice = bearer(made.json()["token"])
            await http.post("/v1/sessions", json={"name": "run", "base_lr": 0.1}, headers=alice)
            want = {"want": {"start": 0, "count": 10}}
            await http.post("/v1/sessions/run/sync", json=want, headers=alice)
            assert statements
            statements.clear()
            return [
                (await http.post("/v1/sessions/run/sync", json=want, headers=headers)).status_code
                for headers in (alice, bearer(ADMIN), bearer("wrong"), {})
            ]

    assert asyncio.run(calls()) == [200, 200, 401, 401]
    assert statements == []


def test_the_admins_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a right or wrong token of any length, only digests are compared, with compare_digest."""
    compared: list[tuple[str, str]] = []

    def spy(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(keyring, "compare_digest", spy)
    keys = keyring.Keyring(ADMIN)
    for secret in (ADMIN, ADMIN[:-1], "", "x" * 9999):
        assert (keys.holder(secret.encode()) is not None) == (secret == ADMIN)
    assert compared == [
        (digest(each), digest(ADMIN)) for each in (ADMIN, ADMIN[:-1], "", "x" * 9999)
    ]


def test_no_secret_is_in_the_log_the_database_or_a_record(tmp_path: Path) -> None:
    """The log level is `debug`, and calls are refused, fail and succeed."""
    database = tmp_path / "data" / "pacesetter.db"
    settings = {"admin_token": ADMIN, "log_level": "debug"}
    with RunningService(database, **settings) as service:
        with open_http(service.url) as http:
            secret = issue(http, "alice", "operator")["token"]
            alice, wrong = bearer(secret), "ps_0123456789ab_wrong-but-somebodys-secret"
            http.post("/v1/sessions", json={"name": "run", "base_lr": 0.1}, headers=alice)
            scale = {"kind": "scale", "factor": 0.5}
            http.post("/v1/sessions/run/actions", json=scale, headers=alice).raise_for_status()
            http.post("/v1/sessions/run/sync", json={"step": "no"}, headers=alice)
            assert http.get("/v1/sessions", headers=bearer(wrong)).status_code == 401
            record = http.get("/v1/sessions/run/export", headers=alice)
            assert b"alice" in record.content
            connection = sqlite3.connect(database)
            connection.execute("DROP TABLE templates")
            connection.close()
            assert http.get("/v1/templates", headers=alice).status_code == 503
            http.delete("/v1/tokens/none", headers=bearer(ADMIN))
        files = b"".join(path.read_bytes() for path in database.parent.iterdir())
        service.stop()
        logged = "".join(service.log)
    assert '"token_created"' in logged
    assert "alice" in logged
    assert digest(secret).encode() in files
    for hidden in (ADMIN, secret, secret.split("_", 2)[2], wrong):
        assert hidden not in logged
        assert hidden.encode() not in files
        assert hidden.encode() not in record.content
    assert digest(secret).encode() not in record.content
    assert digest(secret) not in logged


# Without authentication -------------------------------------------------------------------------


def test_an_open_service_asks_nobody(server_url: str, unique_name: str) -> None:
    """It takes no token, any token, and the author that the caller names."""
    with open_http(server_url) as http:
        spec = {"name": unique_name, "base_lr": 0.1}
        assert http.post("/v1/sessions", json=spec).status_code == 201
        assert http.get("/v1/sessions", headers=bearer("whatever")).status_code == 200
        path = f"/v1/sessions/{unique_name}/actions"
        scale = {"kind": "scale", "factor": 0.5, "at": 9}
        http.post(path, json=scale).raise_for_status()
        http.post(path, json=scale, headers={"pacesetter-actor": "bob"}).raise_for_status()
        assert [order["actor"] for order in http.get(path).json()["orders"]] == ["anonymous", "bob"]


def test_an_open_service_makes_no_tokens(server_url: str) -> None:
    """Otherwise anyone could make one to use after authentication is switched on."""
    with open_http(server_url) as http:
        for call in ("GET /v1/tokens", "DELETE /v1/tokens/none"):
            answer = send(http, call, {})
            assert (answer.status_code, answer.json()["code"]) == (409, "authentication_off")
        body = {"name": "mallory", "role": "admin"}
        answer = http.post("/v1/tokens", json=body)
        assert answer.status_code == 409
        assert "PACESETTER_ADMIN_TOKEN" in answer.json()["detail"]


def logged_at_start(database: Path, **settings: object) -> list[dict[str, Any]]:
    """Start and stop a service; return what it logged, before or after it began to listen."""
    settings |= {"database_url": f"sqlite:///{database}", "log_format": "json", "port": 0}
    environment = {f"PACESETTER_{name.upper()}": str(value) for name, value in settings.items()}
    process = ForkedService({**os.environ, **environment})
    lines = []
    with process.stderr:
        for line in process.stderr:
            lines.append(json.loads(line))
            if lines[-1]["event"] == "serving":
                process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    return lines


@pytest.mark.parametrize(("token", "warns"), [("", True), (ADMIN, False)])
def test_who_opens_the_service_to_the_network_is_warned(
    tmp_path: Path, token: str, warns: bool
) -> None:
    """The log says at the start that anyone may change everything; an empty token is none."""
    lines = logged_at_start(
        tmp_path / "pacesetter.db", host="0.0.0.0", admin_token=token, insecure=True
    )
    warnings = [line for line in lines if line["event"] == "open_to_everybody"]
    assert [line["level"] for line in warnings] == (["warning"] if warns else [])
    assert all("PACESETTER_ADMIN_TOKEN" in line["advice"] for line in warnings)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "192.0.2.7"])
def test_a_service_without_tokens_does_not_open_to_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    """It does not start, creates no database, and names both remedies."""
    database = tmp_path / "pacesetter.db"
    with pytest.raises(SystemExit, match="2"):
        main(["--host", host, "--database-url", f"sqlite:///{database}"])
    told = capsys.readouterr().err
    assert told.startswith(f"pacesetter serve: --host: {host!r} ")
    for way in ("PACESETTER_ADMIN_TOKEN", "--insecure", "PACESETTER_INSECURE=1", "127.0.0.1"):
        assert way in told
    assert not database.exists()


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", False),
        ("127.8.0.1", False),
        ("localhost", False),
        ("::1", False),
        ("::", True),
        ("no-such-name.invalid", False),
    ],
)
def test_what_stays_on_this_machine_is_known(host: str, reached: bool) -> None:
    """A name is judged by what it resolves to; one that does not resolve cannot be listened on."""
    assert _reaches_beyond(host) is reached


def test_a_token_or_a_word_opens_to_the_network(tmp_path: Path) -> None:
    """With the admin's token the service starts there, without a warning."""
    lines = logged_at_start(tmp_path / "pacesetter.db", host="0.0.0.0", admin_token=ADMIN)
    assert [line["level"] for line in lines if line["event"] == "serving"] == ["info"]


def test_who_forgets_the_admins_token_is_warned(tmp_path: Path) -> None:
    """A service that has tokens and requires none says so; loopback alone gives no warning."""
    database = tmp_path / "pacesetter.db"
    store = SqliteStore(f"sqlite:///{database}")
    with store.transaction() as connection:
        tokens.write(connection, Token("1", "alice", "viewer", digest("s"), "", None))
    store.close()
    lines = {line["event"]: line for line in logged_at_start(database)}
    assert "open_to_everybody" not in lines
    warning = lines["tokens_not_asked_for"]
    assert (warning["level"], warning["tokens"]) == ("warning", 1)


@pytest.mark.parametrize(
    "token", ["fifteen-letters", "sixteen letters or more", "ein-Schlüsselbund"]
)
@pytest.mark.parametrize("how", ["environment", "option"])
def test_an_admins_token_that_is_no_secret_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str, how: str
) -> None:
    """The service does not start, says how to make a good secret, and does not print this one."""
    if how == "environment":
        monkeypatch.setenv("PACESETTER_ADMIN_TOKEN", token)
    with pytest.raises(SystemExit, match="2"):
        _settings_or_exit(["--admin-token", token] if how == "option" else [])
    said = capsys.readouterr()
    assert "--admin-token: The token must have at least 16 characters" in said.err
    assert token not in said.out + said.err


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        (None, False, "No such file or directory"),
        (b"", False, "is empty"),
        (b"\n", False, "is empty"),
        (b"\xff\xfe", False, "it is no text"),
        (b"x" * 65_537, False, "too large"),
        (b"a-secret-of-some-length", True, "Drop one"),
    ],
)
def test_a_secret_that_no_file_holds_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    more: bool,
    said: str,
) -> None:
    """The service does not start, and names the option, the file and what is wrong with it."""
    file, option = tmp_path / "secret", f"--{name.replace('_', '-')}"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv(f"PACESETTER_{name.upper()}_FILE", str(file))
    with pytest.raises(SystemExit, match="2"):
        _settings_or_exit([option, "another-secret-of-mine"] if more else [])
    told = capsys.readouterr().err
    assert told.startswith(f"pacesetter serve: {option}-file: ")
    assert said in told
    assert "secret-of" not in told


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_may_stand_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """A newline at its end is dropped; an empty variable counts as unset."""
    for name, secret in (("admin_token", ADMIN), ("database_url", "postgresql://me:pass@db/p")):
        file = tmp_path / name
        file.write_bytes(f"{secret}{end}".encode())
        monkeypatch.setenv(f"PACESETTER_{name.upper()}_FILE", str(file))
        monkeypatch.setenv(f"PACESETTER_{name.upper()}", "")
    settings = read_settings([])
    assert settings.admin_token == SecretStr(ADMIN)
    assert settings.database_url == "postgresql://me:pass@db/p"
    assert "pass" not in repr(settings)


def test_a_secret_in_a_file_is_checked_as_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A weak secret is refused, and not shown."""
    file = tmp_path / "secret"
    file.write_text("fifteen-letters\n")
    with pytest.raises(SystemExit, match="2"):
        _settings_or_exit(["--admin-token-file", str(file)])
    told = capsys.readouterr().err
    assert "must have at least 16 characters" in told
    assert "fifteen" not in told


def test_the_settings_do_not_show_the_admins_token() -> None:
    """Printing or logging them reveals no secret."""
    settings = read_settings(["--admin-token", ADMIN])
    assert settings.admin_token == SecretStr(ADMIN)
    assert (
        ADMIN not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    )


# The document -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["guarded", "open"])
def test_the_openapi_document_says_what_each_call_takes(
    guarded_url: str, server_url: str, kind: str
) -> None:
    """Each operation names the role that its token must have, or, of an open service, may have."""
    with open_http(guarded_url if kind == "guarded" else server_url) as http:
        document = http.get("/openapi.json").json()
    scheme = document["components"]["securitySchemes"]["bearer"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            access = ACCESS[f"{method.upper()} {path}"]
            wanted = [{"bearer": [access]}, *([{}] if kind == "open" else [])]
            assert operation["security"] == ([] if access == "public" else wanted)
            assert ("401" in operation["responses"]) == (access != "public")


def test_the_commands_of_the_documentation_answer_as_printed(guarded_url: str) -> None:
    """Each command of the section on access, run in order, gives the members that are shown."""
    page = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    text = "".join(re.findall(r"```console\n(.*?)```", page.partition("## Access")[2], re.DOTALL))
    printed_id, issued = "3f9a0c51d2e7", {"id": "", "token": ""}
    for part in text.split("$ curl")[1:]:
        command, _, printed = part.partition("\n")
        command = command.replace("http://127.0.0.1:7070", guarded_url)
        done = subprocess.run(
            ["bash", "-c", f"curl -sS {command.replace(printed_id, issued['id'])}"],
            env={
                **os.environ,
                "PACESETTER_ADMIN_TOKEN": ADMIN,
                "PACESETTER_TOKEN": issued["token"],
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        shown = json.loads(re.sub(r"(?<=: )…", "null", printed)) if printed.strip() else {}
        answer = json.loads(done.stdout) if done.stdout else {}
        assert set(answer) == set(shown), done.stdout
        issued = answer if "token" in answer else issued
        for key, value in shown.items():
            if key not in ("id", "token") and value is not None:
                assert answer[key] == value
