"""The plateaus of other libraries: against torch itself, and against recorded values of others.

What keras, optax, timm, fastai and paddle make of the same metrics is in `tests/golden`.
"""

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.optim.lr_scheduler import ReduceLROnPlateau

from core.controllers.following import follow, train
from core.controllers.test_plateau import GETTING_WORSE, cuts, of_torch
from core.torch_schedulers import optimizer
from golden.generate import streams
from pacesetter_service.catalogue.findings import Subject
from pacesetter_service.catalogue.lint import lint
from pacesetter_service.core.controllers import Controller
from pacesetter_service.core.controllers.base import NamedController
from pacesetter_service.core.controllers.plateau import Plateau
from pacesetter_service.core.model import jsonable
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.spec import SessionSpec
from strategies import metrics

GOLDEN = Path(__file__).parents[2] / "golden"

EXACT = {"timm", "fastai", "paddle"}
"""Libraries whose rates are float64; those of keras and optax are float32."""

PRESETS = [
    kind
    for kind, member in sorted(Controller.kinds.items())
    if issubclass(member, NamedController) and "lateau" in kind
]


def golden_cases() -> dict[str, tuple[dict[str, Any], list[float]]]:
    """Return every case with its metrics, under a descriptive name."""
    cases: dict[str, tuple[dict[str, Any], list[float]]] = {}
    for path in sorted(GOLDEN.glob("*.json")):
        file = json.loads(path.read_text())
        for case in file.get("controllers", ()):
            values = [float.fromhex(value) for value in file["metrics"][case["metrics"]]]
            cases[f"{case['kind']} {case['note']}, {case['metrics']}"] = (case, values)
    return cases


CASES = golden_cases()


def rule(kind: str, **parameters: Any) -> Controller:
    """Return a preset that watches the loss."""
    return Controller.parse({"kind": kind, "metric": "loss", **parameters})


@given(of_torch, st.lists(metrics, min_size=1, max_size=60))
def test_any_metrics_give_the_bits_of_torch(spec: dict[str, Any], values: list[float]) -> None:
    """At a constant rate every value of a session equals torch's, NaN and infinities included."""
    trained = optimizer(0.1)
    torchs = ReduceLROnPlateau(trained, **spec)
    expected = []
    for value in values:
        expected.append([float(trained.param_groups[0]["lr"])])
        torchs.step(value)
    controller = {"kind": "torch.ReduceLROnPlateau", "metric": "loss", **spec}
    _, rates = train({"controllers": [controller]}, values)
    assert rates == expected


@pytest.mark.parametrize("shape", ["falling", "constant", "stairs", "odd", "below zero"])
def test_thousands_of_streams_give_the_bits_of_torch(shape: str) -> None:
    """The rule by itself decides as torch's does on trainings of every shape, in both modes."""
    random = np.random.default_rng(len(shape))
    for _ in range(1000):
        values = stream(shape, random)
        spec = {
            "mode": str(random.choice(["min", "max"])),
            "factor": float(random.uniform(0.05, 0.99)),
            "patience": int(random.integers(0, 6)),
            "threshold": float(random.choice([0.0, 1e-4, 1e-2, 0.3])),
            "threshold_mode": str(random.choice(["rel", "abs"])),
            "cooldown": int(random.integers(0, 5)),
            "min_lr": float(random.choice([0.0, 1e-5, 0.02])),
            "eps": float(random.choice([0.0, 1e-8, 1e-3])),
        }
        trained = optimizer(0.1)
        torchs = ReduceLROnPlateau(trained, **spec)
        expected = []
        for value in values:
            torchs.step(value)
            expected.append(float(trained.param_groups[0]["lr"]))
        assert follow(rule("torch.ReduceLROnPlateau", **spec), values).rates == expected, spec


def stream(shape: str, random: np.random.Generator) -> list[float]:
    """Draw the metrics of one training."""
    noise = random.normal(0, 0.1, 40)
    values = {
        "falling": 4 * 0.9 ** np.arange(40) + noise,
        "constant": np.full(40, random.normal()),
        "stairs": np.round(3 * 0.95 ** np.arange(40) + noise, 1),
        "odd": random.choice([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 0.9], 40),
        "below zero": -np.arange(40) / 10 + 5 * noise,
    }[shape]
    return [float(value) for value in values]


@given(st.lists(st.floats(0, 1), min_size=10, max_size=40))
def test_floors_of_groups_are_those_of_torchs_list(values: list[float]) -> None:
    """Each group stops at its own floor, as with a list of them in torch."""
    trained = optimizer(0.1)
    trained.add_param_group({"params": [optimizer().param_groups[0]["params"][0]], "lr": 1.0})
    torchs = ReduceLROnPlateau(trained, patience=1, factor=0.3, min_lr=[0.02, 0.5])
    ours = rule(
        "torch.ReduceLROnPlateau", patience=1, factor=0.3, min_lr={"body": 0.02, "head": 0.5}
    )
    levels = follow(ours, values, {"body": 0.1, "head": 1.0}).levels
    for value, level in zip(values, levels, strict=True):
        torchs.step(value)
        assert list(level.values()) == [group["lr"] for group in trained.param_groups]


@pytest.mark.parametrize("name", CASES)
def test_a_preset_decides_as_its_library(name: str) -> None:
    """The rate changes at the same steps and to the same values."""
    case, values = CASES[name]
    changes = {int(step): float.fromhex(value) for step, value in case["changes"].items()}
    rates = [case["base_lr"], *follow(rule(case["kind"], **case["spec"]), values).rates[:-1]]
    ours = {step: rate for step, rate in enumerate(rates) if step == 0 or rate != rates[step - 1]}
    if case["kind"].split(".")[0] in EXACT:
        assert ours == changes
    else:
        assert list(ours) == list(changes)
        assert list(ours.values()) == pytest.approx(list(changes.values()), rel=1e-6)


@pytest.mark.parametrize(
    ("library", "kind"),
    [("keras", "keras.ReduceLROnPlateau"), ("optax", "optax.reduce_on_plateau")],
)
def test_thousands_of_streams_are_decided_as_by_their_libraries(library: str, kind: str) -> None:
    """For 2,000 random streams and parameters the rate changes where the library changed it."""
    found = json.loads((GOLDEN / "plateau_streams" / f"{library}.json").read_text())["steps"]
    assert len(found) == streams.COUNT
    assert sum(map(len, found)) > streams.COUNT
    for number, steps in enumerate(found):
        spec = getattr(streams, library)(number)
        rates = [0.1, *follow(rule(kind, **spec), streams.metrics(number)).rates[:-1]]
        # Theirs are float32, where the last bit of a rate at its floor is no change.
        changed = [not math.isclose(new, old, rel_tol=1e-6) for old, new in pairwise(rates)]
        assert [step for step, moved in enumerate(changed, 1) if moved] == steps, (number, spec)


@pytest.mark.parametrize("kind", PRESETS)
def test_every_preset_is_compared_with_its_library(kind: str) -> None:
    """Each has golden values, except torch's, which is compared live."""
    compared = [case for case, _ in CASES.values() if case["kind"] == kind]
    assert kind == "torch.ReduceLROnPlateau" or len(compared) >= 30


@pytest.mark.parametrize("kind", PRESETS)
@given(values=st.lists(metrics, max_size=40), at=st.integers(0, 40))
def test_a_preset_goes_through_json_at_any_measurement(
    kind: str, values: list[float], at: int
) -> None:
    """Its state and its parameters are data: a restart changes nothing, and no fit() resets it."""
    parsed = Controller.parse({"kind": kind, **Controller.kinds[kind].example})
    assert Controller.parse(json.loads(json.dumps(jsonable(parsed)))) == parsed
    assert repr(follow(parsed, values)) == repr(follow(parsed, values, restart_at=at))


@pytest.mark.parametrize("kind", PRESETS)
def test_a_preset_is_a_plateau_with_parameters(kind: str) -> None:
    """It can be written as an equal `plateau`, for the same metric and steps."""
    preset = Controller.parse(
        {"kind": kind, **Controller.kinds[kind].example, "from_step": 7, "until_step": 99}
    )
    assert isinstance(preset, NamedController)
    plain = preset.expand()
    assert isinstance(plain, Plateau)
    assert (plain.metric, plain.from_step, plain.until_step) == (preset.metric, 7, 99)
    assert Controller.parse(jsonable(plain)) == plain


def test_a_metric_may_be_called_a_monitor() -> None:
    """Keras and fastai use that word, with a default."""
    for kind, usual in [
        ("keras.ReduceLROnPlateau", "val_loss"),
        ("fastai.ReduceLROnPlateau", "valid_loss"),
    ]:
        assert Controller.parse(kind).metric == usual
        assert Controller.parse({"kind": kind, "monitor": "test_loss", **MIN[kind]}).metric == (
            "test_loss"
        )


MIN: dict[str, dict[str, Any]] = {
    "keras.ReduceLROnPlateau": {"mode": "min"},
    "fastai.ReduceLROnPlateau": {},
}


def direction(kind: str, **parameters: Any) -> str:
    """Return the mode of a preset's plateau."""
    preset = Controller.parse({"kind": kind, **parameters})
    assert isinstance(preset, NamedController)
    plain = preset.expanded
    assert isinstance(plain, Plateau)
    return plain.mode


def test_keras_knows_which_way_its_own_metrics_get_better() -> None:
    """`mode="auto"` goes by the names that keras uses, and asks about any other."""
    kind = "keras.ReduceLROnPlateau"
    assert direction(kind) == "min"
    assert direction(kind, monitor="val_accuracy") == "max"
    assert direction(kind, monitor="mean_absolute_error") == "min"
    assert direction(kind, monitor="val_bleu", mode="max") == "max"
    with pytest.raises(ValidationError, match=r'val_bleu gets better.*give mode "min" or "max"'):
        direction(kind, monitor="val_bleu")


def test_fastai_goes_by_the_name_of_a_metric() -> None:
    """A loss and an error get better as they fall, anything else as it rises; `comp` overrules."""
    kind = "fastai.ReduceLROnPlateau"
    assert direction(kind) == "min"
    assert direction(kind, monitor="error_rate") == "min"
    assert direction(kind, monitor="accuracy") == "max"
    assert direction(kind, monitor="mse", comp="less") == "min"


def test_a_cooldown_of_keras_is_one_shorter_than_torchs() -> None:
    """With 2 its cuts are a patience and one apart, and not a patience and two."""
    values = [1.0] * 16
    keras = rule("keras.ReduceLROnPlateau", mode="min", patience=2, cooldown=2)
    torchs = rule("torch.ReduceLROnPlateau", patience=1, cooldown=2)
    assert cuts(keras, values) == [3, 6, 9, 12, 15]
    assert cuts(torchs, values) == [3, 7, 11, 15]


@pytest.mark.parametrize("kind", ["keras.ReduceLROnPlateau", "paddle.ReduceOnPlateau"])
@pytest.mark.parametrize("first", [math.nan, math.inf])
def test_a_first_value_that_is_no_number_is_not_the_best(kind: str, first: float) -> None:
    """In keras and paddle a NaN that came first is the best, and nothing improves on it."""
    values = [first, *(1.0 - step / 20 for step in range(20))]
    assert cuts(rule(kind, patience=3, **MIN.get(kind, {})), values) == []


@pytest.mark.parametrize("kind", [kind for kind in PRESETS if kind != "timm.PlateauLRScheduler"])
def test_one_minus_infinity_is_the_best_for_ever_as_in_the_libraries(kind: str) -> None:
    """Presets keep that trap, which `plateau` avoids."""
    preset = rule(kind, patience=2, **MIN.get(kind, {}))
    falling = [1.0 - step / 20 for step in range(12)]
    assert cuts(preset, falling) == []
    assert cuts(preset, [-math.inf, *falling]) != []


@pytest.mark.parametrize(
    "kind", ["torch.ReduceLROnPlateau", "paddle.ReduceOnPlateau", "optax.reduce_on_plateau"]
)
def test_worse_negative_values_are_better_to_relative_thresholds_of_libraries(kind: str) -> None:
    """Presets keep that trap too, and the linter warns of it if it knows the metric."""
    name = "rtol" if kind.startswith("optax") else "threshold"
    assert cuts(rule(kind, patience=2, **{name: 0.1}), GETTING_WORSE) == []
    controllers = [{"kind": kind, "metric": "episode_reward"}]
    spec = SessionSpec.model_validate({"name": "x", "base_lr": 0.1, "controllers": controllers})
    [finding] = lint(Subject(spec))
    assert finding.code == "relative_threshold_of_a_signed_metric"
    assert finding.pointer == "/controllers/0"
    assert "signed_rel" in finding.advice


def test_a_patience_that_outlasts_the_run_is_found_in_presets_too() -> None:
    """The linter checks the plateau that a preset stands for."""
    controllers = [{"kind": "timm.PlateauLRScheduler", "metric": "top1", "patience_t": 100}]
    spec = {"name": "x", "base_lr": 0.1, "total_steps": 100, "controllers": controllers}
    [finding] = lint(Subject(SessionSpec.model_validate(spec)))
    assert (finding.code, finding.pointer) == ("patience_longer_than_run", "/controllers/0")


def test_a_nan_spoils_one_average_of_optax() -> None:
    """The average that contains it is bad; the next one is of numbers again."""
    preset = rule("optax.reduce_on_plateau", accumulation_size=2, patience=1, factor=0.5)
    values = [1.0, 1.0, 0.5, math.nan, 0.4, 0.4, 0.3, 0.3]
    assert cuts(preset, values) == [4]


def test_a_floor_of_optax_follows_the_base() -> None:
    """`min_scale` is a fraction of the base, whatever the rate is."""
    preset = rule("optax.reduce_on_plateau", patience=1, min_scale=0.05)
    assert follow(preset, [1.0] * 9, 40.0).rates[-1] == 2.0


def test_fastai_divides() -> None:
    """Its factor is a divisor: 10 makes a tenth, to the bit."""
    assert follow(rule("fastai.ReduceLROnPlateau"), [1.0] * 3).rates == [0.1, 0.01, 0.001]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "keras: a factor of 1": ({"kind": "keras.ReduceLROnPlateau", "factor": 1.0}, "less than 1"),
    "fastai: a factor below 1": ({"kind": "fastai.ReduceLROnPlateau", "factor": 0.1}, "greater th"),
    "optax: no patience": ({"kind": "optax.reduce_on_plateau", "patience": 0}, "greater than or"),
    "optax: no tolerance": ({"kind": "optax.reduce_on_plateau", "rtol": 0.0}, "`rtol` or an `atol"),
    "optax: all of it": ({"kind": "optax.reduce_on_plateau", "rtol": 1.0}, "less than 1"),
    "optax: a rising floor": ({"kind": "optax.reduce_on_plateau", "min_scale": 2.0}, "equal to 1"),
    "paddle: below nothing": ({"kind": "paddle.ReduceOnPlateau", "threshold": 1.0}, "below zero"),
    "torch: below nothing": ({"kind": "torch.ReduceLROnPlateau", "threshold": 1.0}, "below zero"),
    "timm: below nothing": (
        {"kind": "timm.PlateauLRScheduler", "threshold": 1.0, "mode": "min"},
        "below zero",
    ),
    "torch: a list": (
        {"kind": "torch.ReduceLROnPlateau", "min_lr": [0.1]},
        "each group by its nam",
    ),
    "nobody's": ({"kind": "ReduceLROnPlateau"}, "Say whose: `torch.ReduceLROnPlateau`"),
    "transformers'": ({"kind": "hf.reduce_lr_on_plateau"}, "use `torch.ReduceLROnPlateau`"),
}


@pytest.mark.parametrize(("spec", "words"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused(spec: dict[str, Any], words: str) -> None:
    """The error says what is wrong, or what to use instead."""
    with pytest.raises(ValidationError, match=re.escape(words)):
        Controller.parse({"metric": "loss", **spec})


@pytest.mark.parametrize("family", [Schedule, Controller])
def test_hints_name_controllers_that_exist(family: type[Schedule] | type[Controller]) -> None:
    """A user who looks for a plateau among the schedules is shown kinds that exist."""
    hints = {name: hint for name, hint in family.redirects.items() if "lateau" in name}
    assert hints
    for name, hint in hints.items():
        named = re.findall(r"`((?:\w+\.)?\w*[pP]lateau)`", hint)
        assert named, name
        assert set(named) <= set(Controller.kinds), name
