"""Runs the code of a page of the documentation, and compares what it prints with what is shown."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SERVED_AT = "http://127.0.0.1:7070"
"""Where the documents say that the service is."""

REST = "…"
"""Stands for omissions: in a text, in a line, or of members of a JSON object."""


class Fence(NamedTuple):
    """A block of code: its language, and its text."""

    language: str
    text: str


def fences(page: str) -> list[Fence]:
    """Return the blocks of a page, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [Fence(*each) for each in found]


def run(page: str, url: str) -> None:
    """Run the blocks of a page: its Python is one program, its console follows line by line.

    A block of text below a block of Python is that block's output.
    """
    blocks = fences(page)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block, after in zip(blocks, [*blocks[1:], Fence("", "")], strict=True):
        if block.language == "python":
            said = printed(block.text, namespace)
            if after.language == "text":
                assert_like(after.text, said)
        elif block.language == "console":
            for command, shown in exchanges(block.text):
                assert_like(shown, answered(command, url))


def printed(program: str, namespace: dict[str, Any]) -> str:
    """Run a part of a program, and return what it prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(program, "<page>", "exec"), namespace)
    return said.getvalue()


def exchanges(console: str) -> Iterator[tuple[str, str]]:
    """Return the commands of a console, each with its documented output."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        ends = next(n for n in range(1, len(lines) + 1) if _is_whole("\n".join(lines[:n])))
        yield "\n".join(lines[:ends]), "\n".join(lines[ends:]).strip()


def _is_whole(command: str) -> bool:
    """Return whether a shell would run this, and not wait for another line."""
    return command.count("'") % 2 == 0 and not command.endswith("\\")


def answered(command: str, url: str) -> str:
    """Run a command in a shell as a reader would, against a service; return what it prints."""
    here = command.replace(SERVED_AT, url)
    if here.startswith("curl "):
        here = "curl -sS " + here.removeprefix("curl ")
    # The command is installed beside Python, whether its folder is on the path or not.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", here],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def assert_like(shown: str, said: str) -> None:
    """Compare a page's output with the real one: JSON by its members, else by lines."""
    if shown.startswith("{"):
        alike = is_like(json.loads(_completed(shown)), json.loads(said))
    else:
        alike = _matches(shown.strip(), said.strip())
    assert alike, f"shown:\n{shown}\nprinted:\n{said[:2000]}"


_TOKEN = re.compile(rf'"(?:[^"\\]|\\.)*"|[{{}}\[\]:,]|{REST}')


def _completed(shown: str) -> str:
    """Return JSON in which an omission is a string, or a member of that name."""
    inside: list[str] = []
    before = ""

    def written(match: re.Match[str]) -> str:
        nonlocal before
        token, last = match[0], before
        before = token
        if token in "{[":
            inside.append(token)
        elif token in "}]":
            inside.pop()
        elif token == REST:
            return f'"{REST}": 0' if inside[-1] == "{" and last != ":" else f'"{REST}"'
        return token

    return _TOKEN.sub(written, shown)


def is_like(shown: Any, found: Any) -> bool:
    """Return whether a JSON value matches what is shown of it."""
    if shown == REST:
        return True
    if isinstance(shown, dict):
        open_ended = REST in shown
        wanted = {key: value for key, value in shown.items() if key != REST}
        return (
            isinstance(found, dict)
            and (open_ended or set(found) == set(wanted))
            and all(key in found and is_like(value, found[key]) for key, value in wanted.items())
        )
    if isinstance(shown, list):
        if shown[-1:] == [REST]:
            shown, found = shown[:-1], found[: len(shown) - 1]
        return (
            isinstance(found, list) and len(found) == len(shown) and all(map(is_like, shown, found))
        )
    if isinstance(shown, str) and REST in shown:
        return isinstance(found, str) and _matches(shown, found)
    return bool(shown == found)


def _matches(shown: str, found: str) -> bool:
    return re.fullmatch(re.escape(shown).replace(REST, ".*"), found, re.DOTALL) is not None
