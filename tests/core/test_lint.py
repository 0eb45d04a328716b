"""Lint finds the known pitfalls, says what to do, and leaves sound specs alone."""

from typing import Any

import pytest

from pacesetter_service.catalogue.findings import RULES, Finding, Subject
from pacesetter_service.catalogue.lint import lint
from pacesetter_service.core.spec import SessionSpec

CYCLIC = {"kind": "cyclic", "base_lr": 0.001, "max_lr": 0.1, "step_size_up": 100}
PLATEAU = {"kind": "plateau", "metric": "val_loss"}


def findings(
    architecture: Any = None, planned_steps: int | None = None, **spec: Any
) -> dict[str, Finding]:
    """Lint a spec, by default of a thousand steps."""
    body = {"name": "linted", "base_lr": 0.1, "total_steps": 1000, **spec}
    if "groups" in body:
        del body["base_lr"]
    subject = Subject(SessionSpec.model_validate(body), planned_steps, architecture)
    return {finding.code: finding for finding in lint(subject)}


WARMED = {
    "kind": "warmup",
    "steps": 50,
    "offset": 1,
    "schedule": {"kind": "cosine", "total_steps": 950},
}

PITFALLS: dict[str, tuple[dict[str, Any], str]] = {
    "warmup_missing": (
        {"architecture": "transformer", "schedule": {"kind": "cosine", "total_steps": 1000}},
        "/schedule",
    ),
    "warmup_too_long": ({"schedule": {**WARMED, "steps": 700}}, "/schedule"),
    "first_step_is_wasted": ({"schedule": {**WARMED, "offset": 0}}, "/schedule"),
    "decays_too_early": (
        {"schedule": {"kind": "multistep", "milestones": [50, 100], "gamma": 0.1}},
        "/schedule",
    ),
    "ends_too_early": ({"schedule": {"kind": "cosine", "total_steps": 500}}, "/schedule"),
    "does_not_end": ({"schedule": {"kind": "cosine", "total_steps": 2000}}, "/schedule"),
    "floor_above_base": (
        {"schedule": {"kind": "cosine", "total_steps": 1000, "min_lr": 0.5}},
        "/schedule",
    ),
    "floor_in_pretraining": (
        {
            "architecture": "transformer",
            "schedule": {
                **WARMED,
                "schedule": {"kind": "cosine", "total_steps": 950, "min_lr": 0.01},
            },
        },
        "/schedule",
    ),
    "base_is_ignored": (
        {"schedule": {"kind": "one_cycle", "max_lr": 0.3, "total_steps": 1000}},
        "/schedule",
    ),
    "stops_mid_cycle": ({"schedule": CYCLIC, "total_steps": 1100}, "/schedule"),
    "horizon_shorter_than_run": (
        {"schedule": {"kind": "one_cycle", "total_steps": 800}},
        "/schedule/total_steps",
    ),
    "patience_longer_than_run": (
        {"controllers": [{**PLATEAU, "patience": 5000}]},
        "/controllers/0/patience",
    ),
    "search_without_a_trial": (
        {"controllers": [{"kind": "adalrs", "metric": "loss", "until_step": 500}]},
        "/controllers/0/window",
    ),
    "ceiling_below_base": (
        {"controllers": [{"kind": "kl_adaptive", "metric": "kl"}]},
        "/controllers/0/max_lr",
    ),
    "relative_threshold_of_a_signed_metric": (
        {"controllers": [{**PLATEAU, "metric": "val_log_likelihood", "mode": "max"}]},
        "/controllers/0/threshold_mode",
    ),
}


@pytest.mark.parametrize("code", PITFALLS)
def test_a_pitfall_is_found(code: str) -> None:
    """Each pitfall is reported with its place, the remedy, and the source."""
    spec, pointer = PITFALLS[code]
    found = findings(**spec)
    assert code in found, sorted(found)
    assert found[code].pointer == pointer
    assert found[code].message
    assert found[code].advice
    assert found[code].source


def test_every_rule_has_a_pitfall() -> None:
    """There is an example for each rule."""
    named = {each.__name__.replace("_of_a_controller", "") for each in RULES}
    assert named == set(PITFALLS)


@pytest.mark.parametrize(
    "controller",
    [
        {"kind": "hf.GreedyLR", "metric": "loss", "min_lr": 0.2, "max_lr": 1.0},
        {"kind": "hf.GreedyLR", "metric": "loss", "min_lr": {"head": 0.2}, "max_lr": 1.0},
        {"kind": "plateau", "metric": "loss", "min_lr": 0.2},
        {"kind": "torch.ReduceLROnPlateau", "metric": "loss", "min_lr": 0.2},
        {"kind": "newbob", "metric": "loss", "min_lr": 0.2},
    ],
)
def test_a_controllers_floor_above_the_base_is_found(controller: dict[str, Any]) -> None:
    """This holds for every rule, and for a group where it names groups."""
    groups = {"body": {"base_lr": 0.3}, "head": {"base_lr": 0.1}}
    found = findings(groups=groups, controllers=[controller])["floor_above_base"]
    assert found.pointer == "/controllers/0/min_lr"
    assert "base learning rate 0.1 of head" in found.message
    high = {**groups, "head": {"base_lr": 0.3}}
    assert "floor_above_base" not in findings(groups=high, controllers=[controller])


SOUND: dict[str, dict[str, Any]] = {
    "warmup and cosine": {"architecture": "transformer", "schedule": WARMED},
    "a constant": {"schedule": "constant"},
    "a constant under a plateau": {"schedule": "constant", "controllers": [PLATEAU]},
    "the classic steps": {"schedule": {"kind": "multistep", "milestones": [500, 750]}},
    "a cosine": {"schedule": {"kind": "cosine", "total_steps": 1000}},
    "a linear decay": {
        "schedule": {"kind": "linear", "start_factor": 1.0, "end_factor": 0.0, "total_iters": 1000}
    },
    "one cycle": {"schedule": {"kind": "one_cycle", "total_steps": 1000}},
    "whole cycles": {"schedule": CYCLIC},
    "the whole run": {"schedule": {"kind": "cosine", "total_steps": {"fraction": 1.0}}},
    "nobody knows how long": {"schedule": CYCLIC, "total_steps": None},
}


@pytest.mark.parametrize("spec", SOUND.values(), ids=SOUND)
def test_a_sound_spec_is_left_alone(spec: dict[str, Any]) -> None:
    """Common practice causes no warning."""
    assert findings(**spec) == {}


def test_each_group_is_looked_at() -> None:
    """A pitfall in one group's schedule is reported with that group."""
    found = findings(
        groups={
            "body": {"base_lr": 0.1},
            "head": {"base_lr": 1.0, "schedule": {"kind": "cosine", "total_steps": 100}},
        }
    )
    assert found["ends_too_early"].pointer == "/groups/head"


def test_a_planned_length_overrules_the_total() -> None:
    """The same schedule is too short for a longer run."""
    schedule = {"kind": "cosine", "total_steps": 1000}
    assert "ends_too_early" in findings(schedule=schedule, planned_steps=3000)
