"""The whole state of a session, as a frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pacesetter_service.core.actions import Order
from pacesetter_service.core.controllers import ControllerState
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.pending import Pending
from pacesetter_service.core.smoothing import SmootherState
from pacesetter_service.core.spec import MAX_VALUES, MAX_WINDOW, Limits, SessionSpec
from pacesetter_service.core.timeline import Segment, Timeline


@dataclass(frozen=True, slots=True)
class Session:
    """One named training whose hyperparameters are scheduled.

    Attributes:
        spec: What its creator asked for.
        timelines: For each series the laws that govern it.
        controllers: The state of each controller, in the order of the spec.
        pending: Readings of watched metrics that no sealing has consumed yet.
        consumed: For each watched metric the last step that controllers have seen.
        smoothers: For each smoothed metric the memory of its smoother.
        notices: The newest hints to trainers.
        limits: What controllers and operators can not overstep.
        orders: Operators' orders that wait, by step and then by number.
        ordered: How many orders were given,
        ordered_before: and how many of them before this attempt began.
        keys: The newest keys of orders, with the order's number, its step and what it said.
        passed: The last boundary that was passed without its measurements.
        horizon: The first step that has not been sealed.
        revision: How often the future has been changed.
        attempt: Which life of the job this is, from 1,
        attempt_start: its first step,
        attempt_key: what all ranks of it share; empty for the first,
        attempt_batch: and the batch size that it began with, as far as anybody has said.
        batch_size: Samples in one step, as far as anybody has said.
        status: Whether it still takes commands; a finished one takes reports, and seals no more.
    """

    spec: SessionSpec
    timelines: Mapping[str, Timeline]
    controllers: tuple[ControllerState, ...]
    pending: Pending
    consumed: Mapping[str, int]
    horizon: int
    revision: int = 0
    attempt: int = 1
    status: Literal["active", "finished", "archived"] = "active"
    smoothers: Mapping[str, SmootherState] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    passed: int = -1
    limits: Limits = field(default_factory=Limits)
    orders: tuple[Order, ...] = ()
    ordered: int = 0
    ordered_before: int = 0
    attempt_start: int = 0
    attempt_key: str = ""
    attempt_batch: int | None = None
    batch_size: int | None = None
    keys: Mapping[str, tuple[int, int, str]] = field(default_factory=dict)

    @property
    def max_window(self) -> int:
        """The most steps that one call can seal."""
        return min(MAX_WINDOW, MAX_VALUES // len(self.timelines))

    @property
    def watched(self) -> frozenset[str]:
        """The metrics whose readings some controller needs."""
        return frozenset(self.spec.measured)


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
                        clock=float(spec.start_step),
                        base=series.base,
                        level=series.base,
                        cause="created",
                    ),
                )
            )
            for series in spec.series()
        },
        controllers=tuple(controller.init() for controller in spec.rules),
        pending=Pending(),
        consumed={},
        horizon=spec.start_step,
        limits=spec.limits,
        attempt_start=spec.start_step,
        batch_size=spec.batch_size,
        attempt_batch=spec.batch_size,
    )
