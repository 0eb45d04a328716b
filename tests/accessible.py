"""Barriers in a page: axe's serious findings, and content that is wider than the window."""

from importlib.resources import files
from typing import Any

from playwright.sync_api import Page

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()

EVERY: dict[str, Any] = {
    "type": "tag",
    "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"],
}
CONTRAST: dict[str, Any] = {"type": "rule", "values": ["color-contrast"]}


def barriers(page: Page, rules: dict[str, Any]) -> list[str]:
    """Return what axe finds serious in a page by some rules, and whether it is too wide."""
    page.evaluate(AXE)
    found = page.evaluate("rules => axe.run({runOnly: rules, resultTypes: ['violations']})", rules)
    assert found["passes"], "nothing was looked at"
    grave = [
        f"{each['id']}: {[node['target'] for node in each['nodes']]}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]
    wide, room = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    return [*grave, f"{wide} wide in a window of {room}"] if wide > room else grave
