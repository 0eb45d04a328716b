"""Sessions side by side, the map of ranks, range tests, and the pages of admins."""

import json
import math
import re
from collections.abc import Iterator
from html import unescape

import httpx
import pytest

from serving import RunningService, open_http

ADMIN = "an-admin-token-of-this-test-0123456789abcdef"


def create(http: httpx.Client, name: str, **spec: object) -> None:
    """Create a session."""
    http.post("/v1/sessions", json={"name": name, "base_lr": 0.1, **spec}).raise_for_status()


def sync(http: httpx.Client, name: str, step: int, count: int = 10, **more: object) -> None:
    """Sync as a trainer at a step."""
    body = {"want": {"start": step, "count": count}, "progress": {"step": step}, "attempt": 1}
    answer = http.post(f"/v1/sessions/{name}/sync", json={**body, **more})
    assert answer.status_code == 200, answer.text


def test_sessions_are_compared(http: httpx.Client, unique_name: str) -> None:
    """The page has curves by step or by fraction, differences of specs, and the tree of forks."""
    one, other = f"{unique_name}-1", f"{unique_name}-2"
    create(http, one, schedule={"kind": "cosine", "total_steps": 50}, total_steps=50)
    sync(http, one, 0, 20)
    sync(http, one, 10, reports=[{"step": 5, "metrics": {"loss": 2.5}}])
    longer = {"total_steps": 90, "schedule": {"kind": "cosine", "total_steps": 90}}
    body = {"name": other, "step": 10, "description": longer}
    http.post(f"/v1/sessions/{one}/fork", json=body).raise_for_status()
    page = http.get("/compare", params={"name": f"{one} {other}"}).text
    curves = page.partition('id="curves"')[2].partition("</section>")[0]
    assert len(re.findall(r'class="curve c[01] ', curves)) >= 4
    assert "/schedule/total_steps" in page
    assert re.search(rf'class="d1"><a [^>]*>{other}</a> <span class="note">from step 10', page)
    by_part = http.get("/compare", params={"name": [one, other], "by": "part", "scale": "log"}).text
    assert "by percent of the plan" in by_part
    assert "Name the sessions" in http.get("/compare", params={"name": one}).text
    assert http.get("/compare", params={"name": f"{one} none-such"}).status_code == 404
    many = " ".join(f"s{number}" for number in range(11))
    assert http.get("/compare", params={"name": many}).status_code == 422


def test_a_comparison_that_is_read_again_is_where_they_stand(
    http: httpx.Client, unique_name: str
) -> None:
    """A script reads the table alone, as the whole page has it: no curves, specs or forks."""
    one, other = f"{unique_name}-1", f"{unique_name}-2"
    for name in (one, other):
        create(http, name, schedule={"kind": "cosine", "total_steps": 50}, total_steps=50)
        sync(http, name, 0, 20)
    sync(http, one, 10, reports=[{"step": 5, "metrics": {"loss": 2.5}}])
    asked = {"name": [one, other]}
    whole = http.get("/compare", params=asked).text
    live = http.get("/compare", params={**asked, "live": "1"}).text
    assert live.strip().startswith('<section class="card" id="standing" data-live')
    assert live.strip() in whole
    assert "2.5" in live
    assert "<svg" not in live


def test_a_map_shows_each_rank(http: httpx.Client, unique_name: str) -> None:
    """It tells ranks that are fine, slow, deviating or missing, and a deviating one's rate."""
    create(http, unique_name, ranks=1_000)
    for rank in range(3):
        sync(http, unique_name, 0, 64, rank=rank)
    report = {"step": 60, "metrics": {"loss": 1.0}}
    sync(http, unique_name, 61, 3, rank=0, reports=[report])
    applied = {"step": 61, "values": {"lr": 0.5}}
    sync(http, unique_name, 62, 2, rank=1, applied=applied)
    page = http.get(f"/sessions/{unique_name}/ranks").text
    told = "1 ranks are fine, 1 slow, 0 silent, 1 deviating, 997 missing"
    assert told in page
    assert page.count('title="rank ') == 1_000
    assert "lr 0.5 in place of 0.1" in page


def test_a_range_test_is_read(http: httpx.Client, unique_name: str) -> None:
    """The page has its curve as a picture, each rule's answer, and a link to a session with it."""
    law = {"kind": "range_test", "start_lr": 1e-6, "end_lr": 1.0, "steps": 100}
    create(http, unique_name, schedule=law, base_lr=0.1)
    sync(http, unique_name, 0, 64)
    sync(http, unique_name, 64, 36)
    losses = [
        {"step": step, "metrics": {"loss": 3 - 2 / (1 + math.exp(6 - step / 8))}}
        for step in range(100)
    ]
    sync(http, unique_name, 99, 1, reports=losses)
    assert "What the range test says" in http.get(f"/sessions/{unique_name}").text
    page = http.get(f"/sessions/{unique_name}/range-test")
    assert page.status_code == 200, page.text
    assert "steepest" in page.text
    assert "create/advise?range_test_max_lr=" in page.text
    picture = http.get(f"/sessions/{unique_name}/range-test.svg", params={"metric": "loss"})
    assert picture.text.startswith("<svg")


@pytest.fixture(name="guarded", scope="module")
def _guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Return an admin's browser at a service with tokens."""
    database = tmp_path_factory.mktemp("guarded") / "pacesetter.db"
    with RunningService(database, admin_token=ADMIN) as service, open_http(service.url) as http:
        http.headers["origin"] = service.url
        http.post("/login", data={"token": ADMIN})
        yield http


def test_a_token_is_made_shown_once_and_revoked(guarded: httpx.Client) -> None:
    """Its secret is in the one answer; with it its holder logs in, until it is revoked."""
    asked = {"name": "vera", "role": "operator", "scope": "team-a-* x", "expires_in_days": "7"}
    made = guarded.post("/admin/tokens", data=asked, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in made.headers
    secret = re.search(r'id="secret">([^<]+)<', made.text)
    assert secret is not None
    page = guarded.get("/admin").text
    assert secret[1] not in page
    assert "team-a-*, x" in page
    with open_http(str(guarded.base_url)) as vera:
        vera.headers["origin"] = guarded.headers["origin"]
        assert vera.post("/login", data={"token": secret[1]}).status_code == 303
        assert vera.get("/").status_code == 200
        assert vera.get("/admin").status_code == 403
        assert vera.post("/admin/tokens", data=asked).status_code == 403
        assert "Admin" not in vera.get("/").text
        revoke = re.search(r'action="\./(admin/tokens/\w+/revoke)"', page)
        assert revoke is not None
        assert vera.post(f"/{revoke[1]}", data={}).status_code == 403
        assert guarded.post(f"/{revoke[1]}", data={}).status_code == 303
        assert vera.get("/").status_code == 303


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "admin"}, "Choose another one"),
        ({"role": "king"}, "role"),
        ({"scope": "../x"}, "scope"),
        ({"expires_in_days": "0"}, "expires_in_days"),
        ({"expires_in_days": "soon"}, "expires_in_days"),
        ({"role": "admin", "scope": "x"}, "unbounded|would bound nothing"),
    ],
)
def test_a_wrong_token_is_not_made(
    guarded: httpx.Client, change: dict[str, str], told: str
) -> None:
    """What the API would refuse is refused here, with its message."""
    asked = {"name": "who", "role": "viewer", **change}
    answer = guarded.post("/admin/tokens", data=asked)
    assert answer.status_code == 422
    assert re.search(told, answer.text)


def test_roles_see_what_they_may_do(guarded: httpx.Client) -> None:
    """A viewer gets no button that is not for it, and is refused if it sends the form anyway."""
    bearer = {"authorization": f"Bearer {ADMIN}"}
    guarded.post("/v1/sessions", json={"name": "seen", "base_lr": 0.1}, headers=bearer)
    made = guarded.post("/admin/tokens", data={"name": "vic", "role": "viewer"}).text
    secret = re.search(r'id="secret">([^<]+)<', made)
    assert secret is not None
    with open_http(str(guarded.base_url)) as viewer:
        viewer.headers["origin"] = guarded.headers["origin"]
        viewer.post("/login", data={"token": secret[1]})
        page = viewer.get("/sessions/seen")
        assert page.status_code == 200
        assert "control/" not in page.text
        assert "/manage" not in page.text
        for path in ("control/scale", "manage"):
            assert viewer.get(f"/sessions/seen/{path}").status_code == 403
        order = {"factor": "0.5", "reason": "x", "do": "order"}
        assert viewer.post("/sessions/seen/control/scale", data=order).status_code == 403
        spec = {"spec": '{"name": "more", "base_lr": 0.1}', "do": "create"}
        assert viewer.post("/create/json", data=spec).status_code == 403
    assert "control/scale" in guarded.get("/sessions/seen").text


def test_who_has_a_scope_makes_sessions_within_it(guarded: httpx.Client) -> None:
    """A session under another name, or from a template out of scope, is refused."""
    bearer = {"authorization": f"Bearer {ADMIN}"}
    body = {"name": "theirs", "spec": {"base_lr": 0.1}}
    guarded.post("/v1/templates", json=body, headers=bearer).raise_for_status()
    asked = {"name": "tom", "role": "trainer", "scope": "team-a-*"}
    made = guarded.post("/admin/tokens", data=asked).text
    secret = re.search(r'id="secret">([^<]+)<', made)
    assert secret is not None
    with open_http(str(guarded.base_url)) as tom:
        tom.headers["origin"] = guarded.headers["origin"]
        tom.post("/login", data={"token": secret[1]})

        def refused(do: str, **spec: object) -> bool:
            answer = tom.post("/create/json", data={"spec": json.dumps(spec), "do": do})
            return "team-a-*" in answer.text and answer.status_code == 422

        assert refused("create", name="team-b-1", base_lr=0.1)
        for do in ("preview", "create"):
            assert refused(do, name="team-a-1", template="theirs@1")
        assert not refused("create", name="team-a-1", base_lr=0.1)
        assert "theirs" not in tom.get("/templates").text
        assert tom.get("/templates/theirs").status_code == 403
        fork = {"new_name": "team-b-2", "step": "0", "do": "fork"}
        answer = tom.post("/sessions/team-a-1/manage/fork", data=fork)
        assert "team-a-*" in answer.text
        assert tom.get("/compare", params={"name": "team-a-1 seen"}).status_code == 403
        assert "seen" not in tom.get("/timeline").text.partition("<main")[2]


def test_old_sessions_are_put_away(guarded: httpx.Client) -> None:
    """They are listed first, then archived; other sessions stay."""
    bearer = {"authorization": f"Bearer {ADMIN}"}
    for name in ("done", "runs"):
        guarded.post("/v1/sessions", json={"name": name, "base_lr": 0.1}, headers=bearer)
    guarded.post("/v1/sessions/done/finish", json={}, headers=bearer)
    asked = {"days": "0", "what": "archive"}
    look = guarded.post("/admin/prune", data={**asked, "do": "look"}).text
    assert "1 would be put away" in look
    assert guarded.get("/v1/sessions/done", headers=bearer).json()["status"] == "finished"
    guarded.post("/admin/prune", data={**asked, "do": "prune"})
    assert guarded.get("/v1/sessions/done", headers=bearer).json()["status"] == "archived"
    assert guarded.get("/v1/sessions/runs", headers=bearer).json()["status"] == "active"
    assert guarded.post("/admin/prune", data={"days": "-1"}).status_code == 422


def test_each_session_shows_its_own_spec(http: httpx.Client, unique_name: str) -> None:
    """Where one differs in a whole schedule and another in a part, the whole of each is shown."""
    laws = [
        {"kind": "cosine", "total_steps": 100},
        {"kind": "wsd", "total_steps": 50, "warmup_steps": 5, "decay_steps": 10},
        {"kind": "cosine", "total_steps": 200},
    ]
    names = [f"{unique_name}-{number}" for number in range(len(laws))]
    for name, law in zip(names, laws, strict=True):
        body = {"name": name, "base_lr": 0.1, "schedule": law}
        http.post("/v1/sessions", json=body).raise_for_status()
    page = http.get("/compare", params={"name": " ".join(names)}).text
    row = page.partition("/schedule</th>")[2].partition("</tr>")[0]
    shown = [json.loads(unescape(cell)) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
    assert [each["kind"] for each in shown] == ["cosine", "wsd", "cosine"]
    assert [each.get("total_steps") for each in shown] == [100, 50, 200]
