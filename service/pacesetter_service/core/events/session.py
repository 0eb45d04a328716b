"""The other events of a session: what it lacked, what it noticed, and its end."""

from collections.abc import Mapping
from dataclasses import dataclass

from pacesetter_service.core.ending import Outcome
from pacesetter_service.core.events.logged import Logged
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.wording import listed


@dataclass(frozen=True, slots=True)
class Missed(Logged):
    """A metric has no measurement at a step, because too few ranks reported it in time."""

    kind = "missed"

    step: int
    metric: str
    ranks: int
    wanted: int
    at: int

    def text(self, spec: SessionSpec) -> str:
        """Say which measurement is missing, and why."""
        return (
            f"Step {self.step} has no measurement of {self.metric}: {self.ranks} of {self.wanted}"
            f" ranks had reported it when it could wait no longer, at step {self.at}."
        )


@dataclass(frozen=True, slots=True)
class BoundaryPassed(Logged):
    """The steps from `at` on are sealed without the measurements of some metrics."""

    kind = "boundary_passed"

    at: int
    missing: tuple[str, ...]

    def text(self, spec: SessionSpec) -> str:
        """Say which metrics were awaited in vain."""
        return (
            f"Step {self.at} was sealed without the measurement of {listed(self.missing)} that its"
            " decision waited for: the session's reaction.timeout was over."
        )


@dataclass(frozen=True, slots=True)
class RateDeviated(Logged):
    """A rank trained with another value than was sealed for the step."""

    kind = "rate_deviated"

    rank: int
    step: int
    series: str
    applied: float
    sealed: float

    @property
    def at(self) -> int:
        """The step that it is about."""
        return self.step

    def text(self, spec: SessionSpec) -> str:
        """Say what the rank trained with."""
        return (
            f"Rank {self.rank} trained step {self.step} with {self.series} = {self.applied!r}, but"
            f" {self.sealed!r} was sealed: something else writes into its optimizer."
        )


@dataclass(frozen=True, slots=True)
class Noticed(Logged):
    """The session noticed something that its trainer should know from step `at` on.

    `about` is the metric, or the step, that the notice is about.
    """

    kind = "noticed"

    at: int
    code: str
    about: str
    message: str

    def text(self, spec: SessionSpec) -> str:
        """Say what it noticed."""
        return f"At step {self.at} ({self.code}): {self.message}"


@dataclass(frozen=True, slots=True)
class Finished(Logged):
    """The training is over, as its trainer or an operator says; step `at` was not trained."""

    kind = "finished"

    at: int
    outcome: Outcome
    actor: str
    reason: str = ""

    def text(self, spec: SessionSpec) -> str:
        """Say how it ended, and who declared that."""
        how = "was completed" if self.outcome == "completed" else "failed"
        why = f": {self.reason}" if self.reason else ""
        return f"{self.actor} says that the training {how} before step {self.at}{why}."


@dataclass(frozen=True, slots=True)
class Reopened(Logged):
    """A trainer went on at step `at`, although the training had been declared over."""

    kind = "reopened"

    at: int

    def text(self, spec: SessionSpec) -> str:
        """Say that it goes on."""
        return f"The training goes on at step {self.at}, so the session is active again."


@dataclass(frozen=True, slots=True)
class Relabelled(Logged):
    """An operator has set labels of the session, and removed others."""

    kind = "relabelled"

    given: Mapping[str, str]
    taken: tuple[str, ...]
    actor: str

    def text(self, spec: SessionSpec) -> str:
        """Say which labels were set and removed."""
        got = listed([f"{name}={value}" for name, value in self.given.items()])
        said = [f"gave it the labels {got}"] if got else []
        said += [f"took away the labels {listed(self.taken)}"] if self.taken else []
        return f"{self.actor} {' and '.join(said)}."


@dataclass(frozen=True, slots=True)
class Archived(Logged):
    """The session takes no more commands."""

    kind = "archived"

    def text(self, spec: SessionSpec) -> str:
        """Say that the session is archived."""
        return "The session was archived: it takes no more commands."
