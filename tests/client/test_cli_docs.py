"""The page about the command line matches the command."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from pacesetter import Client, cli
from pacesetter.cli import app
from serving import RunningService

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/cli.md").read_text()


def _writer() -> ModuleType:
    """Load the program that writes the page's tables."""
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs/make_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_up_to_date() -> None:
    """Every command with its options, and every exit status, is documented as the code has it."""
    writer = _writer()
    assert writer.tables() in PAGE, "run `make docs`"
    assert PAGE.count("| `ls [GLOB]` | ") == 1


def test_commands_that_are_named_exist() -> None:
    """No page and no message of the command itself names a command that does not exist."""
    known = {name for _, name, _ in _writer().commands(typer.main.get_command(app.made()))}
    known |= {"template", "token", "COMMAND"}
    sources = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    sources += (ROOT / "client/pacesetter/cli").glob("*.py")
    named = {
        (path.name, word)
        for path in sources
        for word in re.findall(r"`pacesetter ([\w-]+)", path.read_text())
    }
    assert ("cli.md", "watch") in named
    assert [each for each in sorted(named) if each[1].lstrip("-") not in known | {"version"}] == []


def pattern(printed: str) -> str:
    """Return a pattern of what a block says is printed: `…` stands for more."""
    lines = printed.strip("\n").split("\n")
    told = ["(?:.*\n)*" if line == "…" else f"{_line(line)}\n" for line in lines]
    return "".join(told)


def _line(line: str) -> str:
    return r"\s+".join(re.escape(word).replace("…", ".*") for word in line.split())


def test_what_is_done_at_three_in_the_morning_works(
    service: RunningService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of the page, run in order, print what the page shows."""
    monkeypatch.setenv("PACESETTER_URL", service.url)
    law = {"kind": "cosine", "total_steps": 100}
    with Client(service.url) as client:
        session = client.session("vit", base_lr=0.1, total_steps=100, schedule=law, max_lookahead=1)
        for step in range(20):
            session.lr(step)
            session.report(step, loss=1 / (step + 1))
        session.flush()
        blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
        exchanges = [part for block in blocks for part in block.split("$ ")[1:]]
        assert len(exchanges) == 4
        for exchange in exchanges:
            command, _, printed = exchange.partition("\n")
            if "explain" in command:
                session.lr(20)
            assert cli.main(shlex.split(command)[1:]) == 0
            told = capsys.readouterr().out
            assert re.fullmatch(pattern(printed), told), (command, told)
