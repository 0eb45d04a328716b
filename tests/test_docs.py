"""The documents tell the truth: their examples run, their lists are complete, their links lead."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pacesetter_service.core.schedules import catalogue
from pacesetter_service.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/integrations/*.md")])


def blocks(language: str) -> list[str]:
    """Give the README's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_of_the_readme_runs(code: str, server_url: str) -> None:
    """Each block is a program of its own that works against a running service."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PACESETTER_URL": server_url},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def exchanges() -> list[tuple[str, str]]:
    """Give the commands of the README's console blocks with what they are said to print."""
    found = []
    for block in blocks("console"):
        for part in block.split("$ ")[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output.strip()))
    return found


def test_the_console_of_the_readme_answers_as_printed(server_url: str) -> None:
    """Each command, in its order, gives the members that the README shows (`…` stands for more)."""
    for command, printed in exchanges():
        words = shlex.split(command.replace("http://127.0.0.1:7070", server_url))
        done = subprocess.run([*words, "-sS"], capture_output=True, text=True, check=True)
        answer: dict[str, Any] = json.loads(done.stdout)
        shown: dict[str, Any] = json.loads(printed.replace(", …", ""))
        assert {key: answer.get(key) for key in shown} == shown, command
        if "…" not in printed:
            assert set(answer) == set(shown), command


def test_every_setting_is_documented() -> None:
    """The settings page names each environment variable and its option, with the default."""
    page = (ROOT / "docs/configuration.md").read_text()
    for name, field in Settings.model_fields.items():
        assert f"`PACESETTER_{name.upper()}`" in page
        assert f"`--{name.replace('_', '-')}`" in page
        assert f"`{field.default}`" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture of a page exists."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


def test_every_make_target_is_explained() -> None:
    """`make help` names each target that the Makefile declares."""
    declared = re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())
    assert declared is not None
    command = ["make", "--no-print-directory", "help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in declared.group(1).split():
        if target not in ("help", "clean"):
            assert f"make {target} " in shown


def _writer() -> Any:
    """Load the program that writes the pages about schedules."""
    spec = importlib.util.spec_from_file_location("make_schedules", ROOT / "docs/make_schedules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITER = _writer()


@pytest.mark.parametrize("kind", catalogue.kinds())
def test_every_kind_is_documented_drawn_and_tested(kind: str) -> None:
    """A kind has an entry on a page, a picture that is its law's, and a test that names it."""
    pages = "".join(page.read_text() for page in (ROOT / "docs/schedules").glob("*.md"))
    assert f"## {kind}\n" in pages, "run `make docs`"
    picture = ROOT / f"docs/schedules/img/{kind}.svg"
    assert picture.read_text() == WRITER.picture(kind), "run `make docs`"
    assert WRITER.tests_of(kind), "no test names this kind"


def test_the_pages_about_schedules_are_up_to_date() -> None:
    """What the pages say is what the code says."""
    for family, kinds in WRITER.families().items():
        written = (ROOT / f"docs/schedules/{family}.md").read_text()
        assert written == WRITER.page(family, kinds), "run `make docs`"


def test_every_row_of_the_table_is_served() -> None:
    """Each schedule of the other libraries has a kind here, or is a controller of its own."""
    for what, _, here in WRITER.ROWS:
        kinds = [name for name in re.findall(r"`([^`:]+)`", here) if name in catalogue.kinds()]
        assert kinds or "controller" in here, what
