"""A page that is reloaded again and again stays usable: what stays on it is left alone."""

import httpx
from playwright.sync_api import Page, expect

from serving import PATIENCE, open_http
from training import Training

NEXT = """before => document.querySelector("#facts dd").textContent.trim() !== before"""


def read_again(page: Page, times: int = 3) -> None:
    """Wait until the page has been reloaded a few times."""
    for _ in range(times):
        before = page.locator("#facts dd").first.text_content()
        assert before is not None
        page.wait_for_function(NEXT, arg=before.strip())


def test_what_has_the_focus_keeps_it(server_url: str, page: Page, unique_name: str) -> None:
    """A keyboard user stays where they were, and Enter does what the link says."""
    with Training(server_url, unique_name):
        page.goto(f"{server_url}/sessions/{unique_name}")
        link = page.get_by_role("link", name="Cool down…")
        link.focus()
        read_again(page)
        expect(link).to_be_focused()
        page.keyboard.press("Enter")
        page.wait_for_url("**/control/cooldown")


def test_a_press_that_takes_long_is_one(server_url: str, page: Page, unique_name: str) -> None:
    """A link that is pressed during a reload is followed when it is released."""
    with Training(server_url, unique_name):
        page.goto(f"{server_url}/sessions/{unique_name}")
        page.get_by_role("link", name="Set…").hover()
        page.mouse.down()
        read_again(page)
        page.mouse.up()
        page.wait_for_url("**/control/set")


def test_a_button_that_is_for_something_else_now_is_another_one(
    server_url: str, page: Page, unique_name: str
) -> None:
    """A press on the button of an order that is gone meanwhile cancels no other order."""
    expect.set_options(timeout=1000 * PATIENCE)
    with open_http(server_url) as http:
        http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.1}).raise_for_status()
        for at in (8000, 9000):
            body = {"kind": "scale", "factor": 0.5, "at": at}
            http.post(f"/v1/sessions/{unique_name}/actions", json=body).raise_for_status()
        page.goto(f"{server_url}/sessions/{unique_name}")
        expect(page.locator("#link")).to_have_text("live")
        page.get_by_role("button", name="Cancel order 1").hover()
        page.mouse.down()
        http.delete(f"/v1/sessions/{unique_name}/actions/1").raise_for_status()
        expect(page.get_by_role("button", name="Cancel order 1")).to_have_count(0)
        page.mouse.up()
        page.wait_for_timeout(300)  # an ignored click leaves nothing to wait for
        [left] = http.get(f"/v1/sessions/{unique_name}/actions").json()["orders"]
        assert left["id"] == 2


def marks_of(http: httpx.Client, name: str) -> list[str]:
    """Return the texts of the marks in a session's charts."""
    drawn = http.get(f"/sessions/{name}/chart.json").json()
    return [each["text"] for each in drawn["marks"]]


def test_the_newest_of_many_events_are_marked(server_url: str, unique_name: str) -> None:
    """The newest events are in the picture, however many came before; so it is in the list."""
    with open_http(server_url) as http:
        http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.1}).raise_for_status()
        for number in range(230):
            body = {"kind": "scale", "factor": 0.99, "reason": f"reason-{number}!"}
            http.post(f"/v1/sessions/{unique_name}/actions", json=body).raise_for_status()
        sealed = {"want": {"start": 0, "count": 1}}
        http.post(f"/v1/sessions/{unique_name}/sync", json=sealed).raise_for_status()
        told = marks_of(http, unique_name)
        assert len(told) == 200
        assert "reason-229!" in told[-1]
        assert "reason-30!" in told[0]
        page = http.get(f"/sessions/{unique_name}").text
        assert "reason-229!" in page
        timeline = http.get(f"/sessions/{unique_name}/timeline", params={"kind": "acted"}).text
        assert "reason-229!" in timeline
        assert "reason-29!" not in timeline
