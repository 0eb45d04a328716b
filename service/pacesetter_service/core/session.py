"""The whole state of a session, as a frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pacesetter_service.core.commands import Reading
from pacesetter_service.core.controllers import ControllerState
from pacesetter_service.core.spec import MAX_VALUES, MAX_WINDOW, SessionSpec
from pacesetter_service.core.timeline import Segment, Timeline


@dataclass(frozen=True, slots=True)
class Session:
    """One named training whose hyperparameters are scheduled.

    Attributes:
        spec: What its creator asked for.
        timelines: For each series the laws that govern it.
        controllers: The state of each controller, in the order of the spec.
        pending: Readings of watched metrics that no sealing has consumed yet, by their keys.
        consumed: For each watched metric the last step that controllers have seen.
        horizon: The first step that has not been sealed.
        revision: How often the future has been changed.
        attempt: Which life of the job this is, from 1.
        status: Whether it still takes commands.
    """

    spec: SessionSpec
    timelines: Mapping[str, Timeline]
    controllers: tuple[ControllerState, ...]
    pending: Mapping[tuple[int, str, int], Reading]
    consumed: Mapping[str, int]
    horizon: int
    revision: int = 0
    attempt: int = 1
    status: Literal["active", "archived"] = "active"

    @property
    def max_window(self) -> int:
        """The most steps that one call can seal."""
        return min(MAX_WINDOW, MAX_VALUES // len(self.timelines))

    @property
    def watched(self) -> frozenset[str]:
        """The metrics that some controller consumes."""
        return frozenset(controller.metric for controller in self.spec.controllers)


def create(spec: SessionSpec) -> Session:
    """Give the session that a spec describes, before its first step."""
    return Session(
        spec=spec,
        timelines={
            series.name: Timeline(
                (
                    Segment(
                        start=spec.start_step,
                        schedule=series.schedule,
                        origin=0,
                        base=series.base,
                        level=series.base,
                        cause="created",
                    ),
                )
            )
            for series in spec.series()
        },
        controllers=tuple(controller.init() for controller in spec.controllers),
        pending={},
        consumed={},
        horizon=spec.start_step,
    )
