"""Arguments of a `RemoteLR`, checked before they are used."""

from __future__ import annotations

from torch.optim import Optimizer

from pacesetter._session import Session


def checked_optimizer(optimizer: object) -> Optimizer:
    """Return an optimizer.

    Raises:
        TypeError: It is not an optimizer.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer: pass the optimizer")
    return optimizer


def optimizer_of(scheduler: object, session: object) -> Optimizer:
    """Return the optimizer of a scheduler that will become a session of some name.

    Raises:
        TypeError: It is not a scheduler, or the session is not a name.
    """
    if isinstance(scheduler, Optimizer):
        raise TypeError(
            f"{type(scheduler).__name__} is an optimizer, and from_torch takes a scheduler of "
            "torch's over it: pass that, or describe the schedule, as in RemoteLR.create(optimizer,"
            f" {session or 'run-1'!r}, schedule={{...}})"
        )
    optimizer = getattr(scheduler, "optimizer", None)
    if optimizer is None:
        raise TypeError(
            f"{type(scheduler).__name__} is not a scheduler: pass one of torch.optim.lr_scheduler"
        )
    if session == "":
        raise TypeError("from_torch makes a session: name it, as in from_torch(scheduler, 'run-1')")
    if not isinstance(session, str):
        name = f", {session.name!r}" if isinstance(session, Session) else ""
        raise TypeError(
            f"{type(session).__name__} is not the name of a session: from_torch opens the session "
            f"by itself, so pass its name{name}"
        )
    return checked_optimizer(optimizer)
