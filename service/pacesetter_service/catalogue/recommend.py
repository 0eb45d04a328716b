"""Recommend: from what is trained to a schedule to start from, with reasons.

It makes the usual rules of practitioners precise. Each choice is a line of the answer's `reasons`,
with its source; none of it is a promise.
"""

from typing import Any, Literal

from pydantic import Field

from pacesetter_service.catalogue.findings import Architecture
from pacesetter_service.core.measuring import MetricName
from pacesetter_service.core.model import Count, Model, Positive
from pacesetter_service.core.spec import Name

Regime = Literal["scratch", "pretraining", "transfer", "fine-tune"]
Optimizer = Literal["sgd", "adam", "adamw", "other"]

SMALL_DATA = 10_000
"""With fewer samples than this, schedules should be conservative."""

LARGE_BATCH = 1024
"""Above this batch size, a warmup is needed for any architecture."""


class Situation(Model):
    """What is to be trained, and how.

    `range_test_max_lr` is the learning rate at which a range test's loss was steepest.
    """

    name: Name = Field(default="recommended", description="how the session is to be called")
    architecture: Architecture = Field(description="what kind of model is trained")
    regime: Regime = Field(
        default="scratch", description="how it is trained: from scratch, say, or fine-tuned"
    )
    total_steps: Count = Field(description="how many optimizer steps there will be")
    samples: Count | None = Field(default=None, description="how many samples the data set has")
    batch_size: Count | None = Field(
        default=None, description="samples in one step, over all ranks"
    )
    optimizer: Optimizer = Field(default="adamw", description="which optimizer is used")
    range_test_max_lr: Positive | None = Field(
        default=None, description="the learning rate at which a range test's loss was steepest"
    )
    metric: MetricName = Field(
        default="val_loss", description="the metric that controllers are to watch"
    )
    parameters: Count | None = Field(
        default=None, description="parameters of the model, without embeddings"
    )
    tokens: Count | None = Field(
        default=None, description="how many tokens it is trained on, over all steps"
    )


class ReasonedChoice(Model):
    """One choice and why it was made."""

    choice: str = Field(description="what was chosen")
    because: str = Field(description="why")
    source: str = Field(description="who says so")


class Recommendation(Model):
    """A spec that can be posted as it is, and why it looks so."""

    spec: dict[str, Any] = Field(description="a session's spec, to be posted as it is")
    reasons: tuple[ReasonedChoice, ...] = Field(description="why each part of it is as it is")


def recommend(situation: Situation) -> Recommendation:
    """Propose a session for a situation."""
    base_lr, rate_reason = _base_lr(situation)
    warmup, warmup_reasons = _warmup_steps(situation)
    schedule, controllers, shape_reasons = _shape(situation, warmup)
    spec: dict[str, Any] = {
        "name": situation.name,
        "base_lr": base_lr,
        "schedule": schedule,
        "total_steps": situation.total_steps,
    }
    if situation.batch_size is not None:
        spec["batch_size"] = situation.batch_size
    if controllers:
        spec["controllers"] = controllers
    return Recommendation(spec=spec, reasons=(rate_reason, *warmup_reasons, *shape_reasons))


BASE_LRS: dict[Optimizer, float] = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3, "other": 1e-3}


def _short(rate: float) -> float:
    """Round a rate to the three digits that are shown: no rule of thumb knows more."""
    return float(f"{rate:.3g}")


def _base_lr(situation: Situation) -> tuple[float, ReasonedChoice]:
    if situation.range_test_max_lr is not None:
        rate = _short(situation.range_test_max_lr / 10)
        return rate, ReasonedChoice(
            choice=f"base_lr {rate:g}",
            because="a tenth of the rate that the range test found: where the loss falls fastest it"
            " is about to rise",
            source="Smith 2015, arXiv:1506.01186; the LR finder's rule of thumb",
        )
    by_law = _step_law(situation)
    if by_law is not None:
        return by_law
    rate = BASE_LRS[situation.optimizer]
    careful = situation.regime in ("transfer", "fine-tune")
    if situation.architecture == "transformer" and situation.optimizer != "sgd":
        rate = 3e-4
    if careful:
        rate = _short(rate / 10)
    return rate, ReasonedChoice(
        choice=f"base_lr {rate:g}",
        because=f"usual for {situation.optimizer}"
        + (", a tenth of it because weights that know something are easily lost" if careful else "")
        + "; run a range test and give its result as range_test_max_lr for a better one",
        source="common practice; always find the learning rate before training",
    )


TRIED_PARAMETERS, TRIED_TOKENS = (2.1e8, 1.1e9), (4e9, 1e11)
"""The ranges of sizes for which the Step Law was fitted: those of the dense models in its data.

Source: dense_lr_bs_loss.csv in github.com/step-law/steplaw, 1,911 trainings.
"""


def _step_law(situation: Situation) -> tuple[float, ReasonedChoice] | None:
    """Return the rate by the Step Law; None if the law says nothing about the situation."""
    parameters, tokens = situation.parameters, situation.tokens
    if parameters is None or tokens is None:
        return None
    if situation.regime not in ("scratch", "pretraining") or situation.architecture != (
        "transformer"
    ):
        return None
    if situation.optimizer not in ("adam", "adamw"):
        return None
    rate = _short(1.797 * parameters**-0.713 * tokens**0.307)
    batch = 0.581 * tokens**0.571
    tried = all(
        low <= size <= high
        for size, (low, high) in ((parameters, TRIED_PARAMETERS), (tokens, TRIED_TOKENS))
    )
    beyond = (
        ""
        if tried
        else "; this is outside of the 2.1e8 to 1.1e9 parameters and 4e9 to 1e11 tokens that it was"
        " fitted on"
    )
    return rate, ReasonedChoice(
        choice=f"base_lr {rate:g}",
        because=f"1.797 * N^-0.713 * D^0.307 of {parameters:.3g} parameters and {tokens:.3g}"
        f" tokens, for batches of about {batch:.3g} tokens (0.581 * D^0.571), AdamW, and a cosine"
        " to a last rate of 1e-5; its optimum is broad, and others find that such laws bend"
        f" outside of what they were fitted on{beyond}",
        source="Step Law, Li et al. 2025, arXiv:2503.04715; doubted in arXiv:2606.29158",
    )


def _warmup_steps(situation: Situation) -> tuple[int, tuple[ReasonedChoice, ...]]:
    if situation.architecture == "transformer":
        part = 0.05 if situation.regime in ("fine-tune", "transfer") else 0.1
        because = "transformers diverge without a warmup; 5 to 10 % of the run is usual"
        source = "Vaswani et al. 2017, arXiv:1706.03762; Xiong et al. 2020, arXiv:2002.04745"
        if situation.regime == "pretraining":
            part, because = 0.02, "a long pretraining needs a short warmup, about 2 % of the run"
    elif (situation.batch_size or 0) > LARGE_BATCH:
        part = 0.05
        because = f"a batch above {LARGE_BATCH} needs a warmup whatever the architecture"
        source = "Goyal et al. 2017, arXiv:1706.02677"
    else:
        return 0, ()
    steps = min(max(round(part * situation.total_steps), 1), max(situation.total_steps - 1, 1))
    return steps, (ReasonedChoice(choice=f"{steps} warmup steps", because=because, source=source),)


Shape = tuple[dict[str, Any], list[dict[str, Any]], tuple[ReasonedChoice, ...]]


def _shape(situation: Situation, warmup: int) -> Shape:
    small = situation.samples is not None and situation.samples < SMALL_DATA
    if situation.regime == "pretraining":
        return _stable_decay(situation, warmup)
    if small or (situation.regime == "transfer" and situation.architecture != "transformer"):
        return _plateau(situation, warmup, small=small)
    if situation.architecture == "cnn" and warmup == 0 and situation.total_steps >= 10:
        return _one_cycle(situation)
    return _cosine(situation, warmup)


def _stable_decay(situation: Situation, warmup: int) -> Shape:
    decay = max(round(0.1 * situation.total_steps), 1)
    stable = max(situation.total_steps - warmup - decay, 1)
    parts: list[dict[str, Any]] = [{"schedule": {"kind": "constant"}, "steps": stable}]
    parts.append(
        {
            "schedule": {
                "kind": "ramp",
                "end": 0.0,
                "steps": decay,
                "ease": {"kind": "power", "power": 0.5},
            }
        }
    )
    reason = ReasonedChoice(
        choice="warmup, stable, decay: the last 10 % anneal in the 1-sqrt shape",
        because="the stable phase can be extended, or decayed from, without starting anew",
        source="Hu et al. 2024, arXiv:2404.06395; Haegele et al. 2024, arXiv:2405.18392",
    )
    return _warmed({"kind": "sequence", "parts": parts}, warmup), [], (reason,)


def _plateau(situation: Situation, warmup: int, *, small: bool) -> Shape:
    patience = 5 if small else 3
    controller = {
        "kind": "plateau",
        "metric": situation.metric,
        "factor": 0.5,
        "patience": patience,
    }
    reason = ReasonedChoice(
        choice=f"constant, halved when {situation.metric} stops improving",
        because="few data overfit under an aggressive schedule: let the validation decide"
        if small
        else "how long transferred weights go on learning is not known beforehand: let the"
        " validation decide",
        source="common practice for small data and transfer learning",
    )
    return _warmed({"kind": "constant"}, warmup), [controller], (reason,)


def _one_cycle(situation: Situation) -> Shape:
    reason = ReasonedChoice(
        choice="one cycle up to base_lr and down",
        because="convolutional networks from scratch often converge in a fraction of the steps;"
        " the rise is its own warmup",
        source="Smith and Topin 2017, arXiv:1708.07120",
    )
    return {"kind": "one_cycle", "total_steps": situation.total_steps}, [], (reason,)


def _cosine(situation: Situation, warmup: int) -> Shape:
    length = max(situation.total_steps - warmup, 1)
    reason = ReasonedChoice(
        choice="cosine to zero over the whole run",
        because="smooth, with one parameter, and hard to beat when the length is known",
        source="Loshchilov and Hutter 2016, arXiv:1608.03983",
    )
    return _warmed({"kind": "cosine", "total_steps": length}, warmup), [], (reason,)


def _warmed(schedule: dict[str, Any], warmup: int) -> dict[str, Any]:
    if warmup == 0:
        return schedule
    return {"kind": "warmup", "steps": warmup, "offset": 1, "schedule": schedule}
