"""Recommendations are specs that work, and follow the practitioners' choosing guide."""

from itertools import product
from typing import Any, get_args

import pytest

from pacesetter_service.catalogue.findings import Architecture, Subject
from pacesetter_service.catalogue.lint import lint
from pacesetter_service.catalogue.recommend import Optimizer, Regime, Situation, recommend
from pacesetter_service.core.spec import SessionSpec

CASES = list(product(get_args(Architecture), get_args(Regime), get_args(Optimizer)))


@pytest.mark.parametrize("total_steps", [1, 10, 90_000])
@pytest.mark.parametrize(("architecture", "regime", "optimizer"), CASES)
def test_every_recommendation_can_be_created(
    architecture: Any, regime: Any, optimizer: Any, total_steps: int
) -> None:
    """Whatever the situation, the proposed spec is valid and every choice has its reason."""
    answer = recommend(
        Situation(
            architecture=architecture, regime=regime, optimizer=optimizer, total_steps=total_steps
        )
    )
    spec = SessionSpec.model_validate(answer.spec)
    assert len(answer.reasons) >= 2
    assert all(reason.because and reason.source for reason in answer.reasons)
    if total_steps > 10:
        warnings = lint(Subject(spec, architecture=architecture))
        assert [each.code for each in warnings if each.severity != "info"] == []


def kind_for(**situation: Any) -> str:
    """Return the kind of the schedule that is proposed, below its warmup."""
    body = {"architecture": "cnn", "total_steps": 1000, **situation}
    schedule = recommend(Situation(**body)).spec["schedule"]
    return str(schedule.get("schedule", schedule)["kind"])


def test_the_guide_is_followed() -> None:
    """Networks, regimes and data sizes lead to the schedules that the guide names."""
    assert kind_for(architecture="cnn", regime="scratch") == "one_cycle"
    assert kind_for(architecture="transformer", regime="scratch") == "cosine"
    assert kind_for(architecture="transformer", regime="pretraining") == "sequence"
    assert kind_for(architecture="cnn", regime="transfer") == "constant"
    assert kind_for(architecture="cnn", samples=5000) == "constant"


def test_few_data_let_the_validation_decide() -> None:
    """Small data sets get a plateau controller on the named metric."""
    situation = Situation(architecture="mlp", samples=1797, total_steps=1000, metric="val_acc_loss")
    [controller] = recommend(situation).spec["controllers"]
    assert (controller["kind"], controller["metric"]) == ("plateau", "val_acc_loss")


def test_transformers_and_large_batches_are_warmed() -> None:
    """Five to ten per cent of the run for transformers, and a warmup for very large batches."""
    warmed = recommend(Situation(architecture="transformer", total_steps=1000)).spec["schedule"]
    assert (warmed["kind"], warmed["steps"]) == ("warmup", 100)
    large = recommend(Situation(architecture="cnn", batch_size=8192, total_steps=1000))
    assert large.spec["schedule"]["kind"] == "warmup"


def test_a_range_test_overrules_the_rule_of_thumb() -> None:
    """The base rate is a tenth of what the range test found."""
    situation = Situation(architecture="cnn", total_steps=1000, range_test_max_lr=2.5)
    assert recommend(situation).spec["base_lr"] == 0.25


def test_the_step_law_gives_the_rate_of_a_pretraining() -> None:
    """It follows from parameters and tokens; outside the fitted range, the answer says so."""
    body = {"architecture": "transformer", "regime": "pretraining", "total_steps": 90_000}
    sized = Situation(**body, parameters=10**9, tokens=10**11)
    answer = recommend(sized)
    # By hand: 1.797 * 10 ** (9 * -0.713) * 10 ** (11 * 0.307), and 0.581 * 10 ** (11 * 0.571).
    assert answer.spec["base_lr"] == pytest.approx(1.797 * 10 ** (-6.417 + 3.377), rel=5e-3)
    assert "batches of about 1.11e+06 tokens" in answer.reasons[0].because
    assert "outside of the" not in answer.reasons[0].because
    for size in ({"parameters": 10**11}, {"parameters": 10**7}, {"tokens": 10**9}):
        other = recommend(sized.model_copy(update=size))
        assert "outside of the" in other.reasons[0].because
    for update in ({"regime": "fine-tune"}, {"optimizer": "sgd"}, {"tokens": None}):
        assert "N^-0.713" not in recommend(sized.model_copy(update=update)).reasons[0].because


@pytest.mark.parametrize(
    ("parameters", "tokens"), [(10**9, 10**11), (429_260_800, 5 * 10**10), (7 * 10**9, 14 * 10**11)]
)
def test_the_step_law_is_that_of_its_authors_tool(parameters: int, tokens: int) -> None:
    """Their tool has more digits in each coefficient, the means of its 1,000 fits: within 2.5 %."""
    situation = Situation(
        architecture="transformer",
        regime="pretraining",
        total_steps=90_000,
        parameters=parameters,
        tokens=tokens,
    )
    mean = 1.797339993900001 * parameters**-0.7129222911869909 * tokens**0.30749095041206964
    assert recommend(situation).spec["base_lr"] == pytest.approx(mean, rel=0.025)


@pytest.mark.parametrize(("architecture", "regime", "optimizer"), CASES)
@pytest.mark.parametrize("found", [None, 0.0123456])
def test_a_rate_is_proposed_as_it_is_told(
    architecture: Any, regime: Any, optimizer: Any, found: float | None
) -> None:
    """The rate in the reason is that of the spec, to the last digit."""
    answer = recommend(
        Situation(
            architecture=architecture,
            regime=regime,
            optimizer=optimizer,
            total_steps=1000,
            range_test_max_lr=found,
        )
    )
    [told] = [each.choice for each in answer.reasons if each.choice.startswith("base_lr")]
    assert float(told.removeprefix("base_lr ")) == answer.spec["base_lr"]
