"""The whole state of a session, as a frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pacesetter_service.core.actions import Order
from pacesetter_service.core.bounds import CHANGES_COUNTED
from pacesetter_service.core.controllers import ControllerState
from pacesetter_service.core.ending import Ending
from pacesetter_service.core.limits import Limits
from pacesetter_service.core.measuring import Pending
from pacesetter_service.core.notices import KEPT, Notice
from pacesetter_service.core.smoothing import SmootherState
from pacesetter_service.core.spec import MAX_VALUES, MAX_WINDOW, SessionSpec
from pacesetter_service.core.timeline import Segment, Timeline, Timelines
from pacesetter_service.core.wait import Wait
from pacesetter_service.core.watching import Watch

Status = Literal["active", "finished", "archived"]

KEYS_KEPT = 256
"""How many of the newest orders' keys a session remembers."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of the job: from its first step until the job goes back to a step.

    Attributes:
        number: Its number in the session, from 1.
        start: Its first step.
        key: The key that all its ranks share; empty if its trainer has given none.
        batch: The batch size that it began with; None if the trainer has not said.
        carried: Earlier attempts whose trainers go on in this one, because it took back only steps
            that they did not hold.
    """

    number: int = 1
    start: int = 0
    key: str = ""
    batch: int | None = None
    carried: tuple[int, ...] = ()

    @property
    def began_as(self) -> int:
        """The number under which its trainers began, whatever was taken back since."""
        return self.carried[0] if self.carried else self.number

    def includes(self, number: int | None) -> bool:
        """Return whether that attempt counts as this one; None is a call that names none."""
        return number is None or number == self.number or number in self.carried


@dataclass(frozen=True, slots=True)
class OrderBook:
    """Operators' orders: those that wait, and what is known of the others.

    Attributes:
        waiting: Orders that were not carried out yet, by step and then by number.
        given: How many orders were given in the session.
        given_before: How many of them were given before the running attempt began.
        keys: The newest keys of orders, each with the order's number, its step and its text.
        counted: For each actor with bounds, the first steps of its changes, ascending: the last
            ones, as many as any bounds count.
    """

    waiting: tuple[Order, ...] = ()
    given: int = 0
    given_before: int = 0
    keys: Mapping[str, tuple[int, int, str]] = field(default_factory=dict)
    counted: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def with_change(self, order: Order) -> "OrderBook":
        """Return the book in which an order counts among the changes of its actor."""
        steps = sorted((*self.counted.get(order.actor, ()), order.at))[-CHANGES_COUNTED:]
        return replace(self, counted={**self.counted, order.actor: tuple(steps)})

    def with_order(self, order: Order) -> "OrderBook":
        """Return the book with another order in it."""
        keys = dict(self.keys)
        if order.key and order.batch_before is None:  # no operator repeats one of the batch rule's
            keys[order.key] = (order.id, order.at, order.action.cause())
        return replace(
            self,
            waiting=tuple(sorted((*self.waiting, order), key=lambda each: (each.at, each.id))),
            given=order.id,
            keys=dict(list(keys.items())[-KEYS_KEPT:]),
        )

    def carried_out(self, number: int) -> "OrderBook":
        """Return the book without a waiting order; its key stays known."""
        return replace(self, waiting=tuple(each for each in self.waiting if each.id != number))

    def cancelled(self, number: int) -> "OrderBook":
        """Return the book without an order; it may be given again under its key."""
        keys = {key: said for key, said in self.keys.items() if said[0] != number}
        return replace(self.carried_out(number), keys=keys)


@dataclass(frozen=True, slots=True)
class Control:
    """What controllers know and have decided, and what trainers were told.

    Attributes:
        states: The state of each controller, in the order of the spec.
        consumed: For each watched metric the last step that controllers have seen.
        smoothers: For each smoothed metric the memory of its smoother.
        notices: The newest hints to trainers.
        passed: The last boundary that was passed without its measurements.
        limits: The limits that controllers and operators cannot overstep.
        batch_size: Samples in one step; None if no trainer or operator has said.
        watch: What this attempt has heard of its metrics, and which notices it was given.
        wait: How long trainers waited for the newest step that had to be waited for.
        ended: What the trainer said when its training was over; None if it goes on, or if a
            controller has ended it.
    """

    states: tuple[ControllerState, ...]
    consumed: Mapping[str, int] = field(default_factory=dict)
    smoothers: Mapping[str, SmootherState] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    passed: int = -1
    limits: Limits = field(default_factory=Limits)
    batch_size: int | None = None
    watch: Watch = field(default_factory=Watch)
    wait: Wait | None = None
    ended: Ending | None = None

    def told(self, *notices: Notice) -> "Control":
        """Return the state with more notices; the oldest make room for them."""
        return replace(self, notices=(*self.notices, *notices)[-KEPT:])


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Session:
    """One named training whose hyperparameters are scheduled.

    Attributes:
        spec: What its creator asked for.
        timelines: For each series the laws that govern it.
        control: What controllers know and have decided, and what trainers were told.
        pending: Readings of watched metrics that no sealing has consumed yet.
        horizon: The first step that has not been sealed.
        held: The first step that no trainer holds or has trained; at most the horizon.
        revision: How often the future has been changed.
        attempt: The running attempt.
        orders: Operators' orders.
        reported: The names of all metrics that were reported to it, in any attempt.
        status: Which commands it still takes; see `core/status.py`.
    """

    spec: SessionSpec
    timelines: Timelines
    control: Control
    pending: Pending
    horizon: int
    held: int = 0
    revision: int = 0
    attempt: Attempt = field(default_factory=Attempt)
    orders: OrderBook = field(default_factory=OrderBook)
    reported: frozenset[str] = frozenset()
    status: Status = "active"

    @property
    def max_window(self) -> int:
        """The most steps that one call can seal: fewer if the laws are costly to evaluate."""
        lines = self.timelines
        return min(MAX_WINDOW, MAX_VALUES // len(lines), lines.affordable)

    @property
    def waited(self) -> Wait | None:
        """How long trainers have waited for the measurements that the horizon awaits."""
        wait = self.control.wait
        return wait if wait is not None and wait.step == self.horizon else None

    @property
    def watched(self) -> frozenset[str]:
        """The metrics whose readings some controller needs."""
        return self.spec.watched


def create(spec: SessionSpec, key: str = "") -> Session:
    """Return the session that a spec describes, before its first step.

    Args:
        spec: What its creator asks for.
        key: The key that all ranks of its first attempt share, if they share one.
    """
    return Session(
        spec=spec,
        timelines=Timelines(
            (
                series.name,
                Timeline(
                    (
                        Segment(
                            start=spec.start_step,
                            schedule=series.schedule,
                            clock=float(spec.start_step),
                            base=series.base,
                            level=series.base,
                            cause="created",
                            end=series.end,
                        ),
                    )
                ),
            )
            for series in spec.series()
        ),
        control=Control(
            tuple(controller.init() for controller in spec.rules),
            limits=spec.limits,
            batch_size=spec.batch_size,
        ),
        pending=Pending(),
        horizon=spec.start_step,
        held=spec.start_step,
        attempt=Attempt(start=spec.start_step, key=key, batch=spec.batch_size),
    )
