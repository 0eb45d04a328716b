"""How a training goes back to a step, and how a session branches off from another."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pacesetter_service.core.events.logged import Logged
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.wording import listed, number


@dataclass(frozen=True, slots=True)
class AttemptOpened(Logged):
    """A new attempt of the job began at step `at`, and the attempt before it was fenced.

    Attributes:
        attempt: Its number.
        at: Its first step.
        key: The key that all its ranks share.
        actor: Who opened it.
        kept: The orders that wait again, or still.
    """

    kind = "attempt_opened"

    attempt: int
    at: int
    key: str
    actor: str
    kept: tuple[int, ...] = ()

    def text(self, spec: SessionSpec) -> str:
        """Say who went back where."""
        return (
            f"{self.actor} opened attempt {self.attempt} at step {self.at} ({self.key}): the job"
            " went back there, and the attempt before it was fenced."
        )


@dataclass(frozen=True, slots=True)
class TakenBack(Logged):
    """The steps `at` to `until` - 1, which were sealed but held by no trainer, are open again.

    They are open in a new attempt. It fences no trainer: those of the attempt before go on in it.

    Attributes:
        attempt: The new attempt.
        at: The first step that is open again.
        until: The horizon before.
        actor: Who ordered it.
        reason: Why, in the operator's words.
        kept: The orders that wait again, or still.
    """

    kind = "taken_back"

    attempt: int
    at: int
    until: int
    actor: str
    reason: str = ""
    kept: tuple[int, ...] = ()

    def text(self, spec: SessionSpec) -> str:
        """Say who took back which steps, and why."""
        why = f": {self.reason}" if self.reason else ""
        return (
            f"{self.actor} took back the steps {self.at} to {self.until - 1}, which were sealed but"
            f" which no trainer held{why}. They are decided anew, in attempt {self.attempt}, in"
            " which the trainers go on."
        )


@dataclass(frozen=True, slots=True)
class Forked(Logged):
    """The session began as a branch of another one, at step `at` of one of its attempts.

    Attributes:
        session: The other session.
        attempt: Its running attempt.
        at: The first step of the fork itself.
        actor: Who forked it.
        differs: The fields that the fork describes differently.
        factors: If the law was described anew, the factors that still multiply the bases of series.
    """

    kind = "forked"

    session: str
    attempt: int
    at: int
    actor: str
    differs: tuple[str, ...] = ()
    factors: Mapping[str, float] = field(default_factory=dict)

    def text(self, spec: SessionSpec) -> str:
        """Say who forked it from where, and what differs."""
        where = f"step {self.at} of {self.session}, attempt {self.attempt}"
        return f"{self.actor} forked this session from {where}{self.anew()}."

    def anew(self) -> str:
        """Say what is described differently, and which earlier changes still apply."""
        if not self.differs:
            return ""
        kept = [f"{name} is still multiplied by {number(by)}" for name, by in self.factors.items()]
        said = f", with another description of {listed(self.differs)}"
        return f"{said}; {listed(kept)}, by earlier decisions and scales" if kept else said
