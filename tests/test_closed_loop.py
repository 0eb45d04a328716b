"""The experiment with the closed loop: its short form runs, and its page states its results."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from serving import PATIENCE

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(name="load")
def _load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import one of the experiment's modules, which are beside each other."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


@pytest.fixture(name="short", scope="module")
def _short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the short form against a separate service; return the folder that it wrote."""
    folder = tmp_path_factory.mktemp("closed_loop")
    command = [sys.executable, EXAMPLES / "closed_loop.py", "--quick", "--out", folder]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=10 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(name="found")
def _found(short: Path, load: Any) -> Any:
    """Return the results of the short form."""
    return load("closed_loop_results").Results.load(short / "closed_loop/results.json")


def test_the_short_form_writes_everything(short: Path, found: Any, load: Any) -> None:
    """The page matches its results, each of its pictures is there, and each arm has an end."""
    page = (short / "closed_loop.md").read_text()
    assert page == load("closed_loop_page").written(found)
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)
    assert len(shown) == 2
    assert all((short / picture).stat().st_size > 0 for picture in shown)
    (compared,), (trial,) = found.comparisons, found.trials
    assert list(compared.arms) == ["cosine", "plateau", "greedy", "spike_guard"]
    assert list(trial.arms) == ["cosine", "spike_guard"]
    assert all(len(endings) == 1 for each in (compared, trial) for endings in each.arms.values())


def test_a_guard_that_decides_nothing_changes_no_bit(found: Any) -> None:
    """Where no spike was seen, the guarded training is the fixed schedule's."""
    arms = found.comparisons[0].arms
    (fixed,), (guarded,) = arms["cosine"], arms["spike_guard"]
    assert guarded.decisions or guarded == fixed


def test_the_guard_saves_a_training_that_the_fixed_schedule_loses(found: Any) -> None:
    """After corrupt batches only the trainer that goes back, at a lower rate, still learns."""
    (fixed,), (guarded,) = found.trials[0].arms.values()
    assert fixed.survived is False
    assert guarded.survived is True
    assert guarded.returns >= 1
    assert guarded.decisions >= guarded.returns
    assert guarded.accuracy > 2 * fixed.accuracy


@pytest.fixture(name="published")
def _published(load: Any) -> Any:
    """Return the results that the published page was written from."""
    return load("closed_loop_results").Results.load(ROOT / "docs/closed_loop/results.json")


def test_the_published_page_is_that_of_its_results(published: Any, load: Any) -> None:
    """The page was not edited, and what writes it was not changed without running it again."""
    page = (ROOT / "docs/closed_loop.md").read_text()
    assert page == load("closed_loop_page").written(published), "run `make closed-loop`"


def verdict(load: Any, endings: dict[str, Any], arm: str, other: str = "cosine") -> str:
    """Return how the loss of an arm compares with another one's."""
    found = load("closed_loop_results").difference(endings[arm], endings[other])
    return str(found.verdict)


def test_what_the_page_says_of_undisturbed_trainings_was_found(published: Any, load: Any) -> None:
    """Its sentences were written by hand: each is true of the numbers below them."""
    found = {(each.task, each.factor): each.arms for each in published.comparisons}
    for task in ("digits", "text"):
        suited, low, high = found[task, 1.0], found[task, 0.1], found[task, 4.0]
        assert verdict(load, suited, "plateau") == verdict(load, suited, "greedy") == "unclear"
        for arm in ("greedy", "plateau", "constant"):
            assert verdict(load, low, arm) == "lower"
        assert verdict(load, low, "greedy", "plateau") == "lower"
        assert verdict(load, high, "plateau") == "unclear"
        assert verdict(load, high, "greedy") == "unclear"
        assert verdict(load, high, "constant") == "higher"
    right = {
        arm: fmean(ending.accuracy for ending in endings)
        for arm, endings in found["text", 1.0].items()
    }
    assert min(right["plateau"], right["constant"]) > right["cosine"] + 0.01
    idle = [
        ending == fixed
        for arms in found.values()
        for ending, fixed in zip(arms["spike_guard"], arms["cosine"], strict=True)
    ]
    assert sum(idle) > len(idle) / 2


def test_what_the_page_says_of_faults_was_found(published: Any, load: Any) -> None:
    """Each part of the remedy saves from one fault, both together from both, at a price."""
    burst, slip = (trial.arms for trial in published.trials)
    saved = [
        {arm for arm, endings in arms.items() if all(each.survived for each in endings)}
        for arms in (burst, slip)
    ]
    assert saved == [
        {"cosine, clipped", "only go back", "spike_guard"},
        {"only lower", "spike_guard"},
    ]
    assert not any(each.survived for arms in (burst, slip) for each in arms["cosine"])
    assert verdict(load, burst, "spike_guard", "only go back") == "higher"
    assert verdict(load, burst, "spike_guard", "cosine, clipped") != "lower"
