"""Which visitor sees which page, and which rules a browser gets."""

import gzip
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page

from pacesetter_service.core.tokens import ROLES, Token
from pacesetter_service.dashboard.app import Dashboard, _routes
from pacesetter_service.runtime import visits
from pacesetter_service.runtime.keyring import Keyring, digest_of
from serving import RunningService, open_http

ADMIN = "an-admin-token-of-this-test-0123456789abcdef"

COOKIE = "pacesetter_login"


@pytest.fixture(name="guarded", scope="module")
def _guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a service with tokens."""
    database = tmp_path_factory.mktemp("guarded") / "pacesetter.db"
    with RunningService(database, admin_token=ADMIN) as service:
        yield service.url


@pytest.fixture(name="http")
def _http(guarded: str) -> Iterator[httpx.Client]:
    """Return a client without cookies."""
    with open_http(guarded) as http:
        yield http


def token(guarded: str, role: str, **more: object) -> tuple[str, str]:
    """Make a token, and return its id and its secret."""
    with open_http(guarded) as http:
        answer = http.post(
            "/v1/tokens",
            json={"name": f"the {role}", "role": role, **more},
            headers={"authorization": f"Bearer {ADMIN}"},
        )
    answer.raise_for_status()
    return answer.json()["id"], answer.json()["token"]


def log_in(http: httpx.Client, secret: str, to: str = "") -> httpx.Response:
    """Send the form of the login as a browser does."""
    origin = str(http.base_url).rstrip("/")
    return http.post("/login", data={"token": secret, "to": to}, headers={"origin": origin})


def test_a_visitor_logs_in_sees_and_logs_out(guarded: str, page: Page) -> None:
    """The page that was asked for comes after the login; the secret is in no address."""
    with open_http(guarded) as http:
        body = {"name": "night", "base_lr": 0.1}
        http.post("/v1/sessions", json=body, headers={"authorization": f"Bearer {ADMIN}"})
    _, secret = token(guarded, "viewer")
    page.goto(f"{guarded}/sessions/night")
    assert page.title() == "Log in · Pacesetter"
    page.get_by_label("Your token").fill(secret)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/sessions/night")
    assert "the viewer · viewer" in page.inner_text("header.top")
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert secret not in cookie["value"]
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto(guarded)
    assert page.url == f"{guarded}/login"


def test_a_wrong_token_is_told_and_begins_nothing(http: httpx.Client) -> None:
    """No cookie is set, and the answer does not repeat the token."""
    answer = log_in(http, "ps_000000000000_wrong")
    assert answer.status_code == 401
    assert "not known" in answer.text
    assert "ps_000000000000_wrong" not in answer.text
    assert not answer.cookies


def test_a_login_leads_to_pages_of_ours_alone(http: httpx.Client) -> None:
    """An address of another host, however it is written, is ignored."""
    for to in ("//evil.example", "https://evil.example/", "/\\evil.example", "\\\\evil.example"):
        assert log_in(http, ADMIN, to).headers["location"] == "./"
    assert log_in(http, ADMIN, "sessions/a?step=3").headers["location"] == "./sessions/a?step=3"


def test_a_change_comes_from_a_page_of_ours(http: httpx.Client) -> None:
    """Without an Origin, or with a foreign one, no form is accepted."""
    data = {"token": ADMIN}
    assert http.post("/login", data=data).status_code == 403
    for origin in ("http://evil.example", "null"):
        assert http.post("/login", data=data, headers={"origin": origin}).status_code == 403


def test_a_revoked_token_ends_its_logins(guarded: str, http: httpx.Client) -> None:
    """The next page is the login again."""
    number, secret = token(guarded, "viewer")
    log_in(http, secret)
    assert http.get("/").status_code == 200
    http.delete(f"/v1/tokens/{number}", headers={"authorization": f"Bearer {ADMIN}"})
    assert http.get("/").headers["location"] == "./login"
    asked = {"sec-fetch-dest": "empty"}
    assert http.get("/sessions/night/chart.json", headers=asked).status_code == 401


def test_pages_are_counted_apart_from_calls(http: httpx.Client) -> None:
    """They share one route in the metrics, and callers cannot add others."""
    log_in(http, ADMIN)
    http.get("/sessions/none-such")
    text = http.get("/metrics", headers={"authorization": f"Bearer {ADMIN}"}).text
    counted = [line for line in text.splitlines() if 'route="dashboard"' in line]
    assert any('method="GET"' in line for line in counted)
    assert "none-such" not in text


def test_a_login_is_a_use_of_its_token(guarded: str, http: httpx.Client) -> None:
    """Admins see when a token was last used, for pages too."""
    number, secret = token(guarded, "viewer")
    log_in(http, secret)
    headers = {"authorization": f"Bearer {ADMIN}"}
    known = http.get("/v1/tokens", headers=headers).json()["tokens"]
    assert next(each["last_used_at"] for each in known if each["id"] == number)


def test_a_token_for_some_names_sees_these(guarded: str, http: httpx.Client) -> None:
    """Pages about other names are refused, whether or not such a session exists."""
    _, secret = token(guarded, "viewer", scope=["team-a-*"])
    log_in(http, secret)
    assert http.get("/sessions/team-b-1").status_code == 403
    assert http.get("/sessions/team-b-1/chart.json").status_code == 403
    assert http.get("/sessions/team-a-1").status_code == 404


def test_a_template_of_others_is_neither_shown_nor_used(guarded: str, http: httpx.Client) -> None:
    """The page that takes JSON checks the template's name too, as the API does."""
    admin = {"authorization": f"Bearer {ADMIN}"}
    body = {"name": "team-b-secret", "description": "theirs", "spec": {"base_lr": 0.0625}}
    http.post("/v1/templates", json=body, headers=admin).raise_for_status()
    _, secret = token(guarded, "trainer", scope=["team-a-*"])
    log_in(http, secret)
    asked = json.dumps({"name": "team-a-x", "template": "team-b-secret@1", "with": {}})
    origin = {"origin": str(http.base_url).rstrip("/")}
    for do in ("preview", "create"):
        form = {"spec": asked, "do": do}
        answer = http.post("/create/json", data=form, headers=origin)
        assert answer.status_code == 422, (do, answer.text)
        assert "0.0625" not in answer.text
    assert http.get("/v1/sessions/team-a-x", headers=admin).status_code == 404


def test_a_session_cannot_be_given_an_origin(guarded: str, http: httpx.Client) -> None:
    """What only the service says of a session is no field of a form, nor one of the API."""
    admin = {"authorization": f"Bearer {ADMIN}"}
    body = {"name": "real", "description": "ours", "spec": {"base_lr": 0.1}}
    http.post("/v1/templates", json=body, headers=admin).raise_for_status()
    spec = http.post("/v1/sessions", json={"name": "made", "template": "real@1"}, headers=admin)
    made = spec.raise_for_status().json()["spec"]
    log_in(http, ADMIN)
    asked = json.dumps({"name": "forged", "base_lr": 0.5, "origin": made["origin"]})
    origin = {"origin": str(http.base_url).rstrip("/")}
    answer = http.post("/create/json", data={"spec": asked, "do": "create"}, headers=origin)
    assert answer.status_code == 422, answer.text
    assert http.get("/v1/sessions/forged", headers=admin).status_code == 404


SECRET = "the-service's-own-token-0123456789abcdefgh"


def ring(secret: str = SECRET, expires: datetime | None = None) -> Keyring:
    """Return a ring with a viewer's token."""
    until = None if expires is None else expires.isoformat()
    return Keyring(secret, [Token("abc", "vera", "viewer", digest_of(b"x"), "", until)])


def test_a_login_holds_on_every_process_with_the_same_token() -> None:
    """The service stores nothing of it; another admin's token ends it."""
    keys = ring()
    statement = visits.begin(keys, keys.tokens()[0])
    found = visits.holder(ring(), statement)
    assert found is not None
    assert found.name == "vera"
    assert visits.holder(ring(SECRET[::-1]), statement) is None


def test_a_login_ends_with_its_time_or_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends after twelve hours, or as soon as its token has expired."""
    keys = ring()
    statement = visits.begin(keys, keys.tokens()[0])
    assert visits.holder(ring(expires=datetime.now(UTC) - timedelta(1)), statement) is None
    later = visits.time() + visits.HOURS * 3600 + 1
    monkeypatch.setattr(visits, "time", lambda: later)
    assert visits.holder(keys, statement) is None


def test_a_login_cannot_be_made_up() -> None:
    """A login of another token, for longer, or with any character changed is refused."""
    keys = ring()
    statement = visits.begin(keys, keys.tokens()[0])
    number, until, nonce, seal = statement.split(".")
    forged = [f".{until}.{nonce}.{seal}", f"{number}.{int(until) + 1}.{nonce}.{seal}", "", "..."]
    changed = [
        statement[:place] + ("0" if each != "0" else "1") + statement[place + 1 :]
        for place, each in enumerate(statement)
        if each != "."
    ]
    for each in (*forged, *changed, statement + "0", "é" * 20):
        assert visits.holder(keys, each) is None


@pytest.mark.parametrize("path", ["/login", "/nowhere-of-sessions", "/sessions/none", "/"])
def test_every_page_says_what_it_may_load(http: httpx.Client, path: str) -> None:
    """It may load its own files, in no frame, cached nowhere, without inline rule or script."""
    log_in(http, ADMIN)
    answer = http.get(path)
    if path.startswith("/nowhere"):
        assert answer.headers["content-type"] == "application/problem+json"
        return
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)[^>]*>|\son\w+=|\sstyle=", answer.text)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", answer.text)


FIRST_LOAD = 60 * 1024


def test_a_first_visit_loads_little(guarded: str, http: httpx.Client) -> None:
    """A page with all that it loads is at most 60 KB, compressed as browsers request it."""
    log_in(http, ADMIN)
    http.post(
        "/v1/sessions",
        json={"name": "light", "base_lr": 0.1, "total_steps": 1000},
        headers={"authorization": f"Bearer {ADMIN}"},
    )
    for path in ("/", "/sessions/light"):
        text = http.get(path).text
        named = re.findall(r'(?:src|href)="([^"]*static/[^"]+)"', text)
        assert named
        files = {http.get(str(httpx.URL(f"{guarded}{path}").join(each))).content for each in named}
        assert sum(len(gzip.compress(each)) for each in (*files, text.encode())) < FIRST_LOAD


def test_files_are_kept_by_browsers_under_their_digests(http: httpx.Client) -> None:
    """The right digest is cached for ever; another one gives the current file, never cached."""
    login = http.get("/login").text
    path = re.search(r'href="(\./static/\w+/pacesetter\.css)"', login)
    assert path is not None
    right = http.get(path[1].removeprefix("."), headers={"accept-encoding": "gzip"})
    assert right.headers["content-encoding"] == "gzip"
    assert "immutable" in right.headers["cache-control"]
    again = http.get(path[1].removeprefix("."), headers={"if-none-match": right.headers["etag"]})
    assert again.status_code == 304
    other = http.get("/static/000000000000/pacesetter.css")
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache")
    assert other.text == right.text
    for path in ("/static/0/%2e%2e/app.py", "/static/0/none.css", "/static/0/vendored.json"):
        assert http.get(path).status_code == 404


def test_the_head_of_a_feed_has_an_end(http: httpx.Client) -> None:
    """A HEAD request is not held open."""
    log_in(http, ADMIN)
    body = {"name": "headed", "base_lr": 0.1}
    http.post("/v1/sessions", json=body, headers={"authorization": f"Bearer {ADMIN}"})
    for path in ("/sessions/headed/feed", "/timeline/feed?after=0"):
        answer = http.head(path)
        assert answer.headers["content-type"].startswith("text/event-stream")


def test_only_its_own_addresses_are_the_dashboards() -> None:
    """The addresses of the API and its probes stay theirs."""
    for path in ("/v1/sessions", "/livez", "/docs", "/metrics", "/openapi.json", "/loginx", ""):
        assert not Dashboard.serves(path)
    for path in ("/", "/login", "/sessions/a", "/static/x/y"):
        assert Dashboard.serves(path)


def test_without_tokens_there_is_no_login(tmp_path: Path) -> None:
    """An open service shows its pages at once, and says that it is open."""
    with RunningService(tmp_path / "open.db") as service, open_http(service.url) as http:
        assert http.get("/login").headers["location"] == "./"
        assert "open: every caller" in http.get("/").text


def pages() -> list[tuple[str, str, str]]:
    """Return each page: its role, its method, and an address of it that finds nothing."""
    found = _routes(None, None, None)  # type: ignore[arg-type] - it is only asked for addresses
    return [
        (needed, method, re.sub(r"{[^}]+}", "0", route.path))
        for route, needed in found
        for method in sorted(route.methods or set())
        if method != "HEAD"
    ]


@pytest.mark.parametrize(("needed", "method", "path"), pages())
def test_a_page_takes_the_role_that_the_table_names(
    guarded: str, secrets: dict[str, str], needed: str, method: str, path: str
) -> None:
    """Without a login it leads to one; a lower role is refused, and the required one is not."""
    for role in ("nobody", *ROLES):
        with open_http(guarded) as http:
            http.headers["origin"] = guarded
            if role != "nobody":
                log_in(http, secrets[role])
            answer = http.request(method, path)
        if needed == "public":
            assert answer.status_code != 403
        elif role == "nobody":
            assert (answer.status_code, answer.headers["location"][-5:]) == (303, "login") or (
                "login?to=" in answer.headers["location"]
            )
        else:
            enough = ROLES.index(role) >= ROLES.index(needed)
            assert (answer.status_code == 403) is not enough, answer.text


@pytest.fixture(name="secrets", scope="module")
def _secrets(guarded: str) -> dict[str, str]:
    """Return a token of each role."""
    return {role: token(guarded, role)[1] for role in ROLES}


def test_a_feed_ends_with_its_login(guarded: str, http: httpx.Client) -> None:
    """The reader of a login that was ended gets no more events."""
    headers = {"authorization": f"Bearer {ADMIN}"}
    http.post("/v1/sessions", json={"name": "heard", "base_lr": 0.1}, headers=headers)
    number, secret = token(guarded, "viewer")
    log_in(http, secret)
    with http.stream("GET", "/sessions/heard/feed") as feed:
        lines = feed.iter_lines()
        assert next(lines).startswith("retry")
        with open_http(guarded) as admin:
            admin.delete(f"/v1/tokens/{number}", headers=headers)
        assert list(lines)[-2] == ": this login is over"


def test_a_token_with_bounds_orders_nothing_here(guarded: str, http: httpx.Client) -> None:
    """Pages do not check bounds, so its holder reads as a viewer does."""
    body = {"name": "bounded", "base_lr": 0.1}
    admin = {"authorization": f"Bearer {ADMIN}"}
    http.post("/v1/sessions", json=body, headers=admin).raise_for_status()
    _, secret = token(guarded, "operator", bounds={"factor_range": [0.5, 2.0]})
    log_in(http, secret)
    assert http.get("/sessions/bounded").status_code == 200
    form = {"factor": "0.1", "reason": "none", "confirm": "1"}
    origin = {"origin": str(http.base_url).rstrip("/")}
    answer = http.post("/sessions/bounded/control/scale", data=form, headers=origin)
    assert answer.status_code == 403, answer.text
    assert http.get("/v1/sessions/bounded", headers=admin).json()["revision"] == 0


def test_a_number_of_thousands_of_digits_is_refused(http: httpx.Client) -> None:
    """Python parses no such number, and the page says what is wrong with it."""
    log_in(http, ADMIN)
    for path in ("/timeline/feed", "/sessions/none/feed"):
        assert http.get(path, params={"after": "9" * 5000}).status_code == 400, path
    body = {"name": "digits", "base_lr": 0.1}
    admin = {"authorization": f"Bearer {ADMIN}"}
    http.post("/v1/sessions", json=body, headers=admin).raise_for_status()
    assert http.get("/sessions/digits", params={"ordered": "9" * 5000}).status_code == 200


@pytest.mark.parametrize("digits", [20, 5000])
def test_an_address_with_a_number_that_nothing_has_is_no_page(
    guarded: str, http: httpx.Client, digits: int
) -> None:
    """No number in an address is too long to be looked for: who is known is told that it is none.

    Who is not known is led to the login, as from everywhere.
    """
    number, origin = "9" * digits, {"origin": guarded}
    paths = (
        f"/templates/none/{number}/deprecate",
        f"/sessions/none/orders/{number}/cancel",
        f"/sessions/none/plan/candidates/{number}",
    )
    for path in paths:
        stranger = http.post(path, data={"reason": "none"}, headers=origin)
        assert stranger.headers["location"].endswith("login"), path
    log_in(http, ADMIN)
    for path in paths:
        assert http.post(path, data={"reason": "none"}, headers=origin).status_code == 404, path
