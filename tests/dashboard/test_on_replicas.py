"""The dashboard of several processes on one PostgreSQL database: any of them will do."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, expect

import postgres
from serving import PATIENCE, RunningService, open_http

ADMIN = "an-admin-token-of-this-test-0123456789abcdef"


@pytest.fixture(name="urls")
def _urls() -> Iterator[list[str]]:
    """Start three services with tokens on one database."""
    options = {"admin_token": ADMIN}
    with (
        postgres.database() as url,
        RunningService(url, **options) as one,
        RunningService(url, **options) as two,
        RunningService(url, **options) as three,
    ):
        yield [one.url, two.url, three.url]


def test_a_login_an_order_and_its_news_go_through_three_processes(
    urls: list[str], context: BrowserContext
) -> None:
    """Login and order go to two of them; a page of the third shows the order without a reload."""
    expect.set_options(timeout=1000 * PATIENCE)
    one, two, three = urls
    with open_http(one) as http:
        headers = {"authorization": f"Bearer {ADMIN}"}
        body = {"name": "shared", "base_lr": 0.1, "total_steps": 100}
        http.post("/v1/sessions", json=body, headers=headers).raise_for_status()
    entering, ordering, watching = (context.new_page() for _ in urls)
    entering.goto(f"{one}/sessions/shared")
    entering.get_by_label("Your token").fill(ADMIN)
    entering.get_by_role("button", name="Log in").click()
    expect(entering.locator("h1")).to_have_text("shared")
    watching.goto(f"{three}/sessions/shared")  # cookies ignore ports
    expect(watching.locator("#link")).to_have_text("live")
    ordering.goto(f"{two}/sessions/shared/control/scale")
    ordering.get_by_label("Why").fill("for all")
    ordering.get_by_role("button", name="Halve or multiply as shown").click()
    ordering.wait_for_url(re.compile("ordered=1"))
    expect(watching.locator("#events")).to_contain_text("scaled by 0.5: for all")
    expect(watching.locator("#orders")).to_contain_text("admin")
