"""Adopting torch's schedulers: a session that gives the same learning rates."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Adam, Optimizer
from torch.optim import lr_scheduler as torch_schedulers
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
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import SWALR

from converted import convert
from pacesetter import Client, ConflictError, UnsupportedSchedulerError
from pacesetter._from_torch._convert import LAWS
from pacesetter.torch import RemoteLR

Make = Callable[[Optimizer], LRScheduler]


def _parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(2))


def _sgd(*rates: float, momentum: float = 0.0) -> torch.optim.SGD:
    groups = [{"params": [_parameter()], "lr": rate} for rate in rates or (0.1,)]
    return torch.optim.SGD(groups, lr=0.1, momentum=momentum)


def _adam(*rates: float) -> Adam:
    groups = [{"params": [_parameter()], "lr": rate} for rate in rates or (0.1,)]
    return Adam(groups, lr=0.1)


def _state(optimizer: Optimizer) -> list[float]:
    state = []
    for group in optimizer.param_groups:
        state.append(float(group["lr"]))
        state.append(float(group["betas"][0] if "betas" in group else group["momentum"]))
    return state


def _warmup_cosine(optimizer: Optimizer) -> LRScheduler:
    warmup = LinearLR(optimizer, start_factor=0.01, total_iters=20)
    return SequentialLR(optimizer, [warmup, CosineAnnealingLR(optimizer, 80)], [20])


def _three_parts(optimizer: Optimizer) -> LRScheduler:
    parts = [
        ConstantLR(optimizer, factor=0.3, total_iters=5),
        ExponentialLR(optimizer, 0.9),
        StepLR(optimizer, 7, gamma=0.5),
    ]
    return SequentialLR(optimizer, parts, [10, 40])


SCHEDULERS: dict[str, Make] = {
    "step": lambda o: StepLR(o, 30, gamma=0.3),
    "multistep": lambda o: MultiStepLR(o, [5, 20, 20, 60], gamma=0.5),
    "constant": lambda o: ConstantLR(o, factor=0.25, total_iters=12),
    "linear": lambda o: LinearLR(o, start_factor=0.1, end_factor=0.8, total_iters=33),
    "exponential": lambda o: ExponentialLR(o, 0.97),
    "polynomial": lambda o: PolynomialLR(o, total_iters=90, power=1.7),
    "cosine": lambda o: CosineAnnealingLR(o, 100, eta_min=1e-4),
    "triangular": lambda o: CyclicLR(o, 0.01, 0.3, 17, cycle_momentum=False),
    "triangular2": lambda o: CyclicLR(o, 0.01, 0.3, 11, 23, "triangular2", cycle_momentum=True),
    "exp_range": lambda o: CyclicLR(o, 0.01, 0.3, 9, None, "exp_range", 0.99, cycle_momentum=True),
    "one_cycle": lambda o: OneCycleLR(o, 0.3, total_steps=101),
    "one_cycle in epochs": lambda o: OneCycleLR(
        o, 0.7, epochs=3, steps_per_epoch=34, pct_start=0.17, div_factor=13, final_div_factor=777
    ),
    "one_cycle linear": lambda o: OneCycleLR(
        o, 0.3, total_steps=120, anneal_strategy="linear", three_phase=True, cycle_momentum=False
    ),
    "warm restarts": lambda o: CosineAnnealingWarmRestarts(o, 7, T_mult=3, eta_min=1e-3),
    "swa": lambda o: SWALR(o, swa_lr=0.05, anneal_epochs=20),
    "swa linear": lambda o: SWALR(o, swa_lr=0.7, anneal_epochs=33, anneal_strategy="linear"),
    "chain": lambda o: ChainedScheduler(
        [ConstantLR(o, factor=0.1, total_iters=20), ExponentialLR(o, 0.95), StepLR(o, 30)]
    ),
    "warmup and cosine": _warmup_cosine,
    "three parts": _three_parts,
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_an_adopted_scheduler_gives_torchs_rates(
    kind: str, optimizer: str, client: Client, unique_name: str
):
    """Learning rate and momentum agree with torch's to 1e-11 at every step of the schedule."""

    def make() -> Optimizer:
        return _sgd(momentum=0.9) if optimizer == "sgd" else _adam()

    ours, theirs = make(), make()
    reference = SCHEDULERS[kind](theirs)
    scheduler = RemoteLR.from_torch(SCHEDULERS[kind](ours), unique_name, client=client)
    for _ in range(100):
        assert _state(ours) == pytest.approx(_state(theirs), rel=1e-11, abs=1e-18)
        for each in (ours, theirs):
            each.step()
        scheduler.step()
        reference.step()


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_groups_keep_their_own_rates(kind: str, client: Client, unique_name: str):
    """Param groups with different bases become groups of the session."""
    ours, theirs = _sgd(0.1, 0.5, momentum=0.9), _sgd(0.1, 0.5, momentum=0.9)
    reference = SCHEDULERS[kind](theirs)
    scheduler = RemoteLR.from_torch(SCHEDULERS[kind](ours), unique_name, client=client)
    for _ in range(100):
        assert _state(ours) == pytest.approx(_state(theirs), rel=1e-11, abs=1e-18)
        for each in (ours, theirs):
            each.step()
        scheduler.step()
        reference.step()


def test_lists_of_rates_become_groups(client: Client, unique_name: str):
    """What torch takes per group, as max_lr, goes into each group's own schedule."""

    def make(optimizer: Optimizer) -> OneCycleLR:
        return OneCycleLR(optimizer, max_lr=[0.1, 0.7], total_steps=50, max_momentum=[0.9, 0.8])

    ours, theirs = _sgd(0.1, 0.1, momentum=0.5), _sgd(0.1, 0.1, momentum=0.5)
    reference = make(theirs)
    scheduler = RemoteLR.from_torch(make(ours), unique_name, client=client)
    assert scheduler.session.groups == ("group0", "group1")
    for _ in range(49):
        assert _state(ours) == pytest.approx(_state(theirs), rel=1e-11)
        theirs.step()
        scheduler.step()
        reference.step()


def test_named_groups_keep_their_names(client: Client, unique_name: str):
    """An operator sees `head`, not `group1`."""
    optimizer = _sgd(0.1, 0.5)
    for group, name in zip(optimizer.param_groups, ("body", "head"), strict=True):
        group["name"] = name
    scheduler = RemoteLR.from_torch(StepLR(optimizer, 5), unique_name, client=client)
    assert scheduler.session.groups == ("body", "head")


def test_a_name_that_the_server_would_refuse_is_made_to_fit(client: Client, unique_name: str):
    """Torch allows any text as a group's name; the session's is as near as the server allows."""
    optimizer = _sgd(0.1, 0.5)
    for group, name in zip(optimizer.param_groups, ("the body", "layer.1"), strict=True):
        group["name"] = name
    scheduler = RemoteLR.from_torch(StepLR(optimizer, 5), unique_name, client=client)
    assert scheduler.session.groups == ("the_body", "layer_1")
    assert scheduler.get_last_lr() == [0.1, 0.5]


def test_cosine_is_held_at_its_minimum(client: Client, unique_name: str):
    """Past T_max torch's rate rises again; the session's stays, as the documentation says."""
    optimizer = _sgd()
    scheduler = RemoteLR.from_torch(
        CosineAnnealingLR(optimizer, 10, eta_min=0.01), unique_name, client=client
    )
    for _ in range(15):
        scheduler.step()
    assert scheduler.get_last_lr() == [0.01]


def test_a_scheduler_in_the_middle_is_continued(client: Client, unique_name: str):
    """The session starts at the step that torch had reached."""
    ours, theirs = _sgd(), _sgd()
    old, reference = ExponentialLR(ours, 0.9), ExponentialLR(theirs, 0.9)
    for _ in range(30):
        for each in (ours, old, theirs, reference):
            each.step()
    scheduler = RemoteLR.from_torch(old, unique_name, client=client)
    assert scheduler.last_epoch == 30
    for _ in range(30):
        assert _state(ours) == pytest.approx(_state(theirs), rel=1e-11)
        ours.step()
        theirs.step()
        scheduler.step()
        reference.step()


def test_torchs_patch_of_the_optimizer_is_left_alone(client: Client, unique_name: str):
    """The counter that torch wrapped around `optimizer.step` stays, and the optimizer works."""
    optimizer = _sgd()
    old = StepLR(optimizer, 5)
    patched = optimizer.step
    scheduler = RemoteLR.from_torch(old, unique_name, client=client)
    assert optimizer.step is patched
    optimizer.step()
    scheduler.step()


def test_adopting_twice_opens_the_same_session(client: Client, unique_name: str):
    """A restarted script finds its session; a changed schedule is a conflict, not a mixture."""
    for _ in range(2):
        RemoteLR.from_torch(
            OneCycleLR(_sgd(momentum=0.9), 0.3, total_steps=77), unique_name, client=client
        )
    with pytest.raises(ConflictError):
        RemoteLR.from_torch(
            OneCycleLR(_sgd(momentum=0.9), 0.3, total_steps=78), unique_name, client=client
        )


@pytest.mark.parametrize("divisor", [25.0, 10.0, 3.0, 7.7, 1e4, 123.456])
@pytest.mark.parametrize("peak", [0.1, 0.3, 6e-4, 1.0 / 3])
def test_one_cycles_divisors_are_found_again(divisor: float, peak: float):
    """Torch keeps only quotients; the number that was typed is recovered from their bits."""
    optimizer = _sgd(momentum=0.9)
    scheduler = OneCycleLR(optimizer, peak, total_steps=97, div_factor=divisor, pct_start=0.23)
    schedule = convert(scheduler, optimizer.param_groups, "loss")["schedule"]
    assert schedule["div_factor"] == divisor
    assert schedule["final_div_factor"] == 1e4
    assert schedule["pct_start"] == 0.23


def test_plateau_is_torchs_to_the_bit(client: Client, unique_name: str):
    """An adopted ReduceLROnPlateau cuts at the same epochs to the same bits."""

    def make(optimizer: Optimizer) -> ReduceLROnPlateau:
        return ReduceLROnPlateau(
            optimizer, factor=0.3, patience=2, cooldown=1, threshold=0.05, min_lr=1e-3
        )

    ours, theirs = _sgd(0.1, 0.5), _sgd(0.1, 0.5)
    scheduler = RemoteLR.from_torch(make(ours), unique_name, client=client, metric="val_loss")
    reference = make(theirs)
    assert scheduler.session.info.metrics == ("val_loss",)
    generator = torch.Generator().manual_seed(3)
    for epoch in range(60):
        loss = float(torch.rand((), generator=generator)) + 10 / (epoch + 1)
        scheduler.step(loss)
        reference.step(loss)
        assert _state(ours) == _state(theirs)
    assert _state(ours)[0] < 0.1


class _Mine(StepLR):
    """A subclass may follow another law."""


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        pytest.param(lambda o: LambdaLR(o, lambda _: 1.0), "no data", id="LambdaLR"),
        pytest.param(
            lambda o: MultiplicativeLR(o, lambda _: 1.0), "no data", id="MultiplicativeLR"
        ),
        pytest.param(
            lambda o: CyclicLR(o, 0.1, 0.2, scale_fn=lambda _: 1.0, cycle_momentum=False),
            "use one of the modes",
            id="scale_fn",
        ),
        pytest.param(
            lambda o: ChainedScheduler([StepLR(o, 5), CosineAnnealingWarmRestarts(o, 5)]),
            "may undo it",
            id="a chain with what sets the rate",
        ),
        pytest.param(
            lambda o: SequentialLR(o, [StepLR(o, 5), SWALR(o, 0.1)], [9]),
            "goes on from the rate before it",
            id="swa in a sequence",
        ),
        pytest.param(lambda o: _Mine(o, 5), "not one of torch's own", id="a subclass"),
        pytest.param(
            lambda o: SequentialLR(
                o, [SequentialLR(o, [StepLR(o, 5), StepLR(o, 5)], [2]), StepLR(o, 5)], [9]
            ),
            "flat",
            id="nested sequences",
            marks=pytest.mark.filterwarnings("ignore:Detected call:UserWarning"),
        ),
    ],
)
def test_what_is_no_data_is_refused_with_advice(make: Make, advice: str):
    """Nothing is approximated silently, and no session is created."""
    optimizer = _sgd(0.1, 0.1)
    scheduler = make(optimizer)
    with pytest.raises(UnsupportedSchedulerError, match=advice):
        RemoteLR.from_torch(scheduler, "never", client=Client("http://127.0.0.1:9", retry_for=0))


def test_what_is_no_scheduler_is_refused_by_its_type(fake_client: Client):
    """For an optimizer, or None, in place of a scheduler, the error says what to pass."""
    optimizer: Any = _sgd()
    nothing: Any = None
    with pytest.raises(TypeError, match=r"SGD is an optimizer.*RemoteLR\.create\(optimizer, 'x'"):
        RemoteLR.from_torch(optimizer, "x", client=fake_client)
    with pytest.raises(TypeError, match="NoneType is not a scheduler"):
        RemoteLR.from_torch(nothing, "x", client=fake_client)
    with pytest.raises(TypeError, match="NoneType is not the name of a session"):
        RemoteLR.from_torch(StepLR(optimizer, 3), nothing, client=fake_client)
    with pytest.raises(TypeError, match="NoneType is not an Optimizer"):
        RemoteLR.create(nothing, "x", client=fake_client)


def test_a_plateau_in_the_middle_is_continued(client: Client, unique_name: str):
    """The session cuts when torch's would, though it has seen only the last of the bad epochs."""

    def stepped() -> tuple[Optimizer, ReduceLROnPlateau]:
        optimizer = _sgd(0.1, 0.5)
        scheduler = ReduceLROnPlateau(optimizer, patience=3, cooldown=2, min_lr=[0.001, 0.1])
        for value in (1.0, *[2.0] * 6):
            scheduler.step(value)
        return optimizer, scheduler

    (ours, old), (theirs, reference) = stepped(), stepped()
    scheduler = RemoteLR.from_torch(old, unique_name, client=client, metric="val_loss")
    assert scheduler.last_epoch == 7
    for _ in range(12):
        assert _state(ours) == _state(theirs)
        scheduler.step(2.0)
        reference.step(2.0)
    assert _state(ours)[0] < 0.01


def test_every_scheduler_of_torch_is_known_or_refused():
    """A scheduler that torch adds shows up here, to be decided on."""
    assert {*torch_schedulers.__all__, "SWALR"} == {*LAWS, "ReduceLROnPlateau", "LRScheduler"}


RESUMED: dict[str, Make] = {
    **SCHEDULERS,
    "plateau": lambda o: ReduceLROnPlateau(o, factor=0.5, patience=0),
}


def _trained(*rates: float) -> Adam:
    optimizer = _adam(*rates)
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(2)
    return optimizer


def _lived(scheduler: RemoteLR, steps: int) -> list[list[float]]:
    """Train for some steps whose loss rises; return what the optimizer held at each."""
    rows = []
    for at in range(steps):
        scheduler.optimizer.step()
        rows.append(_state(scheduler.optimizer))
        scheduler.step(float(at) if scheduler.session.info.metrics else None)
    return rows


@pytest.mark.parametrize("order", ["first", "before it is converted", "before the state", "last"])
@pytest.mark.parametrize("kind", RESUMED)
def test_a_loaded_optimizer_resumes_in_any_order(
    kind: str, order: str, client: Client, unique_name: str
):
    """Whenever the optimizer is loaded, a job that resumes has the uninterrupted job's rates."""
    ours = _trained(0.1, 0.5)
    scheduler = RemoteLR.from_torch(RESUMED[kind](ours), unique_name, client=client)
    _lived(scheduler, 8)
    saved, state = ours.state_dict(), scheduler.state_dict()
    uninterrupted = _lived(scheduler, 4)
    ours = _trained(0.1, 0.5)
    if order == "first":
        ours.load_state_dict(saved)
    theirs = RESUMED[kind](ours)
    if order == "before it is converted":
        ours.load_state_dict(saved)
    scheduler = RemoteLR.from_torch(theirs, unique_name, client=client)
    if order == "before the state":
        ours.load_state_dict(saved)
    scheduler.load_state_dict(state)
    if order == "last":
        ours.load_state_dict(saved)
    assert _lived(scheduler, 4) == uninterrupted


def test_a_second_scheduler_of_an_optimizer_goes_on_from_its_rate(client: Client, unique_name: str):
    """In the process that trained the optimizer, what it holds is no loaded rate."""
    ours = _trained(0.1)
    _lived(RemoteLR.from_torch(ExponentialLR(ours, 0.9), unique_name, client=client), 8)
    held = _state(ours)[0]
    second = RemoteLR.from_torch(StepLR(ours, 3, 0.5), f"{unique_name}-2", client=client)
    assert second.session.info.base_lr(None) == pytest.approx(held, rel=1e-12)


def test_a_rate_that_nobody_can_know_is_no_reason_to_branch_off(client: Client, unique_name: str):
    """If the rate fits no session, the error says to load the optimizer after from_torch."""
    client.create_session(unique_name, base_lr=0.1, schedule={"kind": "step", "step_size": 3})
    ours = _sgd()
    saved = ours.state_dict()
    saved["param_groups"][0].update(lr=0.025, initial_lr=0.2)
    ours.load_state_dict(saved)
    with pytest.raises(ConflictError, match="load the optimizer after from_torch"):
        RemoteLR.from_torch(StepLR(ours, 3), unique_name, client=client)


def test_a_chain_in_the_middle_is_continued():
    """ChainedScheduler has no counter of its own; its parts have."""
    optimizer = _sgd()
    chain = ChainedScheduler([StepLR(optimizer, 5), ExponentialLR(optimizer, 0.9)])
    for _ in range(3):
        optimizer.step()
        chain.step()
    assert convert(chain, optimizer.param_groups, "loss")["start_step"] == 3


def test_swa_is_taken_over_before_its_first_step():
    """Once it has moved, the rate that it started from is no longer known."""
    optimizer = _sgd()
    scheduler = SWALR(optimizer, 0.05)
    optimizer.step()
    scheduler.step()
    with pytest.raises(UnsupportedSchedulerError, match="before its first step"):
        convert(scheduler, optimizer.param_groups, "loss")


def test_the_description_is_plain_data():
    """Tensor rates and the like become JSON numbers."""
    parameter: dict[str, Any] = {"params": [_parameter()], "lr": torch.tensor(0.5)}
    optimizer = torch.optim.SGD([parameter])
    described = convert(StepLR(optimizer, 5), optimizer.param_groups, "loss")
    assert described == {
        "base_lr": 0.5,
        "schedule": {"kind": "step", "step_size": 5, "gamma": 0.1},
    }
