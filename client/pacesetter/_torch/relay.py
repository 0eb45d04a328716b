"""The relay between a scheduler and its session, for one process alone or the ranks of a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from pacesetter._core import WayBack
from pacesetter._errors import GroupError
from pacesetter._reports import Scalar
from pacesetter._session import Session, core_of
from pacesetter._window import Window


class SessionRelay:
    """A session as the schedulers of a training share it: here in a process that trains alone.

    It hands everything on to its session. `pacesetter.distributed` has the relay for ranks, all of
    which make the same calls.

    Attributes:
        session: The session of this process.
        reports: Whose metrics are reported: the `first` rank's, the `mean` of all, or `each` one's.
        leads: Whether this process logs for all.
        follows: Whether a scheduler moves with its session when another one takes the session back.
    """

    reports = "each"
    leads = True
    follows = True

    def __init__(self, session: Session) -> None:
        self.session = session

    def may_raise(self, *, edge: bool) -> bool:  # noqa: ARG002 - no other rank waits at an edge
        """Return whether this process may raise what it alone has found to be wrong.

        Args:
            edge: Whether the step is one at which all ranks meet.
        """
        return True

    def window(
        self,
        step: int,
        *,
        at: int,
        held: Mapping[str, Scalar],
        fault: Exception | None = None,
        meets: bool = False,  # noqa: ARG002 - there is no rank to meet
        trains: bool = True,
    ) -> Window:
        """Return the window that holds a step, and tell the server what the optimizer held.

        Args:
            step: The step wanted.
            at: The step that the training is at now; -1 for none.
            held: What the optimizer holds at it, by series, for those that this process drives.
            fault: What is wrong in this process, to be raised.
            meets: Whether the ranks meet in any case; all of them say so at this step.
            trains: Whether the step is trained now, see `SessionCore.window`.
        """
        if fault is not None:
            raise fault
        if held:
            self.session.applied(at, held)
        return core_of(self.session).window(step, trains=trains)

    def look(self, step: int) -> Window | None:
        """Return the window of a step that is only read; None where ranks would have to meet."""
        return core_of(self.session).window(step)

    def report_all(self, step: int, metrics: Mapping[str, Scalar]) -> None:
        """Report what this process has measured at a step."""
        self.session.report(step, **metrics)

    def flush(self) -> None:
        """Deliver what was reported now."""
        self.session.flush()

    def deliver(self, seconds: float) -> bool:
        """Return whether what was reported could be delivered within this many seconds."""
        return self.session.deliver(seconds)

    def decide(self, work: Callable[[], object]) -> bool:
        """Run a function in the leading process, and return whether its result was true."""
        return bool(work())

    def resize(self, batch_size: int) -> None:
        """Tell the server how many samples are in one step of all ranks."""
        self.decide(lambda: self.session.resize(batch_size))

    def begin(self, step: int, *, batch_size: int | None) -> None:
        """Settle what becomes of steps that were trained before, see `SessionCore.begin`."""
        core_of(self.session).begin(step, batch_size=batch_size)

    def refuse(self, fault: Exception) -> NoReturn:
        """Raise why this process does not go back to a step, on all ranks that meet for it."""
        raise fault

    def restart(self, way: WayBack, needed: Callable[[], bool]) -> None:
        """Take the session back to a step where the leading process says that it is needed."""
        if needed():
            core_of(self.session).go_back(way)


def misreported(relay: SessionRelay) -> GroupError | None:
    """Return why the metrics of this training would not be those that its session waits for."""
    ranks = relay.session.info.ranks
    if relay.reports == "first" and ranks > 1:
        return GroupError(
            f"session {relay.session.name} expects the metrics of {ranks} ranks, and here the "
            "first rank alone reports: pass reports='each', or create the session with ranks=1 "
            "and pass reports='mean'"
        )
    return None
