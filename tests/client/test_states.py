"""The saved states of other schedulers: taken over as far as possible, or refused."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import SWALR

from converted import convert, held, made, sgd, step
from pacesetter import Client, StateMismatchError
from pacesetter._from_torch import taken_over
from pacesetter._from_torch._convert import LAWS
from pacesetter._info import SessionInfo
from pacesetter.torch import RemoteLR
from pacesetter_service.core.model import jsonable
from pacesetter_service.core.spec import SessionSpec

Make = Callable[[Optimizer], Any]


def session_of(**described: Any) -> SessionInfo:
    """Return the server's description of a session, parsed by its own model."""
    spec = SessionSpec.model_validate({"name": "other", "base_lr": 0.1, **described})
    return SessionInfo("other", jsonable(spec), "active", 1, spec.start_step, 0, ("lr",), None, 100)


def converted(scheduler: Any, optimizer: Optimizer) -> SessionInfo:
    """Return the session that a scheduler is converted to."""
    described = convert(scheduler, optimizer.param_groups, "loss")
    return session_of(**{"base_lr": None, **described, "start_step": 0})


STEPPED: dict[str, Make] = {
    "StepLR": lambda o: StepLR(o, 7, 0.5),
    "MultiStepLR": lambda o: MultiStepLR(o, [3, 25], 0.5),
    "ConstantLR": lambda o: ConstantLR(o, 0.3, 20),
    "LinearLR": lambda o: LinearLR(o, 0.1, total_iters=30),
    "ExponentialLR": lambda o: ExponentialLR(o, 0.97),
    "PolynomialLR": lambda o: PolynomialLR(o, 90, 1.7),
    "CosineAnnealingLR": lambda o: CosineAnnealingLR(o, 80, 0.001),
    "CosineAnnealingWarmRestarts": lambda o: CosineAnnealingWarmRestarts(o, 5, 2),
    "CyclicLR": lambda o: CyclicLR(o, 0.01, 0.3, 2.5),
    "OneCycleLR": lambda o: OneCycleLR(o, 0.3, total_steps=50),
    "ChainedScheduler": lambda o: ChainedScheduler([LinearLR(o, 0.2), ExponentialLR(o, 0.97)]),
    "SequentialLR": lambda o: SequentialLR(
        o,
        [ChainedScheduler([LinearLR(o, 0.2), ExponentialLR(o, 0.97)]), CosineAnnealingLR(o, 90)],
        [5],
    ),
    "SWALR": lambda o: SWALR(o, 0.05),
    "LambdaLR": lambda o: LambdaLR(o, lambda step: 0.9**step),
}


def stepped(make: Make, steps: int = 9) -> tuple[Optimizer, Any]:
    """Train for some steps."""
    optimizer = sgd()
    scheduler = made(make, optimizer)
    for _ in range(steps):
        step(optimizer, scheduler)
    return optimizer, scheduler


def test_every_scheduler_of_torch_is_tried() -> None:
    """A scheduler that torch adds shows up here."""
    assert set(STEPPED) == {*LAWS} - {"MultiplicativeLR"}


@pytest.mark.parametrize("kind", STEPPED)
def test_the_step_of_a_law_that_the_session_has_is_taken_over(kind: str) -> None:
    """A state whose law depends on the step alone moves to its step, nested ones too."""
    optimizer, scheduler = stepped(STEPPED[kind])
    session = session_of(schedule={"kind": "expression", "value": "base * 0.9 ** t"})
    if kind not in {"LambdaLR", "SWALR"}:
        session = converted(scheduler, optimizer)
    found = taken_over(scheduler.state_dict(), session)
    assert found["last_epoch"] == 9


@pytest.mark.parametrize("kind", ["StepLR", "CosineAnnealingLR", "LinearLR", "CyclicLR"])
def test_presets_of_torch_have_the_laws_of_their_names(kind: str) -> None:
    """A session by torch's own names takes over what belongs to them, and no other numbers."""
    named = {
        "StepLR": {"step_size": 7, "gamma": 0.5},
        "CosineAnnealingLR": {"T_max": 80, "eta_min": 0.001},
        "LinearLR": {"start_factor": 0.1, "total_iters": 30},
        "CyclicLR": {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 2.5},
    }[kind]
    _, scheduler = stepped(STEPPED[kind])
    state = scheduler.state_dict()
    session = session_of(schedule={"kind": f"torch.{kind}", **named})
    assert taken_over(state, session)["last_epoch"] == 9
    name, value = next(iter(named.items()))
    other = (
        session_of(schedule={"kind": f"torch.{kind}", **named, name: value / 2 or 1})
        if isinstance(value, float)
        else session_of(schedule={"kind": f"torch.{kind}", **named, name: value + 1})
    )
    with pytest.raises(StateMismatchError, match=f"its {name} is"):
        taken_over(state, other)


REFUSED: dict[str, tuple[Make, dict[str, Any], str]] = {
    "another law": (STEPPED["StepLR"], {"kind": "cosine", "total_steps": 9}, "is no StepLR"),
    "no law at all": (STEPPED["StepLR"], {"kind": "constant"}, "is no StepLR"),
    "another preset": (
        STEPPED["ExponentialLR"],
        {"kind": "torch.StepLR", "step_size": 9},
        "is no ExponentialLR",
    ),
    "another length": (
        STEPPED["CosineAnnealingLR"],
        {"kind": "cosine", "total_steps": 90, "min_lr": 0.001},
        "its total_steps is 80, the session's 90",
    ),
    "a sequence for one law": (
        STEPPED["SequentialLR"],
        {"kind": "exponential", "gamma": 0.9},
        "is no SequentialLR",
    ),
    "a chain for one law": (
        STEPPED["ChainedScheduler"],
        {"kind": "step", "step_size": 3},
        "is no ChainedScheduler",
    ),
    "a cycle for another law": (
        STEPPED["OneCycleLR"],
        {"kind": "step", "step_size": 3, "gamma": 0.5},
        "is no OneCycleLR",
    ),
    "a cycle of another length": (
        STEPPED["OneCycleLR"],
        {"kind": "one_cycle", "max_lr": 0.3, "total_steps": 1000},
        "its total_steps is 50, the session's 1000",
    ),
    "a preset's cycle of another length": (
        STEPPED["OneCycleLR"],
        {"kind": "torch.OneCycleLR", "max_lr": 0.3, "epochs": 10, "steps_per_epoch": 6},
        "its total_steps is 50, the session's 60",
    ),
    "a cycle that rises sooner": (
        STEPPED["OneCycleLR"],
        {"kind": "torch.OneCycleLR", "max_lr": 0.3, "total_steps": 50, "pct_start": 0.4},
        "its pct_start is 0.3, the session's 0.4",
    ),
    "a cycle from another rate": (
        STEPPED["OneCycleLR"],
        {"kind": "torch.OneCycleLR", "max_lr": 0.6, "total_steps": 50},
        r"it starts at \[0.012\], the session at 0.024",
    ),
    "a function for a law": (
        STEPPED["LambdaLR"],
        {"kind": "exponential", "gamma": 0.9},
        "is no LambdaLR",
    ),
    "an average's for another law": (
        STEPPED["SWALR"],
        {"kind": "step", "step_size": 3},
        "is no SWALR",
    ),
    "an average's of another length": (
        STEPPED["SWALR"],
        {"kind": "torch.SWALR", "swa_lr": 0.05, "anneal_epochs": 5},
        "its anneal_epochs is 10, the session's 5",
    ),
    "a law that is warmed up": (
        STEPPED["StepLR"],
        {"kind": "warmup", "steps": 5, "schedule": "constant"},
        "is no StepLR",
    ),
    "a law of transformers": (
        STEPPED["ExponentialLR"],
        {"kind": "hf.cosine", "num_warmup_steps": 0, "num_training_steps": 90},
        "is no ExponentialLR",
    ),
    "a law beside other channels": (
        STEPPED["StepLR"],
        {"kind": "channels", "laws": {"lr": {"kind": "exponential", "gamma": 0.9}}},
        "is no StepLR",
    ),
}


@pytest.mark.parametrize(("make", "schedule", "says"), REFUSED.values(), ids=REFUSED)
def test_a_state_of_another_law_is_refused(make: Make, schedule: dict[str, Any], says: str) -> None:
    """Where it is detectable, the error says how to convert it, and how to take the step alone."""
    _, scheduler = stepped(make)
    with pytest.raises(StateMismatchError, match=says) as refused:
        taken_over(scheduler.state_dict(), session_of(schedule=schedule))
    assert "RemoteLR.from_torch" in str(refused.value)
    assert '{"last_epoch": 9}' in str(refused.value)
    assert taken_over({"last_epoch": 9}, session_of(schedule=schedule)) == {"last_epoch": 9}


def test_the_laws_of_groups_are_compared_too() -> None:
    """A session whose groups have separate schedules takes no state of another law."""
    _, scheduler = stepped(STEPPED["StepLR"])
    own = {"base_lr": 0.1, "schedule": {"kind": "exponential", "gamma": 0.9}}
    fits = {"base_lr": 0.1, "schedule": {"kind": "step", "step_size": 7, "gamma": 0.5}}
    with pytest.raises(StateMismatchError, match="`exponential`, which is no StepLR"):
        taken_over(scheduler.state_dict(), session_of(base_lr=None, groups={"a": fits, "b": own}))
    groups = {"a": fits, "b": {"base_lr": 0.2, "schedule": fits["schedule"]}}
    found = taken_over(scheduler.state_dict(), session_of(base_lr=None, groups=groups))
    assert found["last_epoch"] == 9


def test_other_base_rates_are_refused() -> None:
    """Torch would go on from the state's own base rates, which the session does not have."""
    _, scheduler = stepped(STEPPED["LambdaLR"])
    law = {"kind": "expression", "value": "base * 0.9 ** t"}
    with pytest.raises(StateMismatchError, match=r"base learning rates \[0.1\].* has \[0.3\]"):
        taken_over(scheduler.state_dict(), session_of(base_lr=0.3, schedule=law))


@pytest.mark.parametrize("kind", ["LambdaLR", "StepLR", "OneCycleLR", "ChainedScheduler"])
def test_a_state_that_lacks_something_is_refused(kind: str) -> None:
    """A truncated state, or one of another version, raises the client's error, not Python's."""
    _, scheduler = stepped(STEPPED[kind])
    state = scheduler.state_dict()
    (state["_schedulers"][0] if "_schedulers" in state else state).pop("last_epoch")
    with pytest.raises(StateMismatchError, match="cannot be taken over"):
        taken_over(state, session_of(schedule={"kind": "expression", "value": "base"}))


def test_a_plateaus_state_without_its_rates_is_refused() -> None:
    """A reduced level is recognised by its rates."""
    _, scheduler = plateaued(1.0)
    state = scheduler.state_dict()
    del state["_last_lr"]
    with pytest.raises(StateMismatchError, match="cannot be taken over"):
        taken_over(state, session_of(controllers=[PLATEAU]))


def test_rates_that_were_scaled_by_hand_are_refused() -> None:
    """The state has the rate of its optimizer, and its law says another."""
    optimizer, scheduler = stepped(STEPPED["ExponentialLR"])
    session = converted(scheduler, optimizer)
    optimizer.param_groups[0]["lr"] *= 0.5
    step(optimizer, scheduler)
    with pytest.raises(StateMismatchError, match="something else has changed it"):
        taken_over(scheduler.state_dict(), session)


def test_parts_that_are_elsewhere_are_refused() -> None:
    """A SequentialLR whose parts were stepped separately is at no step of the whole."""
    _, scheduler = stepped(STEPPED["SequentialLR"])
    state = scheduler.state_dict()
    state["_schedulers"][1]["last_epoch"] = 1
    with pytest.raises(StateMismatchError, match="at step 9, and its part"):
        taken_over(state, session_of(schedule={"kind": "expression", "value": "base"}))
    _, chain = stepped(STEPPED["ChainedScheduler"])
    state = chain.state_dict()
    state["_schedulers"][1]["last_epoch"] = 1
    with pytest.raises(StateMismatchError, match="different steps"):
        taken_over(state, session_of(schedule={"kind": "expression", "value": "base"}))


class Mine(LRScheduler):
    """A scheduler that only its user knows."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.hidden = 3
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return the present rates."""
        return [group["lr"] for group in self.optimizer.param_groups]


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"state": {}, "param_groups": []}, id="an optimizer's"),
        pytest.param({"weight": [1.0], "bias": [0.0]}, id="a model's"),
        pytest.param(Mine(sgd()).state_dict(), id="a scheduler's of one's own"),
        pytest.param({"last_epoch": 3, "schedulers": [{}]}, id="some other library's"),
    ],
)
def test_a_state_of_nothing_that_is_known_is_refused(state: dict[str, Any]) -> None:
    """The error says that it is the state of no known scheduler."""
    with pytest.raises(StateMismatchError, match="no scheduler that is known here"):
        taken_over(state, session_of())


def test_what_is_a_step_and_nothing_else_is_let_through() -> None:
    """So are the states of sessions, which are not checked here."""
    for state in ({"last_epoch": 5}, {"last_epoch": 5, "attempt": 2}, {"session": "x", "a": 1}):
        assert taken_over(state, session_of()) == state


WRONG: dict[str, tuple[Any, str]] = {
    "None": (None, "the state is a NoneType"),
    "a list": ([3], "the state is a list"),
    "a step that is none": ({"last_epoch": True}, "last_epoch=True"),
    "no count": ({"last_epoch": 1, "_step_count": None}, "_step_count=None"),
    "a count that is none": ({"last_epoch": 1, "_step_count": 2.5}, "_step_count=2.5"),
}


@pytest.mark.parametrize(("state", "says"), WRONG.values(), ids=WRONG)
def test_a_state_that_is_none_is_refused_and_changes_nothing(
    state: Any, says: str, client: Client, unique_name: str
) -> None:
    """The client's error comes before anything has moved."""
    ours = sgd()
    scheduler = RemoteLR(ours, client.create_session(unique_name, base_lr=0.1))
    for _ in range(3):
        step(ours, scheduler)
    before = scheduler.state_dict(), held(ours)
    with pytest.raises(StateMismatchError, match=says):
        scheduler.load_state_dict(state)
    assert (scheduler.state_dict(), held(ours)) == before


# -- plateaus -------------------------------------------------------------------------------------


def plateaued(*values: float) -> tuple[Optimizer, ReduceLROnPlateau]:
    """Step torch's plateau with some metrics."""
    optimizer = sgd(0.1, 0.1)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=3)
    for value in values:
        scheduler.step(value)
    return optimizer, scheduler


PLATEAU = {
    "kind": "torch.ReduceLROnPlateau",
    "metric": "eval_loss",
    "factor": 0.5,
    "patience": 1,
    "cooldown": 3,
}


@pytest.mark.parametrize("values", [(1.0, 2.0, 2.0, 2.0), (1.0,), (-math.inf,), (2.0,)])
def test_what_a_plateau_has_seen_is_never_dropped(values: tuple[float, ...]) -> None:
    """The error has the very description that takes it over, which the server accepts."""
    _, scheduler = plateaued(*values)
    with pytest.raises(StateMismatchError, match="says more than a step") as refused:
        taken_over(scheduler.state_dict(), session_of(controllers=[PLATEAU]))
    advice = str(refused.value)
    assert "RemoteLR.from_torch" in advice
    assert f"base_lr={scheduler.get_last_lr()[0]!r}" in advice
    assert '"start": {' in advice
    assert '"metric": "eval_loss"' in advice


def test_a_session_that_was_created_to_go_on_takes_the_state() -> None:
    """It has the state already, so only its first step is left to go to."""
    optimizer, scheduler = plateaued(1.0, 2.0, 2.0, 2.0)
    described = convert(scheduler, optimizer.param_groups, "eval_loss")
    found = taken_over(scheduler.state_dict(), session_of(**described))
    assert found == {"last_epoch": 4}
    scheduler.step(0.5)
    with pytest.raises(StateMismatchError, match="says more than a step"):
        taken_over(scheduler.state_dict(), session_of(**described))


def test_a_plateau_that_has_seen_nothing_is_at_the_first_step() -> None:
    """Nothing is lost with such a state."""
    _, scheduler = plateaued()
    assert taken_over(scheduler.state_dict(), session_of(start_step=7)) == {"last_epoch": 7}


def test_the_door_refuses_and_leaves_everything_as_it_was(client: Client, unique_name: str) -> None:
    """After the error the scheduler drives on, at its step, in its attempt."""
    session = client.create_session(unique_name, base_lr=0.1, controllers=[PLATEAU])
    ours = sgd()
    scheduler = RemoteLR(ours, session)
    for _ in range(3):
        ours.step()
        scheduler.step(1.0)
    before = scheduler.state_dict(), held(ours)
    _, other = plateaued(1.0, 2.0, 2.0)
    with pytest.raises(StateMismatchError, match="says more than a step"):
        scheduler.load_state_dict(other.state_dict())
    assert (scheduler.state_dict(), held(ours)) == before
    scheduler.step(1.0)
    assert scheduler.last_epoch == 4
