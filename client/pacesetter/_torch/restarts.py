"""Which attempts of its session a scheduler knows of, and when it opens another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pacesetter._core import WayBack
from pacesetter._errors import ResumeError
from pacesetter._session import core_of
from pacesetter._torch.relay import SessionRelay


class Restarts:
    """Takes a session back for a scheduler, and knows what others have done; all ranks make one.

    Args:
        relay: The relay to the session.
        key: What all ranks of a restart share, see `RemoteLR`.
        stood: The step at which an earlier scheduler of this process stood; None without one.

    Attributes:
        lived: Whether the step at which the scheduler begins may have been handed out before.
        led_to: The step that another scheduler has taken the session back to, until this one is
            there.
    """

    def __init__(self, relay: SessionRelay, key: str | None, *, stood: int | None) -> None:
        self._relay = relay
        self._key = key
        self._count = 0
        self._seen = core_of(relay.session).restarts
        self.led_to: int | None = None
        self.lived = stood in {None, core_of(relay.session).begins_at} and self._was_lived()

    def _was_lived(self) -> bool:
        """Return whether the session may have handed out steps before; all ranks find the same."""
        session, core = self._relay.session, core_of(self._relay.session)
        lived = session.horizon > core.begins_at or core.is_to_branch or not core.met
        return self._relay.decide(lambda: lived)

    def is_due(self, step: int, attempt: object, *, reached: int) -> bool:
        """Return whether going to a step means to train it again, in a new attempt.

        Args:
            step: The step at which the training goes on.
            attempt: The attempt that the checkpoint is of.
            reached: The step that the scheduler would have trained next.
        """
        session = self._relay.session
        if core_of(session).is_to_branch:
            return True
        info = session.info
        if info.is_fork and step == info.first_step == reached and not self.lived:
            return False  # the scheduler begins there, and no job has trained it
        if core_of(session).met and step > session.horizon:
            return False  # no job has trained up to it
        if step == self.led_to:
            return False  # another scheduler of the session has gone back there, for this one too
        if step != reached or attempt != session.attempt:
            return True
        # At the first step: has this job handed it out, or one before?
        return step == core_of(session).begins_at and self.lived

    def go_back(self, way: WayBack, needed: Callable[[], bool]) -> None:
        """Take the session back to a step where that is needed; see `SessionRelay.restart`."""
        self._relay.restart(replace(way, key=way.key or self._next_key()), needed)
        self.led_to = None

    def _next_key(self) -> str | None:
        """Return the key of the next restart: every further one of a process has a number."""
        if self._key is None or not self._count:
            return self._key
        return f"{self._key}/{self._count}"

    def note(self) -> bool:
        """Record an attempt that was opened where the scheduler is; return whether one was."""
        restarts = core_of(self._relay.session).restarts
        if restarts == self._seen:
            return False
        self._seen = restarts
        self._count += 1
        self.lived = False
        return True

    def arrive(self, step: int) -> None:
        """Forget the step that the session was taken back to, once the scheduler is there."""
        if self._relay.follows or self.led_to == step:
            self.led_to = None

    def left_behind(self, step: int) -> ResumeError | None:
        """Return why ranks at a step cannot go on: the session was taken back without them."""
        if self.led_to is None:
            return None
        return ResumeError(
            f"session {self._relay.session.name} was taken back to step {self.led_to}, and this "
            f"scheduler stands at step {step}: where ranks share a session, call "
            "scheduler.restart(N), or load_state_dict, on all of them and for each scheduler"
        )
