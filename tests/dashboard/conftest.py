"""A real browser, and messages that its pages must not log."""

import os
import shutil
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from serving import PATIENCE, open_http
from watched import Watched

CHROMIUM = shutil.which("chromium")


@pytest.fixture(autouse=True, scope="module")
def _patient() -> None:
    """Wait for pages as patiently as for all else."""
    expect.set_options(timeout=1000 * PATIENCE)


@pytest.fixture(name="http", scope="module")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a connection to the shared service, with the headers of a page's request."""
    with open_http(server_url) as http:
        http.headers["origin"] = server_url
        yield http


@pytest.fixture(name="browser", scope="module")
def _browser() -> Iterator[Browser]:
    """Return Debian's browser, without a window; its loop ends with the tests of a file."""
    if CHROMIUM is None:
        missing = "no browser: install the package chromium"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(name="watched")
def _watched() -> Iterator[Watched]:
    """Collect what pages log and raise; anything unexpected fails at the end."""
    watched = Watched()
    yield watched
    assert watched.unexpected() == []


@pytest.fixture(name="context")
def _context(browser: Browser, watched: Watched) -> Iterator[BrowserContext]:
    """Return a browser without cookies, whose pages are monitored."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(1000 * PATIENCE)
    context.on("console", watched.hear)
    context.on("weberror", lambda error: watched.complaints.append(str(error.error)))
    yield context
    context.close()


@pytest.fixture(name="page")
def _page(context: BrowserContext) -> Page:
    """Return an empty page."""
    return context.new_page()
