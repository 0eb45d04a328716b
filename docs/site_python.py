"""The page about the Python client: what each public module declares, by its docstrings."""

import ast
from collections.abc import Iterator
from pathlib import Path

CLIENT = Path(__file__).parents[1] / "client/pacesetter"

FIRST = ("pacesetter", "pacesetter.torch", "pacesetter.distributed")
"""The modules that come first; the others follow by their names."""

HEAD = """\
# Python reference

Every public name of the client, by its docstring. `pacesetter` itself needs httpx alone; each of
the other modules needs the library that it is for.
"""


def page() -> str:
    """Return the page, with a block for each public name that mkdocstrings fills."""
    return "\n".join([HEAD, *_blocks()])


def modules() -> list[str]:
    """Return the public modules, in the order of the page."""
    files = [path.stem for path in CLIENT.glob("[!_]*.py")]
    found = {"pacesetter", *(f"pacesetter.{name}" for name in files)}
    return sorted(
        found, key=lambda name: (name not in FIRST, FIRST.index(name) if name in FIRST else 0, name)
    )


def exported(module: str) -> list[str]:
    """Return the names that a module declares for its callers: `__all__`."""
    _, _, name = module.partition(".")
    tree = ast.parse((CLIENT / f"{name or '__init__'}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [each for each in ast.literal_eval(node.value) if each != "__version__"]
    raise ValueError(f"{module} declares no __all__: say there what it is for")


BRIEF = """\
    options:
      inherited_members: false
      merge_init_into_class: false
      separate_signature: false
"""
"""How exceptions are shown: what they mean, and not what each of them inherits."""


def _blocks() -> Iterator[str]:
    for module in modules():
        yield f"## {module}\n"
        for name in sorted(exported(module), key=_is_error):
            yield f"::: {module}.{name}\n{BRIEF if _is_error(name) else ''}"


def _is_error(name: str) -> bool:
    return name.endswith("Error")
