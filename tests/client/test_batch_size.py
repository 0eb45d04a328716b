"""The batch size, as a trainer reports it: at the start, on the way, and with a restart."""

import pytest
import torch

from pacesetter import Client, ConflictError
from pacesetter._torch.deferred import DeferredLR
from pacesetter.torch import RemoteLR

LINEAR = {"base_lr": 0.1, "batch_size": 64, "batch_scaling": "linear", "max_lookahead": 4}


def _sgd() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)


def _train(scheduler: RemoteLR, until: int) -> list[float]:
    seen = []
    while scheduler.last_epoch < until:
        seen.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return seen


def test_a_session_is_told_and_scales_from_its_horizon_on(client: Client, unique_name: str):
    """Reporting the same size again changes nothing; sealed steps stay as they are."""
    session = client.create_session(unique_name, **LINEAR)
    assert session.lr(3) == 0.1
    horizon = session.horizon
    for _ in range(3):
        session.resize(128)
    assert session.horizon == horizon
    values = [session.lr(step) for step in range(horizon - 1, horizon + 3)]
    assert values == [0.1, 0.2, 0.2, 0.2]


def test_what_the_session_refuses_is_raised_and_may_be_left(client: Client, unique_name: str):
    """The training can go on with its previous size."""
    session = client.create_session(unique_name, **{**LINEAR, "batch_scaling": "refuse"})
    with pytest.raises(ConflictError, match="Train with the old one") as caught:
        session.resize(128)
    assert caught.value.code == "batch_refused"
    assert session.lr(10) == 0.1
    session.restart(5)
    assert session.lr(5) == 0.1


def test_a_scheduler_tells_it_before_the_first_step(client: Client, unique_name: str):
    """The session may have been described for another size; every step is scaled."""
    session = client.create_session(unique_name, **LINEAR)
    assert _train(RemoteLR(_sgd(), session, batch_size=32), 6) == [0.05] * 6


def test_a_job_that_restarts_with_more_machines_trains_faster_from_there(
    client: Client, unique_name: str
):
    """The scale holds from the checkpoint's step on; an attempt from before that has its own."""
    first = RemoteLR(_sgd(), client.create_session(unique_name, **LINEAR), batch_size=64)
    assert _train(first, 20) == [0.1] * 20
    saved = {**first.state_dict(), "last_epoch": 12}
    second = RemoteLR(_sgd(), client.session(unique_name), batch_size=256)
    second.load_state_dict(saved)
    assert _train(second, 20) == [0.4] * 8
    third = RemoteLR(_sgd(), client.session(unique_name), batch_size=128)
    third.restart(6)
    assert _train(third, 20) == [0.2] * 14


def test_a_size_said_on_the_way_is_said_with_later_restarts(client: Client, unique_name: str):
    """A job that goes back to before the change still trains with its present size."""
    scheduler = RemoteLR(_sgd(), client.create_session(unique_name, **LINEAR), batch_size=64)
    _train(scheduler, 10)
    scheduler.resize(192)
    scheduler.restart(2)
    assert _train(scheduler, 8) == [0.1 * 3] * 6


def test_a_checkpoint_at_the_horizon_says_it(client: Client, unique_name: str):
    """The step after the last one that was handed out is the first with the new size."""
    spec = {**LINEAR, "max_lookahead": 1}
    first = DeferredLR(_sgd(), client.create_session(unique_name, **spec), batch_size=64)
    for _ in range(3):
        first.step()
        first.advance()
    first.step()
    second = DeferredLR(_sgd(), client.session(unique_name), batch_size=128)
    second.load_state_dict(first.state_dict())
    assert second.session.attempt == 2
    assert second.optimizer.param_groups[0]["lr"] == 0.2


def test_a_job_that_begins_again_without_a_checkpoint_says_it(client: Client, unique_name: str):
    """It does so with its first step: sealed values stay, and later steps are scaled."""
    first = RemoteLR(_sgd(), client.create_session(unique_name, **LINEAR), batch_size=64)
    _train(first, 10)
    horizon = first.session.horizon
    again = client.session(unique_name, resume="continue")
    second = RemoteLR(_sgd(), again, batch_size=32)
    assert _train(second, horizon + 5) == [0.1] * horizon + [0.05] * 5


def test_what_a_restart_has_said_is_not_said_again(client: Client, unique_name: str):
    """A size that another process reports later holds."""
    first = RemoteLR(_sgd(), client.create_session(unique_name, **LINEAR), batch_size=64)
    _train(first, 10)
    second = RemoteLR(_sgd(), client.session(unique_name), batch_size=32)
    second.restart(8)
    client.session(unique_name).resize(128)
    assert _train(second, 20)[-1] == 0.2


def test_a_size_that_is_refused_is_told_at_the_first_step(client: Client, unique_name: str):
    """The position is unchanged; with the size that the session expects, the training goes on."""
    spec = {**LINEAR, "batch_scaling": "refuse"}
    _train(RemoteLR(_sgd(), client.create_session(unique_name, **spec), batch_size=64), 10)
    again = client.session(unique_name, resume="continue")
    second = RemoteLR(_sgd(), again, batch_size=32)
    with pytest.raises(ConflictError, match="Train with the old one"):
        second.step()
    assert second.last_epoch == 0
    second.resize(64)
    assert _train(second, 15) == [0.1] * 15
