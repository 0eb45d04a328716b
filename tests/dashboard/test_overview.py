"""The first page: sessions in trouble come first, however many others there are."""

import re
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import httpx
import pytest

import postgres
from serving import PATIENCE, RunningService, open_http

ROWS = 50
"""How many sessions a page has."""


@pytest.fixture(name="running", params=["sqlite", "postgres"])
def _running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningService]:
    """Start a service for one test on either database."""
    if request.param == "sqlite":
        with RunningService(tmp_path / "pacesetter.db") as service:
            yield service
    else:
        with postgres.database() as url, RunningService(url) as service:
            yield service


def create(http: httpx.Client, name: str, **spec: object) -> None:
    """Create a session."""
    http.post("/v1/sessions", json={"name": name, "base_lr": 0.1, **spec}).raise_for_status()


def sync(http: httpx.Client, name: str, step: int, **more: object) -> None:
    """Sync as a trainer at a step."""
    body = {"want": {"start": step, "count": 8}, "progress": {"step": step}, "attempt": 1}
    http.post(f"/v1/sessions/{name}/sync", json={**body, **more}).raise_for_status()


def in_trouble(http: httpx.Client) -> list[str]:
    """Return the sessions that are listed first, in order."""
    card = http.get("/").text.partition('id="trouble"')[2].partition("</section>")[0]
    return re.findall(r'<a href="\./sessions/([^"]+)">', card)


def test_old_sessions_in_trouble_stand_above_newer_ones(running: RunningService) -> None:
    """One has a deviating rank and one failed, each older than more sessions than a page has.

    The record is enough: a service that was just started shows the same.
    """
    with open_http(running.url) as http:
        for name in ("deviates", "failed", "agrees", "archived"):
            create(http, name)
            sync(http, name, 0)
        for name in ("deviates", "agrees", "archived"):
            sync(http, name, 4, applied={"step": 3, "values": {"lr": 0.5}})
        sync(http, "agrees", 5, applied={"step": 4, "values": {"lr": 0.1}})
        said = {"outcome": "failed", "reason": "NaN"}
        http.post("/v1/sessions/failed/finish", json=said).raise_for_status()
        http.delete("/v1/sessions/archived").raise_for_status()
        for number in range(ROWS + 5):
            create(http, f"fine-{number}")
        assert in_trouble(http) == ["deviates", "failed"]
        assert "1 deviating" in http.get("/").text
        page = http.get("/", params={"state": "ailing"}).text
        assert set(re.findall(r"sessions/([\w-]+)\"", page)) == {"deviates"}
    running.kill()
    running.start()
    with open_http(running.url) as http:
        assert in_trouble(http) == ["deviates", "failed"]
        sync(http, "deviates", 6, applied={"step": 5, "values": {"lr": 0.1}})
        deadline = monotonic() + PATIENCE  # processes tell each other of ranks within a second
        while in_trouble(http) != ["failed"]:
            assert monotonic() < deadline


def test_no_session_stands_twice_on_the_page(running: RunningService) -> None:
    """If more are in trouble than come first, the others keep their place, and a link lists all."""
    with open_http(running.url) as http:
        for number in range(14):
            create(http, f"bad-{number}")
            sync(http, f"bad-{number}", 0)
            sync(http, f"bad-{number}", 4, applied={"step": 3, "values": {"lr": 0.5}})
        page = http.get("/").text
        names = re.findall(r'<a href="\./sessions/([^"]+)">', page)
        assert sorted(names) == sorted(f"bad-{number}" for number in range(14))
        assert len(in_trouble(http)) == 10
        assert 'href="./?state=ailing"' in page


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("/?state=runing", "There is no state &#39;runing&#39;"),
        ("/?sort=age", "There is no sort"),
        ("/timeline?kind=scaled", "There is no kind"),
        ("/timeline?label=vision", "name:value"),
        ("/?label=vision%3A", ""),
        ("/?state=running&sort=name", ""),
    ],
)
def test_what_an_address_asks_for_is_shown_or_refused(
    server_url: str, address: str, told: str
) -> None:
    """An unknown filter never falls back to showing everything."""
    with open_http(server_url) as http:
        answer = http.get(address)
    assert answer.status_code == (400 if told else 200)
    assert told in answer.text
