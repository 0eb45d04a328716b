"""The documentation as a site: built without a warning, self-contained, and complete."""

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest

import pacesetter
from documents import DOCS, ROOT
from pacesetter._notices import WARNINGS
from pacesetter_service.api.access import ACCESS
from pacesetter_service.api.advice import ADVICE, ON_FINDINGS
from pacesetter_service.api.problems import HTTP_CODES, STATUSES
from pacesetter_service.catalogue import kinds as catalogue
from pacesetter_service.core.actions import Action
from pacesetter_service.core.controllers.base import Advice
from pacesetter_service.core.controllers.predicates import Predicate
from pacesetter_service.core.smoothing import Smoother
from pacesetter_service.runtime.queries.events import KINDS as EVENTS
from pacesetter_service.settings import Settings

SERVICE = ROOT / "service/pacesetter_service"


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the site, built strictly: a dead link or anchor fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


class Page(HTMLParser):
    """The resources, links, anchors and code of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.code: set[str] = set()
        self._inside: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record what a tag loads, links to, or is an anchor for."""
        found = dict(attrs)
        if found.get("id"):
            self.anchors.add(str(found["id"]))
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        if tag == "link" and found.get("href"):
            self.loads.append(str(found["href"]))
        if tag != "a":
            self.loads += [
                str(found[name]) for name in ("src", "srcset", "data") if found.get(name)
            ]
        if tag == "code":
            self._inside = [""]

    def handle_data(self, data: str) -> None:
        """Collect the text of code."""
        if self._inside:
            self._inside.append(data)

    def handle_endtag(self, tag: str) -> None:
        """End a piece of code."""
        if tag == "code":
            self.code.add("".join(self._inside).strip())
            self._inside = []


@pytest.fixture(name="pages", scope="module")
def _pages(site: Path) -> dict[Path, Page]:
    """Return the pages of the site, each read once."""
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def _is_foreign(address: str) -> bool:
    return re.match(r"(?:[a-z][a-z0-9+.-]*:)?//", address) is not None


def test_a_page_loads_nothing_from_other_hosts(site: Path, pages: dict[Path, Page]) -> None:
    """Scripts, styles, fonts and pictures are in the build: the site works without internet."""
    assert len(pages) > 60
    foreign = [(page.path.name, each) for page in pages.values() for each in page.loads]
    assert not [each for each in foreign if _is_foreign(each[1])]
    for style in site.rglob("*.css"):
        loaded = re.findall(r"""(?:url\(|@import\s+)["']?([^"')]+)""", style.read_text())
        assert not [each for each in loaded if _is_foreign(each)], style.name


def test_links_and_anchors_lead_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    """Every link of every page leads to a file of the site, and to an anchor that it has."""
    dead = []
    for page in pages.values():
        base = site if page.path.name == "404.html" else page.path.parent
        for link in page.links:
            path, _, anchor = link.partition("#")
            if _is_foreign(link) or re.match(r"[a-z]+:", link):
                continue
            target = (site / path.lstrip("/") if path.startswith("/") else base / path).resolve()
            target = page.path if not path else target / "index.html" if target.is_dir() else target
            if not target.exists() or (
                anchor and target in pages and anchor not in pages[target].anchors
            ):
                dead.append(f"{page.path.relative_to(site)}: {link}")
    assert not dead


# -- what is documented ------------------------------------------------------------------------


@pytest.fixture(name="code", scope="module")
def _code(site: Path, pages: dict[Path, Page]) -> set[str]:
    """Return the code of pages, except those that only show a file of the repository."""
    shown = [page for page in pages.values() if (site / "source") not in page.path.parents]
    return set().union(*(page.code for page in shown))


def test_every_operation_is_described(site: Path, code: set[str]) -> None:
    """Each call has a section with a sentence; pages for people, such as /docs, are named."""
    text = (site / "reference/http/index.html").read_text()
    headed = r"<h3[^>]*>\s*<code>([A-Z]+ [^<]+)</code>.*?</h3>(.*?)(?=<h[23])"
    sections = dict(re.findall(headed, text, re.DOTALL))
    for_people = {call for call in ACCESS if call not in sections}
    assert {ACCESS[call] for call in for_people} == {"public"}
    for call in for_people:
        assert "/" + call.split("/")[1] in code, f"say on a page what {call} shows"
    for call in set(ACCESS) - for_people:
        said = re.search(r"<p>(?!Takes|Body)(.{10,}?)</p>", sections[call], re.DOTALL)
        assert said is not None, f"say in the endpoint's docstring what {call} does"


def test_everything_that_has_a_name_is_documented(code: set[str]) -> None:
    """Settings, kinds of everything, problems, notices, findings and events are on some page."""
    settings = [f"PACESETTER_{name.upper()}" for name in Settings.model_fields]
    named = [
        *settings,
        *catalogue.schedules(),
        *catalogue.controllers(),
        *Action.kinds,
        *Predicate.kinds,
        *Smoother.kinds,
        *problem_codes(),
        *notice_codes(),
        *finding_codes(),
        *EVENTS,
    ]
    headings = heading_texts()
    assert not [name for name in named if name not in code and name not in headings]


@cache
def heading_texts() -> set[str]:
    """Return the texts of all headings of the documents."""
    found = [re.findall(r"^#+ (.*)$", path.read_text(), re.M) for path in DOCS.rglob("*.md")]
    return {text for texts in found for text in texts}


def problem_codes() -> set[str]:
    """Return the code of every problem that the service answers with."""
    refused = re.compile(r'(?:problem|document|_RefusedError)\(\s*\d{3},\s*f?"([a-z_{}]+)"')
    sources = [*(SERVICE / "api").glob("*.py"), SERVICE / "front_door.py"]
    found = {code for path in sources for code in refused.findall(path.read_text())}
    late = {
        each.replace("{part}", part) for each in found if "{" in each for part in ("head", "body")
    }
    known = {code for _, code in STATUSES.values()} | {code for code, _ in HTTP_CODES.values()}
    return {each for each in found if "{" not in each} | late | known | {"http_error"}


def notice_codes() -> set[str]:
    """Return the code of every notice: of controllers, of orders, and what sessions notice."""
    noticing = (SERVICE / "core/watching.py").read_text()
    noticed = set(re.findall(r'Noticed\(\s*[\w.(),+ ]+?,\s*"(\w+)"', noticing))
    assert len(noticed) >= 5
    return {*get_args(Advice), *noticed, *WARNINGS, "large_change"}


def finding_codes() -> set[str]:
    """Return the code of each finding of lint."""
    sources = [*(SERVICE / "catalogue").glob("lint*.py")]
    found = [re.findall(r'Finding\(\s*"(\w+)"', path.read_text()) for path in sources]
    return {code for codes in found for code in codes} | set(ON_FINDINGS)


def _rows(page: str, heading: str) -> Iterator[tuple[str, str]]:
    """Return the rows of the tables of a section: the first code of each, and the rest."""
    text = (DOCS / page).read_text()
    _, _, after = text.partition(f"\n## {heading}")
    section = re.split(r"^## ", after, maxsplit=1, flags=re.M)[0]
    yield from re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.M)


def test_troubleshooting_has_a_row_for_every_problem_and_no_other() -> None:
    """Each code has its status, its meaning and a remedy; none is left of an older version."""
    rows = dict(_rows("troubleshooting.md", "Problems"))
    assert set(rows) == problem_codes()
    for status, code in STATUSES.values():
        assert rows[code].startswith(f"{status} |"), code
    for status, (code, _) in HTTP_CODES.items():
        assert rows[code].startswith(f"{status} |"), code
    assert set(ADVICE) <= set(STATUSES)


def test_troubleshooting_has_a_row_for_every_exception_and_no_other() -> None:
    """Each exception that the client raises is listed, with a remedy."""
    raised = {name for name in pacesetter.__all__ if name.endswith("Error")}
    assert {name for name, _ in _rows("troubleshooting.md", "Exceptions in Python")} == raised


def test_troubleshooting_has_a_row_for_every_notice_and_no_other() -> None:
    """Each notice that a trainer can get is explained."""
    assert {name for name, _ in _rows("troubleshooting.md", "Notices")} == notice_codes()


def test_the_page_on_events_has_a_row_for_every_kind_and_no_other() -> None:
    """Each kind of event that a log can have is explained."""
    text = (DOCS / "events.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == set(EVENTS)


def test_the_page_on_lint_has_a_row_for_every_finding_and_no_other() -> None:
    """Each finding is listed."""
    assert {name for name, _ in _rows("lint.md", "What it finds")} == finding_codes()


FOR_MAKERS = {"architecture.md", "controllers.md", "reliability.md", "schedules.md"}
"""Pages whose readers want to know which tests prove their claims."""


def test_guides_hold_no_paths_of_tests() -> None:
    """Trainers have no use for them; the pages for developers and the references may name some."""
    pages = [*DOCS.glob("*.md"), *(DOCS / "guides").glob("*.md"), *DOCS.glob("integrations/*.md")]
    told = [path for path in pages if path.name not in FOR_MAKERS]
    assert not [path.name for path in [*told, ROOT / "README.md"] if "tests/" in path.read_text()]
