"""A real browser, and what it must never say."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from serving import PATIENCE

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


@pytest.fixture(name="browser", scope="module")
def _browser() -> Iterator[Browser]:
    """Return Debian's browser, without a window; its loop ends with the tests of a file."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Watched:
    """What browsers have complained of: errors of scripts, breaches of the policy, bad answers."""

    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        """Take note of what is an error."""
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def unexpected(self) -> list[str]:
        """Return what no test has said that it expects."""
        return [each for each in self.complaints if not any(part in each for part in self.expected)]


@pytest.fixture(name="watched")
def _watched() -> Iterator[Watched]:
    """Return what is heard of pages; at the end nothing unexpected may have been."""
    watched = Watched()
    yield watched
    assert watched.unexpected() == []


@pytest.fixture(name="context")
def _context(browser: Browser, watched: Watched) -> Iterator[BrowserContext]:
    """Return a browser without cookies, whose pages are listened to."""
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
