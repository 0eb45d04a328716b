"""The notebook runs, shows what it describes, and its outputs are of its present code."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving import PATIENCE

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples/plan_a_run.ipynb"
WRITER = ROOT / "docs/make_notebook.py"
SHORT = 800
"""Steps of the short form."""


def shown(notebook: dict[str, Any], kind: str) -> list[str]:
    """Return the outputs of a notebook's cells of a kind: `text` is what they print."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    found = [each.get("text") if kind == "text" else each.get("data", {}).get(kind)
             for each in outputs]  # fmt: skip
    return ["".join(each) for each in found if each]


@pytest.fixture(name="short", scope="module")
def _short(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the notebook's short form, against the service that it starts."""
    folder = tmp_path_factory.mktemp("notebook")
    done = subprocess.run(
        [sys.executable, WRITER, NOTEBOOK, "--out", folder],
        env={**os.environ, "NOTEBOOK_STEPS": str(SHORT), "PACESETTER_QUIET": "1"},
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    notebook: dict[str, Any] = json.loads((folder / NOTEBOOK.name).read_text())
    return notebook


def test_the_notebook_goes_from_a_refusal_to_what_came(short: dict[str, Any]) -> None:
    """It has a ranking, a probe that is undone, losses with bands, the order, and its benefit."""
    first, second = shown(short, "text/plain")
    assert "predicts='ranking'" in first
    assert "'code': 'no_decay'" in first
    assert "predicts='ranking'" not in second
    printed = "".join(shown(short, "text"))
    said = r"val_loss ([\d.]+), at the end .* ([\d.]+), and .* ([\d.]+)"
    before, cooled, after = re.findall(said, printed)[0]
    assert before == after
    assert float(cooled) < float(before)
    assert "half of the budget is spent (plan " in printed
    came = dict(re.findall(r"^(ordered|as planned) +([\d.]+) came", printed, re.M))
    assert float(came["ordered"]) < float(came["as planned"]) - 0.02
    assert "half of the budget is spent (plan " in printed.rpartition("lr was")[2]


def test_the_notebook_shows_its_plans_and_draws_its_end(short: dict[str, Any]) -> None:
    """It has both plans with their pictures, and one figure."""
    pages = shown(short, "text/html")
    assert len(pages) == 2
    assert all("data:image/svg+xml;base64," in each for each in pages)
    assert len(shown(short, "image/png")) == 1


def test_what_is_kept_is_of_the_code_that_stands_there() -> None:
    """Each cell was run in order, with its present code: `make notebook` does that."""
    spec = importlib.util.spec_from_file_location("make_notebook", WRITER)
    assert spec is not None
    assert spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    kept = json.loads(NOTEBOOK.read_text())
    counts = [each["execution_count"] for each in kept["cells"] if each["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert kept["metadata"]["ran"] == writer.digest(kept), "run `make notebook`"
    assert len(shown(kept, "text/html")) == 2
