"""Param groups that are added to an optimizer while a session drives it."""

import itertools
import logging
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import StepLR

from pacesetter import Client, GroupError, LRMismatchError, NotFoundError, Session
from pacesetter._groups import join, match
from pacesetter.torch import RemoteLR

COSINE = {"kind": "cosine", "total_steps": 100}
HEAD_AND_BODY = {"head": {"base_lr": 0.1}, "body": {"base_lr": 0.01}}


def parameter() -> torch.nn.Parameter:
    """Return a weight with a gradient, from whose update the learning rate can be read."""
    made = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    made.grad = torch.ones_like(made)
    return made


def sgd(**options: Any) -> torch.optim.SGD:
    """Return an optimizer of one param group."""
    return torch.optim.SGD([{"params": [parameter()], **options}], lr=0.1)


def held(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return the learning rates that an optimizer holds."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def train(scheduler: RemoteLR, steps: int) -> list[list[float]]:
    """Train for some steps, and return the rates of each update, read from the weights."""
    felt = []
    weights = [group["params"][0] for group in scheduler.optimizer.param_groups]
    for _ in range(steps):
        before = [weight.item() for weight in weights]
        scheduler.optimizer.step()
        felt.append([old - new.item() for old, new in zip(before, weights, strict=True)])
        scheduler.step()
    return felt


def curve(session: Session, series: str, start: int, count: int) -> Any:
    """Return what is sealed of a series, as precisely as an update shows it."""
    return pytest.approx([session.values(step)[series] for step in range(start, start + count)])


def of_equal_names(*rates: float) -> torch.optim.SGD:
    """Return an optimizer whose param groups all have the same name."""
    groups = [{"params": [parameter()], "lr": rate, "name": "x"} for rate in rates]
    return torch.optim.SGD(groups, lr=0.1)


def test_param_groups_of_equal_names_are_driven_in_their_order(
    client: Client, unique_name: str
) -> None:
    """A session that numbers the groups of an optimizer drives each of them by its number."""
    rates = [0.01 * at for at in range(1, 13)]
    created = RemoteLR.create(
        of_equal_names(*rates), unique_name, client=client, schedule={"kind": "constant"}
    )
    assert held(created.optimizer) == rates
    converted = RemoteLR.from_torch(
        StepLR(of_equal_names(0.1, 0.2), 2), f"{unique_name}-2", client=client
    )
    assert held(converted.optimizer) == [0.1, 0.2]


UNFIT: dict[str, dict[str, Any]] = {
    "a list": {"groups": ["group0", "group1"]},
    "other names": {"groups": {"a": {"base_lr": 0.1}, "b": {"base_lr": 0.2}}},
    "one rate": {"base_lr": 0.5},
}


@pytest.mark.parametrize("described", UNFIT.values(), ids=UNFIT)
def test_what_would_not_fit_leaves_no_session_behind(
    described: dict[str, Any], client: Client, unique_name: str
) -> None:
    """Groups that cannot be told apart are refused before anything is created."""
    with pytest.raises(GroupError):
        RemoteLR.create(of_equal_names(0.1, 0.2), unique_name, client=client, **described)
    with pytest.raises(NotFoundError):
        client.session(unique_name)


@pytest.fixture(name="heads")
def _heads(client: Client, unique_name: str) -> Session:
    """Return a session of two groups, of which an optimizer may have one at first."""
    return client.create_session(unique_name, schedule=COSINE, groups=HEAD_AND_BODY)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 40])
def test_a_group_that_nobody_declared_keeps_its_rate(
    steps: int, client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """It is noticed at the very next step, with one warning; the other groups go on."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    scheduler = RemoteLR(sgd(), session)
    train(scheduler, steps)
    scheduler.optimizer.add_param_group({"params": [parameter()], "lr": 9.0})
    scheduler.optimizer.step()
    scheduler.step()
    warnings = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "param group 1 was added" in warnings[0]
    assert "build RemoteLR again with groups=['lr', 'lr', ...]" in warnings[0]
    for step in range(steps + 1, 90):
        assert held(scheduler.optimizer) == [session.lr(step), 9.0]
        assert scheduler.get_last_lr() == [session.lr(step), 9.0]
        scheduler.optimizer.step()
        scheduler.step()
    assert len([each for each in caplog.records if each.levelno == logging.WARNING]) == 1


def test_what_it_holds_is_its_own_affair(client: Client, unique_name: str):
    """The code that added it may write it, as Lightning's BackboneFinetuning does."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    scheduler = RemoteLR(sgd(), session)
    scheduler.optimizer.add_param_group({"params": [parameter()]})
    for step in range(1, 90):
        scheduler.optimizer.param_groups[1]["lr"] = float(step)
        scheduler.step()
        assert held(scheduler.optimizer) == [session.lr(step), float(step)]


@pytest.mark.parametrize("way", ["name", "groups"])
@pytest.mark.parametrize("steps", [0, 1, 7, 40])
def test_a_group_that_the_session_has_is_driven_from_its_first_update(
    way: str, steps: int, heads: Session, caplog: pytest.LogCaptureFixture
):
    """It is found by its name, or by the place that `groups` has kept for it."""
    if way == "name":
        scheduler = RemoteLR(sgd(name="head"), heads)
        added: dict[str, Any] = {"name": "body"}
    else:
        scheduler = RemoteLR(sgd(), heads, groups=["head", "body"])
        added = {}
    train(scheduler, steps)
    scheduler.optimizer.add_param_group({"params": [parameter()], "lr": 9.0, **added})
    felt = train(scheduler, 60)
    assert [each for each, _ in felt] == curve(heads, "head.lr", steps, 60)
    assert [each for _, each in felt] == curve(heads, "body.lr", steps, 60)
    assert scheduler.base_lrs == [0.1, 0.01]
    assert scheduler.optimizer.param_groups[1]["initial_lr"] == 0.01
    assert "keeps its own" not in caplog.text


def test_a_group_may_join_with_a_law_of_its_own(client: Client, unique_name: str):
    """The body is warmed up from the step at which it joins, while the head anneals."""
    warm = {
        "kind": "sequence",
        "parts": [
            {"schedule": {"kind": "hold", "value": 0.0}, "steps": 20},
            {"schedule": {"kind": "warmup", "steps": 10, "schedule": "constant"}},
        ],
    }
    groups: dict[str, Any] = {
        "head": {"base_lr": 0.1},
        "body": {"base_lr": 0.01, "schedule": warm},
    }
    session = client.create_session(unique_name, schedule=COSINE, groups=groups)
    scheduler = RemoteLR(sgd(name="head"), session)
    train(scheduler, 20)
    scheduler.optimizer.add_param_group({"params": [parameter()], "name": "body"})
    felt = train(scheduler, 20)
    assert [each for _, each in felt] == curve(session, "body.lr", 20, 20)
    assert felt[-1][1] == pytest.approx(0.01)


def test_the_optimizer_is_watched_only_while_a_group_is_missing(heads: Session):
    """Once it has all groups, no hook is left on its updates, and nothing of it is patched."""
    optimizer = sgd(name="head")
    scheduler = RemoteLR(optimizer, heads)
    assert len(optimizer._optimizer_step_pre_hooks) == 1
    optimizer.add_param_group({"params": [parameter()], "name": "body"})
    train(scheduler, 1)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert "step" not in vars(optimizer)
    assert "add_param_group" not in vars(optimizer)


def test_a_group_that_joins_is_checked_from_then_on(heads: Session):
    """Another writer of it is found as for the other groups."""
    scheduler = RemoteLR(sgd(name="head"), heads)
    scheduler.optimizer.add_param_group({"params": [parameter()], "name": "body"})
    train(scheduler, 1)

    def write_beside() -> None:
        for _ in range(5):
            scheduler.optimizer.param_groups[1]["lr"] = 5.0
            scheduler.step()

    with pytest.raises(LRMismatchError, match="param group 1"):
        write_beside()


def test_a_group_may_be_left_out(client: Client, unique_name: str):
    """None in `groups` leaves a param group's own rate, in any position."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    for names in itertools.permutations(["lr", None, "lr"]):
        groups = [{"params": [parameter()], "lr": 0.1 if name else 7.0} for name in names]
        optimizer = torch.optim.SGD(groups, lr=0.1)
        scheduler = RemoteLR(optimizer, session, groups=list(names))
        scheduler.restart(0)
        for step in range(1, 20):
            scheduler.step()
            assert held(optimizer) == [session.lr(step) if name else 7.0 for name in names]


@pytest.mark.parametrize("way", ["the same optimizer", "another optimizer", "the old one dropped"])
@pytest.mark.parametrize("steps", [0, 1, 5, 40])
def test_a_scheduler_that_is_built_again_goes_on(
    way: str, steps: int, client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """It continues at the last one's step, in the same attempt, without the rate of step 0."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    optimizer = sgd()
    scheduler = RemoteLR(optimizer, session)
    train(scheduler, steps)
    rate = held(optimizer)[0]
    if way == "another optimizer":
        optimizer = sgd()
    if way == "the old one dropped":
        del scheduler
    optimizer.add_param_group({"params": [parameter()], "lr": rate})
    scheduler = RemoteLR(optimizer, session, groups=["lr", "lr"])
    assert held(optimizer) == [session.lr(steps)] * 2
    felt = train(scheduler, 50)
    assert [each for each, _ in felt] == curve(session, "lr", steps, 50)
    assert [each for _, each in felt] == curve(session, "lr", steps, 50)
    assert (session.attempt, session._core.restarts) == (1, 0)
    warned = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert not [each for each in warned if "plan_over" not in each.getMessage()]


def test_the_one_that_was_replaced_writes_no_more(heads: Session):
    """Its hooks on updates and loading are removed, although the program still holds it."""
    optimizer = sgd(name="head")
    old = RemoteLR(optimizer, heads)
    train(old, 5)
    other = RemoteLR(sgd(name="head"), heads)  # of another optimizer, as with Muon beside Adam
    assert other.last_epoch == 5
    new = RemoteLR(optimizer, heads)
    assert (old.last_epoch, new.last_epoch) == (5, 5)
    assert len(optimizer._optimizer_step_pre_hooks) == 1
    assert len(optimizer._optimizer_load_state_dict_post_hooks) == 1


def test_a_group_that_is_gone_is_refused(heads: Session):
    """Removing one would shift the others' rates; the position stays, and a way out is named."""
    groups = [{"params": [parameter()], "name": name} for name in ("head", "body")]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    scheduler = RemoteLR(optimizer, heads)
    train(scheduler, 3)
    removed = optimizer.param_groups.pop()
    with pytest.raises(GroupError, match="1 param groups now, it had 2"):
        scheduler.step()
    optimizer.param_groups.append(removed)
    scheduler.step()
    assert (scheduler.last_epoch, held(optimizer)) == (4, list(heads.values(4).values()))


def _exchanged(groups: list[dict[str, Any]], optimizer: torch.optim.Optimizer) -> None:
    groups.pop(0)
    optimizer.add_param_group({"params": [parameter()], "name": "adapter", "lr": 3e-3})


def _grown(groups: list[dict[str, Any]], optimizer: torch.optim.Optimizer) -> None:
    _exchanged(groups, optimizer)
    optimizer.add_param_group({"params": [parameter()], "name": "other", "lr": 4e-3})


def _inserted(groups: list[dict[str, Any]], optimizer: torch.optim.Optimizer) -> None:
    _exchanged(groups, optimizer)
    groups.insert(0, groups.pop())


def _replaced(groups: list[dict[str, Any]], optimizer: torch.optim.Optimizer) -> None:
    groups.clear()
    for name in ("adapter", "other"):
        optimizer.add_param_group({"params": [parameter()], "name": name, "lr": 3e-3})


def _listed_anew(groups: list[dict[str, Any]], optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups = groups[::-1]


def _reversed(groups: list[dict[str, Any]], _: torch.optim.Optimizer) -> None:
    groups.reverse()


@pytest.mark.parametrize("change", [_exchanged, _grown, _replaced, _listed_anew, _reversed])
def test_groups_that_changed_places_are_refused_at_the_next_step(heads: Session, change: Any):
    """None gets another one's rate; once they are as they were, the training goes on."""
    groups = [{"params": [parameter()], "name": name} for name in ("head", "body")]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    scheduler = RemoteLR(optimizer, heads)
    train(scheduler, 9)
    before = list(optimizer.param_groups)
    change(optimizer.param_groups, optimizer)
    changed = {each["name"]: float(each["lr"]) for each in optimizer.param_groups}
    for _ in range(2):
        with pytest.raises(GroupError, match="put back what was removed"):
            scheduler.step()
    assert scheduler.last_epoch == 9
    assert {each["name"]: float(each["lr"]) for each in optimizer.param_groups} == changed
    optimizer.param_groups[:] = before
    scheduler.step()
    assert (scheduler.last_epoch, held(optimizer)) == (10, list(heads.values(10).values()))


def _swapped(groups: list[dict[str, Any]], _: torch.optim.Optimizer) -> None:
    groups[0], groups[1] = groups[1], groups[0]


@pytest.mark.parametrize("change", [_swapped, _inserted])
def test_groups_before_the_last_that_changed_places_are_refused_at_the_next_look(
    heads: Session, change: Any
):
    """Each step looks at the last one alone, and at the edge of a window at all of them."""
    optimizer = torch.optim.SGD([{"params": [parameter()]} for _ in range(3)], lr=0.1)
    scheduler = RemoteLR(optimizer, heads, groups=["head", "body", "body"])
    train(scheduler, 9)
    change(optimizer.param_groups, optimizer)
    with pytest.raises(GroupError, match="param group 0 of the optimizer is another one"):
        train(scheduler, 10)
    assert scheduler.last_epoch < 17  # the next power of two after its beginning


def test_a_scheduler_that_is_built_again_takes_the_groups_as_they_are(heads: Session):
    """What the refusal advises helps: each param group gets the rate of its name."""
    groups = [{"params": [parameter()], "name": name} for name in ("head", "body")]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    scheduler = RemoteLR(optimizer, heads)
    train(scheduler, 9)
    optimizer.param_groups.reverse()
    with pytest.raises(GroupError):
        scheduler.step()
    again = RemoteLR(optimizer, heads)
    assert held(optimizer) == [heads.lr(9, "body"), heads.lr(9, "head")]
    train(again, 3)
    assert held(optimizer) == [heads.lr(12, "body"), heads.lr(12, "head")]


@pytest.mark.parametrize("in_place", [False, True])
def test_loaded_groups_are_not_others(heads: Session, in_place: bool):
    """A load makes new ones, in a new list or in the same; each is in the place of the saved."""
    groups = [{"params": [parameter()], "name": name} for name in ("head", "body")]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    scheduler = RemoteLR(optimizer, heads)
    train(scheduler, 9)
    if in_place:
        optimizer.param_groups[:] = [dict(each) for each in optimizer.param_groups]
    else:
        optimizer.load_state_dict(optimizer.state_dict())
    train(scheduler, 3)
    assert held(optimizer) == list(heads.values(12).values())


def test_a_resumed_job_has_its_groups_again(heads: Session, client: Client):
    """A checkpoint saved after it joined is loaded by a job that is built with both groups."""
    scheduler = RemoteLR(sgd(name="head"), heads)
    train(scheduler, 5)
    scheduler.optimizer.add_param_group({"params": [parameter()], "name": "body"})
    train(scheduler, 5)
    state, states = scheduler.state_dict(), scheduler.optimizer.state_dict()
    expected = train(scheduler, 5)
    groups = [{"params": [parameter()], "name": name} for name in ("head", "body")]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    resumed = RemoteLR(optimizer, client.session(heads.name))
    optimizer.load_state_dict(states)
    resumed.load_state_dict(state)
    assert train(resumed, 5) == [pytest.approx(each) for each in expected]


# -- by the pure rules --


def test_names_join_once():
    """A second param group of a name keeps its own rate, as it would be refused at the start."""
    groups: list[dict[str, Any]] = [{"lr": 0.1, "name": name} for name in ("head", "head", "body")]
    names = match(groups[:1], ("head", "body"), None)
    assert join(groups, names, ("head", "body"), None) == ("head", None, "body")


def test_places_go_before_names():
    """What `groups` says holds; beyond its end names do."""
    groups: list[dict[str, Any]] = [{"lr": 0.1, "name": name} for name in ("x", "body", "head")]
    names = match(groups[:1], ("head", "body"), ["head", None])
    assert join(groups, names, ("head", "body"), ["head", None]) == ("head", None, None)
    assert join(groups, ("body",), ("head", "body"), ["body", None]) == ("body", None, "head")


def test_a_session_without_groups_declares_none():
    """An added group does not get its single rate, unless `groups` says so."""
    groups: list[dict[str, Any]] = [{"lr": 0.1}] * 3
    assert join(groups, ("",), (), None) == ("", None, None)
    assert join(groups, ("",), (), ["lr", "lr"]) == ("", "", None)
