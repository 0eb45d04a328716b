"""Ctrl-C at any moment: what a session, and a scheduler of it, are after it.

Python looks for signals where a function begins and where a call of one in C has ended. There a
profiler interrupts, at one such moment of a step after the other.
"""

import functools
import inspect
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
import torch

import pacesetter
from pacesetter import Client, Session
from pacesetter._torch.deferred import DeferredLR
from pacesetter.torch import RemoteLR

GAMMA = 0.99
PACKAGE = str(Path(pacesetter.__file__).parent)


@pytest.fixture(name="impatient")
def _impatient(server_url: str) -> Iterator[Client]:
    """Return a client that soon gives up what it waits for in vain."""
    with Client(server_url, max_wait=5.0) as client:
        yield client


def _interrupt(moment: int, work: Callable[[], object]) -> bool:
    """Do some work, interrupted at one of its moments; return whether it has that many."""
    seen = 0

    def look(frame: FrameType, event: str, _: object) -> None:
        nonlocal seen
        code = frame.f_code
        # What is raised where a generator is closed would be raised nowhere.
        begins = event == "call" and not code.co_flags & inspect.CO_GENERATOR
        if (begins or event == "c_return") and code.co_filename.startswith(PACKAGE):
            seen += 1
            if seen == moment:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(look)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def _sgd(kind: type = float) -> torch.optim.SGD:
    """Return an optimizer of two param groups, with a rate of some kind each."""
    rates = [torch.tensor(0.1), torch.tensor(0.1)] if kind is torch.Tensor else [0.1, 0.1]
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=0.1)


def _holds_its_step(scheduler: RemoteLR) -> bool:
    """Return whether the optimizer has the rates of the step where the scheduler stands."""
    wanted = 0.1 * GAMMA**scheduler.last_epoch
    held = [float(group["lr"]) for group in scheduler.optimizer.param_groups]
    return all(math.isclose(each, wanted, rel_tol=1e-5) for each in held)


def _opened(client: Client, name: str, *, groups: bool = False) -> Session:
    """Create a session whose windows have two steps, each fetched when it is needed."""
    bases = {"groups": {each: {"base_lr": 0.1} for each in "ab"}} if groups else {"base_lr": 0.1}
    schedule = {"kind": "exponential", "gamma": GAMMA}
    return client.session(name, schedule=schedule, max_lookahead=2, **bases)


def _walk(scheduler: RemoteLR, *, to_edge: bool) -> int:
    """Walk to where the next step is the first of a window, or is not; return the step there."""
    while (scheduler.last_epoch + 1 == scheduler._window.stop) != to_edge:
        scheduler.step()
    return scheduler.last_epoch


def test_a_wait_that_is_interrupted_at_its_end_can_be_repeated(impatient: Client, unique_name: str):
    """No lock is left held after Ctrl-C at any moment, so the same value can be asked for again."""
    session = _opened(impatient, unique_name)
    for moment in itertools.count(1):
        step = session._core.at_once[1]  # the first that is not at hand
        is_cut = _interrupt(moment, functools.partial(session.lr, step))
        assert math.isclose(session.lr(step), 0.1 * GAMMA**step)
        if not is_cut:
            break
    assert moment > 100


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize(
    ("kind", "groups"),
    [
        pytest.param(float, False, id="one rate"),
        pytest.param(float, True, id="a rate for each"),
        pytest.param(torch.Tensor, False, id="tensors"),
    ],
)
def test_an_interrupted_step_is_taken_whole_or_not_at_all(
    kind: type, groups: bool, edge: bool, impatient: Client, unique_name: str
):
    """Position and rates go together after Ctrl-C at any moment, and the next step can be taken."""
    scheduler = RemoteLR(_sgd(kind), _opened(impatient, unique_name, groups=groups))
    for moment in itertools.count(1):
        step = _walk(scheduler, to_edge=edge)
        is_cut = _interrupt(moment, scheduler.step)
        assert scheduler.last_epoch in {step, step + 1}
        assert _holds_its_step(scheduler)
        step = scheduler.last_epoch
        scheduler.step()
        assert (scheduler.last_epoch, _holds_its_step(scheduler)) == (step + 1, True)
        if not is_cut:
            break
    assert moment > (100 if edge else 1)


def test_an_interrupted_deferred_step_counts_once(impatient: Client, unique_name: str):
    """A step that was trained stays the one before the next, however far its successor has come."""
    scheduler = DeferredLR(_sgd(), _opened(impatient, unique_name))
    for moment in itertools.count(1):
        while scheduler.last_epoch + 1 < scheduler._window.stop:
            scheduler.step()
            scheduler.advance()
        step = scheduler.last_epoch
        scheduler.step()
        is_cut = _interrupt(moment, scheduler.advance)
        assert scheduler.state_dict()["last_epoch"] == step + 1
        scheduler.advance()
        assert (scheduler.last_epoch, _holds_its_step(scheduler)) == (step + 1, True)
        if not is_cut:
            break
    assert moment > 100
