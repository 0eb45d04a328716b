"""What mkdocs does for the site beside turning pages into HTML.

Some pages are no files of `docs/`: the README is the home page, what pages link to outside of
`docs/` is shown as a page with its source, and two references come from the code. Links are written
for who reads the files themselves; here they are made to lead to the same pages within the site.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

import site_http  # noqa: E402 - beside this file
import site_notebook  # noqa: E402
import site_python  # noqa: E402

PLACES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/plan_a_run.ipynb": "plan_a_run.md",
}
"""Pages that are made of a file outside of `docs/`, by their path in the repository."""

LINK = re.compile(r"(?<=\]\()([^)\s#:]+)((?:#[^)\s]*)?)(?=\))")
"""A link's path and its anchor; one with a scheme leads out of the site."""

FILE_NAME = re.compile(r"\[`?[\w/.-]+\.md`?\]\(([^)\s#:]+\.md)(?=[)#])")
"""A link that names the file which it leads to: within the site it has the page's title."""

UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
"""Stands above what is shown for those who follow a link, and would only crowd a search."""

FENCE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of `docs/`, and put every page into the navigation."""
    pages = {place: _text(path) for path, place in PLACES.items()}
    pages |= {f"reference/{name}": text for name, text in _references()}
    for path in sorted(_linked_sources()):
        pages[_place(path)] = _source(path)
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))
    config.nav = _expanded(config.nav or [], sorted(_pages(files)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Have links lead to the pages of the site."""
    place = page.file.src_uri
    origin = {here: path for path, here in PLACES.items()}.get(place, f"docs/{place}")

    def led(match: re.Match[str]) -> str:
        path, anchor = match.groups()
        return relpath(_place(_resolved(origin, path)), dirname(place) or ".") + anchor

    def named(match: re.Match[str]) -> str:
        file = ROOT / _resolved(origin, match[1])
        title = re.search(r"^# (.*)$", file.read_text(), re.M) if file.exists() else None
        return match[0] if title is None else f"[{title[1]}]({match[1]}"

    def within(text: str) -> str:
        return LINK.sub(led, FILE_NAME.sub(named, text))

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [within(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, within(markdown[end:])])


def _text(path: str) -> str:
    """Return what the repository has at a path, as Markdown."""
    file = ROOT / path
    return site_notebook.page(file) if file.suffix == ".ipynb" else file.read_text()


def _references() -> Iterator[tuple[str, str]]:
    yield "http.md", site_http.page()
    yield "python.md", site_python.page()


def _resolved(page: str, link: str) -> str:
    """Return the path in the repository that a link of a page leads to."""
    return normpath(join(dirname(page), link))


def _place(path: str) -> str:
    """Return where the site has what the repository has at a path."""
    if path.startswith("docs/") and not path.endswith(".py"):
        return path.removeprefix("docs/")
    if path.startswith("source/"):
        return path
    return PLACES.get(path) or f"source/{path}.md"


def _linked_sources() -> set[str]:
    """Return the paths outside of `docs/` that pages link to, other pages left out."""
    found = set()
    for path in [*PLACES, *(str(each.relative_to(ROOT)) for each in HERE.rglob("*.md"))]:
        for match in LINK.finditer(FENCE.sub("", _text(path))):
            target = _resolved(path, match[1])
            if _place(target).startswith("source/") and (ROOT / target).exists():
                found.add(target)
    for folder in [each for each in found if (ROOT / each).is_dir()]:
        found |= {str(each.relative_to(ROOT)) for each in _programs(folder)}
    return found


def _programs(folder: str) -> list[Path]:
    return sorted((ROOT / folder).glob("*.py"))


def _source(path: str) -> str:
    """Return the page that shows a file, or lists a folder's programs."""
    file = ROOT / path
    if file.is_dir():
        rows = [f"- [{each.name}]({file.name}/{each.name}.md)" for each in _programs(path)]
        return "\n".join([f"{UNSEARCHED}# {path}/", "", *rows, ""])
    language = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".sh": "sh"}.get(file.suffix, "")
    return f"{UNSEARCHED}# {file.name}\n\n`{path}`\n\n````{language}\n{file.read_text()}````\n"


def _pages(files: Files) -> list[str]:
    return [each.src_uri for each in files.documentation_pages()]


def _expanded(nav: list[Any], pages: list[str]) -> list[Any]:
    """Return a navigation in which each `*.md` is the pages of its folder that are not named."""
    named = set(_named(nav))
    left = [page for page in pages if page not in named]

    def filled(entries: list[Any]) -> Iterator[Any]:
        for entry in entries:
            if isinstance(entry, dict):
                yield {title: list(filled(inside)) for title, inside in entry.items()}
            elif entry.endswith("*.md"):
                yield from [page for page in left if dirname(page) == dirname(entry)]
            else:
                yield entry

    return list(filled(nav))


def _named(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        if isinstance(entry, dict):
            for inside in entry.values():
                yield from _named(inside)
        else:
            yield entry
