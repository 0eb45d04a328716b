"""The guides are correct: their code runs, or is a part of a program that other tests run."""

import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from documents import DOCS, assert_like, fences, run
from serving import PATIENCE, RunningService

GUIDES = sorted(path for path in (DOCS / "guides").glob("*.md") if path.stem != "index")
LINK = re.compile(r"\]\((\.\./\.\./examples/integrations/\w+\.py)\)")
OF_PROGRAMS = [path for path in GUIDES if LINK.search(path.read_text())]
BY_THEMSELVES = [path for path in GUIDES if path not in OF_PROGRAMS]
PAGES = [*BY_THEMSELVES, *(DOCS / f"{name}.md" for name in ("lint", "recommend", "templates"))]


@pytest.fixture(autouse=True)
def _address(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACESETTER_URL", server_url)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_and_prints_what_is_shown(page: Path, server_url: str) -> None:
    """A page's Python is one program, its commands are a reader's, in order."""
    run(page.read_text(), server_url)


@pytest.mark.parametrize("page", OF_PROGRAMS, ids=lambda page: page.stem)
def test_the_lines_of_a_page_are_lines_of_the_program_it_names(page: Path) -> None:
    """Such pages show parts of an example that the tests of its integration run."""
    text = page.read_text()
    lines = {"", "..."}
    for link in LINK.findall(text):
        lines |= {line.strip() for line in (page.parent / link).read_text().splitlines()}
    shown = [block.text for block in fences(text) if block.language == "python"]
    assert shown
    for block in shown:
        assert {line.strip() for line in block.splitlines()} <= lines


def test_the_first_five_minutes_go_as_they_are_told(
    service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the page's training runs, its commands are answered as the page shows."""
    # A reader's service has no other sessions, whose metrics would be listed too.
    monkeypatch.setenv("PACESETTER_URL", service.url)
    monkeypatch.chdir(tmp_path)  # where its files are written
    blocks = [each for each in fences((DOCS / "start.md").read_text()) if each.language != "sh"]
    program, printed, *commands = blocks
    (tmp_path / "train.py").write_text(program.text)
    with (tmp_path / "printed").open("w") as output:
        training = subprocess.Popen([sys.executable, "-u", "train.py"], cwd=tmp_path, stdout=output)
    try:
        wait_until_it_trains(f"{service.url}/v1/sessions/five-minutes/history", training)
        run("\n".join(f"```console\n{block.text}```" for block in commands), service.url)
        assert training.poll() is None, "the training was over before it was steered"
    finally:
        training.kill()
        training.wait()
    said = (tmp_path / "printed").read_text().splitlines()
    assert_like(printed.text.splitlines()[0], said[0])


def wait_until_it_trains(history: str, training: subprocess.Popen[bytes]) -> None:
    """Wait until a loss has been reported."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends and training.poll() is None:
        answer = httpx.get(history)
        if answer.status_code == 200 and answer.json()["metrics"]:
            return
        time.sleep(0.05)
    pytest.fail("the training has not reported anything")


def test_an_emergency_goes_as_it_is_told(server_url: str) -> None:
    """The commands of the page on orders are answered as it shows, in a training at its step."""
    page = (DOCS / "actions.md").read_text()
    spec = {"name": "vit", "base_lr": 0.1, "schedule": {"kind": "cosine", "total_steps": 90_000}}
    with httpx.Client(base_url=f"{server_url}/v1") as http:
        assert http.post("/sessions", json=spec).status_code == 201
        want = {"start": 4061, "count": 35}
        stands = {"attempt": 1, "progress": {"step": 4061}, "want": want}
        assert http.post("/sessions/vit/sync", json=stands).json()["horizon"] == 4096
    run(
        "".join(f"```console\n{b.text}```\n" for b in fences(page) if b.language == "console"),
        server_url,
    )
