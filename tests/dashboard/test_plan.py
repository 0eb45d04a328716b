"""The page of a plan, in a real browser, beside trainings whose loss follows the law."""

import re
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from typing import Any

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from accessible import CONTRAST, EVERY, barriers
from lawful import SEEN, SPEC, TOTAL, train
from pacesetter_service.dashboard.plan_form import FIELDS
from pacesetter_service.runtime import plans


@pytest.fixture(name="run")
def _run(http: httpx.Client, unique_name: str) -> tuple[str, list[float]]:
    """Create a training at a constant rate, and return it with its rates."""
    http.post("/v1/sessions", json={"name": unique_name, **SPEC}).raise_for_status()
    return unique_name, train(http, unique_name, SEEN, [])


@pytest.fixture(name="probed")
def _probed(http: httpx.Client, run: tuple[str, list[float]]) -> tuple[str, list[float]]:
    """Return such a training of which a probe was trained."""
    name, rates = run
    fork = f"{name}-probe-{SEEN}"
    http.post(f"/v1/sessions/{name}/fork", json={"name": fork, "step": SEEN}).raise_for_status()
    cooling = {"kind": "cooldown", "steps": 120, "ease": {"kind": "linear"}, "at": SEEN}
    http.post(f"/v1/sessions/{fork}/actions", json=cooling).raise_for_status()
    train(http, fork, SEEN + 120, rates)
    return run


def asked(http: httpx.Client, name: str, **body: Any) -> Any:
    """Return the plan as the API gives it."""
    answer = http.post(f"/v1/sessions/{name}/plan", json={"metric": "loss", **body})
    return answer.raise_for_status().json()


def waiting(http: httpx.Client, name: str) -> list[dict[str, Any]]:
    """Return the pending orders of a session."""
    found: list[dict[str, Any]] = http.get(f"/v1/sessions/{name}/actions").json()["orders"]
    return found


def test_a_plan_is_refused_probed_made_ordered_and_undone(
    server_url: str, page: Page, http: httpx.Client, run: tuple[str, list[float]]
) -> None:
    """From the page of the session: a ranking, a probe by one click, losses, an order, revert."""
    name, rates = run
    page.goto(f"{server_url}/sessions/{name}")
    page.get_by_role("link", name="Plan what is left").click()
    expect(page.get_by_role("heading", name="Candidates are ranked")).to_be_visible()
    expect(page.locator("main")).to_contain_text("No decay was seen yet")
    expect(page.locator(".plot .uplot")).to_have_count(2)
    page.get_by_label("Why").fill("is it time?")
    page.get_by_role("button", name=f"Make the fork {name}-probe-{SEEN}").click()
    page.wait_for_url("**probed=**")
    expect(page.get_by_role("status").filter(has_text="The probe")).to_be_visible()
    fork = f"{name}-probe-{SEEN}"
    [cooling] = waiting(http, fork)
    assert (cooling["action"]["kind"], cooling["at"]) == ("cooldown", SEEN)
    assert cooling["reason"] == "a probe: is it time?"
    train(http, fork, SEEN + cooling["action"]["steps"], rates)

    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.get_by_role("heading", name="loss, so far and as expected")).to_be_visible()
    expect(page.locator(".plot .uplot")).to_have_count(2)
    best = asked(http, name)["candidates"][0]
    first = page.locator(".candidates tbody tr").first
    expect(first).to_contain_text(best["label"])
    expect(first).to_contain_text(f"{best['end']['loss']:#.4g}")
    first.get_by_role("link", name="Order…").click()
    expect(page.locator("main")).to_contain_text(f"From step {SEEN:,}")
    expect(page.locator("svg.chart .before")).to_have_count(1)
    page.get_by_label("Why").fill("the budget ends on Friday")
    page.get_by_role("button", name="Order it as shown").click()
    page.wait_for_url("**ordered=1**")
    expect(page.get_by_role("status").filter(has_text="Order 1 was taken")).to_be_visible()
    expect(page.locator("#orders")).to_contain_text("the budget ends on Friday (plan ")
    forecast = f"/v1/sessions/{name}/forecast?start={SEEN}&count={TOTAL - SEEN}"
    assert http.get(forecast).json()["series"]["lr"][-1] < 0.2 * rates[-1]

    page.get_by_role("link", name="go back to the plan").click()
    page.get_by_label("Why").fill("it goes on")
    page.get_by_role("button", name="Back to the plan as shown").click()
    page.wait_for_url("**ordered=2**")
    assert http.get(forecast).json()["series"]["lr"][-1] == rates[-1]


def test_a_plan_stays_while_the_training_goes_on(
    server_url: str, page: Page, http: httpx.Client, probed: tuple[str, list[float]]
) -> None:
    """New measurements are drawn; the candidates stay as they were read until asked for."""
    name, rates = probed
    page.goto(f"{server_url}/sessions/{name}/plan")
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator(".plot .uplot")).to_have_count(2)
    table = page.locator(".candidates").inner_text()
    expect(page.locator("[data-gone-on]")).to_be_hidden()
    train(http, name, SEEN + 200, rates)
    expect(page.locator("[data-gone-on]")).to_be_visible()
    newest = "() => document.querySelector('[data-outlook]').plots.past.metric_steps.at(-1)"
    page.wait_for_function(f"step => ({newest})() >= step", arg=SEEN + 190)
    assert page.locator(".candidates").inner_text() == table
    page.get_by_role("link", name="plan again").click()
    expect(page.locator("main")).to_contain_text(f"Planned when step {SEEN + 200:,}")


def test_a_page_that_is_read_again_makes_no_room_for_plans(
    http: httpx.Client, run: tuple[str, list[float]]
) -> None:
    """However often its live part is reloaded while the training is measured, its plan is kept."""
    name, _ = run
    page = f"/sessions/{name}/plan"
    whole = http.get(page, params={"metric": "loss"}).text
    found = re.search(r"/candidates/(\d+)\?[^\"]*?plan=(\w+)", whole)
    assert found is not None
    for step in range(1, plans.MOST + 2):
        report = {"step": step, "metrics": {"loss": 5.0}}
        answer = http.post(f"/v1/sessions/{name}/sync", json={"reports": [report]})
        assert answer.status_code == 200, answer.text
        text = http.get(page, params={"metric": "loss", "live": "1"}).text
        assert 'id="place"' in text
        assert 'class="candidates' not in text
    told = {"metric": "loss", "plan": found[2]}
    assert http.get(f"{page}/candidates/{found[1]}", params=told).status_code == 200


def test_a_candidate_is_drawn_by_its_box(
    server_url: str, page: Page, probed: tuple[str, list[float]]
) -> None:
    """There is no reload; its line of the legend appears and disappears with it."""
    page.goto(f"{server_url}/sessions/{probed[0]}/plan")
    expect(page.locator(".plot .uplot")).to_have_count(2)
    curves = "() => document.querySelector('[data-outlook]').plots.charts[0].series.length"
    before = page.evaluate(curves)
    page.get_by_label("Draw candidate 2").uncheck()
    assert page.evaluate(curves) == before - 3
    expect(page.locator('[data-key="1"]')).to_be_hidden()
    page.get_by_role("link", name="Whole run").click()
    expect(page.get_by_role("link", name="Close up")).to_be_visible()
    least = "() => document.querySelector('[data-outlook]').plots.charts[0].scales.x.min"
    page.wait_for_function(f"() => ({least})() === 0")


def test_all_of_it_is_there_without_a_script(
    http: httpx.Client, probed: tuple[str, list[float]]
) -> None:
    """Curves, bands and the line without rates are drawn; tables and forms say and do the same."""
    name, _ = probed
    page = f"/sessions/{name}/plan"
    text = http.get(page).text
    found = asked(http, name)
    rows = re.findall(r'<th scope="row" class="way">(.*?)</tr>', text, re.DOTALL)
    assert len(rows) == len(found["candidates"])
    for row, candidate in zip(rows, found["candidates"], strict=True):
        end = candidate["end"]
        told = [f"{end[each]:#.4g}" for each in ("loss", "low", "high")]
        assert all(each in row for each in [*told, f"{candidate['blind']:#.4g}"])
        assert candidate["reasons"][0] in row
    loss = text.partition('data-plot="loss"')[2].partition("</svg>")[0]
    assert loss.count('class="band') == 4
    assert loss.count('class="curve c0 blind dashed"') == 1
    assert loss.count('class="curve') == 6
    two = http.get(page, params={"show": ["0", "4"], "view": "whole"}).text
    assert two.partition('data-plot="loss"')[2].partition("</svg>")[0].count('class="band') == 2
    order = f"{page}/candidates/0"
    said = {"metric": "loss", "plan": found["id"], "key": "a-key-of-this-form-1"}
    assert http.post(order, data=said).status_code == 422
    assert waiting(http, name) == []
    for _ in range(2):  # pressed twice, it is the same order
        done = http.post(order, data={**said, "reason": "it is time"})
        assert f"ordered=1&at={found['candidates'][0]['orders'][0]['at']}" in str(
            done.headers["location"]
        )
    assert len(waiting(http, name)) == 1


def test_candidates_are_named(http: httpx.Client, probed: tuple[str, list[float]]) -> None:
    """Lengths of cooldowns and orders name them; the API gives the same plan for the same."""
    name, _ = probed
    orders = '[{"kind": "scale", "factor": 0.5}, {"kind": "scale", "factor": 3}]'
    form = {"metric": "loss", "look": "own", "lengths": "240, 480", "floor": "0.1"}
    text = http.get(f"/sessions/{name}/plan", params={**form, "orders": orders}).text
    assert "cool down over 480 steps to 0.1 of the rate, linear" in text
    assert "scaled by 0.5" in text
    assert "above the 0.001" in text
    action = {"kind": "cooldown", "until": TOTAL, "to_fraction": 0.1, "ease": {"kind": "linear"}}
    wanted = [{"orders": [{"at": TOTAL - 480, "action": action}]}]
    best = asked(http, name, candidates=wanted)["candidates"][0]
    assert f"{best['end']['loss']:#.4g}" in text


def test_a_candidate_of_two_orders_is_shown_and_given_whole(
    http: httpx.Client, run: tuple[str, list[float]]
) -> None:
    """An API caller has named it: the curve is that of both, and both wait for their steps."""
    name, rates = run
    orders = [
        {"at": SEEN + 100, "action": {"kind": "scale", "factor": 0.5}},
        {"at": SEEN + 400, "action": {"kind": "cooldown", "steps": 200}},
    ]
    found = asked(http, name, candidates=[{"orders": orders, "label": "both"}])
    place = next(at for at, each in enumerate(found["candidates"]) if each["label"] == "both")
    page, said = f"/sessions/{name}/plan/candidates/{place}", {"plan": found["id"]}
    text = http.get(page, params=said).text
    assert f"From step {SEEN + 100:,}" in text
    assert all(f"from step {each['at']:,}: " in text for each in orders)
    assert "still waits" not in text
    assert http.post(page, data={**said, "reason": "both"}).status_code == 303
    assert [each["at"] for each in waiting(http, name)] == [SEEN + 100, SEEN + 400]
    path = f"/v1/sessions/{name}/forecast?start={SEEN}&count={TOTAL - SEEN}"
    told = http.get(path).json()
    ahead = dict(zip(told["steps"], told["series"]["lr"], strict=True))
    assert ahead[SEEN] == rates[-1]
    assert ahead[max(step for step in ahead if step < SEEN + 400)] == rates[-1] / 2
    assert ahead[TOTAL - 1] == 0.0


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"epochs": "3"}, "The data is seen more than once"),
        ({"stage": "finetuning"}, "This is fine-tuning"),
        ({"metric": "accuracy"}, "This metric does not fall"),
        ({"goal": "fewest_steps", "loss": "0.5"}, "That loss is not come to"),
    ],
)
def test_what_cannot_be_said_is_told(
    http: httpx.Client, probed: tuple[str, list[float]], form: dict[str, str], told: str
) -> None:
    """Nothing is ordered from such a page, and the reason comes first."""
    answer = http.get(f"/sessions/{probed[0]}/plan", params={"metric": "loss", **form})
    assert answer.status_code == 200
    assert "Nothing can be said" in answer.text
    assert told in answer.text
    assert "Order…" not in answer.text


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"total": "10"}, "are sealed"),
        ({"total": "soon"}, "whole number"),
        ({"goal": "fewest_steps"}, "fill this in"),
        ({"goal": "budget"}, "fill this in"),
        ({"goal": "best"}, "choose one of"),
        ({"loss": "inf"}, "above 0"),
        ({"look": "own"}, "name lengths"),
        ({"look": "own", "lengths": "-3"}, "whole number"),
        ({"look": "own", "orders": "{"}, "no JSON"),
        ({"look": "own", "orders": '[{"kind": "scal"}]'}, "scal"),
        ({"look": "own", "orders": '[{"kind": "hold", "at": "x"}]'}, "is a step"),
        ({"look": "own", "lengths": "5", "goal": "fewest_steps", "loss": "3"}, "looked for"),
        ({"group": "head"}, "no such group"),
        ({"metric": "perplexity"}, "No rank has reported"),
    ],
)
def test_a_wrong_field_is_told_and_kept(
    http: httpx.Client, run: tuple[str, list[float]], form: dict[str, str], told: str
) -> None:
    """The page says what is wrong."""
    answer = http.get(f"/sessions/{run[0]}/plan", params={"metric": "loss", **form})
    assert answer.status_code == 422, answer.text
    assert told in answer.text


def test_the_page_hears_of_what_is_new_alone(
    http: httpx.Client, run: tuple[str, list[float]]
) -> None:
    """It starts after the newest event, since each event would reload the page."""
    name, _ = run
    for factor in (0.5, 2.0):
        http.post(f"/v1/sessions/{name}/actions", json={"kind": "scale", "factor": factor})
    newest = http.get(f"/v1/sessions/{name}/events").json()["events"][-1]["seq"]
    assert newest > 1
    assert f'data-after="{newest}"' in http.get(f"/sessions/{name}/plan").text


def test_a_probe_is_made_once(http: httpx.Client, run: tuple[str, list[float]]) -> None:
    """Pressed twice it is one fork with one order; without a reason, or later, there is none."""
    name, rates = run
    form = {"metric": "loss", "step": str(SEEN), "reason": "why not"}
    page = f"/sessions/{name}/plan/probe"
    assert "Write down why" in http.post(page, data={**form, "reason": " "}).text
    assert http.get(f"/v1/sessions/{name}-probe-{SEEN}").status_code == 404
    for _ in range(2):
        assert http.post(page, data=form).status_code == 303
    assert len(waiting(http, f"{name}-probe-{SEEN}")) == 1
    train(http, name, SEEN + 64, rates)
    assert "has gone on" in http.post(page, data=form).text


def test_a_probe_that_is_asked_for_at_once_has_one_order(
    http: httpx.Client, run: tuple[str, list[float]]
) -> None:
    """Any number of concurrent presses make one; after it was cancelled, a press makes another."""
    name, _ = run
    form = {"metric": "loss", "step": str(SEEN), "reason": "why not"}
    page, fork = f"/sessions/{name}/plan/probe", f"{name}-probe-{SEEN}"
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: http.post(page, data=form).status_code, range(8)))
    assert done == [303] * 8
    [order] = waiting(http, fork)
    http.delete(f"/v1/sessions/{fork}/actions/{order['id']}").raise_for_status()
    assert http.post(page, data=form).status_code == 303
    assert len(waiting(http, fork)) == 1


def test_a_probe_keeps_to_the_limits(http: httpx.Client, unique_name: str) -> None:
    """Its rate goes down to the least that is allowed, and no further."""
    spec = {**SPEC, "limits": {"min_lr": 1e-4}}
    http.post("/v1/sessions", json={"name": unique_name, **spec}).raise_for_status()
    train(http, unique_name, SEEN, [])
    form = {"metric": "loss", "step": str(SEEN), "reason": "why not"}
    assert http.post(f"/sessions/{unique_name}/plan/probe", data=form).status_code == 303
    [cooling] = waiting(http, f"{unique_name}-probe-{SEEN}")
    assert cooling["action"]["to"] == 1e-4


def test_a_plan_that_is_gone_orders_nothing(
    http: httpx.Client, run: tuple[str, list[float]]
) -> None:
    """The page says so, and leads to the current plan; so does an unknown candidate."""
    name, _ = run
    page, told = f"/sessions/{name}/plan/candidates", {"metric": "loss", "reason": "x"}
    for number, plan_id, status in ((0, "0" * 16, 409), (99, asked(http, name)["id"], 422)):
        answer = http.post(f"{page}/{number}", data={**told, "plan": plan_id})
        assert answer.status_code == status
        assert "Nothing was ordered" in answer.text
        assert "Plan again" in answer.text
    assert waiting(http, name) == []


def test_a_training_that_is_over_is_not_planned(
    http: httpx.Client, run: tuple[str, list[float]]
) -> None:
    """So is one without measurements; both pages say why."""
    name, _ = run
    http.post(f"/v1/sessions/{name}/finish", json={"outcome": "completed"}).raise_for_status()
    assert "/plan" not in http.get(f"/sessions/{name}").text.partition("Learning rate and")[2]
    assert 'role="alert"' in http.get(f"/sessions/{name}/plan").text
    http.post("/v1/sessions", json={"name": f"{name}-new", "base_lr": 0.1}).raise_for_status()
    assert "none was reported yet" in http.get(f"/sessions/{name}-new/plan").text


ATTACK = '"><img src=x onerror="alert(1)"></textarea></pre><script>alert(1)</script>'


def test_what_an_address_says_is_text(http: httpx.Client, run: tuple[str, list[float]]) -> None:
    """A page shows fields of its address again, and no field becomes markup."""
    page, names = f"/sessions/{run[0]}/plan", [*FIELDS, "probed", "show", "view", "plan", "reason"]
    for name in names:
        text = http.get(page, params={"metric": "loss", "look": "own", name: ATTACK}).text
        assert "<img" not in text.partition("<main")[2], name
        assert "<script>alert" not in text, name


def test_a_metric_of_any_name_is_reported_by_the_lines(
    http: httpx.Client, unique_name: str
) -> None:
    """The lines that train a probe are valid Python for any name."""
    http.post("/v1/sessions", json={"name": unique_name, **SPEC}).raise_for_status()
    train(http, unique_name, SEEN, [])
    reports = [{"step": step, "metrics": {"val/loss": 9 / step}} for step in range(21, SEEN, 5)]
    http.post(f"/v1/sessions/{unique_name}/sync", json={"reports": reports}).raise_for_status()
    text = http.get(f"/sessions/{unique_name}/plan").text
    lines = unescape(text.partition("<pre")[2].partition(">")[2].partition("</pre>")[0])
    compile(lines, "<page>", "exec")
    assert "**{'val/loss': evaluate(model)}" in lines


@pytest.mark.parametrize(
    ("scheme", "width", "rules"), [("light", 1280, EVERY), ("dark", 360, CONTRAST)]
)
def test_the_pages_keep_nobody_out(
    server_url: str,
    context: BrowserContext,
    http: httpx.Client,
    probed: tuple[str, list[float]],
    scheme: Any,
    width: int,
    rules: dict[str, Any],
) -> None:
    """Axe finds nothing serious in a plan, a refusal, an order and a plan that is gone."""
    name, page = probed[0], context.new_page()
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    plan_id = asked(http, name)["id"]
    for place in (
        f"{name}/plan",
        f"{name}/plan?metric=loss&epochs=2",
        f"{name}/plan?metric=loss&look=own&lengths=100",
        f"{name}-probe-{SEEN}/plan",
        f"{name}/plan/candidates/0?metric=loss&plan={plan_id}",
    ):
        page.goto(f"{server_url}/sessions/{place}")
        page.wait_for_load_state("load")
        assert barriers(page, rules) == [], place
