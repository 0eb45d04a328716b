"""What an optimizer brings along: rates, decay, tensors, a loaded state, other writers."""

import copy
import io
import itertools
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import torch
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR

from pacesetter import Client, GroupError, LRMismatchError, Session
from pacesetter._channels import left_alone, said_of
from pacesetter._groups import groups_of
from pacesetter._torch.tensors import refuse_shared
from pacesetter.torch import RemoteLR

COSINE = {"kind": "cosine", "total_steps": 500}
DECAYS = {
    "kind": "channels",
    "laws": {"lr": COSINE, "weight_decay": {"kind": "ramp", "start": 0.0, "end": 0.1, "steps": 50}},
}
MEGATRON = {
    "kind": "megatron.OptimizerParamScheduler",
    "max_lr": 0.1,
    "min_lr": 0.01,
    "lr_warmup_steps": 0,
    "lr_decay_steps": 50,
    "lr_decay_style": "linear",
    "wd_incr_steps": 50,
    "wd_incr_style": "linear",
    "start_wd": 0.01,
    "end_wd": 0.1,
}


def parameter() -> torch.nn.Parameter:
    """Return a weight with a gradient."""
    made = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    made.grad = torch.ones_like(made)
    return made


def sgd(*groups: dict[str, Any], **options: Any) -> torch.optim.SGD:
    """Return an optimizer with these param groups."""
    made = [{"params": [parameter()], **group} for group in groups or ({},)]
    return torch.optim.SGD(made, **{"lr": 0.1, **options})


def held(optimizer: torch.optim.Optimizer, key: str = "lr") -> list[float]:
    """Return what each param group of an optimizer holds."""
    return [float(group[key]) for group in optimizer.param_groups]


def train(scheduler: RemoteLR, steps: int) -> None:
    """Train for some steps."""
    for _ in range(steps):
        scheduler.optimizer.step()
        scheduler.step()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that were logged."""
    return [each.message for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.fixture(name="session")
def _session(client: Client, unique_name: str) -> Session:
    return client.create_session(unique_name, schedule=COSINE, base_lr=0.1)


# -- weight decay and momentum --


@pytest.mark.parametrize("schedule", [DECAYS, MEGATRON], ids=["channels", "megatron"])
@pytest.mark.parametrize("grouped", [False, True])
def test_biases_stay_without_weight_decay(
    grouped: bool,
    schedule: dict[str, Any],
    client: Client,
    unique_name: str,
    caplog: pytest.LogCaptureFixture,
):
    """A param group that has none keeps none, in a session with groups as in one without."""
    caplog.set_level(logging.INFO, "pacesetter")
    optimizer = sgd({"weight_decay": 0.01}, {"weight_decay": 0.0})
    bases = {"groups": groups_of(optimizer)} if grouped else {"base_lr": 0.1}
    session = client.create_session(unique_name, schedule=schedule, **bases)
    scheduler = RemoteLR(optimizer, session)
    name = "group0.weight_decay" if grouped else "weight_decay"
    for step in range(60):
        values = session.values(step)
        assert held(optimizer, "weight_decay") == [values[name], 0.0]
        train(scheduler, 1)
    said = [each.message for each in caplog.records if "weight_decay" in each.message]
    assert len(said) == 1
    assert "weight_decay (param group 1)" in said[0]


@pytest.mark.parametrize("saved_at", [0, 20])
@pytest.mark.parametrize("first", ["load", "build"])
def test_they_stay_so_in_a_resumed_training(
    first: str, saved_at: int, client: Client, unique_name: str
):
    """This holds even for the state of a step at which the schedule had 0 for all groups."""
    first_life = client.create_session(unique_name, schedule=DECAYS, base_lr=0.1)
    optimizer = sgd({"weight_decay": 0.01}, {"weight_decay": 0.0})
    scheduler = RemoteLR(optimizer, first_life)
    train(scheduler, saved_at)
    assert (held(optimizer, "weight_decay")[0] == 0.0) == (saved_at == 0)
    states, state = optimizer.state_dict(), scheduler.state_dict()
    resumed = sgd({"weight_decay": 0.01}, {"weight_decay": 0.0})
    if first == "load":
        resumed.load_state_dict(states)
    session = client.session(unique_name)
    scheduler = RemoteLR(resumed, session)
    if first == "build":
        resumed.load_state_dict(states)
    scheduler.load_state_dict(state)
    train(scheduler, 10)
    expected = session.values(saved_at + 10)["weight_decay"]
    assert held(resumed, "weight_decay") == [expected, 0.0]


def test_differing_weight_decay_is_refused(client: Client, unique_name: str):
    """One law would make them equal; the message says what to write instead."""
    optimizer = sgd({"weight_decay": 0.01}, {"weight_decay": 0.1}, {"weight_decay": 0.0})
    session = client.create_session(unique_name, schedule=DECAYS, base_lr=0.1)
    with pytest.raises(GroupError, match=r"weight_decay 0\.01, 0\.1.*groups_of\(optimizer\)"):
        RemoteLR(optimizer, session)
    assert held(optimizer, "weight_decay") == [0.01, 0.1, 0.0]
    own = {"schedule": DECAYS}
    groups = {name: {**group, **own} for name, group in groups_of(optimizer).items()}
    session = client.create_session(f"{unique_name}-own", groups=groups)
    scheduler = RemoteLR(optimizer, session)
    train(scheduler, 50)
    assert held(optimizer, "weight_decay") == [0.1] * 3  # each by its own law


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_differing_momentum_is_refused(kind: str, client: Client, unique_name: str):
    """SGD's momentum and Adam's first beta are treated as weight decay is; 0 stays 0."""

    def make(*momenta: float) -> torch.optim.Optimizer:
        if kind == "sgd":
            return sgd(*({"momentum": each} for each in momenta))
        groups = [{"params": [parameter()], "betas": (each, 0.9)} for each in momenta]
        return torch.optim.Adam(groups, lr=0.1)

    def momenta(optimizer: torch.optim.Optimizer) -> list[float]:
        found = optimizer.param_groups
        return [each["momentum"] if kind == "sgd" else each["betas"][0] for each in found]

    law = {"kind": "one_cycle", "max_lr": 0.1, "total_steps": 50, "cycle_momentum": True}
    session = client.create_session(unique_name, schedule=law, base_lr=0.1)
    with pytest.raises(GroupError, match=r"momentum 0\.8, 0\.9"):
        RemoteLR(make(0.9, 0.8), session)
    optimizer = make(0.9, 0.0)
    train(RemoteLR(optimizer, session), 20)
    assert momenta(optimizer) == [session.values(20)["momentum"], 0.0]


def test_where_all_have_none_the_session_decides(client: Client, unique_name: str):
    """An optimizer's default of 0 in all groups is not a choice."""
    optimizer = sgd({}, {})
    session = client.create_session(unique_name, schedule=DECAYS, base_lr=0.1)
    train(RemoteLR(optimizer, session), 25)
    assert held(optimizer, "weight_decay") == [session.values(25)["weight_decay"]] * 2


@pytest.mark.parametrize(
    ("decay", "expected"), [(0.0, 0.0), (0.01, None), (0.3, 0.3)], ids=["none", "same", "other"]
)
def test_a_group_that_joins_keeps_what_is_unlike(
    decay: float, expected: float | None, client: Client, unique_name: str
):
    """It does not stop a running training: a value that differs stays as it is."""
    groups = {"head": {"base_lr": 0.1}, "body": {"base_lr": 0.01}}
    session = client.create_session(unique_name, schedule=DECAYS, groups=groups)
    optimizer = sgd({"name": "head", "weight_decay": 0.01})
    scheduler = RemoteLR(optimizer, session)
    train(scheduler, 5)
    added = {"params": [parameter()], "name": "body", "weight_decay": decay}
    optimizer.add_param_group(added)
    train(scheduler, 5)
    driven = session.values(10)["body.weight_decay"]
    assert held(optimizer, "weight_decay")[1] == (driven if expected is None else expected)
    assert held(optimizer) == [session.lr(10, "head"), session.lr(10, "body")]


def test_a_law_is_of_those_that_it_drives():
    """Groups with separate schedules are compared only within each."""
    groups = [{"weight_decay": value} for value in (0.1, 0.2, 0.0, 0.0)]
    series = ("a.lr", "a.weight_decay", "b.lr", "b.weight_decay")
    none = frozenset[str]()
    kept = frozenset({"weight_decay"})
    assert left_alone(groups, ("a", "b", "a", None), series, {"a", "b"}) == (none, none, kept, none)
    assert left_alone(groups[1:], ("b", "a", "a"), series, {"b"}) == (none, none, none)
    assert said_of((none, kept, kept)) == "their weight_decay (param group 1, 2)"
    assert left_alone(groups, ("", "", "", ""), ("lr",), ()) == (none,) * 4


# -- tensors --


def test_a_tensor_that_groups_share_is_refused(client: Client, unique_name: str):
    """A write to one would change all; the message says how to give each its own."""
    optimizer = sgd({}, {}, lr=torch.tensor(0.1, dtype=torch.float64))
    session = client.create_session(unique_name, schedule=COSINE, groups=groups_of(optimizer))
    with pytest.raises(GroupError, match=r"param groups 0 and 1 share one tensor.*clone\(\)"):
        RemoteLR(optimizer, session)
    for group in optimizer.param_groups:
        group["lr"] = group["lr"].clone()
    RemoteLR(optimizer, session)


def test_a_tensor_that_one_law_writes_may_be_shared(session: Session):
    """It stays the same object, which a compiled or captured optimizer reads."""
    rate = torch.tensor(0.1, dtype=torch.float64)
    optimizer = sgd({}, {}, lr=rate)
    train(RemoteLR(optimizer, session), 20)
    assert all(group["lr"] is rate for group in optimizer.param_groups)
    assert held(optimizer) == [session.lr(20)] * 2


def test_views_of_one_storage_are_tensors_of_their_own(client: Client, unique_name: str):
    """Adjacent views are not shared; two views of the same place are."""
    rates = torch.tensor([0.1, 0.5], dtype=torch.float64)
    groups = {"group0": {"base_lr": 0.1}, "group1": {"base_lr": 0.5}}
    session = client.create_session(unique_name, schedule=COSINE, groups=groups)
    optimizer = sgd({"lr": rates[0]}, {"lr": rates[1]})
    train(RemoteLR(optimizer, session), 20)
    assert held(optimizer) == list(session.values(20).values())
    with pytest.raises(GroupError, match="share one tensor"):
        RemoteLR(sgd({"lr": rates[0]}, {"lr": rates[0]}), session)


def test_what_has_no_storage_is_told_apart_by_the_object():
    """Tensors of the meta device have no address: two are two, and one in two places is shared."""
    one, other = (torch.tensor(0.1, device="meta") for _ in range(2))
    refuse_shared([{"lr": one}, {"lr": other}], ("a", "b"), ("lr",))
    with pytest.raises(GroupError, match="share one tensor as lr"):
        refuse_shared([{"lr": one}, {"lr": one}], ("a", "b"), ("lr",))


def test_a_tensor_that_optimizers_share_is_refused(session: Session, client: Client):
    """Two schedulers would write it by turns, a step apart."""
    rate = torch.tensor(0.1)
    first, second = sgd(lr=rate), sgd(lr=rate)
    scheduler = RemoteLR(first, session)
    with pytest.raises(GroupError, match=r"another optimizer \(SGD\) holds too"):
        RemoteLR(second, client.create_session(f"{session.name}-2", base_lr=0.1))
    RemoteLR(first, session)
    assert scheduler.optimizer is first


@pytest.mark.parametrize("driven", [True, False])
def test_a_group_that_joins_gets_a_tensor_of_its_own(
    driven: bool, client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """The optimizer's default is the tensor of the others, and would be written with theirs."""
    groups = {"head": {"base_lr": 0.1}, "body": {"base_lr": 0.01}}
    session = client.create_session(unique_name, schedule=COSINE, groups=groups)
    optimizer = sgd({"name": "head"}, lr=torch.tensor(0.1, dtype=torch.float64))
    scheduler = RemoteLR(optimizer, session)
    rate = optimizer.param_groups[0]["lr"]
    train(scheduler, 5)
    before = held(optimizer)[0]
    optimizer.add_param_group({"params": [parameter()], "name": "body" if driven else "tail"})
    train(scheduler, 10)
    assert optimizer.param_groups[0]["lr"] is rate
    assert held(optimizer)[0] == session.lr(15, "head")
    assert held(optimizer)[1] == (session.lr(15, "body") if driven else before)
    assert any("has one of its own now" in each for each in warnings_of(caplog))


def test_a_loaded_state_does_not_share(client: Client, unique_name: str):
    """Checkpoints keep the sharing of tensors; after loading, each group is written separately."""
    states = sgd({}, {}, lr=torch.tensor(0.1, dtype=torch.float64)).state_dict()
    groups = {"group0": {"base_lr": 0.1}, "group1": {"base_lr": 0.5}}
    session = client.create_session(unique_name, schedule=COSINE, groups=groups)
    optimizer = sgd({"lr": 0.1}, {"lr": 0.5})
    scheduler = RemoteLR(optimizer, session)
    optimizer.load_state_dict(states)
    assert held(optimizer) == list(session.values(0).values())
    train(scheduler, 10)
    assert held(optimizer) == list(session.values(10).values())


def test_betas_in_a_tensor_are_not_shared_either(client: Client, unique_name: str):
    """Adam's default betas are one tuple, so all groups hold its tensors."""
    law = {"kind": "one_cycle", "max_lr": 0.1, "total_steps": 50, "cycle_momentum": True}
    groups = {"a": {"base_lr": 0.1}, "b": {"base_lr": 0.1}}
    session = client.create_session(unique_name, schedule=law, groups=groups)
    betas = (torch.tensor(0.9), torch.tensor(0.99))
    made = [{"params": [parameter()]}, {"params": [parameter()]}]
    optimizer = torch.optim.Adam(made, lr=0.1, betas=betas, capturable=False, foreach=False)
    with pytest.raises(GroupError, match="share one tensor as betas"):
        RemoteLR(optimizer, session)


# -- the optimizer's own rate --


def test_a_rate_that_is_overwritten_is_told(session: Session, caplog: pytest.LogCaptureFixture):
    """It is logged once, with both rates and the way to use the optimizer's."""
    scheduler = RemoteLR(sgd(lr=3e-4), session)
    train(scheduler, 20)
    said = warnings_of(caplog)
    assert len(said) == 1
    assert "0.0003 (param group 0: 0.1 in the session)" in said[0]
    assert 'base_lr="optimizer"' in said[0]


def test_of_many_that_are_overwritten_some_are_named(
    client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """An optimizer of a hundred param groups makes one line, not a hundred."""
    optimizer = sgd(*({"lr": 1.0 + at} for at in range(100)))
    groups = {f"group{at}": {"base_lr": 0.1} for at in range(100)}
    RemoteLR(optimizer, client.create_session(unique_name, groups=groups))
    [said] = warnings_of(caplog)
    assert "4.0 (param group 3: 0.1 in the session), 96 more, and" in said


@pytest.mark.parametrize("case", ["the base", "float32", "scheduled before", "the present value"])
def test_a_rate_that_the_session_has_is_not_told(
    case: str, client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """It may equal any of the session's numbers."""
    if case == "the present value":
        warm = {"kind": "warmup", "steps": 10, "start_factor": 0.1, "schedule": COSINE}
        session = client.create_session(unique_name, schedule=warm, base_lr=0.1)
        optimizer = sgd(lr=session.lr(0))
    else:
        session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
        optimizer = sgd(lr=torch.tensor(0.1) if case == "float32" else 0.1)
    if case == "scheduled before":
        decayed = ExponentialLR(optimizer, 0.5)
        optimizer.step()
        decayed.step()
    RemoteLR(optimizer, session)
    assert not warnings_of(caplog)


@pytest.mark.parametrize("first", ["load", "build"])
def test_a_resumed_training_is_told_nothing(
    first: str, session: Session, client: Client, caplog: pytest.LogCaptureFixture
):
    """A loaded optimizer holds a decayed rate, and remembers the one that it was made with."""
    scheduler = RemoteLR(sgd(), session)
    train(scheduler, 50)
    states, state = scheduler.optimizer.state_dict(), scheduler.state_dict()
    optimizer = sgd()
    if first == "load":
        optimizer.load_state_dict(states)
    resumed = RemoteLR(optimizer, client.session(session.name))
    if first == "build":
        optimizer.load_state_dict(states)
    resumed.load_state_dict(state)
    assert not warnings_of(caplog)


def test_from_torch_is_told_nothing(
    client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """The session's base is made of the optimizer's, whatever number that is."""
    optimizer = sgd(momentum=0.9)
    RemoteLR.from_torch(
        OneCycleLR(optimizer, max_lr=0.4, total_steps=50), unique_name, client=client
    )
    assert not warnings_of(caplog)


@pytest.mark.parametrize("scheduled", [False, True])
def test_the_base_may_be_the_optimizers(
    scheduled: bool, client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """`create` makes the session from it, or from `initial_lr` if a schedule has changed it."""
    optimizer = sgd(lr=3e-4)
    if scheduled:
        decayed = ExponentialLR(optimizer, 0.5)
        optimizer.step()
        decayed.step()
    scheduler = RemoteLR.create(optimizer, unique_name, client=client, schedule=COSINE)
    assert scheduler.session.info.spec["base_lr"] == 3e-4
    train(scheduler, 5)
    assert held(optimizer) == [scheduler.session.lr(5)]
    assert not warnings_of(caplog)


def test_the_bases_of_groups_may_be_the_optimizers(client: Client, unique_name: str):
    """They are taken by name if groups are described, else of all that differ; numbers work too."""
    optimizer = sgd({"name": "head", "lr": 0.5}, {"name": "body", "lr": 0.01})
    plain = RemoteLR.create(optimizer, unique_name, client=client, base_lr="optimizer")
    assert [plain.session.info.base_lr(name) for name in ("head", "body")] == [0.5, 0.01]
    described = RemoteLR.create(
        optimizer,
        f"{unique_name}-described",
        client=client,
        groups={"head": {"schedule": COSINE}, "body": {}, "tail": {"base_lr": 0.1}},
    )
    info = described.session.info
    assert [info.base_lr(name) for name in ("head", "body", "tail")] == [0.5, 0.01, 0.1]
    with pytest.raises(GroupError, match="'tail'"):
        RemoteLR.create(optimizer, f"{unique_name}-2", client=client, groups={"tail": {}})
    number = RemoteLR.create(sgd(), f"{unique_name}-3", client=client, base_lr=0.7)
    assert held(number.optimizer) == [0.7]


def test_a_session_alone_cannot_see_the_optimizer(client: Client, unique_name: str):
    """`base_lr="optimizer"` in `Client.session` is refused, with where to write it."""
    unseen: Any = "optimizer"
    with pytest.raises(TypeError, match=r"RemoteLR\.create\(optimizer"):
        client.session(unique_name, base_lr=unseen)


# -- the order of loading --

ORDERS = list(itertools.permutations(["optimizer", "build", "scheduler"]))
ORDERS = [order for order in ORDERS if order.index("build") < order.index("scheduler")]


def float_rate() -> torch.optim.Optimizer:
    """Return an optimizer whose rate is a number."""
    return sgd(momentum=0.9)


def tensor_rate() -> torch.optim.Optimizer:
    """Return an optimizer whose rate is a tensor."""
    return torch.optim.Adam([parameter()], lr=torch.tensor(0.1, dtype=torch.float64))


@pytest.mark.parametrize("make", [float_rate, tensor_rate])
@pytest.mark.parametrize("order", ORDERS, ids=",".join)
@pytest.mark.parametrize("saved_at", [0, 1, 30])
def test_every_order_of_loading_ends_with_the_sealed_value(
    saved_at: int,
    order: tuple[str, ...],
    make: Callable[[], torch.optim.Optimizer],
    session: Session,
    client: Client,
):
    """At the next update the optimizer holds it, and the record says so."""
    scheduler = RemoteLR(make(), session)
    train(scheduler, saved_at)
    file = io.BytesIO()
    states = copy.deepcopy(scheduler.optimizer.state_dict())
    states["param_groups"][0]["lr"] = 7.0  # whatever another program has made of it
    torch.save({"optimizer": states, "scheduler": scheduler.state_dict()}, file)
    train(scheduler, 20)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    optimizer, resumed = make(), None
    for what in order:
        if what == "build":
            resumed = RemoteLR(optimizer, client.session(session.name))
        elif what == "optimizer":
            optimizer.load_state_dict(saved["optimizer"])
        else:
            assert resumed is not None
            resumed.load_state_dict(saved["scheduler"])
    assert resumed is not None
    sealed = client.lr(session.name, 0, count=200)["series"]["lr"]
    for step in range(saved_at, 90):
        assert held(optimizer) == [sealed[step]]
        assert resumed.last_epoch == step
        optimizer.step()
        resumed.step()
    resumed.report(89, loss=1.0)
    resumed.flush()  # this drops what the optimizer held when it was last checked
    view = httpx.get(f"{client.url}/v1/sessions/{session.name}/ranks").json()
    assert [rank["applied"]["precision"] for rank in view["ranks"]] == ["exact"]
    assert [
        event for event in client.events(session.name) if event["kind"] == "rate_deviated"
    ] == []


def test_loading_in_the_middle_leaves_the_rate_sealed(session: Session):
    """If the weights of the best epoch return with their optimizer, the schedule goes on."""
    optimizer = sgd(momentum=0.9)
    scheduler = RemoteLR(optimizer, session)
    train(scheduler, 10)
    best = copy.deepcopy(optimizer.state_dict())
    train(scheduler, 30)
    optimizer.load_state_dict(best)
    assert held(optimizer) == [session.lr(40)]
    train(scheduler, 1)
    assert held(optimizer) == [session.lr(41)]


def test_a_copy_hears_of_its_own_optimizer(session: Session):
    """Loading a state into one does not write to the other."""
    optimizer = sgd()
    scheduler = RemoteLR(optimizer, session)
    train(scheduler, 5)
    twin = copy.deepcopy({"optimizer": optimizer, "scheduler": scheduler})
    train(twin["scheduler"], 5)
    states = optimizer.state_dict()
    twin["optimizer"].load_state_dict(states)
    assert held(twin["optimizer"]) == [session.lr(10)]
    assert held(optimizer) == [session.lr(5)]


def test_an_optimizer_outlives_its_scheduler(session: Session):
    """The hooks do not keep a scheduler alive, and go with it."""
    optimizer = sgd()
    scheduler = RemoteLR(optimizer, session)
    assert optimizer._optimizer_load_state_dict_post_hooks
    del scheduler
    assert not optimizer._optimizer_load_state_dict_post_hooks
    assert not optimizer._optimizer_step_post_hooks
    optimizer.load_state_dict(optimizer.state_dict())


# -- other writers, and the order of the loop --


@pytest.mark.parametrize("begins", [1, 3, 30, 100])
def test_a_second_writer_is_found_within_as_many_steps_again(begins: int, session: Session):
    """A writer at the first step is found there, and a later one within twice its step."""
    optimizer = sgd()
    scheduler = RemoteLR(optimizer, session)
    train(scheduler, begins - 1)
    second = ExponentialLR(optimizer, 0.9)

    def go_on() -> None:
        for _ in range(begins + 1):
            optimizer.step()
            second.step()
            scheduler.step()

    with pytest.raises(LRMismatchError, match="something else writes it"):
        go_on()


def test_a_rate_that_is_set_by_hand_is_found_at_the_first_step(session: Session):
    """No update has used the rate, so the loop can correct it and go on."""
    optimizer = sgd()
    scheduler = RemoteLR(optimizer, session)
    optimizer.param_groups[0]["lr"] = 0.05
    optimizer.step()
    with pytest.raises(LRMismatchError, match=r"has the learning rate 0\.05"):
        scheduler.step()
    assert scheduler.last_epoch == 0
    optimizer.param_groups[0]["lr"] = session.lr(0)
    scheduler.step()
    assert held(optimizer) == [session.lr(1)]


@pytest.mark.parametrize("make", [float_rate, tensor_rate])
def test_stepping_before_the_optimizer_is_told_as_torch_does(
    make: Callable[[], torch.optim.Optimizer], session: Session, caplog: pytest.LogCaptureFixture
):
    """It is logged once, at the first step, where no update would use the first rate."""
    optimizer = make()
    scheduler = RemoteLR(optimizer, session)
    for _ in range(3):
        scheduler.step()
        optimizer.step()
    assert warnings_of(caplog) == [
        (
            f"session {session.name}: `scheduler.step()` was called before `optimizer.step()`, so "
            "the first learning rate of the schedule is trained with by no update: call "
            "`optimizer.step()` first"
        )
    ]


def test_the_right_order_is_told_nothing(session: Session, caplog: pytest.LogCaptureFixture):
    """No warning comes for a scheduler built after the optimizer was used, or for a resumed one."""
    optimizer = sgd(momentum=0.9)
    train(RemoteLR(optimizer, session), 3)
    scheduler = RemoteLR(optimizer, session)
    scheduler.step()
    assert not warnings_of(caplog)
    assert not optimizer._optimizer_step_post_hooks


def test_the_state_says_the_last_rates(session: Session):
    """Callbacks and loggers read `_last_lr` there, as plain floats; reading sends no request."""
    scheduler = RemoteLR(sgd({}, {}, lr=torch.tensor(0.1)), session)
    train(scheduler, 3)
    state = scheduler.state_dict()
    assert state["_last_lr"] == [session.lr(3)] * 2 == scheduler.get_last_lr()
    assert {type(rate) for rate in state["_last_lr"]} == {float}
    scheduler.last_epoch = 50
    assert scheduler.state_dict()["_last_lr"] == held(scheduler.optimizer)
