"""The training that is steered while it runs: the short form runs, the page states its results."""

import importlib
import subprocess
import sys
from itertools import pairwise
from math import nextafter
from pathlib import Path
from typing import Any

import pytest

from serving import PATIENCE

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(name="load")
def _load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import one of the example's modules, which are beside each other."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


@pytest.fixture(name="short", scope="module")
def _short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the short form, with its own service and trainers; return the folder that it wrote."""
    folder = tmp_path_factory.mktemp("live_control")
    command = [sys.executable, EXAMPLES / "live_control.py", "--quick", "--out", folder]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=5 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(name="story")
def _story(short: Path, load: Any) -> Any:
    """Return the results of the short form."""
    return load("live_control_story").Story.load(short / "live_control/story.json")


@pytest.fixture(name="published")
def _published(load: Any) -> Any:
    """Return the results on the published page."""
    return load("live_control_story").Story.load(ROOT / "docs/live_control/story.json")


def of_kind(story: Any, kind: str) -> Any:
    """Return the first order of a kind."""
    return next(each for each in story.orders if each.kind == kind)


def test_the_short_form_writes_everything(short: Path, story: Any, load: Any) -> None:
    """The page matches its results, and its picture is there."""
    assert (short / "live_control.md").read_text() == load("live_control_page").written(story)
    assert (short / "live_control/steered.png").stat().st_size > 0


def test_every_order_holds_from_the_step_that_was_answered(story: Any) -> None:
    """The step was not handed out yet, it is the one asked for unless late, and the log has it."""
    assert [each.kind for each in story.orders] == [
        "scale",
        "hold",
        "release",
        "retime",
        "scale",
        "cooldown",
    ]
    apply_order = [(step, text) for step, text in story.log if text.startswith("From step")]
    for given in story.orders:
        assert given.effective_step >= given.during
        assert given.late or given.effective_step == given.body["at"]
        assert any(
            step == given.effective_step and given.body["reason"] in text
            for step, text in apply_order
        )


def test_each_order_does_to_the_curve_what_it_says(story: Any) -> None:
    """The rate is halved, held, released, extended, scaled up, cooled down; then as planned."""
    halved, held, released, retimed, raised, cooled = [each.effective_step for each in story.orders]
    lrs, planned = story.lrs, story.planned
    assert lrs[:halved] == planned[:halved]
    assert lrs[halved:held] == [0.5 * lr for lr in planned[halved:held]]
    assert set(lrs[held:released]) == {0.5 * planned[held]}
    assert lrs[released] == pytest.approx(0.5 * planned[held + 1])
    slope = (lrs[retimed - 1] - lrs[retimed], lrs[retimed] - lrs[retimed + 1])
    assert 0 < slope[1] < slope[0]
    assert lrs[raised] == pytest.approx(1.5 * lrs[raised - 1], rel=0.05)
    assert all(later < before for before, later in pairwise(lrs[cooled:]))
    assert 0 < lrs[-1] < 0.02 * lrs[cooled]


def test_the_life_after_the_kill_repeats_the_one_before(story: Any) -> None:
    """From the checkpoint's step on there are the same learning rates and losses, to the bit."""
    dead = story.dead
    assert 0 < dead.start <= dead.last + 1 < story.steps
    assert dead.lrs == story.lrs[dead.start : dead.last + 1]
    assert dead.losses == story.losses[dead.start : dead.last + 1]
    assert [text for _, text in story.log if "opened attempt 2" in text]
    assert of_kind(story, "cooldown").while_dead


def test_the_exported_table_replays_the_training(story: Any) -> None:
    """With torch alone and through the service the weights are those of the steered training."""
    assert story.proof.rates_agree
    assert story.proof.tensors == 8
    assert len(story.proof.hashes) == 3
    assert len(set(story.proof.hashes.values())) == 1


def test_other_rates_give_other_weights(story: Any, load: Any) -> None:
    """The proof could fail: a last bit of one learning rate shows in the fingerprint."""
    trainer, digits = load("live_control_trainer"), load("demo_digits").Digits.load()
    fingerprint = load("live_control").fingerprint
    lived = set(story.proof.hashes.values())
    assert {fingerprint(trainer.replay(digits, story.lrs))} == lived
    one_bit = [*story.lrs]
    one_bit[story.steps // 2] = nextafter(one_bit[story.steps // 2], 1)
    assert {fingerprint(trainer.replay(digits, one_bit))} != lived


def test_explanations_name_the_order_that_holds(story: Any) -> None:
    """For a held step the service names the order, its author and the reason."""
    held = of_kind(story, "hold")
    said = next(each.text for each in story.explained if "held" in each.text)
    assert f"since step {held.effective_step} by operator: held: {held.body['reason']}" in said


def test_the_published_page_is_that_of_its_story(published: Any, load: Any) -> None:
    """The page was not edited, and what writes it was not changed without running it again."""
    assert (ROOT / "docs/live_control.md").read_text() == load("live_control_page").written(
        published
    )
    assert published.proof.same
    assert not any(given.late for given in published.orders)
