"""A live page survives the death of the service: it gets every event, and each once."""

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from serving import PATIENCE, RunningService, open_http
from watched import Watched

LISTEN = """
window.heard = [];
window.EventSource = class extends EventSource {
  constructor(...given) {
    super(...given);
    this.addEventListener("happened", (event) => {
      heard.push([Number(event.lastEventId), JSON.parse(event.data).text]);
    });
  }
};
"""
"""Records all events that a page gets, before the page's own script runs."""

AWAY = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_CONNECTION_RESET",
        "ERR_EMPTY_RESPONSE"]  # fmt: skip
"""What browsers log while the service is away."""


@pytest.fixture(name="http")
def _http(service: RunningService) -> Iterator[httpx.Client]:
    """Return a connection to a service of one test, with two sessions."""
    with open_http(service.url) as http:
        for name in ("night", "day"):
            http.post("/v1/sessions", json={"name": name, "base_lr": 0.1}).raise_for_status()
        yield http


def happen(http: httpx.Client, *names: str) -> list[str]:
    """Order actions, and return their reasons."""
    reasons = []
    for name in names:
        reasons.append(f"reason-{next(_numbers)}!")
        body = {"kind": "scale", "factor": 0.5, "at": 9000, "reason": reasons[-1]}
        http.post(f"/v1/sessions/{name}/actions", json=body).raise_for_status()
    return reasons


_numbers = iter(range(1000, 10_000))


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("sessions/night", ("night",)),
        ("timeline", ("night", "day")),
        ("timeline?session=night&kind=ordered", ("night",)),
    ],
)
def test_no_event_is_missed_or_told_twice_across_kills(
    service: RunningService,
    http: httpx.Client,
    page: Page,
    watched: Watched,
    path: str,
    names: tuple[str, ...],
) -> None:
    """Events before, between and after two kills are on the page once, in order."""
    expect.set_options(timeout=1000 * PATIENCE)
    watched.expected = AWAY
    page.add_init_script(LISTEN)
    before = happen(http, *names)
    page.goto(f"{service.url}/{path}")
    page.evaluate("() => { document.title = 'the same page' }")
    link, events = page.locator("#link"), page.locator("#events")
    after = []
    for _ in range(2):
        expect(link).to_have_text("live")
        after += happen(http, *names, *names)
        expect(events).to_contain_text(after[-1])
        service.kill()
        expect(link).to_have_text("reconnecting…")
        service.start()
        after += happen(http, *names)  # before the page is back, or just then
    expect(link).to_have_text("live")
    after += happen(http, *names)
    expect(events).to_contain_text(after[-1])
    page.wait_for_function("last => heard.some(([, text]) => text.includes(last))", arg=after[-1])
    heard = page.evaluate("() => heard")
    numbers = [number for number, _ in heard]
    assert numbers == sorted(set(numbers))
    assert [re.findall(r"reason-\d+!", text)[0] for _, text in heard] == after
    shown = re.findall(r"reason-\d+!", events.inner_text())
    assert shown == (before + after)[::-1][: len(shown)]
    assert set(after) <= set(shown)
    assert page.title() == "the same page"


def test_what_a_page_heard_last_is_what_it_asks_to_go_on_behind(
    service: RunningService, http: httpx.Client, page: Page, watched: Watched
) -> None:
    """A feed that is refused for a while is requested again, after the newest event received."""
    expect.set_options(timeout=1000 * PATIENCE)
    watched.expected = ["503", *AWAY]
    page.add_init_script(LISTEN)
    happen(http, "night")
    page.goto(f"{service.url}/sessions/night")
    expect(page.locator("#link")).to_have_text("live")
    page.route("**/feed*", lambda route: route.fulfill(status=503))  # as a proxy does
    service.kill()
    expect(page.locator("#link")).to_have_text("reconnecting…")
    service.start()
    missed = happen(http, "night", "night")
    with page.expect_response("**/feed*") as refused:
        pass
    assert refused.value.status == 503
    page.unroute("**/feed*")
    expect(page.locator("#link")).to_have_text("live")
    page.wait_for_function("last => heard.some(([, text]) => text.includes(last))", arg=missed[-1])
    told = [text for _, text in page.evaluate("() => heard")]
    assert [re.findall(r"reason-\d+!", text)[0] for text in told] == missed
