"""The model of sealing, versions and attempts holds, and a seeded fault in it is found."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parent.parent / "docs" / "model" / "check.py"


def _loaded() -> ModuleType:
    import sys

    spec = importlib.util.spec_from_file_location("model_check", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


check = _loaded()


@pytest.fixture(autouse=True)
def _tools() -> None:
    """Skip these tests where Spin is not installed, except on CI."""
    if not check.tools_are_here():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Spin: apt-get install spin gcc")


def test_no_promise_is_broken_in_any_state_of_the_model() -> None:
    """Two replicas that crash, with stale memory and repeated calls, keep P1 to P4, P6 and P7."""
    found = check.search(check.SHORT)
    assert found.complete
    assert found.states > 100_000
    assert not found.violated


@pytest.mark.parametrize("fault", check.FAULTS)
def test_a_fault_that_is_seeded_in_the_model_is_found(fault: str) -> None:
    """If the service had that fault, the checker would find it."""
    assert check.search(check.SHORT, fault).violated
