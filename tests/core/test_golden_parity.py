"""Presets against values of their libraries, recorded by `tests/golden/generate`.

The libraries are not installed here: each file has what one version of one of them made of some
parameters. torch and transformers are installed, and are compared live.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pacesetter_service.core.lengths import Clock, resolve
from pacesetter_service.core.model import jsonable
from pacesetter_service.core.schedules import Schedule, Steps

GOLDEN = Path(__file__).parents[1] / "golden"

FILES = {path.stem: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json"))}

LIVE = {"torch", "hf"}
"""Libraries whose presets are tested against the library itself."""

RELATIVE = {"float64": 1e-12, "float32": 1e-6}

OF_THE_PEAK = {"float64": 0.0, "float32": 2.0**-22}
"""How far a value may be off for any size, as a fraction of the largest one.

A law in float32 rounds what it subtracts near a zero to the spacing of its peak.
"""


def named_cases() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return every case with the precision of its library, under a descriptive name."""
    cases: dict[str, tuple[str, dict[str, Any]]] = {}
    for file in FILES.values():
        for case in file["cases"]:
            channel = "" if case["channel"] == "lr" else case["channel"]
            words = [case["kind"], case.get("note", ""), channel]
            name = " ".join(filter(None, words))
            same = sum(known == name or known.startswith(f"{name} #") for known in cases)
            cases[f"{name} #{same + 1}" if same else name] = (file["float"], case)
    return cases


CASES = named_cases()

PRESETS = [
    kind for kind in sorted(Schedule.kinds) if "." in kind and kind.split(".")[0] not in LIVE
]


def law_of(case: dict[str, Any]) -> Schedule:
    """Return the law of the case's channel."""
    parsed = Schedule.parse({"kind": case["kind"], **case["spec"]})
    return resolve(parsed, Clock(**case.get("pace", {}))).channels()[case["channel"]]


def steps(start: int, count: int) -> Steps:
    """Return consecutive local times."""
    return np.arange(start, start + count, dtype=np.float64)


@pytest.mark.parametrize("name", CASES)
def test_a_preset_gives_the_values_of_its_library(name: str) -> None:
    """The values are those that the library's own scheduler gave its optimizer."""
    precision, case = CASES[name]
    theirs = np.array([float.fromhex(value) for value in case["values"]])
    assert_allclose(
        law_of(case).values(steps(case["start"], theirs.size), case["base_lr"]),
        theirs,
        rtol=RELATIVE[precision],
        atol=OF_THE_PEAK[precision] * float(np.abs(theirs).max()),
    )


@pytest.mark.parametrize("name", CASES)
def test_a_preset_is_a_law_like_any_other(name: str) -> None:
    """It is finite, never negative, the same in blocks as whole, and survives its JSON."""
    _, case = CASES[name]
    law, base = law_of(case), case["base_lr"]
    whole = law.values(steps(0, 1000), base)
    assert np.isfinite(whole).all()
    assert (whole >= 0).all()
    blocks = [law.values(steps(0, 137), base), law.values(steps(137, 863), base)]
    assert_array_equal(np.concatenate(blocks), whole)
    parsed = Schedule.parse({"kind": case["kind"], **case["spec"]})
    assert Schedule.parse(json.loads(json.dumps(jsonable(parsed)))) == parsed


@pytest.mark.parametrize("kind", PRESETS)
def test_every_preset_has_golden_values(kind: str) -> None:
    """No preset of a library that is not installed here goes without a comparison."""
    assert any(case["kind"] == kind for _, case in CASES.values())


@pytest.mark.parametrize("library", FILES)
def test_golden_values_can_be_made_again(library: str) -> None:
    """Each file has a generator, which pins the library's version."""
    generator = (GOLDEN / "generate" / f"{library}.py").read_text()
    assert FILES[library]["library"] == library
    pins = [line for line in generator.splitlines() if line.startswith("# requires")]
    assert any(FILES[library]["version"] in line for line in pins)
