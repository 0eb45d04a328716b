"""What is said of a session in a few words: where it is, what its ranks do, what is left."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pacesetter_service.core.watching import plan_end
from pacesetter_service.dashboard import wording
from pacesetter_service.runtime.queries.ranks import RanksReport, read_ranks
from pacesetter_service.runtime.queries.sessions import read_session
from pacesetter_service.runtime.queries.values import Values, read_values
from pacesetter_service.runtime.ranks import NEVER, Patience
from pacesetter_service.runtime.service import Service, SessionInfo

STALE_SECONDS = 60.0
"""After so much silence a rank is called stale, while others are heard."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A session in a few words.

    Attributes:
        info: The session.
        trained: The newest step that a rank has trained; None before the first one is heard of.
        total: The first step behind its plan; None if there is none.
        pace: Seconds that a step takes; None if no trainer has said.
        heard: Seconds since a rank was last heard; None if none was, as far as is known.
        expected: How many ranks there are to be.
        seen: How many were heard in the running attempt.
        stale: Those that were not heard for a minute or more.
        deviating: Those that train with other values than were sealed.
        lr: The value of each series at the newest trained step, or at the first one before.
    """

    info: SessionInfo
    trained: int | None
    total: int | None
    pace: float | None
    heard: float | None
    expected: int
    seen: int
    stale: tuple[int, ...]
    deviating: tuple[int, ...]
    lr: Mapping[str, float] = field(default_factory=dict)

    @property
    def part(self) -> float | None:
        """How much of the plan is done, between 0 and 1."""
        if self.total is None or self.trained is None:
            return None
        start = self.info.session.spec.start_step
        return min(max((self.trained + 1 - start) / max(self.total - start, 1), 0.0), 1.0)

    @property
    def left(self) -> float | None:
        """The seconds that are left of the plan, by the pace."""
        if self.total is None or self.trained is None or self.pace is None:
            return None
        return max(self.total - self.trained - 1, 0) * self.pace

    def until(self, step: int) -> float | None:
        """Return in about how many seconds a step is trained."""
        if self.pace is None or self.trained is None:
            return None
        return max(step - self.trained - 1, 0) * self.pace


async def read_facts(service: Service, name: str) -> Facts:
    """Return a session in a few words.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    info = await read_session(service, name)
    found = await read_ranks(
        service, name, Patience(STALE_SECONDS), lambda report: _facts(info, report)
    )
    spec = info.session.spec
    step = spec.start_step if found.trained is None else max(found.trained, spec.start_step)
    lr = await read_values(service, name, step, 1, None, _first)
    return replace(found, lr=lr)


def _first(values: Values) -> dict[str, float]:
    return dict(zip(values.names, values.block[:, 0].tolist(), strict=True))


def _facts(info: SessionInfo, report: RanksReport) -> Facts:
    session, ranks = report.session, report.snapshot.ranks.values()
    here = [each for each in ranks if each.attempt == session.attempt.began_as]
    done = [max(each.reported, each.stood - 1) for each in here]
    trained = max((each for each in done if each != NEVER), default=None)
    if trained is None and session.control.ended is not None:
        trained = session.control.ended.step - 1
    if trained is None and not here and session.held > session.spec.start_step:
        trained = session.held - 1  # what trainers were given before this process began to listen
    paces = [each.pace for each in here if each.pace]
    at = max((each.at for each in here), default=None)
    heard = None if at is None else max(report.snapshot.now - at, 0.0)
    if heard is None and session.horizon > session.attempt.start:
        heard = wording.seconds_since(info.changed_at)
    return Facts(
        info=info,
        trained=trained,
        total=session.spec.total_steps or plan_end(session),
        pace=max(paces, default=None),
        heard=heard,
        expected=session.spec.ranks,
        seen=report.summary.seen,
        stale=report.summary.stale if info.state == "active" else (),
        deviating=report.summary.deviating,
    )
