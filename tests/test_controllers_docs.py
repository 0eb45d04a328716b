"""The page about controllers is correct: it matches the code, with its pictures."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from pacesetter_service.catalogue import kinds as catalogue
from pacesetter_service.core.controllers.base import Advice
from pacesetter_service.core.measuring import MetricSpec
from pacesetter_service.core.spec import SessionSpec

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/controllers.md").read_text()


def _writer() -> Any:
    """Load the program that writes the generated part of the page."""
    path = ROOT / "docs/make_controllers.py"
    spec = importlib.util.spec_from_file_location("make_controllers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITER = _writer()


@pytest.mark.parametrize("kind", catalogue.controllers())
def test_every_kind_is_documented_drawn_and_tested(kind: str) -> None:
    """A kind has a section, a picture, and a test that names it."""
    assert f"### {kind}\n" in PAGE, "run `make docs`"
    assert (ROOT / f"docs/controllers/{kind}.svg").exists(), "run `make docs`"
    assert WRITER.tests_of(kind), "no test names this kind"


def _pictured(kind: str) -> Any:
    """Return a kind as a parameter; those with very long trainings are drawn in the long run."""
    scene = WRITER.SCENES.get(kind)
    long = scene is not None and scene.steps >= 8_000
    return pytest.param(kind, marks=[pytest.mark.slow] if long else [])


@pytest.mark.parametrize("kind", [_pictured(kind) for kind in catalogue.controllers()])
def test_every_picture_is_what_its_example_does(kind: str) -> None:
    """The kinds' examples are run again, and drawn to the same bytes."""
    picture = ROOT / f"docs/controllers/{kind}.svg"
    assert picture.read_text() == WRITER.picture(kind), "run `make docs`"


def test_the_page_is_up_to_date() -> None:
    """The generated part of the page matches the code."""
    assert WRITER.written_by_hand() + WRITER.MARK + WRITER.generated() == PAGE, "run `make docs`"


def test_no_picture_is_left_over() -> None:
    """Each picture belongs to a kind that exists."""
    pictures = {path.stem for path in (ROOT / "docs/controllers").glob("*.svg")}
    assert pictures == set(catalogue.controllers())


@pytest.mark.parametrize("example", re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
def test_the_json_of_the_page_is_taken(example: str) -> None:
    """The service accepts each example as a spec, once it has a name and a base."""
    given = {"name": "example", "base_lr": 0.1, "total_steps": 90_000, **json.loads(example)}
    assert SessionSpec.model_validate(given).name


def test_every_field_of_a_metric_and_every_notice_is_explained() -> None:
    """The tables of the page name all fields of a metric and all codes of notices."""
    for name in (*MetricSpec.model_fields, *get_args(Advice)):
        assert f"| `{name}` |" in PAGE
