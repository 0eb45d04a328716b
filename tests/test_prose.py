"""Prose reads as a native reader would write it, and pages are wrapped."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SOURCES = [
    path
    for folder in ("service", "client", "tests", "benchmarks", "examples", "docs")
    for path in sorted((ROOT / folder).rglob("*.py"))
]

OPENINGS = re.compile(r"Give (?!up\b)|Tell whether|Gives |Returns |Raises ")
"""They say `Return the value`, `Return whether` and `Raise`: what a caller asks the code to do."""


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Return the docstrings of a module, each with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


NOUNS = re.compile(r"(The|An?|Whether|What|Which|Where|How|Who|Why|One|Each|Every|All)\b")
"""How a function's docstring does not open: it says what the function does."""

SHIPPED = [path for path in SOURCES if path.is_relative_to(ROOT / "service")] + [
    path for path in SOURCES if path.is_relative_to(ROOT / "client")
]

DESCRIBED = {"property", "cached_property", "rule"}
"""Decorators of what is described and not called, a property or a finding."""


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """Return the docstrings of a module's functions and methods, each with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = {ast.unparse(each).rpartition(".")[2] for each in node.decorator_list}
            text = ast.get_docstring(node)
            if text and not decorators & DESCRIBED:
                yield node.lineno, text


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_say_what_they_do(path: Path) -> None:
    """A function's docstring opens with an imperative; properties and classes may be nouns."""
    assert not [(line, text[:60]) for line, text in functions(path) if NOUNS.match(text)]


UNNAMED = re.compile(r"\b(nobody|somebody|whoever|anybody)\b", re.IGNORECASE)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_actor_is_named(path: Path) -> None:
    """What ships names the trainer, the operator, the writer or the caller that it is about."""
    assert not UNNAMED.findall(path.read_text())


APART = re.compile(r"\bcan[\s#]+not\b", re.IGNORECASE)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_cannot_is_one_word(path: Path) -> None:
    """Docstrings, comments and messages spell it as the field's texts do."""
    assert not APART.findall(path.read_text())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_open_with_what_is_asked_for(path: Path) -> None:
    """No docstring opens with a verb that no English reference uses."""
    found = [(line, text[:60]) for line, text in docstrings(path) if OPENINGS.match(text)]
    assert not found


PAGES = [
    path
    for folder in (".", "docs", "docs/integrations", "docs/schedules")
    for path in sorted((ROOT / folder).glob("*.md"))
]
WIDTH = 120


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_spell_cannot_as_one_word(path: Path) -> None:
    """So do the pages."""
    assert not APART.findall(path.read_text())


FENCED = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_are_wrapped(path: Path) -> None:
    """No line of prose is wider than a page: code, tables and words without a space are exempt."""
    text = FENCED.sub(lambda block: "\n" * block[0].count("\n"), path.read_text())
    wide = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > WIDTH and not line.startswith("|") and " " in line.lstrip(" -*>")
    ]
    assert not wide
