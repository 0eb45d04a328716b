"""What a notebook shows of clients and sessions: all that is known, safely, and without delay."""

import base64
import copy
import dataclasses
import pickle
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from lawful import SEEN, SPEC, train
from little_servers import LittleServer, say_nothing
from pacesetter import Client
from pacesetter._html import MOST_SHOWN
from pacesetter._notebook import StatusRow
from pacesetter._plan import Plan
from serving import RunningService, open_http

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
COSINE = {"kind": "cosine", "total_steps": 100}
TAGS = {"div", "b", "span", "img", "table", "thead", "tbody", "tr", "th", "td"}


class Tags(HTMLParser):
    """Collects the elements of an HTML text, and refuses those that a cell must not have."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Check an element."""
        assert tag in TAGS
        assert {name for name, _ in attributes} <= {"style", "src", "alt"}
        self.found.append((tag, dict(attributes)))

    @property
    def pictures(self) -> list[str]:
        """The SVG of each picture."""
        sources = [dict(each)["src"] or "" for tag, each in self.found if tag == "img"]
        assert all(each.startswith("data:image/svg+xml;base64,") for each in sources)
        return [base64.b64decode(each.partition(",")[2]).decode() for each in sources]


def text_of(html: str) -> str:
    """Return the visible text of a cell."""
    return re.sub(r"<[^>]*>", " ", html)


def test_a_session_shows_itself(client: Client, unique_name: str) -> None:
    """Its state, step, rate, metrics, ranks and curve, from the session, its info and its row."""
    client.create(unique_name, base_lr=0.5, schedule=COSINE, total_steps=100, labels={"t": "x"})
    session = client.session(unique_name)
    session.lr(0)
    session.report(0, loss=2.5)
    session.flush()
    for thing in (session, client.get(unique_name), client.status_of(unique_name)):
        html = thing._repr_html_()
        assert Tags(html).pictures[0].startswith("<svg")
        for said in (unique_name, "running", "of 100", "0.5", "loss", "2.5", "1 of 1", "t: x"):
            assert said in text_of(html), said


def test_a_plan_shows_its_curves(client: Client, server_url: str, unique_name: str) -> None:
    """Losses so far, each drawn candidate with its band, the rates, and the ends in a table."""
    client.create(unique_name, **SPEC)
    with open_http(server_url) as http:
        rates = train(http, unique_name, SEEN, [])
        ranked = client.plan(unique_name, "loss")._repr_html_()
        client.fork(unique_name, f"{unique_name}-probe", step=SEEN)
        client.cooldown(f"{unique_name}-probe", steps=100, at=SEEN, ease="linear")
        train(http, f"{unique_name}-probe", SEEN + 100, rates)
    assert "no_decay: Neither" in text_of(ranked)
    assert "9 of 10" not in ranked
    assert Tags(ranked).pictures[0].count("<path") == 2
    found = client.plan(unique_name, "loss")
    html = found._repr_html_()
    [picture] = Tags(html).pictures
    paths = [each for each in ET.fromstring(picture).iter() if each.tag.endswith("path")]
    assert len([each for each in paths if "fill-opacity" in each.attrib["style"]]) == 4
    assert len(paths) == 4 + (4 + 1 + 1) + (4 + 1)
    for each in found.candidates:
        assert f"{each.low:#.4g} to {each.high:#.4g}" in text_of(html)
        assert each.label in text_of(html)
    assert found.unknown[-1] in text_of(html)


def test_a_plan_of_another_kind_is_text() -> None:
    """A server's text in place of numbers, or its markup, breaks no cell and is no element."""
    candidate = {"label": EVIL, "orders": [], "total_steps": 9, "end": None, "gain": None}
    candidate |= {"blind": None, "curve": None, "reasons": [EVIL], "refused": EVIL}
    finding = {"code": EVIL, "message": EVIL, "effect": "ranking"}
    answer = {"id": "x", "session": EVIL, "metric": EVIL, "predicts": EVIL, "horizon": 1}
    answer |= {"total_steps": 9, "findings": [finding], "candidates": [candidate], "probe": None}
    html = Plan.parse({**answer, "unknown": [EVIL]}, {})._repr_html_()
    Tags(html)
    assert "<script" not in html
    lacking = dataclasses.replace(Plan.parse({**answer, "unknown": []}, {}), answer={})
    assert lacking._repr_html_().startswith("<pre>Plan(")


def test_a_client_shows_where_trainings_stand(client: Client, unique_name: str) -> None:
    """It lists the sessions that changed last, a row each."""
    client.create(unique_name, base_lr=0.5)
    html = client._repr_html_()
    assert unique_name in html
    assert [tag for tag, _ in Tags(html).found].count("th") == 7


def test_a_fork_is_drawn_from_its_first_step(client: Client, unique_name: str) -> None:
    """So is a session that begins later than at step 0, and one whose plan has no end."""
    client.create(unique_name, base_lr=0.5, start_step=500)
    assert Tags(client.get(unique_name)._repr_html_()).pictures
    assert Tags(client.status_of(unique_name)._repr_html_()).pictures


def hostile(request: httpx.Request) -> httpx.Response:
    """Answer markup wherever the API has text."""
    if request.url.path.endswith("/forecast"):
        return httpx.Response(200, text=f"<svg><script>alert(1)</script>{EVIL}</svg>")
    row = {
        "name": EVIL,
        "state": EVIL,
        "labels": {EVIL: EVIL},
        "attempt": EVIL,
        "revision": EVIL,
        "step": EVIL,
        "total_steps": EVIL,
        "horizon": 10,
        "lr": {EVIL: EVIL},
        "metrics": {EVIL: {"value": EVIL, "step": EVIL}, "x": EVIL},
        "last_heard": EVIL,
        "ranks": {"expected": EVIL, "seen": EVIL, "stale": EVIL, "deviating": EVIL},
        "orders": EVIL,
        "seconds_left": EVIL,
    }
    page = {"sessions": [row], "next_page_token": None}
    return httpx.Response(200, json=page if request.url.path == "/v1/sessions" else row)


def test_whatever_the_server_says_is_text() -> None:
    """No element or attribute comes from it; its picture is an image."""
    with Client("http://fake", transport=httpx.MockTransport(hostile)) as client:
        row = client.status_of("any")
        (listed,) = client.status()
        for thing in (row, listed, client):
            html = thing._repr_html_()
            Tags(html)
            assert "alert(1)" in html
            assert "<script" not in html


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"sessions": 3}', b"\xff", b"null"])
def test_nonsense_breaks_no_cell(answer: bytes) -> None:
    """Whatever the server answers, the cell shows something."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=answer))
    with Client("http://fake", transport=transport) as client:
        assert "http://fake" in client._repr_html_()
        row = StatusRow({"name": "vit"})
        row.look = client._look
        assert "vit" in row._repr_html_()
        assert StatusRow({"ranks": 3})._repr_html_()


def test_a_server_that_is_away_is_not_waited_for(tmp_path: Path) -> None:
    """The cell shows what is known, and why it shows no more."""
    with RunningService(tmp_path / "pacesetter.db") as service, Client(service.url) as client:
        client.create("vit", base_lr=0.5)
        info = client.get("vit")
        session = client.session("vit")
        service.kill()
        for thing in (info, session, client):
            assert "no answer from" in text_of(thing._repr_html_())
        assert "vit" in info._repr_html_()
        service.start()


def test_a_server_that_is_silent_is_waited_for_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell is there long before an ordinary call would give up."""
    monkeypatch.setattr("pacesetter._notebook.SECONDS", 0.2)
    with LittleServer(say_nothing) as server, Client(server.url, timeout=3_600) as client:
        assert "no answer" in text_of(client._repr_html_())


def test_copies_ask_nobody(client: Client, unique_name: str) -> None:
    """A pickle or copy of a session shows what was known, and equals it."""
    client.create(unique_name, base_lr=0.5)
    for thing in (client.get(unique_name), client.status_of(unique_name)):
        for again in (pickle.loads(pickle.dumps(thing)), copy.deepcopy(thing)):
            assert again == thing
            assert type(again) is type(thing)
            assert not Tags(again._repr_html_()).pictures


def test_many_groups_are_cut_short(client: Client, unique_name: str) -> None:
    """Of 20 groups some are shown, and the number of the others."""
    groups: dict[str, Any] = {f"g{n:02}": {"base_lr": 0.1} for n in range(20)}
    client.create(unique_name, groups=groups)
    text = text_of(client.status_of(unique_name)._repr_html_())
    assert f"and {20 - MOST_SHOWN} more" in text
    assert "g05.lr" in text
    assert "g06.lr" not in text
