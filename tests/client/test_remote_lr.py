"""`RemoteLR` on real optimizers, against the real service."""

import copy
import io
import math
import pickle
from typing import Any

import httpx
import pytest
import torch
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from pacesetter import (
    Client,
    GroupError,
    InvalidAnswerError,
    LRMismatchError,
    ServerUnavailableError,
    StateMismatchError,
    UnsupportedSchedulerError,
)
from pacesetter.torch import RemoteLR, groups_of

COSINE = {"kind": "cosine", "total_steps": 100}


def _parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(2))


def _sgd(*rates: Any, **options: Any) -> torch.optim.SGD:
    groups = [{"params": [_parameter()], "lr": rate} for rate in rates or (0.1,)]
    return torch.optim.SGD(groups, lr=0.1, **options)


def _held(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def _step_for_long(scheduler: RemoteLR, then_write: float | None = None) -> None:
    """Take many steps, while another writer writes after each."""
    for _ in range(10_000):
        scheduler.step()
        if then_write is not None:
            scheduler.optimizer.param_groups[0]["lr"] = then_write


# -- stepping --


def test_every_step_is_the_servers(client: Client, unique_name: str):
    """The optimizer holds the sealed bits at each step, and torch's attributes follow."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    expected = client.forecast(unique_name, count=300, points=300)["series"]["lr"]
    optimizer = _sgd(123.0)
    scheduler = RemoteLR(optimizer, session)
    for step in range(300):
        assert _held(optimizer) == [expected[step]]
        assert scheduler.get_last_lr() == scheduler._last_lr == scheduler.get_lr()
        assert scheduler.get_last_lr() == [expected[step]]
        assert (scheduler.last_epoch, scheduler._step_count) == (step, step + 1)
        assert type(optimizer.param_groups[0]["lr"]) is float
        optimizer.step()
        scheduler.step()


def test_it_is_a_torch_scheduler_that_patches_nothing(client: Client, unique_name: str):
    """Trainers accept it by its type, and `optimizer.step` stays the class's own."""
    optimizer = _sgd()
    scheduler = RemoteLR(optimizer, client.create_session(unique_name, base_lr=0.5))
    assert isinstance(scheduler, LRScheduler)
    assert scheduler.optimizer is optimizer
    assert "step" not in vars(optimizer)
    assert optimizer.param_groups[0]["initial_lr"] == 0.5
    assert scheduler.base_lrs == [0.5]


def test_it_begins_at_the_sessions_first_step(client: Client, unique_name: str):
    """A session that takes over at step 40 starts there, not at 0."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1, start_step=40)
    optimizer = _sgd()
    scheduler = RemoteLR(optimizer, session)
    assert scheduler.last_epoch == 40
    assert _held(optimizer) == [session.lr(40)]


def test_one_rate_drives_all_groups_that_share_one(client: Client, unique_name: str):
    """An ungrouped session writes the same bits to each param group."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    optimizer = _sgd(0.1, 0.1, 0.1)
    scheduler = RemoteLR(optimizer, session)
    for step in range(1, 200):
        scheduler.step()
        assert _held(optimizer) == [session.lr(step)] * 3


def test_groups_have_rates_of_their_own(client: Client, unique_name: str):
    """Each param group follows its session group, matched by order."""
    optimizer = _sgd(0.1, 0.5)
    groups = groups_of(optimizer)
    session = client.create_session(unique_name, schedule=COSINE, groups=groups)
    scheduler = RemoteLR(optimizer, session)
    for step in range(200):
        assert _held(optimizer) == list(session.values(step).values())
        assert scheduler.get_last_lr() == _held(optimizer)
        scheduler.step()
    assert scheduler.base_lrs == [0.1, 0.5]


def test_param_groups_may_share_a_session_group(client: Client, unique_name: str):
    """`groups=` maps weights with and without decay to one rate."""
    groups = {"body": {"base_lr": 0.1}, "head": {"base_lr": 0.5}}
    session = client.create_session(unique_name, groups=groups)
    optimizer = _sgd(1.0, 1.0, 1.0)
    RemoteLR(optimizer, session, groups=["head", "body", "head"])
    assert _held(optimizer) == [0.5, 0.1, 0.5]


def test_differing_rates_without_groups_are_refused(client: Client, unique_name: str):
    """One rate would flatten the optimizer's own; the message says what to pass."""
    session = client.create_session(unique_name, base_lr=0.1)
    with pytest.raises(GroupError, match=r"groups=groups_of\(optimizer\)"):
        RemoteLR(_sgd(0.1, 0.5), session)


def test_arguments_in_the_wrong_place_are_refused(client: Client, unique_name: str):
    """A name or a model where an object belongs gets a plain message."""
    session: Any = client.create_session(unique_name, base_lr=0.1)
    name: Any = unique_name
    with pytest.raises(TypeError, match="pass the optimizer"):
        RemoteLR(session, session)
    with pytest.raises(TypeError, match=r"pass Client\(\)\.session"):
        RemoteLR(_sgd(), name)


# -- tensors, momentum, weight decay --


def test_a_tensor_rate_is_written_in_place(client: Client, unique_name: str):
    """Compiled optimizers keep their tensor: the object stays, its value changes."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    rate = torch.tensor(0.7)
    optimizer = torch.optim.Adam([_parameter()], lr=rate)
    scheduler = RemoteLR(optimizer, session)
    for step in range(1, 150):
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] is rate
        assert float(rate) == float(torch.tensor(session.lr(step)))
    assert type(scheduler.get_last_lr()[0]) is float


def test_tensor_and_float_rates_may_stand_side_by_side(client: Client, unique_name: str):
    """Each group keeps its kind."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    optimizer = _sgd(torch.tensor(0.5), 0.5)
    scheduler = RemoteLR(optimizer, session)
    for _ in range(149):
        scheduler.step()
    tensor, number = (group["lr"] for group in optimizer.param_groups)
    assert isinstance(tensor, torch.Tensor)
    assert number == session.lr(149)


ONE_CYCLE = {"kind": "one_cycle", "max_lr": 0.1, "total_steps": 50, "cycle_momentum": True}


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_momentum_goes_where_the_optimizer_has_it(kind: str, client: Client, unique_name: str):
    """SGD's `momentum` and Adam's first beta follow the session, step by step as torch would."""

    def make() -> torch.optim.Optimizer:
        if kind == "sgd":
            return torch.optim.SGD([_parameter()], lr=0.1, momentum=0.9)
        return torch.optim.Adam([_parameter()], lr=0.1, betas=(0.9, 0.99))

    def momentum(optimizer: torch.optim.Optimizer) -> float:
        group = optimizer.param_groups[0]
        return float(group["momentum"] if kind == "sgd" else group["betas"][0])

    ours, theirs = make(), make()
    scheduler = RemoteLR(ours, client.create_session(unique_name, schedule=ONE_CYCLE, base_lr=0.1))
    reference = OneCycleLR(theirs, max_lr=0.1, total_steps=50)
    for _ in range(49):
        assert momentum(ours) == pytest.approx(momentum(theirs), rel=1e-12)
        assert _held(ours) == pytest.approx(_held(theirs), rel=1e-12)
        for each in (theirs, ours):
            each.step()
        scheduler.step()
        reference.step()
    if kind == "adam":
        assert ours.param_groups[0]["betas"][1] == 0.99


def test_momentum_for_an_optimizer_without_any_is_refused(client: Client, unique_name: str):
    """A schedule that cannot be obeyed is not half obeyed."""
    session = client.create_session(unique_name, schedule=ONE_CYCLE, base_lr=0.1)
    with pytest.raises(GroupError, match="neither momentum nor betas"):
        RemoteLR(torch.optim.Adagrad([_parameter()]), session)


def test_weight_decay_is_written_too(fake: Any):
    """A session that drives weight decay drives the optimizer's."""
    fake.series = ("lr", "weight_decay")
    with Client("http://fake", transport=httpx.MockTransport(fake)) as client:
        optimizer = _sgd(weight_decay=0.1)
        scheduler = RemoteLR(optimizer, client.session("fake"))
        assert optimizer.param_groups[0]["weight_decay"] == 0.5
        optimizer.param_groups[0]["weight_decay"] = 7.0
        scheduler.step()
        assert optimizer.param_groups[0]["weight_decay"] == 0.5
        del optimizer.param_groups[0]["weight_decay"]
        with pytest.raises(GroupError, match="weight_decay"):
            RemoteLR(optimizer, client.session("fake"))


# -- the plateau loop --

LOSSES = [3.0, 2.0, 2.0, 2.0, 2.1, math.nan, 1.9, 1.9, math.inf, 1.9, 1.9, 1.9, 0.5, 0.6, 0.6, 0.6]


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 1, "factor": 0.3},
        {"patience": 0, "factor": 0.1, "cooldown": 2, "min_lr": 1e-4},
        {"patience": 2, "threshold_mode": "abs", "threshold": 0.15, "mode": "max"},
        {"patience": 0, "factor": 0.5, "eps": 0.02},
    ],
)
@pytest.mark.parametrize("tensors", [False, True])
def test_the_plateau_loop_is_torchs_to_the_bit(
    options: dict[str, Any], tensors: bool, client: Client, unique_name: str
):
    """`step(val_loss)` in place of ReduceLROnPlateau's gives the same bits at every epoch."""
    controller = {"kind": "torch.ReduceLROnPlateau", "metric": "val_loss", **options}
    session = client.create_session(unique_name, base_lr=0.1, controllers=[controller])
    ours, theirs = _sgd(), _sgd()
    scheduler, reference = RemoteLR(ours, session), ReduceLROnPlateau(theirs, **options)
    changes = 0
    for loss in LOSSES * 2:
        value = torch.tensor(loss, dtype=torch.float64) if tensors else loss
        before = _held(ours)
        scheduler.step(value)
        reference.step(value)
        changes += before != _held(ours)
        assert _held(ours) == _held(theirs)
        assert scheduler.get_last_lr() == reference.get_last_lr()
    assert changes > 0


def test_a_metric_may_be_given_by_torchs_name(client: Client, unique_name: str):
    """`step(metrics=...)` and an explicit `metric=` work without a controller."""
    session = client.create_session(unique_name, base_lr=0.1)
    scheduler = RemoteLR(_sgd(), session, metric="loss")
    scheduler.step(metrics=0.5)
    assert session._core.sync.reports.entries == [(0, {"loss": 0.5})]
    session.flush()


def test_a_metric_without_a_name_is_refused(client: Client, unique_name: str):
    """`step(epoch)`, torch's deprecated form, is not taken for a measurement."""
    scheduler = RemoteLR(_sgd(), client.create_session(unique_name, base_lr=0.1))
    with pytest.raises(TypeError, match="an epoch is not accepted"):
        scheduler.step(3)
    assert scheduler.last_epoch == 0


# -- other writers --


def test_a_second_writer_is_found_out(client: Client, unique_name: str):
    """Two schedulers on one optimizer raise at a window's edge, naming both values."""
    optimizer = _sgd()
    scheduler = RemoteLR(
        optimizer, client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    )
    with pytest.raises(LRMismatchError, match=r"param group 0 has the learning rate 7\.0"):
        _step_for_long(scheduler, then_write=7.0)


def test_a_second_writer_may_be_tolerated(client: Client, unique_name: str):
    """With `verify=False` the session's value simply wins at each step."""
    optimizer = _sgd()
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    scheduler = RemoteLR(optimizer, session, verify=False)
    for step in range(1, 200):
        optimizer.param_groups[0]["lr"] = 7.0
        scheduler.step()
        assert _held(optimizer) == [session.lr(step)]


def test_a_second_writer_into_a_tensor_is_found_out(client: Client, unique_name: str):
    """Rounding to float32 is no mismatch; another value is."""
    optimizer = _sgd(torch.tensor(0.1))
    scheduler = RemoteLR(
        optimizer, client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    )
    for _ in range(200):
        scheduler.step()
    optimizer.param_groups[0]["lr"].fill_(7.0)
    with pytest.raises(LRMismatchError):
        scheduler._turn(scheduler._index + 1)


# -- faults --


def test_a_failed_step_changes_nothing_and_may_be_repeated(fake_client: Client, fake: Any):
    """Neither position nor optimizer moves when the values are unavailable."""
    optimizer = _sgd()
    scheduler = RemoteLR(optimizer, fake_client.session("fake"))
    for failure, error in (
        (lambda _: httpx.Response(503), ServerUnavailableError),
        (None, InvalidAnswerError),
    ):
        fake.fail = failure
        fake.spoil = lambda header, block: (header, block + b"\0")
        with pytest.raises(error):
            scheduler.step()
        assert (scheduler.last_epoch, _held(optimizer)) == (0, [0.5])
    fake.spoil = None
    scheduler.step()
    assert scheduler.last_epoch == 1


# -- checkpoints and copies --


def _through_torch(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("scheduler_first", [True, False])
def test_a_resumed_training_has_the_same_rates(
    scheduler_first: bool, client: Client, unique_name: str
):
    """Saved at step 37 and loaded in either order, the rest of the run is bit for bit the same."""
    session = client.create_session(unique_name, schedule=COSINE, groups=groups_of(_sgd(0.1, 0.5)))
    optimizer = _sgd(0.1, 0.5)
    scheduler = RemoteLR(optimizer, session)
    for _ in range(37):
        optimizer.step()
        scheduler.step()
    saved = _through_torch({"opt": optimizer.state_dict(), "lr": scheduler.state_dict()})
    rest = []
    for _ in range(60):
        rest.append(_held(optimizer))
        scheduler.step()

    resumed = _sgd(0.1, 0.5)
    follower = RemoteLR(resumed, client.session(unique_name))
    loads = [(follower, "lr"), (resumed, "opt")]
    for target, key in loads if scheduler_first else reversed(loads):
        target.load_state_dict(saved[key])
    assert (follower.last_epoch, follower._step_count) == (37, 38)
    again = []
    for _ in range(60):
        again.append(_held(resumed))
        resumed.step()
        follower.step()
    assert again == rest


def test_the_schedulers_state_alone_restores_the_optimizers_rate(client: Client, unique_name: str):
    """Unlike torch's, loading writes the checkpoint's rate to the optimizer."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    scheduler = RemoteLR(_sgd(), session)
    for _ in range(37):
        scheduler.step()
    optimizer = _sgd(9.0)
    RemoteLR(optimizer, session).load_state_dict(scheduler.state_dict())
    assert _held(optimizer) == scheduler.get_last_lr() == [session.lr(37)]


def test_the_state_is_plain(client: Client, unique_name: str):
    """It has only strings and numbers, and only what a resume and torch's users need."""
    scheduler = RemoteLR(_sgd(), client.create_session(unique_name, base_lr=0.1))
    state = scheduler.state_dict()
    assert state.pop("_last_lr") == [0.1]
    assert {type(value) for value in state.values()} == {str, int}
    assert (state["session"], state["last_epoch"]) == (unique_name, 0)


def test_a_checkpoint_of_another_session_is_refused(client: Client, unique_name: str):
    """A mixed-up checkpoint does not silently move the run to a foreign step."""
    scheduler = RemoteLR(_sgd(), client.create_session(unique_name, base_lr=0.1))
    with pytest.raises(StateMismatchError, match="belongs to session other"):
        scheduler.load_state_dict({**scheduler.state_dict(), "session": "other"})
    with pytest.raises(StateMismatchError, match="last_epoch=None"):
        scheduler.load_state_dict({})


def test_a_torch_schedulers_checkpoint_gives_its_step(client: Client, unique_name: str):
    """A run can move to a session in the middle: torch's state says where it was."""
    theirs = _sgd()
    reference = StepLR(theirs, 10)
    for _ in range(25):
        theirs.step()
        reference.step()
    schedule = {"kind": "step", "step_size": 10}
    session = client.create_session(unique_name, schedule=schedule, base_lr=0.1)
    ours = _sgd()
    scheduler = RemoteLR(ours, session)
    scheduler.load_state_dict(reference.state_dict())
    assert scheduler.last_epoch == 25
    assert _held(ours) == pytest.approx(_held(theirs), rel=1e-12)


def test_loading_optimizer_state_in_the_middle_is_noticed(client: Client, unique_name: str):
    """The replaced list of param groups is the one written to, tensors included."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    optimizer = _sgd()
    scheduler = RemoteLR(optimizer, session)
    for _ in range(20):
        scheduler.step()
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = torch.tensor(5.0)
    optimizer.load_state_dict(state)
    scheduler.step()
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor)
    assert float(optimizer.param_groups[0]["lr"]) == float(torch.tensor(session.lr(21)))


def test_a_deep_copy_drives_its_own_optimizer(client: Client, unique_name: str):
    """A copied trainer follows the same session at its own position."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    optimizer = _sgd()
    scheduler = RemoteLR(optimizer, session)
    for _ in range(5):
        scheduler.step()
    both = copy.deepcopy({"optimizer": optimizer, "scheduler": scheduler})
    twin, twins = both["scheduler"], both["optimizer"]
    assert twin.optimizer is twins
    assert twin.session is session
    assert twin.get_last_lr() == [session.lr(5)]
    twin.step()
    assert (twin.last_epoch, scheduler.last_epoch) == (6, 5)
    assert (_held(twins), _held(optimizer)) == ([session.lr(6)], [session.lr(5)])


def test_it_can_be_pickled(client: Client, unique_name: str):
    """A pickled scheduler carries its position and no socket."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    scheduler = RemoteLR(_sgd(), session)
    for _ in range(5):
        scheduler.step()
    twin = pickle.loads(pickle.dumps(scheduler))
    twin.step()
    assert twin.last_epoch == 6
    assert _held(twin.optimizer) == [session.lr(6)]
    twin.session.close()


# -- habits from other libraries --


def test_the_position_may_be_set_as_with_torch(client: Client, unique_name: str):
    """`scheduler.last_epoch = n` moves it; the next step writes n + 1."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    optimizer = _sgd()
    scheduler = RemoteLR(optimizer, session)
    scheduler.last_epoch = 20
    assert scheduler.get_last_lr() == [session.lr(20)]
    scheduler.step()
    assert (scheduler.last_epoch, _held(optimizer)) == (21, [session.lr(21)])


def test_accelerates_step_count_is_its_own(client: Client, unique_name: str):
    """Accelerate counts skipped steps in `_step_count`; the position is not touched."""
    scheduler = RemoteLR(_sgd(), client.create_session(unique_name, base_lr=0.1))
    scheduler._step_count += 1
    assert (scheduler.last_epoch, scheduler._step_count) == (0, 2)
    scheduler.step()
    assert (scheduler.last_epoch, scheduler._step_count) == (1, 3)


def test_it_is_no_part_of_a_sequence(client: Client, unique_name: str):
    """SequentialLR would rewind it; the advice names the schedule kind instead."""
    optimizer = _sgd()
    scheduler = RemoteLR(optimizer, client.create_session(unique_name, base_lr=0.1))
    with pytest.raises(UnsupportedSchedulerError, match="sequence"):
        SequentialLR(optimizer, [scheduler, StepLR(optimizer, 5)], [3])


def test_it_may_be_stepped_by_a_chain(client: Client, unique_name: str):
    """ChainedScheduler only calls `step`, which works."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    optimizer = _sgd()
    chain = ChainedScheduler([RemoteLR(optimizer, session)])
    chain.step()
    assert chain.get_last_lr() == [session.lr(1)]
