"""A session in brief: where it is, what its ranks do, and what is left."""

from collections.abc import Mapping
from dataclasses import dataclass

from pacesetter_service.core.session import Session
from pacesetter_service.dashboard import wording
from pacesetter_service.runtime.queries.status import Status, Value, read_status
from pacesetter_service.runtime.rank_digests import Ranks
from pacesetter_service.runtime.service import Service

STATES: Mapping[str, str] = {"active": "running"}
"""The names of states on pages, if they differ."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A session in brief."""

    status: Status

    @property
    def session(self) -> Session:
        """The whole session."""
        return self.status.stored.session

    @property
    def name(self) -> str:
        """Its name."""
        return self.session.spec.name

    @property
    def state(self) -> str:
        """What has become of it; a training that has not begun is new."""
        if self.status.state == "active" and self.status.last_heard is None:
            return "new"
        return STATES.get(self.status.state, self.status.state)

    @property
    def created_at(self) -> str:
        """When it was created; ISO 8601, UTC."""
        return self.status.stored.created_at

    @property
    def trained(self) -> int | None:
        """The newest step that was trained; None if none was."""
        return self.status.step

    @property
    def total(self) -> int | None:
        """The first step after its plan; None if the plan has no end."""
        return self.status.total_steps

    @property
    def pace(self) -> float | None:
        """Seconds that a step takes, if a trainer has said so."""
        return self.status.ranks.pace

    @property
    def heard(self) -> float | None:
        """Seconds since a rank last called."""
        return wording.seconds_since(self.status.last_heard)

    @property
    def ranks(self) -> Ranks:
        """Its ranks as a few numbers."""
        return self.status.ranks

    @property
    def stale(self) -> int:
        """How many ranks are silent while the training should go on."""
        return self.ranks.stale if self.status.state in {"active", "silent"} else 0

    @property
    def deviating(self) -> int:
        """How many ranks train with other values than the sealed ones, while the training runs.

        This is by their own account. For ranks that have not called since the service started, it
        is by the record.
        """
        if self.status.state not in {"active", "silent"}:
            return 0
        return max(self.ranks.deviating, len(self.session.control.watch.deviating))

    @property
    def lr(self) -> Mapping[str, float | None]:
        """The learning rates at the newest trained step."""
        return self.status.lr

    @property
    def left(self) -> float | None:
        """The seconds that the rest of its plan takes, by its pace."""
        return self.status.seconds_left

    @property
    def part(self) -> float | None:
        """The fraction of the plan that is done, between 0 and 1."""
        if self.total is None or self.trained is None:
            return None
        start = self.session.spec.start_step
        return min(max((self.trained + 1 - start) / max(self.total - start, 1), 0.0), 1.0)

    @property
    def loss(self) -> tuple[str, Value] | None:
        """The most telling metric, with its newest value: a loss, or the first watched one."""
        known = self.status.metrics
        for wanted in (*(each for each in known if "loss" in each.lower()), *self.session.watched):
            if wanted in known:
                return wanted, known[wanted]
        return next(iter(known.items()), None)

    @property
    def troubled(self) -> bool:
        """Whether an operator should look at it."""
        return self.state in {"silent", "failed"} or bool(self.deviating or self.stale)

    def until(self, step: int) -> float | None:
        """Return in about how many seconds a step will be trained; None if unknown."""
        if self.pace is None:
            return None
        done = self.session.spec.start_step if self.trained is None else self.trained + 1
        return max(step - done, 0) * self.pace


async def read_facts(service: Service, name: str) -> Facts:
    """Return a session in brief.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    return Facts(await read_status(service, name))
