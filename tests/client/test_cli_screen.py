"""What is printed: colours at a terminal, plain text for a program, never a server's commands."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import unicodedata
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from little_servers import Asked, answer, answering
from pacesetter import Client, cli
from pacesetter.cli import curves, listing, server, text
from pacesetter.cli.drawing import AXIS, Curve, chart, sparkline
from serving import PATIENCE, RunningService

HOSTILE = "[red]x[/red]\x1b]0;pwned\x07\x1b[2J\x9b31m\r\u202eevil\u2066"
"""Markup, a window's title, a cleared screen, a one-byte colour, and reversed letters."""

ROW = {
    "name": HOSTILE,
    "state": HOSTILE,
    "labels": {HOSTILE: HOSTILE},
    "attempt": 1,
    "revision": 0,
    "step": 5,
    "total_steps": 10,
    "horizon": 6,
    "lr": {"lr": 0.1},
    "metrics": {HOSTILE: {"value": HOSTILE, "step": 5}},
    "last_heard": HOSTILE,
    "created_at": HOSTILE,
    "changed_at": HOSTILE,
    "ranks": {"expected": 1, "seen": 1, "stale": 0, "deviating": 0},
    "orders": 1,
    "seconds_left": None,
}
SESSION = {
    "name": "vit",
    "spec": {"base_lr": 0.1, "schedule": {"kind": HOSTILE}, "labels": {HOSTILE: HOSTILE}},
    "status": "active",
    "attempt": 1,
    "horizon": 6,
    "revision": 0,
    "series": ["lr"],
    "max_lookahead": None,
    "max_window": 10,
}
EVENT = {"seq": 0, "attempt": 1, "kind": HOSTILE, "at": 3, "created_at": HOSTILE, "text": HOSTILE}
ORDER = {"id": 1, "at": 7, "action": {}, "actor": HOSTILE, "reason": HOSTILE, "text": HOSTILE}
FINDING = dict.fromkeys(("code", "severity", "pointer", "message", "advice"), HOSTILE)
TEMPLATE = {
    "reference": HOSTILE,
    "template": {"description": HOSTILE, "parameters": {HOSTILE: {}}, "spec": {"x": HOSTILE}},
    "deprecated": HOSTILE,
}
TOKEN = {"id": HOSTILE, "name": HOSTILE, "role": HOSTILE, "scope": [HOSTILE], "expires_at": HOSTILE}
CURVE = {"steps": [0, 9], "series": {"lr": [0.1, 0.0]}, "sealed_until": 6}
ANSWERS: dict[str, object] = {
    "/v1/sessions": {"sessions": [ROW], "next_page_token": None},
    "/v1/sessions/vit": SESSION,
    "/v1/sessions/vit/status": {**ROW, "name": HOSTILE},
    "/v1/sessions/ended/status": {**ROW, "state": "finished"},
    "/v1/sessions/vit/events": {"events": [EVENT], "next_page_token": None},
    "/v1/sessions/vit/actions": {"orders": [ORDER]},
    "/v1/sessions/vit/forecast": CURVE,
    "/v1/sessions/vit/history": {
        "attempt": 1,
        "start": 0,
        "end": 2,
        "steps": [0, 1],
        "series": {"lr": [0.1, 0.1]},
        "metrics": {HOSTILE: [1.0, HOSTILE]},
    },
    "/v1/sessions/vit/explain": {"text": f"{HOSTILE}\n{HOSTILE}\n", "step": 3},
    "/v1/schedules/lint": {"findings": [FINDING]},
    "/v1/templates": {"templates": [TEMPLATE]},
    "/v1/templates/t/1": TEMPLATE,
    "/v1/tokens": {"tokens": [{**TOKEN, "last_used_at": HOSTILE}]},
}
PROBLEM = {"code": HOSTILE, "detail": HOSTILE, "errors": [{"pointer": HOSTILE, "detail": HOSTILE}]}


def say(asked: Asked) -> bytes:
    """Answer as an attacker's server would."""
    body = ANSWERS.get(asked.target.partition("?")[0])
    return answer(200 if body else 422, json.dumps(body or PROBLEM).encode())


def is_harmless(told: str) -> bool:
    """Return whether a terminal would merely show a text."""
    return all(each == "\n" or unicodedata.category(each)[0] != "C" for each in told)


@pytest.mark.parametrize(
    "command",
    [
        "ls",
        "show vit",
        "watch ended",
        "events vit",
        "explain vit",
        "history vit",
        "history vit --csv",
        "plot vit --metric x",
        "orders vit",
        "lint -f -",
        "template ls",
        "template show t@1",
        "token ls",
        "ranks vit",
    ],
)
@pytest.mark.parametrize("is_terminal", [False, True])
def test_nothing_that_a_server_says_commands_a_terminal(
    command: str,
    is_terminal: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Control characters are replaced, markup stays text, and all of the text is still shown."""
    monkeypatch.setattr("sys.stdin", __import__("io").StringIO("{}"))
    monkeypatch.setattr(server, "RETRY_FOR", 0.0)
    if is_terminal:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "dumb")  # a terminal for which rich adds no codes itself
        monkeypatch.setenv("COLUMNS", "500")
    with answering(say) as (hostile, _):
        cli.main([*command.split(), "--url", hostile.url])
    told = capsys.readouterr()
    said = told.out + told.err
    if command == "history vit --csv" and not is_terminal:
        return  # a file gets its bytes as they are
    assert is_harmless(said), said
    assert "[red]x[/red]" in said
    assert "pwned" in said


@given(st.text())
def test_a_safe_text_is_one_line_of_visible_characters(said: str) -> None:
    """Any text becomes such a line, and harmless text stays as it is."""
    safe = text.safe(said)
    assert safe.isprintable()
    assert len(safe) == len(said)
    assert not said.isprintable() or safe == said


NUMBERS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=64))


@given(st.lists(NUMBERS, min_size=1, max_size=50), st.integers(20, 120), st.integers(3, 20))
def test_any_curve_can_be_drawn(values: list[float | None], width: int, height: int) -> None:
    """It fits its width and height, whatever the values; NaN leaves a gap."""
    for log in (False, True):
        curve = Curve(range(len(values)), values)
        lines = chart([curve], width=width, height=height, log=log, now=0)
        assert len(lines) <= height + 2
        assert all(sum(len(piece.text) for piece in line) <= width for line in lines)
    assert len(sparkline(values, width)) <= width


def test_a_curve_is_where_its_values_are() -> None:
    """A straight line falls from the first cell of the first line to the last of the last."""
    lines = chart([Curve([0, 99], [1.0, 0.0])], width=40 + AXIS, height=10)
    rows = ["".join(piece.text for piece in line)[AXIS:] for line in lines[:-1]]
    starts = [len(row) - len(row.lstrip(" ")) for row in rows]
    assert starts == sorted(starts)
    assert (starts[0], len(rows[-1].rstrip())) == (0, 40)
    assert all(later > earlier for earlier, later in pairwise(starts))
    plain = chart([Curve([0, 99], [1.0, 0.0])], width=49, height=10, ascii_only=True)
    assert all(piece.text.isascii() for line in plain for piece in line)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0.2 s"), (7.1, "7 s"), (59, "59 s"), (60, "1 min"), (12_000, "3 h 20 min"),
     (187_200, "2 d 4 h"), (None, "-"), (float("nan"), "-")],
)  # fmt: skip
def test_lengths_of_time_are_told_as_people_do(seconds: float | None, said: str) -> None:
    """They have the largest unit, and the next one where that adds something."""
    assert text.span(seconds) == said


def test_parts_of_descriptions_are_told_as_people_do() -> None:
    """Kinds are printed as calls and other objects likewise; a long list by its first items."""
    law = {"kind": "table", "levels": [0.1] * 1225, "out_of_range": None}
    told = ", ".join(["0.1"] * 8)
    assert curves.shown(law) == f"table(levels=[{told}, … 1,225 in all])"
    assert curves.shown({"kind": "constant"}) == "constant"
    assert curves.shown({"session": "vit", "step": 10}) == "(session=vit, step=10)"
    assert curves.shown([]) == "[]"


@pytest.mark.parametrize(
    ("width", "there"),
    [
        (90, ["name", "state", "step", "done", "lr", "step", "heard", "ranks"]),
        (40, ["name", "state", "step", "lr", "step"]),
        (30, ["name", "state", "lr"]),
        (20, ["name", "state"]),
        (12, ["name"]),
    ],
)
def test_a_narrow_list_leaves_columns_out_and_no_name(width: int, there: list[str]) -> None:
    """Names stay whole, since they are typed next. A metric may have the name of a column."""
    row = {
        "name": "first-run",
        "state": "running",
        "step": 19,
        "total_steps": 100,
        "lr": {"lr": 0.1},
        "metrics": {"step": {"value": 7.0, "step": 19}},
        "ranks": {"expected": 1, "seen": 1},
    }
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(listing.listed([row], more=False))
    head, line = captured.get().splitlines()
    assert head.split() == there
    assert line.split()[:2] == ["first-run", "running"][: len(there)]
    assert ("7" in line.split()) == (there.count("step") == 2)


def test_a_plan_is_done_with_its_last_step() -> None:
    """Steps count from 0, so the last one of 200 is step 199."""
    assert [text.share(step, 200) for step in (0, 99, 198, 199, 250)] == [
        "0%", "50%", "99%", "100%", "100%",
    ]  # fmt: skip
    assert text.share(None, 200) == text.share(5, None) == ""


def test_moments_are_told_from_now() -> None:
    """They are printed as elapsed time or local time; a text that is not a time stays as it is."""
    now = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
    assert text.ago("2026-01-31T11:58:30Z", now) == "1 min"
    assert text.since("2026-01-31T11:58:30Z").endswith(" ago")
    assert text.clock("2026-01-31T11:58:30Z", now) == datetime.fromisoformat(
        "2026-01-31T11:58:30+00:00"
    ).astimezone().strftime("%H:%M:%S")
    assert text.clock("soon") == "soon"


class Terminal:
    """The command in a terminal of 80 columns."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        ours, theirs = pty.openpty()
        self._ours = ours
        self.told = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pacesetter.cli", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
            start_new_session=True,
        )
        os.close(theirs)

    def until(self, wanted: str | None) -> str:
        """Return the output once it contains a text, or once the command has ended."""
        deadline = time.monotonic() + PATIENCE
        while wanted is None or wanted not in self.told:
            assert time.monotonic() < deadline, self.told
            if not select.select([self._ours], [], [], 0.1)[0]:
                continue
            try:
                piece = os.read(self._ours, 65_536)
            except OSError:  # how a terminal reports that its other side has closed
                piece = b""
            if not piece:
                break
            self.told += piece.decode()
        return self.told

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._ours, line.encode() + b"\n")

    def end(self) -> int:
        """Wait until the command has ended."""
        self.until(None)
        os.close(self._ours)
        return self.process.wait(PATIENCE)


def test_a_person_is_asked_why(client: Client, unique_name: str) -> None:
    """The terminal prompts for a reason, which is then in the record; the answer is in colour."""
    client.create(unique_name, base_lr=0.1)
    asking = Terminal("scale", unique_name, "0.5", "--url", client.url)
    asking.until("why? ")
    asking.type("the loss rises")
    assert asking.end() == 0
    assert "\x1b[" in asking.told
    plain = re.sub(r"\x1b\[[0-9;]*m", "", asking.told)
    assert "order 1 holds from step 0 on" in plain
    (order,) = client.orders(unique_name) or [None]
    assert order is None or order["reason"] == "the loss rises"
    assert "the loss rises" in list(client.events(unique_name))[-1]["text"]


def test_colours_are_left_out_where_they_are_not_wanted(client: Client, unique_name: str) -> None:
    """With NO_COLOR a terminal gets none; irreversible actions ask for confirmation."""
    client.create(unique_name, base_lr=0.1)
    client.archive(unique_name)
    asking = Terminal("rm", unique_name, "--url", client.url, NO_COLOR="1")
    asking.until("[y/N] ")
    asking.type("no")
    assert asking.end() == 1
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", asking.told)
    assert client.get(unique_name).status == "archived"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_does_not_have_costs_no_answer(
    encoding: str, client: Client, unique_name: str
) -> None:
    """Where the output is not in UTF-8 the rest is shown, and the status says what was done."""
    client.create(unique_name, base_lr=0.1, labels={"who": "日本"})
    other = f"{unique_name}-b"
    client.create(other, base_lr=0.2)
    for arguments, shown in (
        (("show", unique_name), "日本"),
        (("label", unique_name, "who=日本"), "日本"),
        (("scale", unique_name, "0.5", "--dry-run"), "┅┅ before"),
        (("diff", unique_name, other), f"━━ {unique_name}"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "pacesetter.cli", *arguments, "--url", client.url],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert (shown in done.stdout.decode(encoding)) == (encoding == "utf-8")


def test_who_watches_sees_an_outage_and_its_end(service: RunningService, unique_name: str) -> None:
    """The last look stays while the server is away; Ctrl-C ends it without an error."""
    with Client(service.url) as client:
        client.create(unique_name, base_lr=0.1)
    watching = Terminal("watch", unique_name, "-n", "0.2", "--url", service.url)
    watching.until("forecast")
    service.stop()
    watching.until("no answer since")
    service.start()
    with Client(service.url) as client:
        client.scale(unique_name, 0.5, reason="resumed")
    watching.until("resumed")
    watching.process.send_signal(signal.SIGINT)
    assert watching.end() == 130
    assert "Traceback" not in watching.told
