"""Scopes of tokens, over HTTP against a real service: which names a caller may use."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pacesetter_service.api.access import (
    ACCESS,
    ASKING_SCOPE,
    NAMELESS,
    name_in,
    takes_any_scope,
)
from pacesetter_service.core.tokens import ROLES, NameScope, Role
from serving import RunningService, open_http

ADMIN = "the-admins-own-token-that-nobody-guesses"

LINES = {"content-type": "application/x-ndjson"}


def bearer(secret: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture(name="admin", scope="module")
def _admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Return a client of a service of this module, with the admin's token."""
    database = tmp_path_factory.mktemp("scopes") / "pacesetter.db"
    with (
        RunningService(database, admin_token=ADMIN, feed_heartbeat=0.1) as service,
        open_http(service.url) as http,
    ):
        http.headers.update(bearer(ADMIN))
        for name in ("team-a-one", "team-a-two", "team-b-one", "team-b-two"):
            http.post("/v1/sessions", json={"name": name, "base_lr": 0.1}).raise_for_status()
            template = {"name": name, "spec": {"base_lr": 0.1}, "parameters": {}}
            http.post("/v1/templates", json=template).raise_for_status()
        yield http


@pytest.fixture(name="team_a", scope="module")
def _team_a(admin: httpx.Client) -> Iterator[httpx.Client]:
    """Return a client whose token is for `team-a-*`, in the highest role that may have a scope."""
    with open_http(str(admin.base_url)) as http:
        http.headers.update(bearer(_issued(admin, "team-a-*")))
        yield http


def _issued(admin: httpx.Client, *scope: str, role: Role = "operator") -> str:
    wanted = {"name": "ann", "role": role, "scope": scope}
    answer = admin.post("/v1/tokens", json=wanted)
    assert answer.status_code == 201, answer.text
    assert answer.json()["scope"] == list(scope)
    return str(answer.json()["token"])


def _is_out_of_scope(answer: httpx.Response, *said: str) -> bool:
    problem = answer.json()
    return (answer.status_code, problem["code"]) == (403, "out_of_scope") and all(
        each in problem["detail"] for each in said
    )


# Which calls there are --------------------------------------------------------------------------


def _says(call: str) -> list[str]:
    """Return the ways in which a call is known to involve names."""
    method, _, path = call.partition(" ")
    named = "its address" if name_in(path) is not None else ""
    asked = "its endpoint asks" if call in ASKING_SCOPE else ""
    nameless = "it names nothing" if call in NAMELESS else ""
    withheld = "it takes who has no scope" if ACCESS[call] in ("public", "admin") else ""
    assert takes_any_scope(method, path) == bool(asked or nameless)
    if withheld:  # for any name
        return [withheld]
    return [each for each in (named, asked, nameless) if each]


def test_every_route_is_known_by_what_it_names() -> None:
    """A new call that no table of scopes names fails here; it requires a token without a scope."""
    assert set(ACCESS) >= ASKING_SCOPE | NAMELESS
    for call in ACCESS:
        assert len(_says(call)) == 1, f"{call}: {_says(call) or 'say which names it is about'}"


OURS, THEIRS, NOBODYS = "team-a-one", "team-b-one", "team-b-none"


NAMING = [
    call
    for call, access in ACCESS.items()
    if access != "admin" and name_in(call.partition(" ")[2]) is not None
]


@pytest.mark.parametrize("call", NAMING)
def test_a_name_outside_is_refused_whether_or_not_it_is_there(
    team_a: httpx.Client, call: str
) -> None:
    """Except for the name, the answers are equal to the byte, so they do not reveal what exists."""
    method, _, path = call.partition(" ")
    answers = [
        team_a.request(
            method,
            re.sub(r"{\w+}", "1", path.replace("{name}", name)),
            headers={"content-type": "application/json"},
            **({"content": "{}"} if method == "POST" else {}),
        )
        for name in (THEIRS, NOBODYS, "team-a-none")
    ]
    assert all(_is_out_of_scope(each, "'team-b-", "team-a-*") for each in answers[:2])
    assert answers[0].text.replace(THEIRS, NOBODYS) == answers[1].text
    assert answers[2].json().get("code") != "out_of_scope"


BODIES: dict[str, tuple[str, Any]] = {
    "a new session": ("/v1/sessions", {"name": THEIRS, "base_lr": 0.1}),
    "a session of their template": (
        "/v1/sessions",
        {"name": "team-a-new", "template": f"{THEIRS}@1", "with": {}},
    ),
    "a fork of theirs": (f"/v1/sessions/{THEIRS}/fork", {"name": "team-a-new", "step": 0}),
    "a fork to theirs": (f"/v1/sessions/{OURS}/fork", {"name": "team-b-new", "step": 0}),
    "a template": ("/v1/templates", {"name": THEIRS, "spec": {"base_lr": 0.1}, "parameters": {}}),
}


@pytest.mark.parametrize(("path", "body"), BODIES.values(), ids=BODIES)
def test_a_name_in_a_body_is_held_to_the_scope(
    admin: httpx.Client, team_a: httpx.Client, path: str, body: Any
) -> None:
    """It is refused like a name in the path, and nothing is created."""
    assert _is_out_of_scope(team_a.post(path, json=body), "'team-b-", "team-a-*")
    for name in ("team-a-new", "team-b-new"):
        assert admin.get(f"/v1/sessions/{name}").status_code == 404


def test_an_import_is_held_to_the_scope(admin: httpx.Client, team_a: httpx.Client) -> None:
    """The name given with the import counts, or else the one in the record."""
    record = admin.get(f"/v1/sessions/{THEIRS}/export").content
    refused = [
        team_a.post(f"/v1/import{query}", content=record, headers=LINES)
        for query in ("", "?name=team-b-copy")
    ]
    assert all(_is_out_of_scope(each) for each in refused)
    assert admin.get("/v1/sessions/team-b-copy").status_code == 404
    taken = team_a.post("/v1/import?name=team-a-copy", content=record, headers=LINES)
    assert taken.status_code == 201
    assert team_a.delete("/v1/sessions/team-a-copy").status_code == 204


# What is shown ----------------------------------------------------------------------------------


def test_an_import_joins_no_family_outside_of_the_scope(
    admin: httpx.Client, team_a: httpx.Client
) -> None:
    """What is said to be made from a template counts where trainings of that one are judged.

    So it takes the same as to make a session from it.
    """
    for template, held in (("team-a-one", True), ("team-b-one", False)):
        made, copy = f"team-b-of-{template}", f"team-a-of-{template}"
        body = {"name": made, "template": f"{template}@1"}
        admin.post("/v1/sessions", json=body).raise_for_status()
        record = admin.get(f"/v1/sessions/{made}/export").raise_for_status().content
        answer = team_a.post(f"/v1/import?name={copy}", content=record, headers=LINES)
        if held:
            assert answer.status_code == 201
        else:
            assert _is_out_of_scope(answer, "team-b-one")
            taken = admin.post(f"/v1/import?name={copy}", content=record, headers=LINES)
            assert taken.status_code == 201
        for name in (made, copy):
            admin.delete(f"/v1/sessions/{name}").raise_for_status()
            admin.post(f"/v1/sessions/{name}/purge", json={}).raise_for_status()


def test_lists_show_what_the_scope_holds(admin: httpx.Client, team_a: httpx.Client) -> None:
    """Pages are as full, and end, as if nothing else existed."""
    own = {"name": "team-a-three", "base_lr": 0.1, "labels": {"x": "y"}}
    team_a.post("/v1/sessions", json=own).raise_for_status()
    admin.post("/v1/sessions", json={**own, "name": "team-b-three"}).raise_for_status()
    names, token = [], ""
    while token is not None:
        page = team_a.get("/v1/sessions", params={"limit": 1, "page_token": token}).json()
        assert len(page["sessions"]) == 1
        names.append(page["sessions"][0]["name"])
        token = page["next_page_token"]
    assert [each for each in names if each != "team-a-copy"] == [
        "team-a-one",
        "team-a-three",
        "team-a-two",
    ]
    labelled = team_a.get("/v1/sessions", params={"label": "x:y"}).json()["sessions"]
    assert [each["name"] for each in labelled] == ["team-a-three"]
    templates = team_a.get("/v1/templates").json()["templates"]
    assert [each["name"] for each in templates] == ["team-a-one", "team-a-two"]
    assert len(admin.get("/v1/templates").json()["templates"]) == 4


def test_a_team_works_within_its_scope(team_a: httpx.Client) -> None:
    """Within it, it trains, orders, forks, follows and publishes as without a scope."""
    path = f"/v1/sessions/{OURS}"
    assert team_a.post(f"{path}/sync", json={"step": 0}).json()["lr"] == 0.1
    scale = {"kind": "scale", "factor": 0.5}
    assert team_a.post(f"{path}/actions", json=scale).status_code == 201
    assert team_a.post(f"{path}/fork", json={"name": "team-a-fork", "step": 0}).status_code == 201
    assert team_a.delete("/v1/sessions/team-a-fork").status_code == 204
    with team_a.stream("GET", f"{path}/events/stream") as answer:
        assert answer.status_code == 200
        assert "retry:" in next(answer.iter_text())
    for call in sorted(NAMELESS):
        method, _, address = call.partition(" ")
        sent = {"json": {}} if method == "POST" else {}
        assert team_a.request(method, address, **sent).status_code not in (401, 403)


def test_several_patterns_hold_together(admin: httpx.Client) -> None:
    """A name that matches any of them is in scope; upper and lower case differ."""
    with open_http(str(admin.base_url)) as http:
        http.headers.update(bearer(_issued(admin, "team-?-two", "team-b-one", role="viewer")))
        seen = http.get("/v1/sessions").json()["sessions"]
        assert [each["name"] for each in seen] == ["team-a-two", "team-b-one", "team-b-two"]
        assert http.get("/v1/sessions/Team-b-one").status_code == 403


@pytest.mark.parametrize(
    ("patterns", "name", "held"),
    [
        ((), "anything", True),
        (("*",), "anything", True),
        (("a.b-*",), "a.b-", True),
        (("a.b-*",), "axb-c", False),
        (("a?",), "a", False),
        (("a", "b"), "b", True),
        (("a*",), "ba", False),
        (("a",), "a\n", False),
        (("a*",), "a\nb", False),
    ],
)
def test_a_pattern_matches_whole_names(patterns: tuple[str, ...], name: str, held: bool) -> None:
    """`*` stands for any characters, `?` for one, and every other character for itself."""
    assert NameScope(patterns).holds(name) is held


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an admin's": ({"role": "admin", "scope": ["a"]}, "Leave `scope` out"),
    "no name": ({"scope": ["a b"]}, "/scope/0"),
    "no pattern": ({"scope": [""]}, "/scope/0"),
    "a range": ({"scope": ["[ab]"]}, "/scope/0"),
    "too many": ({"scope": ["a"] * 65}, "64"),
}


@pytest.mark.parametrize(("changes", "hint"), BAD.values(), ids=BAD)
def test_a_scope_that_makes_no_sense_is_refused(
    admin: httpx.Client, changes: dict[str, Any], hint: str
) -> None:
    """The refusal has the place of the mistake; an admin cannot have a scope."""
    answer = admin.post("/v1/tokens", json={"name": "ann", "role": "viewer", **changes})
    assert (answer.status_code, hint in answer.json()["detail"]) == (422, True), answer.text


def test_a_scope_adds_nothing_to_a_role(admin: httpx.Client) -> None:
    """Within it each role keeps its rights, and calls that require an admin stay closed."""
    with open_http(str(admin.base_url)) as http:
        for role in ROLES[:-1]:
            http.headers.update(bearer(_issued(admin, "team-a-*", role=role)))
            archived = http.delete("/v1/sessions/team-a-none").status_code
            assert archived == (404 if role == "operator" else 403)
            assert http.get("/v1/tokens").json()["code"] == "forbidden"
