"""What charts show: the time of steps, earlier attempts and several sessions, zoomed live."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Page, Response, expect

from pacesetter_service.core.session import Attempt as Running
from pacesetter_service.dashboard.axes import Axis
from pacesetter_service.dashboard.charts import without_tail
from pacesetter_service.dashboard.drawing import Line
from pacesetter_service.dashboard.twins import table_of
from pacesetter_service.dashboard.wording import NOTHING
from pacesetter_service.runtime.queries.attempt_ranges import trained_anew
from pacesetter_service.runtime.queries.curves import Curve
from pacesetter_service.runtime.queries.moments import Moments
from pacesetter_service.store.reads import Attempt
from serving import RunningService, open_http

ADMIN = "an-admin-token-of-this-test-0123456789abcdef"

STEPS = {"kind": "cosine", "total_steps": 60}


def create(http: httpx.Client, name: str, **spec: object) -> None:
    """Create a session."""
    http.post("/v1/sessions", json={"name": name, "base_lr": 0.1, **spec}).raise_for_status()


def train(http: httpx.Client, name: str, start: int, end: int, attempt: int = 1) -> None:
    """Train some steps, ten at a time, and report a loss of each."""
    for step in range(start, end, 10):
        done = range(max(step - 10, start), step)
        reports = [{"step": each, "metrics": {"loss": 5 - each / 20}} for each in done]
        body = {
            "want": {"start": step, "count": 10},
            "progress": {"step": step, "seconds_per_step": 2},
            "attempt": attempt,
            "reports": reports,
        }
        answer = http.post(f"/v1/sessions/{name}/sync", json=body)
        assert answer.status_code == 200, answer.text


def chart_of(http: httpx.Client, name: str, **query: str) -> dict[str, Any]:
    """Return the numbers that a page draws of a session."""
    answer = http.get(f"/sessions/{name}/chart.json", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_record_knows_when_steps_were_handed_out(http: httpx.Client, unique_name: str) -> None:
    """Times lie between the first call and now, ascend with the steps, and go on at the pace."""
    began = time()
    create(http, unique_name, schedule=STEPS, total_steps=60)
    train(http, unique_name, 0, 40)
    ended = time()
    moments = chart_of(http, unique_name)["moments"]
    known = dict(zip(moments["steps"], moments["seconds"], strict=True))
    assert {0.0, 10.0, 20.0, 30.0} <= set(known)
    assert began - 1 <= known[0.0] <= known[10.0] <= known[20.0] <= known[30.0] <= ended + 1
    assert known[59.0] == pytest.approx(known[30.0] + 2 * 29, abs=0.01)


def test_a_session_without_moments_has_no_axis_of_time(
    http: httpx.Client, unique_name: str
) -> None:
    """No time is invented before any step was handed out."""
    create(http, unique_name, schedule=STEPS)
    assert chart_of(http, unique_name)["moments"] == {"steps": [], "seconds": []}
    assert "axis=time" not in http.get(f"/sessions/{unique_name}").text


def test_a_chart_is_drawn_over_the_time_without_a_script(
    http: httpx.Client, unique_name: str
) -> None:
    """The link is there, ticks are times in UTC, and the page says so."""
    create(http, unique_name, schedule=STEPS, total_steps=60)
    train(http, unique_name, 0, 40)
    assert "?axis=time" in http.get(f"/sessions/{unique_name}").text
    page = http.get(f"/sessions/{unique_name}", params={"axis": "time"}).text
    assert "times in UTC" in page
    written = re.findall(r">(\d\d:\d\d(?::\d\d)?)</text>", page)
    assert len(written) >= 4
    hour = datetime.now(UTC).hour
    assert {int(each[:2]) for each in written} <= {(hour - 1) % 24, hour, (hour + 1) % 24}


def test_the_axis_is_chosen_and_stands_in_the_address(
    server_url: str, page: Page, http: httpx.Client, unique_name: str
) -> None:
    """A step is shown with its local time and UTC; the page that is opened again shows the same."""
    create(http, unique_name, schedule=STEPS, total_steps=60)
    train(http, unique_name, 0, 40)
    page.goto(f"{server_url}/sessions/{unique_name}")
    page.get_by_role("button", name="time", exact=True).click()
    page.wait_for_url("**axis=time**")
    box = page.locator(".u-over").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
    expect(page.locator(".readout")).to_contain_text(re.compile(r"step \d+ · .+ UTC\) · lr 0\."))
    page.reload()
    chosen = page.get_by_role("button", name="time", exact=True)
    expect(chosen).to_have_attribute("aria-pressed", "true")


def test_an_attempt_that_is_over_lies_grey_beside_the_running_one(
    server_url: str, page: Page, http: httpx.Client, unique_name: str
) -> None:
    """Its steps that were trained again are drawn, with their metrics; a link hides it."""
    create(http, unique_name, schedule=STEPS, total_steps=60)
    train(http, unique_name, 0, 40)
    path = f"/v1/sessions/{unique_name}"
    again = http.post(f"{path}/attempts", json={"step": 20, "key": "again"}).json()
    http.post(f"{path}/actions", json={"kind": "scale", "factor": 0.5}).raise_for_status()
    train(http, unique_name, 20, 40, again["attempt"])
    drawn = chart_of(http, unique_name)
    [over] = drawn["over"]
    assert over["attempt"] == 1
    assert over["steps"] == list(range(20, 40))
    assert over["series"]["lr"][5] == pytest.approx(2 * drawn["series"]["lr"]["sealed"][25])
    assert over["metrics"]["loss"][:10] == [5 - step / 20 for step in range(20, 30)]
    assert over["moments"]["seconds"][-1] <= drawn["moments"]["seconds"][-1]
    assert chart_of(http, unique_name, over="no")["over"] == []
    assert chart_of(http, unique_name, attempt="1")["over"] == []
    text = http.get(f"/sessions/{unique_name}").text
    assert text.count('class="curve c0 over"') == 2
    page.goto(f"{server_url}/sessions/{unique_name}")
    expect(page.locator(".plot .uplot")).to_have_count(2)
    expect(page.locator(".legend")).to_contain_text("attempt 1 (over)")
    page.get_by_role("link", name="Attempts that are over").click()
    page.wait_for_url("**over=no**")
    expect(page.locator(".legend").first).not_to_contain_text("(over)")


def test_the_newest_attempts_that_are_over_are_shown(http: httpx.Client, unique_name: str) -> None:
    """Five are shown, in order; an attempt none of whose steps was trained again does not count."""
    create(http, unique_name, schedule=STEPS, total_steps=60)
    train(http, unique_name, 0, 40)
    for number in range(2, 10):
        start = 39 if number > 7 else 20
        body = {"step": start, "key": f"again-{number}"}
        http.post(f"/v1/sessions/{unique_name}/attempts", json=body).raise_for_status()
        if number != 6:  # which seals nothing
            train(http, unique_name, start, 40, number)
    drawn = chart_of(http, unique_name)
    assert [each["attempt"] for each in drawn["over"]] == [3, 4, 5, 7, 8]
    early = chart_of(http, unique_name, start="0", end="30")
    assert [each["attempt"] for each in early["over"]] == [1, 2, 3, 4, 5]
    assert chart_of(http, unique_name, start="0", end="10")["over"] == []


def attempts_of(*some: tuple[int, str]) -> list[Attempt]:
    """Return attempts with these first steps and keys."""
    return [Attempt(number, start, key, (), "", "") for number, (start, key) in enumerate(some, 1)]


@given(
    some=st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc")), max_size=8),
    number=st.integers(1, 8),
)
def test_what_was_trained_anew_is_told_of_those_that_are_over(
    some: list[tuple[int, str]], number: int
) -> None:
    """Attempts that were opened after the running one was read do not count."""
    known = attempts_of(*some)
    found = [(each.attempt, first) for each, first in trained_anew(known, Running(number))]
    until = known[:number]
    expected = []
    for place, each in enumerate(until):
        later = until[place + 1 :]
        if later and each.attempt != number and each.key not in {one.key for one in later}:
            expected.append((each.attempt, min(one.start for one in later)))
    assert found == expected[::-1]


def test_no_moments_are_made_up_for_what_was_imported(
    server_url: str, page: Page, http: httpx.Client, unique_name: str
) -> None:
    """A record has no times; steps trained after the import have some, and are drawn."""
    create(http, unique_name, schedule=STEPS, total_steps=60)
    train(http, unique_name, 0, 20)
    path, copy = f"/v1/sessions/{unique_name}", f"{unique_name}-2"
    http.post(f"{path}/attempts", json={"step": 10, "key": "again"}).raise_for_status()
    record = http.get(f"{path}/export").content
    headers = {"content-type": "application/x-ndjson"}
    answer = http.post("/v1/import", params={"name": copy}, content=record, headers=headers)
    assert answer.is_success, answer.text
    assert chart_of(http, copy)["moments"]["steps"] == []
    assert "axis=time" not in http.get(f"/sessions/{copy}").text
    train(http, copy, 10, 40, answer.json()["attempt"])
    assert chart_of(http, copy)["over"][0]["moments"]["steps"] == []
    assert http.get(f"/sessions/{copy}", params={"axis": "time"}).status_code == 200
    page.goto(f"{server_url}/sessions/{copy}?axis=time")
    chosen = page.get_by_role("button", name="time", exact=True)
    expect(chosen).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".plot .uplot")).to_have_count(2)


def test_an_attempt_that_is_over_has_no_forecast(http: httpx.Client, unique_name: str) -> None:
    """Its forecast is the running attempt's, and no part of its record."""
    create(http, unique_name, schedule=STEPS, total_steps=60)
    train(http, unique_name, 0, 40)
    path = f"/v1/sessions/{unique_name}"
    http.post(f"{path}/attempts", json={"step": 20, "key": "again"}).raise_for_status()
    assert chart_of(http, unique_name, attempt="1")["steps"][-1] == 39


def test_a_forecast_ends_soon_behind_the_last_change(http: httpx.Client, unique_name: str) -> None:
    """A range test of 40 steps is drawn for some steps more, and not for a thousand."""
    law = {"kind": "range_test", "start_lr": 1e-6, "end_lr": 1.0, "steps": 40}
    create(http, unique_name, schedule=law)
    train(http, unique_name, 0, 40)
    steps = chart_of(http, unique_name)["steps"]
    assert 40 <= steps[-1] <= 65


def test_steps_that_were_handed_out_far_behind_the_plan_are_not_drawn(
    http: httpx.Client, unique_name: str
) -> None:
    """No trainer will reach them; a visitor who asks for them by number still sees them."""
    create(http, unique_name, schedule={"kind": "cosine", "total_steps": 20})
    for start in (0, 21):  # no window extends past the end of a plan
        body = {"attempt": 1, "want": {"start": start, "count": 60}, "progress": {"step": 0}}
        http.post(f"/v1/sessions/{unique_name}/sync", json=body).raise_for_status()
    horizon = http.get(f"/v1/sessions/{unique_name}").json()["horizon"]
    assert horizon > 40
    assert chart_of(http, unique_name)["steps"][-1] <= 22
    asked = chart_of(http, unique_name, start="0", end=str(horizon))
    assert asked["steps"][-1] >= horizon - 1


@given(flat=st.integers(0, 40), change=st.integers(1, 40), room=st.integers(1, 30))
def test_only_the_flat_end_of_a_curve_is_cut(flat: int, change: int, room: int) -> None:
    """Every value that differs from the last one stays; after them there are `room` at most."""
    values = np.array([*range(change), *([change] * (flat + 1))], dtype=float)[None, :]
    curve = Curve(["lr"], list(range(values.shape[1])), values)
    cut = without_tail(curve, room)
    assert cut.steps[-1] == min(change + room, change + flat)
    assert np.interp(range(cut.steps[-1]), cut.steps, cut.block[0]).tolist() == (
        values[0, : cut.steps[-1]].tolist()
    )


@given(
    steps=st.lists(st.integers(0, 10_000), min_size=2, max_size=8, unique=True).map(sorted),
    paces=st.lists(st.floats(0, 100), min_size=8, max_size=8),
    pace=st.floats(0.001, 100),
)
def test_moments_ascend_wherever_they_are_asked(
    steps: list[int], paces: list[float], pace: float
) -> None:
    """They ascend before, between and after known times, and known times stay as they are."""
    seconds = np.cumsum(paces[: len(steps)]).tolist()
    known = Moments([float(each) for each in steps], seconds)
    more = known.reaching(steps[0] - 50, steps[-1] + 50, pace)
    asked = np.linspace(steps[0] - 50, steps[-1] + 50, 30)
    found = [more.at(each) for each in asked]
    assert all(np.diff(found) >= -1e-6)
    assert [more.at(each) for each in steps] == pytest.approx(seconds)
    assert more.at(steps[-1] + 50) == pytest.approx(seconds[-1] + 50 * pace)


@given(pace=st.floats(1e-3, 1e9), last=st.integers(1, 2**53))
def test_moments_stay_within_a_calendar(pace: float, last: int) -> None:
    """However slow a trainer claims to be, each time can be written; the nearer ones are exact."""
    now = 1.8e9
    more = Moments([0.0, 1.0], [now, now]).reaching(-last, last, pace)
    for each in more.seconds:
        assert 1 <= datetime.fromtimestamp(each, UTC).year <= 9999
    assert more.at(2) == pytest.approx(now + pace * (min(2, last) - 1))


def test_a_trainer_that_is_as_slow_as_can_be_is_drawn(
    server_url: str, page: Page, http: httpx.Client, unique_name: str
) -> None:
    """Its plan ends after the last year that can be written, yet the page works as any other."""
    create(http, unique_name, schedule={"kind": "constant"}, total_steps=10**6)
    for step in (0, 10):
        body = {
            "want": {"start": step, "count": 10},
            "progress": {"step": step, "seconds_per_step": 1e9},
            "attempt": 1,
        }
        http.post(f"/v1/sessions/{unique_name}/sync", json=body).raise_for_status()
    assert max(chart_of(http, unique_name)["moments"]["seconds"]) < 253_402_300_800
    assert http.get(f"/sessions/{unique_name}", params={"axis": "time"}).status_code == 200
    page.goto(f"{server_url}/sessions/{unique_name}?axis=time")
    expect(page.locator(".plot .uplot")).to_have_count(1)
    box = page.locator(".u-over").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + box["height"] / 2)
    expect(page.locator(".readout")).to_contain_text("UTC)")


@given(first=st.floats(1e9, 2e9), length=st.floats(5, 3e8), about=st.integers(2, 20))
def test_times_under_a_chart_lie_in_it_and_are_few(first: float, length: float, about: int) -> None:
    """There are about as many as there is room for, and no two are the same."""
    axis = Axis("time")
    found = axis.ticks(first, first + length, about)
    assert all(first <= each <= first + length for each in found)
    assert len(found) <= about + 1
    assert len(set(found)) == len(found)


def test_a_table_says_what_a_chart_shows() -> None:
    """Each row has the values at its step; a curve that begins later or has ended has none."""
    lines = [
        Line("a", [0, 10, 20], [1.0, 2.0, None]),
        Line("a", [20, 40], [3.0, 4.0]),
        Line("<b>", [15, 25], [0.5, 0.25]),
    ]
    table = str(table_of(lines, "place"))
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", table)
    assert cells[:3] == ["place", "a", "&lt;b&gt;"]
    rows = [cells[at : at + 3] for at in range(3, len(cells), 3)]
    assert rows == [
        ["0", "1", NOTHING],
        ["10", "2", NOTHING],
        ["15", "2", "0.5"],
        ["20", "3", "0.5"],
        ["25", "3", "0.25"],
        ["40", "4", NOTHING],
    ]
    many = Line("a", range(10_000), [1.0] * 10_000)
    long = re.findall(r"<tr><td[^>]*>([^<]*)</td>", str(table_of([many])))
    assert (len(long), long[0], long[-1]) == (25, "0", "9,999")


def test_a_mark_tells_why_when_it_is_pointed_at_or_reached_by_key(
    server_url: str, page: Page, http: httpx.Client, unique_name: str
) -> None:
    """It shows what happened, and below it the explanation of its step."""
    create(http, unique_name, schedule=STEPS, total_steps=60)
    body = {"kind": "scale", "factor": 0.5, "reason": "too hot", "at": 20}
    http.post(f"/v1/sessions/{unique_name}/actions", json=body).raise_for_status()
    train(http, unique_name, 0, 40)
    page.goto(f"{server_url}/sessions/{unique_name}")
    mark = page.locator(".marks button").first
    mark.focus()
    tip = page.get_by_role("tooltip")
    expect(tip).to_contain_text("too hot")
    expect(tip.locator(".why")).to_contain_text("step 20 (sealed)")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    mark.hover()
    expect(tip.locator(".why")).to_contain_text("step 20 (sealed)")


def forked(http: httpx.Client, name: str) -> tuple[str, str]:
    """Train a session, and fork it twice, each with another cooldown."""
    create(http, name, schedule={"kind": "constant"}, total_steps=100)
    train(http, name, 0, 60)
    forks = (f"{name}-a", f"{name}-b")
    for fork, step in zip(forks, (20, 40), strict=True):
        body = {"name": fork, "step": step}
        http.post(f"/v1/sessions/{name}/fork", json=body).raise_for_status()
        order = {"kind": "cooldown", "steps": 15, "at": step}
        http.post(f"/v1/sessions/{fork}/actions", json=order).raise_for_status()
    return forks


def test_compared_sessions_are_zoomed(
    server_url: str, page: Page, http: httpx.Client, unique_name: str
) -> None:
    """After a drag the steps between its ends are read again, finer; a button shows all again."""
    one, _ = forked(http, unique_name)
    page.goto(f"{server_url}/compare?name={unique_name}+{one}")
    expect(page.locator(".plot .uplot")).to_have_count(2)
    box = page.locator(".u-over").first.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.2 * box["width"], middle)
    expect(page.locator(".readout")).to_contain_text(re.compile(rf"{unique_name} 0\.1 · {one}"))
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], middle, steps=4)
    with page.expect_response("**/compare/chart.json**start=*") as zoomed:
        page.mouse.up()
    for each in zoomed.value.json()["sessions"]:
        assert 15 <= each["places"][0] <= 25
        assert 45 <= each["places"][-1] <= 55
    whole = page.get_by_role("button", name="Whole run")
    whole.click()
    expect(whole).to_be_disabled()


def test_a_comparison_goes_on_as_its_sessions_do(
    server_url: str, page: Page, http: httpx.Client, unique_name: str
) -> None:
    """New steps are drawn, and appear in the table, without a reload."""
    one, _ = forked(http, unique_name)
    page.goto(f"{server_url}/compare?name={unique_name}+{one}")
    expect(page.locator(".plot .uplot")).to_have_count(2)
    expect(page.locator("#standing tbody tr").first).to_contain_text("49")
    train(http, unique_name, 60, 90)

    def drawn(response: Response) -> bool:
        if "compare/chart.json" not in response.url:
            return False
        sealed = response.json()["sessions"][0]["sealed"]
        return sum(each is not None for each in sealed) >= 90

    with page.expect_response(drawn):
        pass
    expect(page.locator("#standing tbody tr").first).to_contain_text("79")


def test_a_tree_of_forks_has_names_within_a_scope_alone(tmp_path: Path) -> None:
    """A fork outside the visitor's scope is not listed."""
    with RunningService(tmp_path / "pacesetter.db", admin_token=ADMIN) as service:
        with open_http(service.url) as http:
            http.headers["authorization"] = f"Bearer {ADMIN}"
            create(http, "ours", total_steps=50)
            http.post("/v1/sessions/ours/fork", json={"name": "ours-2", "step": 0})
            http.post("/v1/sessions/ours/fork", json={"name": "theirs", "step": 0})
            asked = {"name": "vic", "role": "viewer", "scope": ["ours*"]}
            secret = http.post("/v1/tokens", json=asked).json()["token"]
        with open_http(service.url) as viewer:
            viewer.post("/login", data={"token": secret}, headers={"origin": service.url})
            text = viewer.get("/compare", params={"name": "ours ours-2"}).text
            assert "from step 0" in text
            assert "theirs" not in text
            answer = viewer.get("/compare/chart.json", params={"name": ["ours", "theirs"]})
            assert answer.status_code == 403


def test_compared_sessions_are_zoomed_by_parts_of_their_plans(
    http: httpx.Client, unique_name: str
) -> None:
    """Each is cut at its own steps: half of a hundred is not half of fifty."""
    for name, total in ((unique_name, 100), (f"{unique_name}-2", 50)):
        create(http, name, schedule={"kind": "cosine", "total_steps": total}, total_steps=total)
    names = [unique_name, f"{unique_name}-2"]
    query = {"name": names, "by": "part", "start": "20", "end": "60"}
    drawn = http.get("/compare/chart.json", params=query).json()["sessions"]
    assert [(each["places"][0], round(each["places"][-1])) for each in drawn] == [
        (pytest.approx(0), pytest.approx(60, abs=3)),
        (pytest.approx(0), pytest.approx(60, abs=3)),
    ]
    assert http.get("/compare/chart.json", params={"name": "none-such"}).status_code == 404


def test_the_tree_of_forks_has_all_of_them_with_their_cooldowns(
    http: httpx.Client, unique_name: str
) -> None:
    """Forks that are not compared yet are listed too, with a link that adds them."""
    one, other = forked(http, unique_name)
    page = http.get("/compare", params={"name": f"{unique_name} {one}"}).text
    tree = page.partition('id="tree"')[2].partition("</section>")[0]
    rows = re.findall(r"<li.*?</li>", tree)
    assert len(rows) == 3
    assert "cooldown from step 20 to 35" in rows[1]
    assert "cooldown from step 40 to 55" in rows[2]
    assert f"sessions/{other}" in rows[2]
    assert "compare it too" in rows[2]
    assert "compare it too" not in rows[0] + rows[1]


def test_a_fork_that_was_purged_is_no_part_of_the_tree(
    http: httpx.Client, unique_name: str
) -> None:
    """A session that is gone cannot be compared."""
    one, other = forked(http, unique_name)
    for call in ("", "/purge"):
        method = "POST" if call else "DELETE"
        http.request(method, f"/v1/sessions/{other}{call}", json={} if call else None)
    page = http.get("/compare", params={"name": f"{unique_name} {one}"}).text
    tree = page.partition('id="tree"')[2].partition("</section>")[0]
    assert other not in tree


@pytest.mark.parametrize("scale", ["", "log"])
def test_the_largest_of_all_numbers_is_no_reason_to_show_no_page(
    http: httpx.Client, unique_name: str, scale: str
) -> None:
    """Some trainings report it in place of a loss that they do not know yet: it leaves a gap."""
    create(http, unique_name, schedule=STEPS)
    train(http, unique_name, 0, 30)
    losses = [sys.float_info.max, -sys.float_info.max]
    reports = [{"step": 20 + n, "metrics": {"loss": each}} for n, each in enumerate(losses)]
    body = {"attempt": 1, "reports": reports}
    http.post(f"/v1/sessions/{unique_name}/sync", json=body).raise_for_status()
    page = http.get(f"/sessions/{unique_name}", params={"scale": scale})
    assert page.status_code == 200
    assert page.text.count('class="curve') >= 2
    assert http.get(f"/sessions/{unique_name}/spark.svg").status_code == 200
    drawn = http.get(f"/sessions/{unique_name}/chart.json").json()
    assert all(each is None or abs(each) < 10 for each in drawn["metrics"]["loss"])
