"""The pages about sessions, in a real browser, beside trainings that really run."""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from serving import RunningService, open_http
from training import Training
from watched import Watched


@pytest.fixture(name="training")
def _training(server_url: str, unique_name: str) -> Iterator[Training]:
    """Return a training for one test."""
    with Training(server_url, unique_name) as training:
        yield training


def create(http: httpx.Client, name: str, **spec: object) -> None:
    """Create a session."""
    http.post("/v1/sessions", json={"name": name, "base_lr": 0.1, **spec}).raise_for_status()


def test_a_running_session_is_followed(server_url: str, page: Page, training: Training) -> None:
    """Its step advances without a reload, and its curves are drawn by the script."""
    page.goto(f"{server_url}/sessions/{training.name}")
    expect(page.locator("#link")).to_have_text("live")
    step = page.locator("#facts dd").first
    before = int(re.findall(r"\d+", step.inner_text())[0]) if "of" in step.inner_text() else 0
    page.wait_for_function(
        "before => +document.querySelector('#facts dd').textContent.match(/[0-9,]+/)[0]"
        ".replace(',', '') > before + 5",
        arg=before,
    )
    expect(page.locator(".plot .uplot")).to_have_count(2)
    expect(page.locator("#facts .pill").first).to_have_text("running")


def test_a_chart_is_zoomed_and_explained(
    server_url: str, page: Page, http: httpx.Client, unique_name: str
) -> None:
    """A click has the step explained, a drag zooms, marks say what happened, epochs are counted."""
    law = {"kind": "cosine", "total_steps": 60}
    create(http, unique_name, schedule=law, total_steps=60, steps_per_epoch=10)
    body = {"kind": "scale", "factor": 0.5, "reason": "too hot", "at": 20}
    http.post(f"/v1/sessions/{unique_name}/actions", json=body).raise_for_status()
    http.post(f"/v1/sessions/{unique_name}/sync", json={"want": {"start": 0, "count": 30}})
    page.goto(f"{server_url}/sessions/{unique_name}")
    over = page.locator(".u-over").first
    box = over.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.click(box["x"] + box["width"] * 0.6, middle)
    expect(page.locator("#explanation")).to_contain_text(re.compile(r"step 3[456] \(forecast\)"))
    page.locator(".marks button").first.hover()
    expect(page.get_by_role("tooltip")).to_contain_text("too hot")
    whole = page.get_by_role("button", name="Whole run")
    expect(whole).to_be_disabled()
    page.mouse.move(box["x"] + box["width"] * 0.1, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, middle, steps=4)
    with page.expect_response("**/chart.json**start=*") as zoomed:
        page.mouse.up()
    steps = zoomed.value.json()["steps"]
    assert 4 <= steps[0] <= 8
    assert 22 <= steps[-1] <= 26
    expect(whole).to_be_enabled()
    whole.click()
    expect(whole).to_be_disabled()
    page.get_by_role("button", name="epoch").click()
    expect(page.get_by_role("button", name="epoch")).to_have_attribute("aria-pressed", "true")


def test_an_order_is_shown_before_it_is_given_and_reaches_the_trainer(
    server_url: str, page: Page, training: Training
) -> None:
    """Two clicks and a reason from the page of the session halve the trainer's rate from there."""
    page.goto(f"{server_url}/sessions/{training.name}")
    page.get_by_role("link", name="Halve…").click()
    expect(page.locator("#rehearsal")).to_contain_text("From step")
    page.get_by_label("Factor").fill("0.25")
    page.wait_for_function(
        "() => document.querySelector('#rehearsal').textContent.includes('scaled by 0.25')"
    )
    page.get_by_label("Why").fill("the loss goes up")
    page.get_by_role("button", name="Halve or multiply as shown").click()
    page.wait_for_url("**ordered=1**")
    said = page.get_by_role("status").filter(has_text="Order 1 was taken").inner_text()
    step = int(re.findall(r"step ([\d,]+)", said)[0].replace(",", ""))
    expect(page.locator("#events")).to_contain_text("scaled by 0.25: the loss goes up")
    page.wait_for_function("step => +document.querySelector('[data-plots]').dataset.trained > step",
                           arg=step)  # fmt: skip
    assert training.used[step] == pytest.approx(training.used[step - 1] / 4, rel=1e-3)


def test_an_order_that_waits_is_cancelled(
    server_url: str, page: Page, training: Training, http: httpx.Client
) -> None:
    """The page lists it with its step, and not after its button was pressed."""
    page.goto(f"{server_url}/sessions/{training.name}/control/hold?at=9000")
    page.get_by_label("Why").fill("later")
    page.get_by_role("button", name="Hold as shown").click()
    expect(page.locator("#orders")).to_contain_text("9,000")
    page.get_by_role("button", name="Cancel order 1").click()
    page.wait_for_url("**cancelled=1")
    expect(page.locator("#orders")).to_contain_text("None waits")
    assert http.get(f"/v1/sessions/{training.name}/actions").json()["orders"] == []


ORDERS = {
    "scale": {"factor": "0.5"},
    "set": {"lr": "0.01", "over": "5"},
    "hold": {},
    "release": {},
    "cooldown": {"steps": "50", "to_fraction": "0.1"},
    "retime": {"total_steps": "300", "policy": "rescale"},
    "rewarm": {"steps": "20", "factor": "0.1"},
    "replace": {"schedule": '{"kind": "cosine", "total_steps": 70}', "clock": "local"},
    "limit": {"max_lr": "0.5"},
    "revert": {},
}


def test_every_order_can_be_given_without_a_script(http: httpx.Client, unique_name: str) -> None:
    """Each form is shown, previewed and sent as a browser without scripts does it."""
    create(http, unique_name, schedule={"kind": "cosine", "total_steps": 200}, total_steps=200)
    page = f"/sessions/{unique_name}"
    for number, (kind, fields) in enumerate(ORDERS.items(), 1):
        form = http.get(f"{page}/control/{kind}").text
        key = re.search(r'name="key" value="([\w-]+)"', form)
        assert key is not None
        said = {**fields, "key": key[1], "reason": "a test"}
        shown = http.post(f"{page}/control/{kind}", data={**said, "do": "preview"})
        assert "From step" in shown.text, shown.text
        for _ in range(2):  # pressed twice, it is the same order
            done = http.post(f"{page}/control/{kind}", data={**said, "do": "order"})
            assert f"ordered={number}&" in done.headers["location"], done.text
        http.post(f"/v1{page}/sync", json={"want": {"start": 10 * number - 10, "count": 10}})


@pytest.mark.parametrize(
    ("kind", "fields", "told"),
    [
        ("scale", {"factor": "-1"}, "factor"),
        ("scale", {"factor": "half"}, "write a number"),
        ("scale", {"factor": "0.5", "at": "soon"}, "whole number"),
        ("set", {"lr": ""}, "fill this in"),
        ("cooldown", {"steps": "1e3"}, "whole number"),
        ("replace", {"schedule": "{"}, "no JSON"),
        ("limit", {"min_lr": "0"}, "This would lift all limits"),
        ("limit", {"lift": "true", "max_lr": "1"}, "leave it out"),
        ("replace", {"schedule": '{"kind": "cosin"}'}, "cosin"),
    ],
)
def test_a_wrong_field_is_told_and_kept(
    http: httpx.Client, unique_name: str, kind: str, fields: dict[str, str], told: str
) -> None:
    """The form comes back as it was sent, with the error; nothing is ordered."""
    create(http, unique_name)
    said = {**fields, "reason": "a <b>test</b>", "do": "order"}
    answer = http.post(f"/sessions/{unique_name}/control/{kind}", data=said)
    assert answer.status_code == 422
    assert told in answer.text
    assert 'value="a &lt;b&gt;test&lt;/b&gt;"' in answer.text
    assert http.get(f"/v1/sessions/{unique_name}/actions").json()["orders"] == []


def test_an_order_without_a_reason_is_not_taken(http: httpx.Client, unique_name: str) -> None:
    """Later readers of the record must know why."""
    create(http, unique_name)
    said = {"factor": "0.5", "reason": "  ", "do": "order"}
    answer = http.post(f"/sessions/{unique_name}/control/scale", data=said)
    assert answer.status_code == 422
    assert "Write down why" in answer.text


def test_labels_that_others_set_meanwhile_stay(http: httpx.Client, unique_name: str) -> None:
    """A form changes only the labels that it has shown; after a mistake it shows no others."""
    create(http, unique_name, labels={"gone": "1", "kept": "1", "changed": "1"})
    page = f"/sessions/{unique_name}/manage"
    field = r'name="labels_shown" value="([^"]*)"'
    shown = re.search(field, http.get(page).text)
    assert shown is not None
    path = f"/v1/sessions/{unique_name}"
    others = {"labels": {"new": "theirs", "kept": "theirs"}}
    http.patch(path, json=others).raise_for_status()
    form = {"labels_shown": shown[1], "labels": "kept: 1\nchanged: 2\nno label"}
    refused = http.post(f"{page}/labels", data=form)
    assert refused.status_code == 422
    again = re.search(field, refused.text)
    assert again is not None
    form = {"labels_shown": again[1], "labels": "kept: 1\nchanged: 2"}
    assert http.post(f"{page}/labels", data=form).status_code == 303
    labels = http.get(path).json()["spec"]["labels"]
    assert labels == {"kept": "theirs", "changed": "2", "new": "theirs"}


def test_a_session_is_managed(http: httpx.Client, unique_name: str) -> None:
    """It is relabelled, taken back, forked, ended, archived and purged, each by its form."""
    create(http, unique_name, total_steps=100, labels={"a": "1", "b": "2"})
    http.post(f"/v1/sessions/{unique_name}/sync", json={"want": {"start": 0, "count": 50}})
    page, fork = f"/sessions/{unique_name}/manage", f"{unique_name}-fork"

    def sent(what: str, **fields: str) -> httpx.Response:
        return http.post(f"{page}/{what}", data=fields)

    changed = {"labels_shown": "a: 1\r\nb: 2", "labels": "a: 3\nc: x: y"}
    assert sent("labels", **changed).status_code == 303
    assert http.get(f"/v1/sessions/{unique_name}").json()["spec"]["labels"] == {
        "a": "3",
        "c": "x: y",
    }
    assert "0 to 49" in http.get(page).text
    assert sent("take-back", reason=" ").status_code == 422
    assert sent("take-back", reason="looked too far").status_code == 303
    assert http.get(f"/v1/sessions/{unique_name}").json()["horizon"] == 0
    longer = '{"total_steps": 300, "schedule": {"kind": "cosine", "total_steps": 300}}'
    shown = sent("fork", new_name=fork, step="0", description=longer, do="preview")
    assert "c1" in shown.text.partition("<svg")[2]
    assert http.get(f"/v1/sessions/{fork}").status_code == 404
    assert "no JSON" in sent("fork", new_name=fork, step="0", description="{", do="fork").text
    made = sent("fork", new_name=fork, step="0", description=longer, do="fork")
    assert made.status_code == 303
    assert http.get(f"/v1/sessions/{fork}").json()["spec"]["total_steps"] == 300
    fork_page = f"/sessions/{fork}/manage"
    http.post(f"{fork_page}/finish", data={"outcome": "failed", "reason": "a NaN"})
    assert http.get(f"/v1/sessions/{fork}").json()["state"] == "failed"
    for what, left in (("archive", 200), ("purge", 404)):
        assert http.post(f"{fork_page}/{what}", data={"name": "another"}).status_code == 422
        assert http.post(f"{fork_page}/{what}", data={"name": fork}).status_code == 303
        assert http.get(f"/v1/sessions/{fork}").status_code == left


def test_a_page_goes_on_when_the_service_comes_back(
    service: RunningService, page: Page, watched: Watched
) -> None:
    """The feed resumes after the last event: what happened meanwhile is shown, once."""
    watched.expected = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_CONNECTION_RESET"]
    with open_http(service.url) as http:
        create(http, "night")
        http.post("/v1/sessions/night/actions", json={"kind": "scale", "factor": 0.5})
    page.goto(f"{service.url}/sessions/night")
    expect(page.locator("#link")).to_have_text("live")
    page.evaluate("() => { document.title = 'the same page' }")
    service.kill()
    expect(page.locator("#link")).to_have_text("reconnecting…")
    service.start()
    with open_http(service.url) as http:
        body = {"kind": "scale", "factor": 0.25, "reason": "meanwhile"}
        http.post("/v1/sessions/night/actions", json=body)
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator("#events")).to_contain_text("scaled by 0.25: meanwhile")
    assert page.locator("#events li").filter(has_text="meanwhile").count() == 1
    assert page.title() == "the same page"


def test_the_timeline_of_all_is_live(
    server_url: str, page: Page, http: httpx.Client, unique_name: str
) -> None:
    """New events appear without a reload."""
    create(http, unique_name)
    page.goto(f"{server_url}/timeline?session={unique_name}")
    expect(page.locator("#link")).to_have_text("live")
    body = {"kind": "scale", "factor": 0.5, "at": 100, "reason": "just now"}
    http.post(f"/v1/sessions/{unique_name}/actions", json=body).raise_for_status()
    expect(page.locator("#events")).to_contain_text("scaled by 0.5: just now")


ATTACK = '"><img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'


def test_no_text_of_others_becomes_a_part_of_a_page(
    server_url: str, page: Page, http: httpx.Client, unique_name: str
) -> None:
    """Labels, metrics, reasons, keys and endings are shown as they were written."""
    create(http, unique_name, labels={"note": ATTACK[:200]}, ranks=1)
    create(http, f"{unique_name}-2")
    path = f"/v1/sessions/{unique_name}"
    metric = "a<img/src/onerror=alert(1)>"
    reports = [{"step": step, "rank": 0, "metrics": {"loss": 1.0}} for step in range(4)]
    http.post(f"{path}/attempts", json={"step": 0, "key": ATTACK[:200]})
    http.post(f"{path}/sync", json={"want": {"start": 0, "count": 4}, "reports": reports})
    http.post(f"{path}/sync", json={"reports": [{"step": 3, "metrics": {metric: 1.0}}]})
    body = {"kind": "scale", "factor": 0.5, "reason": ATTACK}
    http.post(f"{path}/actions", json={**body, "at": 9000}).raise_for_status()
    http.post(f"{path}/actions", json=body).raise_for_status()
    http.post(f"{path}/sync", json={"want": {"start": 4, "count": 4}})
    http.post(f"{path}/finish", json={"outcome": "failed", "reason": ATTACK}).raise_for_status()
    for place in (
        f"sessions/{unique_name}",
        f"?q={unique_name}",
        f"?q={ATTACK}",
        f"?label={ATTACK}",
    ):
        page.goto(f"{server_url}/{place}")
        page.wait_for_load_state("networkidle") if "sessions/" not in place else expect(
            page.locator(".plot .uplot").first
        ).to_be_visible()
        assert page.locator("main img:not(.spark), main script").count() == 0
        assert "owned" not in page.title()
    for place, query in (
        (f"sessions/{unique_name}/timeline", {"actor": ATTACK}),
        (f"sessions/{unique_name}/manage", {}),
        (f"sessions/{unique_name}/ranks", {}),
        ("timeline", {"session": unique_name, "actor": ATTACK, "label": ATTACK}),
        ("timeline", {"session": unique_name}),
        ("problems", {}),
        ("compare", {"name": f"{unique_name} {unique_name}-2"}),
        ("create", {"q": ATTACK}),
        ("create/json", {"spec": ATTACK}),
        ("create/advise", {"architecture": ATTACK, "total_steps": ATTACK}),
    ):
        text = http.get(f"/{place}", params=query).text
        assert "<img src=x" not in text, place
        assert "<script>document" not in text, place
    page.goto(f"{server_url}/sessions/{unique_name}?step=5")
    page.locator(".marks button").first.focus()
    expect(page.get_by_role("tooltip")).to_contain_text("onerror")
    assert page.locator("main img:not(.spark), main script").count() == 0


def test_the_overview_finds_sessions(http: httpx.Client, unique_name: str) -> None:
    """They are found by a substring or pattern of the name, by label and state, in the address."""
    for number in range(3):
        create(http, f"{unique_name}-{number}", labels={"n": str(number)})

    def shown(**query: str) -> set[str]:
        text = http.get("/", params=query).text
        return set(re.findall(rf'href="\./sessions/{unique_name}-(\d)"', text))

    assert shown(q=unique_name) == {"0", "1", "2"}
    assert shown(q=f"{unique_name}-?", sort="-name") == {"0", "1", "2"}
    assert shown(label="n:2", q=unique_name) == {"2"}
    assert shown(q=unique_name, state="finished") == set()
    http.post(f"/v1/sessions/{unique_name}-1/finish", json={"outcome": "failed", "reason": "NaN"})
    assert shown(q=unique_name, state="failed") == {"1"}
    first = http.get("/").text
    assert f"{unique_name}-1" in first.partition("All others")[0]


def test_what_is_shown_can_be_taken_along(http: httpx.Client, unique_name: str) -> None:
    """It offers the record as a table, the curve as a picture, and a spec that creates the same."""
    create(http, unique_name, schedule={"kind": "cosine", "total_steps": 9})
    http.post(f"/v1/sessions/{unique_name}/sync", json={"want": {"start": 0, "count": 9}})
    page = http.get(f"/sessions/{unique_name}").text
    table = http.get(f"/sessions/{unique_name}/record.csv")
    assert table.text.splitlines()[:2] == ["step,lr", "0,0.1"]
    assert "attachment" in table.headers["content-disposition"]
    assert http.get(f"/sessions/{unique_name}/lr.svg").text.startswith("<svg xmlns=")
    spec = http.get(f"/sessions/{unique_name}/spec.json").json()
    again = http.post("/v1/sessions", json=spec)
    assert again.status_code == 200
    found = re.findall(r"<summary>Python</summary><pre[^>]*>(.*?)</pre>", page, re.DOTALL)
    told: dict[str, Any] = {}
    exec(unescape(found[0]), told)
    with told["session"] as session:
        assert session.name == unique_name


def test_a_visitor_of_an_open_service_says_who_orders(
    http: httpx.Client, server_url: str, unique_name: str
) -> None:
    """Their orders carry that name; a name that is unfit for the record is refused."""
    create(http, unique_name)
    with open_http(server_url) as kim:
        kim.headers["origin"] = server_url
        assert kim.post("/name", data={"called": "kim\n<b>"}).status_code == 422
        assert kim.post("/name", data={"called": "Kim B."}).status_code == 422
        assert kim.post("/name", data={"called": "Kim B"}).status_code == 303
        order = {"lr": "0.2", "reason": "x", "do": "order", "at": "50"}
        kim.post(f"/sessions/{unique_name}/control/set", data=order)
        assert 'value="Kim B"' in kim.get("/").text
    [waiting] = http.get(f"/v1/sessions/{unique_name}/actions").json()["orders"]
    assert waiting["actor"] == "Kim B"


def test_a_session_of_many_groups_is_drawn_in_part(http: httpx.Client, unique_name: str) -> None:
    """Of a thousand series the chosen ones are sent; others can be requested."""
    groups = {f"g{number}": {"base_lr": 0.1 + number} for number in range(1024)}
    http.post("/v1/sessions", json={"name": unique_name, "groups": groups}).raise_for_status()
    http.post(f"/v1/sessions/{unique_name}/sync", json={"want": {"start": 0, "count": 60}})
    page = http.get(f"/sessions/{unique_name}")
    assert page.status_code == 200
    address = re.search(r'data-plots="\.\./([^"]+)"', page.text)
    assert address is not None
    drawn = http.get(f"/{unescape(address[1])}").json()
    assert len(drawn["series"]) == 6
    assert drawn["series"]["g0.lr"]["sealed"][0] == 0.1
    other = http.get(f"/sessions/{unique_name}/chart.json", params={"series": "g1000.lr"}).json()
    assert list(other["series"]) == ["g1000.lr"]


def test_an_attempt_that_is_over_is_shown(http: httpx.Client, unique_name: str) -> None:
    """It has its own curve, and a link to the running one; there is no attempt after that."""
    create(http, unique_name, schedule={"kind": "cosine", "total_steps": 50})
    path = f"/v1/sessions/{unique_name}"
    http.post(f"{path}/sync", json={"want": {"start": 0, "count": 30}})
    http.post(f"{path}/attempts", json={"step": 10, "key": "again"}).raise_for_status()
    first = http.get(f"/sessions/{unique_name}", params={"attempt": "1"}).text
    assert "This is attempt 1, which is over" in first
    drawn = http.get(f"/sessions/{unique_name}/chart.json", params={"attempt": "1"}).json()
    assert drawn["horizon"] == 30
    assert "which is over" not in http.get(f"/sessions/{unique_name}").text
    assert http.get(f"/sessions/{unique_name}", params={"attempt": "7"}).status_code == 422


def test_steps_that_are_sealed_too_far_ahead_are_told(http: httpx.Client, unique_name: str) -> None:
    """The form of an order leads to taking them back."""
    create(http, unique_name)
    http.post(f"/v1/sessions/{unique_name}/sync", json={"want": {"start": 0, "count": 30}})
    page = http.get(f"/sessions/{unique_name}/control/scale").text
    assert "take them back" in page
    body = {"want": {"start": 0, "count": 30}, "progress": {"step": 0}, "attempt": 1}
    http.post(f"/v1/sessions/{unique_name}/sync", json=body)
    assert "take them back" not in http.get(f"/sessions/{unique_name}/control/scale").text


def test_what_is_not_there_is_said(http: httpx.Client) -> None:
    """A page says so, with the status that the API has for it."""
    answer = http.get("/sessions/none-such")
    assert answer.status_code == 404
    assert "none-such" in answer.text
    assert http.get("/sessions/none-such/control/halve").status_code == 404
    assert http.get("/sessions").status_code == 404
