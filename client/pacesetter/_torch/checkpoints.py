"""Which states a session's scheduler accepts, and from which step a training goes on with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pacesetter._errors import StateMismatchError
from pacesetter._from_torch import taken_over
from pacesetter._info import SessionInfo


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a training that loads a scheduler's state goes on.

    Attributes:
        step: The step that is trained next.
        count: Torch's count of the steps up to it, which Accelerate has run ahead of it.
        attempt: The attempt that the state belongs to, by its own word.
    """

    step: int
    count: int
    attempt: object


def checkpoint_of(state: Mapping[str, Any], info: SessionInfo) -> Checkpoint:
    """Return what a state says, of a session's scheduler or of a torch scheduler of its law.

    Args:
        state: The state to load.
        info: The session that it is loaded into.

    Raises:
        StateMismatchError: The state is of another training, has no step, or says more than a
            session can take over.
    """
    state = taken_over(state, info)
    step = _step_of(state, info)
    count = state.get("_step_count", step + 1)
    if type(count) is not int:
        raise StateMismatchError(
            f"the checkpoint has _step_count={count!r}: load a scheduler's state_dict, or leave it "
            "out"
        )
    return Checkpoint(step, count, state.get("attempt", info.attempt))


def _step_of(state: Mapping[str, Any], info: SessionInfo) -> int:
    """Return the step from which a training that loads a state into a session goes on.

    Raises:
        StateMismatchError: The state has no step, or it is of another session from which this one
            has not branched off at its step.
    """
    step = state.get("last_epoch")
    if type(step) is not int or step < 0:
        raise StateMismatchError(
            f"the checkpoint has last_epoch={step!r}: load a scheduler's state_dict"
        )
    name = str(state.get("session", info.name))
    if name != info.name:
        _refuse_strange(name, step, info)
    return step


def _refuse_strange(name: str, step: int, info: SessionInfo) -> None:
    branched = info.branched_off(name)
    if branched is None:
        raise StateMismatchError(
            f"the checkpoint belongs to session {name}, and {info.name} is another training. To"
            f" resume that one, open {name}. To go on from it for longer or by another description,"
            f" open Client.session('another-name', continues={name!r}, ...) and load it there. If"
            f' {info.name} is to go on at its step all the same, set state["session"]'
        )
    if step != branched:
        side = "belongs to" if step < branched else "was trained by"
        raise StateMismatchError(
            f"session {info.name} branched off {name} at step {branched}, and the checkpoint is of"
            f" step {step}, which {side} {name}. Load its checkpoint of step {branched}; or branch"
            f" off at step {step}, with Client.session('another-name', continues={name!r}, ...)"
        )
