"""Run a notebook of `examples/` and keep what its cells show; `make notebook` runs this.

Cells run here as they do in Jupyter: in one namespace and in the notebook's folder, and what their
last line comes to is shown, with what they print and the figures that they draw.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

Cell = dict[str, Any]

EXAMPLES = Path(__file__).parents[1] / "examples"
DPI = 110


def run(path: Path) -> dict[str, Any]:
    """Run the notebook at a path, and return it with what its cells show now."""
    notebook: dict[str, Any] = json.loads(path.read_text())
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with _at(path.parent):
        count = 0
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                count += 1
                cell["execution_count"] = count
                cell["outputs"] = list(_shown("".join(cell["source"]), namespace, count))
    notebook["metadata"]["ran"] = digest(notebook)
    return notebook


def digest(notebook: dict[str, Any]) -> str:
    """Return a short text that changes with the code of a notebook."""
    sources = ["".join(each["source"]) for each in notebook["cells"] if "outputs" in each]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _at(folder: Path) -> Iterator[None]:
    """Stand in a folder, import from it, and draw without a window."""
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    mpl.use("Agg")
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        os.chdir(before)


def _shown(source: str, namespace: dict[str, Any], count: int) -> Iterator[Cell]:
    """Run a cell, and yield what it prints, draws and comes to."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - behind the choice of how it draws

    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), f"<cell {count}>", "exec"), namespace)  # noqa: S102
        if isinstance(last, ast.Expr):
            expression = compile(ast.Expression(last.value), f"<cell {count}>", "eval")
            value = eval(expression, namespace)  # noqa: S307 - a cell of ours
    if printed.getvalue():
        yield {"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())}
    for number in plt.get_fignums():
        drawn = io.BytesIO()
        plt.figure(number).savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})
        plt.close(number)
        png = base64.b64encode(drawn.getvalue()).decode()
        yield {"output_type": "display_data", "metadata": {}, "data": {"image/png": png}}
    if value is not None:
        data = {"text/plain": _lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = _lines(value._repr_html_())
        yield {
            "output_type": "execute_result",
            "execution_count": count,
            "metadata": {},
            "data": data,
        }


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    """Run the notebooks that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(EXAMPLES.glob("*.ipynb")))
    parser.add_argument("--out", type=Path, help="another folder to write them to")
    asked = parser.parse_args()
    for path in asked.notebooks:
        ran = json.dumps(run(path.resolve()), indent=1, ensure_ascii=False)
        (asked.out or path.parent).joinpath(path.name).write_text(f"{ran}\n")


if __name__ == "__main__":
    main()
