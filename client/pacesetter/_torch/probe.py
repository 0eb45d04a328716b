"""`probe`: a short decay of a fork, trained with the model itself and then undone to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pacesetter._client import Client
from pacesetter._errors import PacesetterError
from pacesetter._groups import group_names, is_tensor
from pacesetter._reports import Scalar
from pacesetter._session import Session
from pacesetter._torch.untouched import same_randomness, untouched


class Probe:
    """The fork of a probe: iterating over it yields its steps, with their rates in the optimizer.

    Attributes:
        session: The fork.
        start: Its first step.
        steps: The number of its steps.
    """

    def __init__(self, session: Session, optimizer: Optimizer, start: int, steps: int) -> None:
        self.session = session
        self.start = start
        self.steps = steps
        self._optimizer = optimizer
        self._names = group_names(optimizer.param_groups) if session.groups else None

    def __iter__(self) -> Iterator[int]:
        """Yield each step, with its rates written to the optimizer: train it with one update."""
        for step in range(self.start, self.start + self.steps):
            for index, group in enumerate(self._optimizer.param_groups):
                name = None if self._names is None else self._names[index]
                _write(group, self.session.lr(step, name))
            yield step

    def report(self, step: int, /, **metrics: Scalar) -> None:
        """Report what was measured at a step, as `Session.report` does."""
        self.session.report(step, **metrics)


def _write(group: dict[str, Any], lr: float) -> None:
    if is_tensor(group["lr"]):
        with torch.no_grad():
            held: Tensor = group["lr"]
            held.fill_(lr)
    else:
        group["lr"] = lr


@contextmanager
def probe(
    model: nn.Module,
    optimizer: Optimizer,
    session: str,
    *,
    step: int,
    steps: int,
    client: Client | str | None = None,
    name: str | None = None,
    loss_fn: object = None,
    loader: object = None,
) -> Iterator[Probe]:
    """Fork a session at a step, train the fork with a cooldown, and undo that in the model.

    ```python
    with probe(model, optimizer, "run", step=scheduler.last_epoch, steps=500) as fork:
        for step in fork:
            train(next(batches))
            if step % 50 == 0:
                fork.report(step, val_loss=evaluate(model))
    ```

    The next `Client.plan` of the session picks up the fork by itself. If there is already such a
    fork, made on the dashboard, that one is trained. What `lr_find` restores is restored to the bit
    here too, also when something raises. What your own code keeps elsewhere is not, such as the
    position of an iterator. For one process only. The client needs an operator's token, because it
    orders the fork to cool down. If the block raises, the fork is archived.

    Args:
        model: The model to train.
        optimizer: The model's optimizer; its rates are those of `step`.
        session: The name of the training's own session, which has sealed the steps before `step`.
        step: The step that would be trained next.
        steps: How many steps the decay takes, in a straight line to 0 or to the `min_lr` that the
            session was created with: 3 to 10 % of the training. A `limit` ordered since is not
            considered: where it raised `min_lr`, first make a fork of that `name` and cool it down
            to there, and that one is trained.
        client: A `Client`, a server's address, or nothing for `Client()`.
        name: The fork's name; by default the session's, followed by `-probe-` and the step.
        loss_fn: If it is a module, it is restored too.
        loader: A `DataLoader` whose random generators are restored.

    Raises:
        ValueError: `steps` is below 1.
        ConflictError: The name is taken.
        InvalidRequestError: The session has no such step, or an order has raised its `min_lr`.
        ServerUnavailableError: The server stays away.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: a probe has at least one, and 100 say more")
    with ExitStack() as stack:
        stack.enter_context(same_randomness(loader))
        if not isinstance(client, Client):
            client = stack.enter_context(Client(client))
        fork = name or f"{session}-probe-{step}"
        made = client.fork(session, fork, step=step)
        try:
            if not client.orders(fork):  # a fork made on the dashboard already cools down
                least = (made.spec.get("limits") or {}).get("min_lr") or None
                client.cooldown(
                    fork, steps=steps, at=step, to=least, ease="linear", reason="a probe"
                )
            with client.session(fork, step=step) as opened, untouched(model, loss_fn, optimizer):
                yield Probe(opened, optimizer, step, steps)
        except BaseException:
            with suppress(PacesetterError):
                client.archive(fork)
            raise
        client.finish(fork, reason="the probe is over")
