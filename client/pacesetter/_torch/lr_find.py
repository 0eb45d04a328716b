"""`lr_find`: a learning rate range test of a model that leaves no trace in it.

The model is trained in place, so everything that training touches is saved and restored, to the
bit, whatever happens: see `untouched.py`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pacesetter._client import Client
from pacesetter._errors import (
    PacesetterError,
    PermissionDeniedError,
    SessionFinishedError,
    TransportError,
)
from pacesetter._groups import is_tensor
from pacesetter._range_test import RangeTest
from pacesetter._session import Session
from pacesetter._torch.untouched import same_randomness, untouched

Loss = Callable[[Any, Any], Tensor]

_NOTHING = object()

logger = logging.getLogger("pacesetter")


def lr_find(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Loss,
    loader: Iterable[Any],
    *,
    client: Client | str | None = None,
    name: str | None = None,
    start_lr: float = 1e-7,
    end_lr: float = 10.0,
    steps: int = 100,
    mode: Literal["exponential", "linear"] = "exponential",
    diverge: float | None = 4.0,
    metric: str = "loss",
) -> RangeTest:
    """Train for some steps at rising learning rates, see where the loss falls, and undo it all.

    ```python
    found = lr_find(model, optimizer, loss_fn, loader)
    found.save("lr.svg")
    session = client.session("run", base_lr=found.proposal.lr, schedule={"kind": "one_cycle", ...})
    ```

    The sweep is a session like any other, with the schedule and the controller `range_test`: the
    server hands out the rates and ends it when the loss has blown up. It is archived afterwards,
    if the client's token allows that, and can be read: `Client.range_test(found.session)`.

    These are restored to the bit, also when something raises: parameters, buffers and gradients of
    the model and of a `loss_fn` that is a module; the modes (train or eval) of their modules; the
    optimizer's state and param groups; the global random generators of Python, NumPy and torch
    (CPU, CUDA, MPS), and those of a `DataLoader`. What your own code keeps elsewhere is not
    restored.

    All param groups sweep the same rates. The model is put into train mode. For one process only.

    Args:
        model: The model to train, on the device where its parameters are.
        optimizer: The model's optimizer; `optimizer.step()` is called without a closure.
        loss_fn: `loss_fn(model(x), y)` returns a tensor of one element to call `backward` on.
        loader: Yields batches `(x, y)`, tensors or nested lists, tuples and dicts of tensors;
            restarted when it is exhausted.
        client: A `Client`, a server's address, or nothing for `Client()`.
        name: The session's name; by default a random one.
        start_lr: The first learning rate.
        end_lr: The last one.
        steps: How many batches, at least 2; 100 or more give a readable curve.
        mode: `exponential`, or `linear` as in DeepSpeed and in Smith's paper.
        diverge: The sweep ends when the smoothed loss exceeds its lowest value by this factor; with
            None it goes on to the end unless the loss is not finite.
        metric: The name that the loss has on the server.

    Raises:
        TypeError: `loader` is an iterator, which cannot be restarted, or its batches are not pairs.
        ValueError: `loader` is empty, or the session `name` has already swept.
        InvalidRequestError: The server refuses the sweep, for instance `start_lr` above `end_lr`.
        ConflictError: `name` is taken.
        ServerUnavailableError: The server stays away.
    """
    batches = _batches(loader)
    schedule = {
        "kind": "range_test",
        "start_lr": start_lr,
        "end_lr": end_lr,
        "steps": steps,
        "mode": mode,
    }
    controller = {"kind": "range_test", "metric": metric, "steps": steps, "diverge": diverge}
    with ExitStack() as stack:
        # Outermost: whatever else is done on the way out may draw random numbers.
        stack.enter_context(same_randomness(loader))
        if not isinstance(client, Client):
            client = stack.enter_context(Client(client))
        session = client.create_session(
            name or f"lr-find-{uuid.uuid4().hex}",
            base_lr=start_lr,
            schedule=schedule,
            controllers=[controller],
        )
        if session.horizon > 0:
            raise ValueError(f"session {session.name} has swept already: give another name")
        with _archived(client, session), session, untouched(model, loss_fn, optimizer):
            losses = _losses(model, optimizer, loss_fn, session, batches)
            for step, loss in enumerate(losses):
                session.report(step, **{metric: loss})
        return client.range_test(session.name, metric=metric)


@contextmanager
def _archived(client: Client, session: Session) -> Iterator[None]:
    """Archive a session at the end, or upon a failure, which is reported whatever else fails."""
    try:
        yield
    except TransportError:
        raise  # there is no server to tell
    except BaseException:
        with suppress(PacesetterError):
            client.archive(session.name)
        raise
    try:
        client.archive(session.name)
    except PermissionDeniedError:
        logger.info("session %s is not archived: that takes an operator's token", session.name)


def _losses(
    model: nn.Module, optimizer: Optimizer, loss_fn: Loss, session: Session, batches: Iterator[Any]
) -> Iterator[float]:
    """Train one step after the other until the server ends the sweep; yield the losses."""
    device = _device_of(model)
    model.train()
    for step, batch in enumerate(batches):
        try:
            lr = session.lr(step)
        except SessionFinishedError:
            return
        inputs, targets = _pair(batch, device)
        for group in optimizer.param_groups:
            if is_tensor(group["lr"]):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = loss_fn(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield loss.item()


def _batches(loader: Iterable[Any]) -> Iterator[Any]:
    """Yield batches for ever.

    Raises:
        TypeError: The loader is an iterator.
        ValueError: It yields nothing.
    """
    if isinstance(loader, Iterator):
        raise TypeError(
            f"the loader is a {type(loader).__name__}, which can be gone through once: pass a "
            "DataLoader, or a list of batches"
        )
    return _for_ever(loader)


def _for_ever(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        batches = iter(loader)
        first = next(batches, _NOTHING)
        if first is _NOTHING:
            raise ValueError("the loader is empty: give it at least one batch")
        yield from chain([first], batches)


def _pair(batch: Any, device: torch.device) -> tuple[Any, Any]:  # noqa: ANN401
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        raise TypeError(
            f"a batch is a {type(batch).__name__} and not a pair (x, y): wrap the loader so that it"
            " gives what model(x) and loss_fn(..., y) take"
        )
    return _moved(batch[0], device), _moved(batch[1], device)


def _moved(value: Any, device: torch.device) -> Any:  # noqa: ANN401 - nested in any way
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(each, device) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_moved(each, device) for each in value)
    return value


def _device_of(model: nn.Module) -> torch.device:
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device
