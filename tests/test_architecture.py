"""Rules of the architecture, each with its check."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pacesetter_service

SERVICE = Path(pacesetter_service.__file__).parent
PURE_PARTS = ("core", "catalogue", "insight")
"""What takes values and gives values."""

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
"""What of the standard library they may use: nothing that tells time, reads or waits."""

ALLOWED = PURE | {"numpy", "pydantic", "pydantic_core"}

LAYERS: dict[str, set[str]] = {
    "api": {"complaints", "runtime", "insight", "catalogue", "core"},
    "runtime": {"complaints", "store", "insight", "catalogue", "core"},
    "store": {"insight", "catalogue", "core"},
    "insight": {"core"},
    "catalogue": {"core"},
    "core": set(),
}
"""Which parts each part may import, besides itself."""


def modules(root: Path) -> list[Path]:
    """Return every module below a folder."""
    return sorted(root.rglob("*.py"))


PURE_MODULES = [path for part in PURE_PARTS for path in modules(SERVICE / part)]


def imports(path: Path) -> Iterator[str]:
    """Return the dotted names that a module imports."""
    yield from imports_below(ast.parse(path.read_text()))


def imports_below(tree: ast.AST) -> Iterator[str]:
    """Return the dotted names that are imported somewhere in a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", PURE_MODULES, ids=lambda path: str(path.relative_to(SERVICE)))
def test_the_pure_parts_are_pure(path: Path) -> None:
    """No module of them can know the time, the network, a file or the database."""
    for name in imports(path):
        if not name.startswith(tuple(f"pacesetter_service.{part}" for part in PURE_PARTS)):
            assert name.split(".")[0] in ALLOWED, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", PURE_MODULES, ids=lambda path: str(path.relative_to(SERVICE)))
def test_the_pure_parts_call_nothing_impure(path: Path) -> None:
    """No module of them opens, prints, evaluates text or draws random numbers."""
    called = [
        node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]
    functions = {name.id for name in called if isinstance(name, ast.Name)}
    methods = {name.attr for name in called if isinstance(name, ast.Attribute)}
    assert not functions & {"open", "print", "eval", "exec", "compile", "input"}
    assert not methods & {"now", "today", "time", "random", "read_text", "write_text"}


BEHIND_THE_API = [*PURE_MODULES, *modules(SERVICE / "runtime"), *modules(SERVICE / "store")]

WIRE = re.compile(
    r"/v1/|/docs\b|\b(?:GET|POST|PUT|PATCH|DELETE) |`as=|Retry-After|Authorization:|application/"
)
"""An address, a method, a query, a header or a media type."""


@pytest.mark.parametrize("path", BEHIND_THE_API, ids=lambda path: str(path.relative_to(SERVICE)))
def test_messages_behind_the_api_know_no_http(path: Path) -> None:
    """Those of use cases, the store and the core hold for every caller; `api/advice.py` adds."""
    assert not WIRE.findall(path.read_text())


@pytest.mark.parametrize("part", LAYERS)
def test_arrows_point_inward(part: str) -> None:
    """Each part of the service imports only what lies further in."""
    allowed = LAYERS[part] | {part}
    for path in modules(SERVICE / part):
        for name in imports(path):
            if name.startswith("pacesetter_service."):
                inner = name.split(".")[1]
                assert inner in allowed, f"{path.relative_to(SERVICE)} imports {name}"


HTTP = {"fastapi", "starlette", "uvicorn", "httpx"}


@pytest.mark.parametrize("part", ["runtime", "store", *PURE_PARTS])
def test_no_use_case_knows_http(part: str) -> None:
    """A dashboard or a command can call whatever an endpoint calls."""
    for path in modules(SERVICE / part):
        found = {name.split(".")[0] for name in imports(path)} & HTTP
        assert not found, f"{path.relative_to(SERVICE)} imports {found}"


@pytest.mark.parametrize("path", modules(SERVICE / "api"), ids=lambda path: path.name)
def test_no_endpoint_goes_past_the_use_cases(path: Path) -> None:
    """No endpoint reads the database, gives work to the writer, or waits by itself."""
    assert not {f"pacesetter_service.runtime.{each}" for each in ("writer", "work", "batch")} & set(
        imports(path)
    )
    tree = ast.parse(path.read_text())
    reached = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not reached & {"store", "writer", "held", "logged", "tracker"} - OF_THE_WIRE


OF_THE_WIRE = {"held"}
"""What a request calls as the service calls one of its parts."""


def test_nothing_is_evaluated_or_unpickled() -> None:
    """No module of ours calls eval or exec, or imports pickle."""
    client = Path(__file__).parents[1] / "client"
    for path in [*modules(SERVICE), *modules(client)]:
        assert "pickle" not in set(imports(path)), path
        tree = ast.parse(path.read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not names & {"eval", "exec"}, path


def test_the_standard_library_names_exist() -> None:
    """The list of pure modules has no misspelt name in it."""
    assert sys.stdlib_module_names >= PURE


@pytest.mark.parametrize("folder", ["api", "runtime", "runtime/queries", "core"])
def test_the_page_on_the_architecture_names_every_module(folder: str) -> None:
    """Who reads the page finds each module of the large layers in its list."""
    page = (SERVICE.parents[1] / "docs/architecture.md").read_text()
    names = {path.name for path in (SERVICE / folder).glob("[!_]*.py")}
    assert not {name for name in names if name not in page}


CLIENT = SERVICE.parents[1] / "client/pacesetter"


def test_the_page_on_the_architecture_names_every_module_of_the_client() -> None:
    """So does one who follows a step from the optimizer to the network."""
    page = (SERVICE.parents[1] / "docs/architecture.md").read_text()
    assert not {path.name for path in CLIENT.glob("*.py") if path.name not in page} - {
        "__init__.py"
    }


EMBEDS_THE_SERVICE = {"testing.py"}
"""What of the client may start the service in its own process, when it is asked to."""


@pytest.mark.parametrize("path", modules(CLIENT), ids=lambda path: str(path.relative_to(CLIENT)))
def test_the_client_shares_no_code_with_the_service(path: Path) -> None:
    """No module needs the service to be imported; the fixtures for tests import it in functions."""
    tree = ast.parse(path.read_text())
    places = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    if path.name not in EMBEDS_THE_SERVICE:
        places = tree.body
    names = [name for node in places if not _for_the_checker(node) for name in imports_below(node)]
    assert not [name for name in names if name.split(".")[0] == "pacesetter_service"]


def _for_the_checker(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
