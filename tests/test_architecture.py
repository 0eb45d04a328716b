"""Rules of the architecture, each with its check."""

import ast
import functools
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import pacesetter_service

SERVICE = Path(pacesetter_service.__file__).parent
PURE_PARTS = ("core", "catalogue", "insight")
"""Parts that take values and return values."""

PURE = {
    "abc",
    "ast",
    "bisect",
    "collections",
    "contextlib",
    "contextvars",
    "dataclasses",
    "difflib",
    "functools",
    "html",
    "inspect",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "sys",
    "typing",
}
"""The modules of the standard library that they may use: none tells time, reads or waits."""

ALLOWED = PURE | {"numpy", "pydantic", "pydantic_core", "scipy"}

LAYERS: dict[str, set[str]] = {
    "api": {"calls", "complaints", "runtime", "insight", "catalogue", "core"},
    # Beside the API; what it shares with that is named below.
    "dashboard": {"api", "complaints", "runtime", "insight", "catalogue", "core"},
    "runtime": {"complaints", "failpoints", "store", "insight", "catalogue", "core"},
    "store": {"complaints", "insight", "catalogue", "core"},
    "insight": {"core"},
    "catalogue": {"core"},
    "core": set(),
}
"""Which parts each part may import, besides itself."""


def modules(root: Path) -> list[Path]:
    """Return every module below a folder."""
    return sorted(root.rglob("*.py"))


PURE_MODULES = [path for part in PURE_PARTS for path in modules(SERVICE / part)]


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return all nodes of a module; it is parsed once for all rules."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """Return the dotted names that a module imports."""
    return tuple(imported(nodes(path)))


def imported(among: Iterable[ast.AST]) -> Iterator[str]:
    """Return the dotted names that are imported by some of these nodes."""
    for node in among:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _offences(paths: Iterable[Path], found: Callable[[Path], Iterable[str]]) -> list[str]:
    """Return the findings in some modules, each with its module."""
    paths = list(paths)
    assert paths, "nothing was looked at"
    return [f"{path.relative_to(SERVICE.parent)}: {each}" for path in paths for each in found(path)]


def test_the_pure_parts_are_pure() -> None:
    """None of their modules can use the time, the network, a file or the database."""
    own = tuple(f"pacesetter_service.{part}" for part in PURE_PARTS)

    def impure(path: Path) -> list[str]:
        others = [name for name in imports(path) if not name.startswith(own)]
        return [name for name in others if name.split(".")[0] not in ALLOWED]

    assert not _offences(PURE_MODULES, impure)


IMPURE_FUNCTIONS = {"open", "print", "eval", "exec", "compile", "input"}
IMPURE_METHODS = {"now", "today", "time", "random", "read_text", "write_text"}


def test_the_pure_parts_call_nothing_impure() -> None:
    """None of their modules opens, prints, evaluates text or draws random numbers."""

    def impure(path: Path) -> set[str]:
        called = [node.func for node in nodes(path) if isinstance(node, ast.Call)]
        functions = {name.id for name in called if isinstance(name, ast.Name)}
        methods = {name.attr for name in called if isinstance(name, ast.Attribute)}
        return functions & IMPURE_FUNCTIONS | methods & IMPURE_METHODS

    assert not _offences(PURE_MODULES, impure)


BEHIND_THE_API = [*PURE_MODULES, *modules(SERVICE / "runtime"), *modules(SERVICE / "store")]

WIRE = re.compile(
    r"/v1/|/docs\b|\b(?:GET|POST|PUT|PATCH|DELETE) |`as=|Retry-After|Authorization:|application/"
)
"""An address, a method, a query, a header or a media type."""


def test_messages_behind_the_api_know_no_http() -> None:
    """Messages of use cases, the store and the core suit any caller; `api/advice.py` adds HTTP."""
    assert not _offences(BEHIND_THE_API, lambda path: WIRE.findall(path.read_text()))


@pytest.mark.parametrize("part", LAYERS)
def test_arrows_point_inward(part: str) -> None:
    """Each part of the service imports only from parts further in."""
    allowed = LAYERS[part] | {part}
    for path in modules(SERVICE / part):
        for name in imports(path):
            if name.startswith("pacesetter_service."):
                inner = name.split(".")[1]
                assert inner in allowed, f"{path.relative_to(SERVICE)} imports {name}"


SHARED = {"api.problems", "api.feed", "api.tokens"}
"""The modules of the API that the dashboard uses: one table of statuses, one bound on feeds, one
judgement of requested tokens.
"""


def test_the_dashboard_stands_beside_the_api() -> None:
    """It shares some modules with the API and knows no endpoint; the API knows nothing of it."""
    names = {f"pacesetter_service.{each}" for each in SHARED}

    def strange(path: Path) -> list[str]:
        found = [each for each in imports(path) if each.startswith("pacesetter_service.api")]
        return [each for each in found if each not in names]

    assert not _offences(modules(SERVICE / "dashboard"), strange)


HTTP = {"fastapi", "starlette", "uvicorn", "httpx"}


@pytest.mark.parametrize("part", ["runtime", "store", *PURE_PARTS])
def test_no_use_case_knows_http(part: str) -> None:
    """A dashboard or a command can call whatever an endpoint calls."""
    for path in modules(SERVICE / part):
        found = {name.split(".")[0] for name in imports(path)} & HTTP
        assert not found, f"{path.relative_to(SERVICE)} imports {found}"


def test_no_endpoint_goes_past_the_use_cases() -> None:
    """No endpoint and no page reads the database, submits a job to the writer, or waits itself."""
    behind = {f"pacesetter_service.runtime.{each}" for each in ("writer", "work", "batch")}
    parts = {"store", "writer", "held", "logged", "tracker"} - OF_THE_WIRE

    def past(path: Path) -> set[str]:
        reached = {node.attr for node in nodes(path) if isinstance(node, ast.Attribute)}
        return behind & set(imports(path)) | parts & reached

    assert not _offences([*modules(SERVICE / "api"), *modules(SERVICE / "dashboard")], past)


OF_THE_WIRE = {"held"}
"""Words of requests that are also names of the service's parts."""


def test_nothing_is_evaluated_or_unpickled() -> None:
    """No module of ours calls eval or exec, or imports pickle."""
    client = Path(__file__).parents[1] / "client"
    for path in [*modules(SERVICE), *modules(client)]:
        assert "pickle" not in set(imports(path)), path
        names = {node.id for node in nodes(path) if isinstance(node, ast.Name)}
        assert not names & {"eval", "exec"}, path


def test_the_standard_library_names_exist() -> None:
    """The list of pure modules has no misspelt name in it."""
    assert sys.stdlib_module_names >= PURE


@pytest.mark.parametrize("folder", ["api", "dashboard", "runtime", "runtime/queries", "core"])
def test_the_page_on_the_architecture_names_every_module(folder: str) -> None:
    """The page lists each module of the large layers."""
    page = (SERVICE.parents[1] / "docs/architecture.md").read_text()
    names = {path.name for path in (SERVICE / folder).glob("[!_]*.py")}
    assert not {name for name in names if name not in page}


CLIENT = SERVICE.parents[1] / "client/pacesetter"


def test_the_page_on_the_architecture_names_every_module_of_the_client() -> None:
    """So does the page that follows a step from the optimizer to the network."""
    page = (SERVICE.parents[1] / "docs/architecture.md").read_text()
    assert not {path.name for path in CLIENT.glob("*.py") if path.name not in page} - {
        "__init__.py"
    }


EMBEDS_THE_SERVICE = {"testing.py"}
"""The client's module that may start the service in its own process, on request."""


def test_the_client_shares_no_code_with_the_service() -> None:
    """No module needs the service to be imported; the test fixtures import it in functions."""
    found = []
    for path in modules(CLIENT):
        tree = ast.parse(path.read_text())
        places = [node for node in tree.body if not _in_a_function_that_may(node, path)]
        needed = [node for node in places if not _for_the_checker(node)]
        names = [name for node in needed for name in imported(ast.walk(node))]
        found += [path for name in names if name.split(".")[0] == "pacesetter_service"]
    assert not found


def _in_a_function_that_may(node: ast.stmt, path: Path) -> bool:
    functions = ast.FunctionDef | ast.ClassDef
    return path.name in EMBEDS_THE_SERVICE and isinstance(node, functions)


def _for_the_checker(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
