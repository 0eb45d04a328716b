"""The page for operators is correct: its code runs, and prints what it shows."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from serving import RunningService

PAGE = (Path(__file__).parents[2] / "docs/python.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_does_what_it_says(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks are one program; the text below one is its output, with `…` for the rest."""
    monkeypatch.setenv("PACESETTER_URL", service.url)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for language, text in BLOCKS:
        if language == "python":
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(compile(text, "docs/python.md", "exec"), namespace)
            printed = said.getvalue()
        else:
            assert language == "text"
            pattern = re.escape(text.strip()).replace("…", ".*")
            assert re.fullmatch(pattern, printed.strip(), re.DOTALL), printed
