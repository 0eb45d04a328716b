"""The plateau controller against torch's ReduceLROnPlateau."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau

from core.torch_schedulers import optimizer
from pacesetter_service.core.commands import Reading, Report, Seal
from pacesetter_service.core.controllers import Seen
from pacesetter_service.core.controllers.plateau import Plateau
from pacesetter_service.core.decide import decide
from pacesetter_service.core.events import Decided, Sealed
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from strategies import factors, metrics

parameters = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": factors,
        "patience": st.integers(0, 4),
        "threshold": st.sampled_from([0.0, 1e-4, 0.1]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 3),
        "min_lr": st.sampled_from([0.0, 1e-3]),
        "eps": st.sampled_from([0.0, 1e-8, 1e-3]),
    }
)


def follow(session: Session, values: list[float]) -> tuple[Session, list[float]]:
    """Train one step for each metric value: ask for the rate, then report."""
    rates = []
    for value in values:
        step = session.horizon
        events = decide(session, Seal(step, 1))
        session = evolve_all(session, events)
        assert isinstance(events[-1], Sealed)
        rates.append(float(events[-1].values["lr"][0]))
        report = Report((Reading(0, step, "loss", value),))
        session = evolve_all(session, decide(session, report))
    return session, rates


def plateau_session(**spec: Any) -> Session:
    """Create a session of a constant rate under a plateau controller."""
    controller = {"kind": "plateau", "metric": "loss", **spec}
    return create(SessionSpec.model_validate(session_spec(controller)))


def session_spec(controller: dict[str, Any]) -> dict[str, Any]:
    """Describe a session with one controller."""
    return {"name": "plateau", "base_lr": 0.1, "controllers": [controller]}


@settings(max_examples=300)
@given(parameters, st.lists(metrics, min_size=1, max_size=60))
def test_any_metrics_give_the_bits_of_torch(spec: dict[str, Any], values: list[float]) -> None:
    """On a constant rate every value equals torch's, whatever the metrics, NaN included."""
    trained = optimizer(0.1)
    torchs = ReduceLROnPlateau(trained, **spec)
    expected = []
    for value in values:
        expected.append(float(trained.param_groups[0]["lr"]))
        torchs.step(value)
    _, rates = follow(plateau_session(**spec), values)
    assert rates == expected


def test_each_group_has_a_floor_of_its_own() -> None:
    """`min_lr` by group stops the cuts of that group alone."""
    spec = SessionSpec.model_validate(
        {
            "name": "groups",
            "groups": {"body": {"base_lr": 0.1}, "head": {"base_lr": 1.0}},
            "controllers": [
                {"kind": "plateau", "metric": "loss", "patience": 0, "min_lr": {"body": 0.05}}
            ],
        }
    )
    session = create(spec)
    for step in range(5):
        session = evolve_all(session, decide(session, Seal(step, 1)))
        session = evolve_all(session, decide(session, Report((Reading(0, step, "loss", 1.0),))))
    levels = {name: line.segments[-1].level for name, line in session.timelines.items()}
    assert levels["body.lr"] == 0.05
    assert levels["head.lr"] == pytest.approx(1e-3)


def seen(value: float) -> Seen:
    """Show a loss to a controller of one group."""
    return Seen("loss", 0, value, {"": 0.1}, {"": 0.1})


def test_a_nan_never_becomes_the_best() -> None:
    """NaN counts as no improvement, and what follows is compared with what came before it."""
    controller = Plateau(metric="loss", patience=1)
    state = controller.observe(controller.init(), seen(0.5)).state
    state = controller.observe(state, seen(math.nan)).state
    assert state.best == 0.5  # type: ignore[attr-defined]
    assert state.bad == 1  # type: ignore[attr-defined]


def test_a_cut_reaches_any_schedule() -> None:
    """A schedule written in absolute numbers is cut by the same factor as one that follows."""
    controller = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}
    absolute = {"kind": "one_cycle", "max_lr": 0.1, "total_steps": 50}
    spec = {**session_spec(controller), "schedule": absolute}
    plain = {"name": "plain", "base_lr": 0.1, "schedule": absolute, "max_lookahead": 1}
    _, cut = follow(create(SessionSpec.model_validate(spec)), [1.0] * 6)
    _, uncut = follow(create(SessionSpec.model_validate(plain)), [1.0] * 6)
    assert cut == [
        rate * factor for rate, factor in zip(uncut, [1, 1, 0.5, 0.25, 0.125, 1 / 16], strict=True)
    ]


def test_a_cut_says_why() -> None:
    """The event names the metric, the values and the patience that led to it."""
    session, _ = follow(plateau_session(patience=1), [0.5, 0.6, 0.7])
    events = decide(session, Seal(3, 1))
    [cut] = [event for event in events if isinstance(event, Decided)]
    assert cut.at == 3
    assert cut.levels == {"lr": (0.1, 0.1 * 0.1)}
    assert "loss has not improved on 0.5 in 2 measurements (now 0.7; patience 1)" in cut.reason
