"""The documents are correct: their examples run, their lists are complete, their links work."""

import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from documents import exchanges as commands_of
from documents import fences
from pacesetter_service.api.access import ACCESS
from pacesetter_service.api.problems import HTTP_CODES, STATUSES
from pacesetter_service.catalogue import kinds as catalogue
from pacesetter_service.core.actions import Action
from pacesetter_service.core.controllers.predicates import Predicate
from pacesetter_service.core.schedules.eases import Ease
from pacesetter_service.core.smoothing import Smoother
from pacesetter_service.runtime.queries.events import KINDS as EVENTS
from pacesetter_service.settings import Settings
from serving import open_http

ROOT = Path(__file__).parents[1]
API = ROOT / "service/pacesetter_service/api"
DEFAULT = "http://127.0.0.1:7070"
README = (ROOT / "README.md").read_text()
FOLDERS = ("", "docs/", "docs/guides/", "docs/integrations/")
PAGES = sorted(page for folder in FOLDERS for page in ROOT.glob(f"{folder}*.md"))


def _writer(name: str) -> Any:
    """Load one of the programs that write pages and pictures."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_of_the_readme_runs(code: str, server_url: str) -> None:
    """Each block is a separate program that works against a running service.

    It prints which session it follows, and nothing else; the README shows that line of the first.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PACESETTER_URL": server_url, "PACESETTER_QUIET": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [line] = done.stderr.splitlines()
    assert re.fullmatch(rf"pacesetter: session (\S+), attempt 1, step 0, {server_url}/.*\1", line)
    [printed] = blocks("text")
    assert (server_url.join(printed.strip().split(DEFAULT)) == line) == ('"first-run"' in code)


def exchanges(page: str) -> list[tuple[str, str]]:
    """Return the commands of a page's console blocks with their documented output."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for part in block.split("$ ")[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output.strip()))
    return found


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_the_console_of_a_page_answers_as_printed(server_url: str, page: str) -> None:
    """Each command, in order, gives the members that the page shows (`…` stands for more)."""
    for command, printed in exchanges((ROOT / page).read_text()):
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
        default = str(field.default).lower() if field.annotation is bool else field.default
        assert f"`{default}`" in page


def test_every_action_is_documented() -> None:
    """The page on orders has a row for each kind, with all its fields."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", (ROOT / "docs/actions.md").read_text(), re.M))
    assert set(rows) == set(Action.kinds)
    for kind, action in Action.kinds.items():
        own = set(action.model_fields) - {"kind", *Action.model_fields}
        assert not [field for field in own if f"`{field}`" not in rows[kind]], kind


def test_every_operation_is_documented(server_url: str) -> None:
    """The page on the API has a row for each call, with its operation and role, in order."""
    with open_http(server_url) as http:
        described = http.get("/openapi.json").json()
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    page = (ROOT / "docs/api.md").read_text()
    rows = re.findall(r"^\| `([A-Z]+ /\S*)` \| `(\w+)` \| (\w+) \| [a-z]", page, re.M)
    assert sorted(rows) == sorted(
        (call, each["operationId"], ACCESS[call]) for call, each in operations
    )
    tags = [tag["name"] for tag in described["tags"]]
    of = {call: tags.index(each["tags"][0]) for call, each in operations}
    assert [of[call] for call, _, _ in rows] == sorted(of.values())


def test_every_problem_is_documented() -> None:
    """The page on the API has a row for each code that an answer may have, with its status."""
    sources = [ROOT / "service/pacesetter_service/front_door.py", *API.glob("*.py")]
    raised = r"(?:problem|document|_RefusedError)\(\s*(\d{3}),\s*\"([a-z_]+)\""
    found = {pair for path in sources for pair in re.findall(raised, path.read_text())}
    assert len(found) > 8, "nothing was looked at"
    known = {(str(status), code) for status, code in STATUSES.values()} | found
    known |= {(str(status), code) for status, (code, _) in HTTP_CODES.items()}
    known |= {("408", "head_too_late"), ("408", "body_too_late")}
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \| \S", (ROOT / "docs/api.md").read_text(), re.M)
    assert {(status, code) for code, status in rows} == known
    assert len(rows) == len({code for code, _ in rows})
    assert [status for _, status in rows] == sorted(status for _, status in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture of a page exists."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_is_written_as_its_language_has_it(page: Path) -> None:
    """Python compiles, JSON parses and shell is complete, in every page; others run most of it."""
    for fence in fences(page.read_text()):
        if fence.language == "python":
            # A part of a function is one, too.
            body = textwrap.indent(textwrap.dedent(fence.text), "    ")
            compile(f"async def shown():\n{body}", str(page), "exec")
        elif fence.language == "json":
            json.loads(fence.text)
        elif fence.language in ("sh", "console"):
            typed = [command for command, _ in commands_of(fence.text)]
            script = fence.text if fence.language == "sh" else "\n".join(typed)
            command = ["bash", "-n"]
            done = subprocess.run(
                command, input=script, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr


SITE_PYTHON = _writer("site_python")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_examples_import_is_there(page: Path) -> None:
    """The module declares whatever a block imports of the client."""
    for fence in fences(page.read_text()):
        if fence.language != "python":
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(fence.text))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pacesetter"):
                for each in node.names:
                    whole = f"{node.module}.{each.name}"
                    known = SITE_PYTHON.exported(str(node.module))
                    assert each.name in known or whole in SITE_PYTHON.modules(), whole


def test_kinds_in_examples_exist() -> None:
    """The service knows every kind that an example or a sentence names."""
    known = {
        *catalogue.schedules(),
        *catalogue.controllers(),
        *Action.kinds,
        *Predicate.kinds,
        *Smoother.kinds,
        *Ease.kinds,
        *EVENTS,
    }
    named = {
        (page.name, kind)
        for page in PAGES
        for kind in re.findall(r'"kind": "([\w.]+)"', page.read_text())
    }
    assert len(named) > 50
    meant_to_be_wrong = {("README.md", "cosin")}
    assert not [each for each in named - meant_to_be_wrong if each[1] not in known]


def test_every_make_target_is_explained() -> None:
    """`make help` names each target that the Makefile declares."""
    declared = re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())
    assert declared is not None
    command = ["make", "--no-print-directory", "help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in declared.group(1).split():
        if target not in ("help", "clean"):
            assert f"make {target} " in shown


def test_each_proof_that_is_named_can_be_run() -> None:
    """From a fresh clone, without settings, each script that is named finds its own modules."""
    told = "\n".join(page.read_text() for page in (ROOT / "Makefile", *PAGES))
    scripts = sorted(set(re.findall(r"python (tests/(?!docker)[\w/]+\.py)", told)))
    assert len(scripts) > 6
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    running = {
        script: subprocess.Popen(
            [sys.executable, script, "--help"],
            cwd=ROOT,
            env=clean,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for script in scripts
    }
    said = {script: process.communicate()[1] for script, process in running.items()}
    assert {script: said[script] for script in scripts if running[script].returncode} == {}


WRITER = _writer("make_schedules")
PICTURES = _writer("make_pictures")
ACTIONS = _writer("make_actions")
TABLES = _writer("parameter_tables")


@pytest.mark.parametrize("name", ["parts", "step"])
def test_the_pictures_of_the_architecture_are_up_to_date(name: str) -> None:
    """Each is what the imports and the functions of the code give now."""
    drawn = getattr(PICTURES, name)()
    assert (ROOT / f"docs/img/{name}.svg").read_text() == drawn, "run `make docs`"


def test_a_picture_does_not_outlive_what_it_shows() -> None:
    """A stop on a step's way whose function is gone cannot be drawn."""
    stop = PICTURES.STOPS[0]
    with pytest.raises(ValueError, match="name what does it now"):
        PICTURES.placed(stop._replace(function="RemoteLR.leap"))


def test_every_action_is_drawn_as_it_is_shown() -> None:
    """Each kind has its picture, of the very order that the page shows above it."""
    shown = re.findall(
        r"^### (\w+)$.*?^```json\n(.*?)^```.*?!\[.*?\]\((.*?)\)",
        (ROOT / "docs/actions.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert [kind for kind, _, _ in shown] == list(ACTIONS.SCENES)
    for kind, body, picture in shown:
        assert json.loads(body) == ACTIONS.SCENES[kind].body
        assert picture == f"img/actions/{kind}.svg"
    for kind in Action.kinds:
        drawn = ROOT / f"docs/img/actions/{kind}.svg"
        assert drawn.read_text() == ACTIONS.picture(kind), "run `make docs`"


def test_an_order_changes_its_picture() -> None:
    """In each picture the two sessions part at the step of the order or later, not before."""
    for kind, scene in ACTIONS.SCENES.items():
        without = ACTIONS.driven(scene, ordered=False)
        with_it = ACTIONS.driven(scene, ordered=True)
        assert without[: scene.at] == with_it[: scene.at], kind
        assert without != with_it, kind


@pytest.mark.parametrize("kind", catalogue.schedules())
def test_every_kind_is_documented_drawn_and_tested(kind: str) -> None:
    """A kind has an entry on a page, a picture that is its law's, and a test that names it."""
    pages = "".join(page.read_text() for page in (ROOT / "docs/schedules").glob("*.md"))
    assert f"## {kind}\n" in pages, "run `make docs`"
    picture = ROOT / f"docs/schedules/img/{kind}.svg"
    assert picture.read_text() == WRITER.picture(kind), "run `make docs`"
    assert WRITER.tests_of(kind), "no test names this kind"


def test_the_pages_about_schedules_are_up_to_date() -> None:
    """The pages match the code."""
    for family, kinds in WRITER.families().items():
        written = (ROOT / f"docs/schedules/{family}.md").read_text()
        assert written == WRITER.page(family, kinds), "run `make docs`"


def test_every_parameter_of_a_kind_is_documented() -> None:
    """Each has a row with its meaning, its type, and its default if it is optional."""
    laws = "\n".join(page.read_text() for page in sorted((ROOT / "docs/schedules").glob("*.md")))
    rules = (ROOT / "docs/controllers.md").read_text().partition("\n## Predicates\n")[0]
    section = r"^###? (\S+)\n(.*?)(?=^##|\Z)"
    of_laws, of_rules = (dict(re.findall(section, page, re.M | re.S)) for page in (laws, rules))
    kinds = [(catalogue.describe_schedule(kind), of_laws) for kind in catalogue.schedules()]
    kinds += [(catalogue.describe_controller(kind), of_rules) for kind in catalogue.controllers()]
    for about, sections in kinds:
        kind = about["kind"]
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.*) \|$", sections[kind], re.M)
        found = {name: (meaning, takes, default) for name, meaning, takes, default in rows}
        schema = about["parameters"]
        assert set(found) == set(schema["properties"]) - {"kind"}, kind
        for name, (meaning, takes, default) in found.items():
            assert len(meaning) > 3, (kind, name)
            assert takes.strip(), (kind, name)
            assert bool(default.strip()) is (name not in schema.get("required", [])), (kind, name)


def test_a_table_says_units_and_ranges() -> None:
    """Steps, lengths and bounds are stated in words, from the schema that enforces them."""
    schema = catalogue.describe_schedule("warmup_cosine")["parameters"]
    rows = list(TABLES.table_of(schema))
    assert "| `warmup_steps` | steps in the warmup | whole steps ≥ 0 or a length |  |" in rows
    assert (
        "| `min_ratio` | the floor, as a part of the base | a number from 0 to 1 | `null` |" in rows
    )
    assert list(TABLES.table_of({"properties": {"kind": {}}})) == ["It takes no parameters."]


def test_every_row_of_the_table_is_served() -> None:
    """Each schedule of the other libraries has a kind here, or is a separate controller."""
    for what, _, here in WRITER.ROWS:
        kinds = [name for name in re.findall(r"`([^`:]+)`", here) if name in catalogue.schedules()]
        assert kinds or "controller" in here, what
