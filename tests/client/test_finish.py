"""Whether a training is finished, or was only interrupted."""

from itertools import pairwise

import pytest
import torch

from pacesetter import Client, Session
from pacesetter.torch import RemoteLR

COSINE = {"kind": "cosine", "total_steps": 10}


def _opened(client: Client, name: str) -> Session:
    return client.session(name, base_lr=0.1, schedule=COSINE)


def _state(client: Client, name: str) -> str:
    return client.session(name).info.state


def test_a_loop_that_trained_its_plan_is_finished(client: Client, unique_name: str) -> None:
    """A trainer that asked for the last step's rate, and closes, has trained the whole plan."""
    session = _opened(client, unique_name)
    rates = [session.lr(step) for step in range(10)]
    assert all(one > next_one for one, next_one in pairwise(rates))
    session.close()
    assert _state(client, unique_name) == "finished"


def test_a_loop_that_left_early_is_not_finished(client: Client, unique_name: str) -> None:
    """A plan that was not trained to its end may be resumed."""
    session = _opened(client, unique_name)
    assert session.lr(8)
    session.close()
    assert _state(client, unique_name) == "active"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_was_interrupted_is_not_finished(
    client: Client, unique_name: str, error: type[BaseException]
) -> None:
    """An exception that leaves the block means that its last step was not trained."""

    def interrupted(session: Session) -> None:
        with session:
            assert session.lr(9)
            raise error

    with pytest.raises(error):
        interrupted(_opened(client, unique_name))
    assert _state(client, unique_name) == "active"


def test_a_scheduler_stands_behind_the_last_step(client: Client, unique_name: str) -> None:
    """The scheduler's count says which steps were trained, not which rates were read."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session = _opened(client, unique_name)
    scheduler = RemoteLR(optimizer, session)
    for _ in range(9):
        optimizer.step()
        scheduler.step()
    assert not session._core.is_over
    optimizer.step()
    scheduler.step()
    session.close()
    assert _state(client, unique_name) == "finished"
    assert scheduler.last_epoch == 10


def test_a_finished_training_can_be_trained_longer(client: Client, unique_name: str) -> None:
    """A trainer that goes on in the same attempt meets no error, and is active."""
    session = _opened(client, unique_name)
    assert session.lr(9)
    session.finish(reason="enough")
    assert _state(client, unique_name) == "finished"
    assert session.lr(30) >= 0
    assert _state(client, unique_name) == "active"
    session.finish("failed", reason="out of memory")
    assert _state(client, unique_name) == "failed"


@pytest.mark.parametrize("reads_one_more", [False, True])
def test_nothing_is_sealed_behind_a_plan_that_ends(
    client: Client, unique_name: str, reads_one_more: bool
) -> None:
    """However fast the steps are, no window is prefetched whose steps will not be trained."""
    plan = {"kind": "cosine", "total_steps": 300}
    session = client.session(unique_name, base_lr=0.1, schedule=plan)
    trained = 301 if reads_one_more else 300  # as a scheduler does
    assert all(session.lr(step) >= 0 for step in range(trained))
    session.close()
    assert client.get(unique_name).horizon == 301
    assert not [each for each in client.events(unique_name) if each["kind"] == "notice"]


def test_a_loop_goes_on_behind_its_plan(client: Client, unique_name: str) -> None:
    """Steps past the plan's end are fetched on demand, and ahead from there on."""
    session = _opened(client, unique_name)
    rates = [session.lr(step) for step in range(200)]
    assert rates[10:] == [rates[10]] * 190
    session.close()
    assert client.get(unique_name).horizon > 200
