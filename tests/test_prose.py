"""Prose reads as a native reader would write it, and pages are wrapped."""

import ast
import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

SOURCES = [
    path
    for folder in ("service", "client", "tests", "benchmarks", "examples", "docs")
    for path in sorted((ROOT / folder).rglob("*.py"))
]

OPENINGS = re.compile(r"Give (?!up\b)|Tell whether|Gives |Returns |Raises ")
"""They say `Return the value`, `Return whether` and `Raise`: what a caller asks the code to do."""


class Docstring(NamedTuple):
    """A docstring, where it is, and whether a function has it that is called by its name."""

    path: Path
    line: int
    text: str
    of_a_call: bool

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.text[:60]}"


DESCRIBED = {"property", "cached_property", "rule"}
"""Decorators of what is described and not called, a property or a finding."""


@functools.cache
def docstrings() -> list[Docstring]:
    """Return all docstrings; each file is parsed once for all rules."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    line = getattr(node, "lineno", 1)
                    found.append(Docstring(path, line, text, _is_called(node)))
    return found


def _is_called(node: ast.AST) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    decorators = {ast.unparse(each).rpartition(".")[2] for each in node.decorator_list}
    return not decorators & DESCRIBED


def places(pattern: re.Pattern[str], paths: Iterable[Path]) -> list[str]:
    """Return where files have what matches a pattern, a line each."""
    found = []
    for path in paths:
        text = path.read_text()
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(ROOT)}:{line}: {match[0]}")
    return found


NOUNS = re.compile(r"(The|An?|Whether|What|Which|Where|How|Who|Why|One|Each|Every|All)\b")
"""How a function's docstring does not open: it says what the function does."""


def _ships(path: Path) -> bool:
    return path.relative_to(ROOT).parts[0] in ("service", "client")


def test_functions_say_what_they_do() -> None:
    """A function's docstring opens with an imperative; properties and classes may be nouns."""
    shipped = [each for each in docstrings() if _ships(each.path) and each.of_a_call]
    assert len(shipped) > 1000, "nothing was looked at"
    assert not [str(each) for each in shipped if NOUNS.match(each.text)]


UNNAMED = re.compile(r"\b(nobody|somebody|whoever|anybody)\b", re.IGNORECASE)


def test_the_actor_is_named() -> None:
    """What ships names the trainer, the operator, the writer or the caller that it is about."""
    assert not places(UNNAMED, filter(_ships, SOURCES))


APART = re.compile(r"\bcan[\s#]+not\b", re.IGNORECASE)


def test_cannot_is_one_word() -> None:
    """Docstrings, comments and messages spell it as the field's texts do."""
    assert not places(APART, SOURCES)


def test_docstrings_open_with_what_is_asked_for() -> None:
    """No docstring opens with a verb that no English reference uses."""
    assert not [str(each) for each in docstrings() if OPENINGS.match(each.text)]


PAGES = [
    path
    for folder in (".", "docs", "docs/guides", "docs/integrations", "docs/schedules")
    for path in sorted((ROOT / folder).glob("*.md"))
]
WIDTH = 120


def test_pages_spell_cannot_as_one_word() -> None:
    """So do the pages."""
    assert not places(APART, PAGES)


FENCED = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)


def test_pages_are_wrapped() -> None:
    """No line of prose is wider than a page: code, tables and words without a space are exempt."""
    wide = []
    for path in PAGES:
        text = FENCED.sub(lambda block: "\n" * block[0].count("\n"), path.read_text())
        wide += [
            f"{path.relative_to(ROOT)}:{number}"
            for number, line in enumerate(text.splitlines(), 1)
            if len(line) > WIDTH and not line.startswith("|") and " " in line.lstrip(" -*>")
        ]
    assert not wide
