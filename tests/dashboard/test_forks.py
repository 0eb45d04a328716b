"""A fork on the dashboard: previewed before it is made, as its fields change."""

import re
from html import unescape

import httpx
import pytest
from playwright.sync_api import Page, expect


@pytest.fixture(name="parent")
def _parent(http: httpx.Client, unique_name: str) -> str:
    """Return a session of which half was handed out, and that was halved on the way."""
    law = {"kind": "cosine", "total_steps": 60}
    body = {"name": unique_name, "base_lr": 0.1, "schedule": law, "total_steps": 60}
    http.post("/v1/sessions", json=body).raise_for_status()
    path = f"/v1/sessions/{unique_name}"
    http.post(f"{path}/sync", json={"want": {"start": 0, "count": 20}}).raise_for_status()
    http.post(f"{path}/actions", json={"kind": "scale", "factor": 0.5}).raise_for_status()
    http.post(f"{path}/sync", json={"want": {"start": 20, "count": 10}}).raise_for_status()
    return unique_name


def test_a_fork_is_shown_as_its_fields_change_and_made_as_shown(
    server_url: str, page: Page, http: httpx.Client, parent: str
) -> None:
    """In a browser, the fork's curve and remaining factor are previewed; then the fork has them."""
    fork = f"{parent}-longer"
    page.goto(f"{server_url}/sessions/{parent}/manage")
    shown = page.locator("#rehearsal")
    expect(shown).to_contain_text("From step 30 on")
    page.get_by_label("Name of the new session").fill(fork)
    page.get_by_label("From which step").fill("25")
    longer = '{"total_steps": 90, "schedule": {"kind": "cosine", "total_steps": 90}}'
    page.get_by_label("What differs").fill(longer)
    expect(shown).to_contain_text("From step 25 on")
    expect(shown).to_contain_text("the factor 0.5 stays")
    expect(shown.locator("svg.chart")).to_be_visible()
    expect(shown.locator(".twin")).to_contain_text("lr of the fork")
    assert http.get(f"/v1/sessions/{fork}").status_code == 404
    page.get_by_label("What differs").fill("{")
    expect(shown).to_contain_text("no JSON")
    page.get_by_label("What differs").fill(longer)
    expect(shown.locator("svg.chart")).to_be_visible()
    page.get_by_role("button", name="Fork", exact=True).click()
    page.wait_for_url(f"**/sessions/{fork}")
    made = http.get(f"/v1/sessions/{fork}").json()
    assert (made["horizon"], made["spec"]["total_steps"]) == (25, 90)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"step": "31"}, "31"),
        ({"step": "soon"}, "whole number"),
        ({"description": '{"labels": {}}'}, "A fork has that from its parent"),
        ({"description": '{"schedule": {"kind": "cosin"}}'}, "cosine"),
    ],
)
def test_what_would_be_refused_is_told_before(
    http: httpx.Client, parent: str, change: dict[str, str], told: str
) -> None:
    """The refusal takes the place of the picture, without a script too."""
    said = {"new_name": "", "step": "20", "description": "", "do": "preview", **change}
    page = http.post(f"/sessions/{parent}/manage/fork", data=said).text
    effect = unescape(page.partition('id="rehearsal"')[2].partition("</section>")[0])
    assert "<svg" not in effect
    assert re.search(told, effect)


def test_a_name_that_is_taken_is_told_before(http: httpx.Client, parent: str) -> None:
    """So is the name of a session with another past."""
    said = {"new_name": parent, "step": "20", "description": "", "do": "preview"}
    page = http.post(f"/sessions/{parent}/manage/fork", data=said).text
    effect = page.partition('id="rehearsal"')[2].partition("</section>")[0]
    assert "<svg" not in effect
    assert parent in effect
