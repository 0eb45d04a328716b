"""What a session notices by itself: metrics that no rank measures, and silent ranks."""

from typing import Any

import pytest

from orders import Run, run
from pacesetter_service.core.attempts import RestorePoint, restore, resumed
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.events import Noticed
from pacesetter_service.core.spec import SessionSpec

PLATEAU = {"kind": "plateau", "metric": "val_loss", "patience": 3}


def train(session: Run, until: int, **metrics: dict[int, float] | float) -> None:
    """Train to a step, reporting each metric at each step; a dict says which ranks report what."""
    while (step := session.session.horizon) < until:
        session.seal(step + 1)
        for name, said in metrics.items():
            by_rank = said if isinstance(said, dict) else {0: said}
            session.report(*(Reading(rank, step, name, each) for rank, each in by_rank.items()))


def noticed(session: Run) -> list[Noticed]:
    """Return what was noticed so far."""
    return [event for event in session.events if isinstance(event, Noticed)]


def codes(session: Run) -> list[tuple[str, str, int]]:
    """Return the codes, their subjects, and their steps."""
    return [(each.code, each.about, each.at) for each in noticed(session)]


def test_a_misspelt_metric_is_told_once_with_the_name_that_was_meant() -> None:
    """The notice comes after `silent_after` steps, names what was reported, and is not repeated."""
    session = run(controllers=[PLATEAU], silent_after=10)
    train(session, 40, val_los=1.0)
    [told] = noticed(session)
    assert (told.code, told.about, told.at) == ("metric_never_seen", "val_loss", 10)
    assert "plateau #0 cannot decide" in told.message
    assert "Did you mean 'val_los'?" in told.message
    [notice] = session.session.control.notices
    assert (notice.step, notice.code, notice.message) == (10, told.code, told.message)


def test_a_metric_that_is_measured_is_not_told() -> None:
    """So is one that is measured now and then, within three of its longest gaps."""
    session = run(controllers=[PLATEAU], silent_after=10)
    train(session, 30, val_loss=1.0)
    assert noticed(session) == []
    for step in range(30, 300):
        train(session, step + 1, **({"val_loss": 1.0} if step % 8 == 0 else {}))
    assert noticed(session) == []


def test_a_metric_that_stops_is_told() -> None:
    """The notice comes three of its longest gaps, at least `silent_after`, after the last one."""
    session = run(controllers=[PLATEAU], silent_after=5)
    train(session, 8, val_loss=1.0)
    train(session, 60)
    assert codes(session) == [("metric_stopped", "val_loss", 13)]


@pytest.mark.parametrize(
    ("spec", "steps"),
    [
        ({}, 100),
        ({"total_steps": 400}, 40),
        ({"schedule": {"kind": "hf.cosine", "num_warmup_steps": 0, "num_training_steps": 90}}, 9),
        ({"total_steps": 5}, 3),
        ({"steps_per_epoch": 70}, 140),
        ({"steps_per_epoch": 70, "silent_after": {"epochs": 1}}, 70),
        ({"reaction": {"decide_every": 80}}, 160),
    ],
)
def test_how_long_a_silence_must_last_follows_the_spec(spec: dict[str, Any], steps: int) -> None:
    """A tenth of the plan, else 100 steps; at least two epochs and two boundaries; or as given."""
    body = {"name": "run", "base_lr": 0.1, "controllers": [PLATEAU], **spec}
    assert SessionSpec.model_validate(body).patience_for_metrics == steps


def test_steps_that_are_only_handed_out_do_not_count() -> None:
    """A window ahead is no silence: it was not trained yet, so it cannot have been measured."""
    session = run(controllers=[PLATEAU], silent_after=10, max_lookahead=50)
    session.seal(50)
    assert noticed(session) == []


def test_a_controller_that_sleeps_misses_nothing() -> None:
    """The count begins when it wakes, and ends when it goes to sleep for good."""
    session = run(controllers=[{**PLATEAU, "from_step": 30}], silent_after=10)
    train(session, 39)
    assert noticed(session) == []
    train(session, 45)
    assert codes(session) == [("metric_never_seen", "val_loss", 40)]
    over = run(controllers=[{**PLATEAU, "until_step": 5}], silent_after=10)
    train(over, 40)
    assert noticed(over) == []


def test_the_metric_behind_a_view_is_what_is_told() -> None:
    """A view has no readings of its own, so it is not what must be reported."""
    smooth = {"smooth": {"of": "loss", "smoothing": {"kind": "ema", "beta": 0.9}}}
    session = run(controllers=[{**PLATEAU, "metric": "smooth"}], metrics=smooth, silent_after=5)
    train(session, 10)
    assert codes(session) == [("metric_never_seen", "loss", 5)]


def test_a_rank_that_never_reports_is_named() -> None:
    """Where all ranks are required, it is why the metric is not measured."""
    session = run(controllers=[PLATEAU], ranks=4, silent_after=10)
    train(session, 30, val_loss={0: 1.0, 1: 1.0, 3: 1.0})
    [told] = noticed(session)
    assert (told.code, told.about, told.at) == ("rank_silent", "val_loss", 10)
    assert told.message.startswith("rank 2 of 4 has not reported val_loss since step 0")


def test_a_silent_rank_is_named_where_a_quorum_is_enough() -> None:
    """The metric is measured without it; a rank that comes back in time causes no notice."""
    metrics = {"val_loss": {"quorum": 2, "deadline": 1}}
    session = run(controllers=[PLATEAU], ranks=3, metrics=metrics, silent_after=10)
    train(session, 8, val_loss={0: 1.0, 2: 1.0})
    train(session, 10, val_loss={0: 1.0, 1: 1.0, 2: 1.0})
    assert noticed(session) == []
    train(session, 40, val_loss={0: 1.0, 2: 1.0})
    assert {(each.code, each.message.partition(" of ")[0]) for each in noticed(session)} == {
        ("rank_silent", "rank 1")
    }


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("kind", ["plateau", "torch.ReduceLROnPlateau", "hf.GreedyLR"])
def test_a_negative_metric_under_a_relative_threshold_is_told(kind: str, mode: str) -> None:
    """Its value decides, not its name; a rule that knows the sign causes no notice."""
    rule = {"kind": kind, "metric": "score", "mode": mode, "threshold_mode": "rel"}
    session = run(controllers=[rule])
    train(session, 5, score=-1.0)
    assert [(each.code, each.about) for each in noticed(session)] == [
        ("relative_threshold", "score")
    ]
    positive = run(controllers=[rule])
    train(positive, 5, score=1.0)
    signed = run(controllers=[{**PLATEAU, "metric": "score", "threshold_mode": "signed_rel"}])
    train(signed, 5, score=-1.0)
    assert noticed(positive) == noticed(signed) == []


def test_another_attempt_is_told_again_at_the_same_step_of_its_own() -> None:
    """Notices depend on the attempt alone, so that its replay gives the same ones."""
    session = run(controllers=[PLATEAU], silent_after=10)
    fresh = session.session
    train(session, 25, val_los=1.0)
    restored = restore(RestorePoint(fresh, (), (), ()), 5)
    again = [
        Run(resumed(session.session, restored, keep=(), key="again", batch=None)) for _ in range(2)
    ]
    for each in again:
        train(each, 30, val_los=1.0)
    assert codes(again[0]) == [("metric_never_seen", "val_loss", 15)]
    assert noticed(again[0]) == noticed(again[1])
