"""What operators order, and what comes of it."""

from dataclasses import dataclass

from pacesetter_service.core.actions import Action, Order
from pacesetter_service.core.events.logged import Logged
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.spec import SessionSpec


@dataclass(frozen=True, slots=True)
class Ordered(Logged):
    """An operator gave an order; it waits until its step is about to be sealed.

    `bounded` says whether the actor has bounds, so that the order counts among the actor's changes.
    """

    kind = "ordered"

    order: Order
    notice: Notice | None = None
    bounded: bool = False

    @property
    def at(self) -> int:
        """The first step that it will hold for."""
        return self.order.at

    @property
    def author(self) -> str:
        """Who ordered it."""
        return self.order.actor

    def text(self, spec: SessionSpec) -> str:
        """Say who ordered what."""
        order = self.order
        return f"{order.actor} ordered for step {order.at}: {order.action.cause()}."


@dataclass(frozen=True, slots=True)
class Acted(Logged):
    """An order was carried out; it holds from its step on.

    If the order did nothing, `idle` says why: its target had changed since it was given.
    """

    kind = "acted"

    order: Order
    idle: str | None = None

    @property
    def at(self) -> int:
        """The first step that it holds for."""
        return self.order.at

    @property
    def author(self) -> str:
        """Who ordered it."""
        return self.order.actor

    @property
    def action(self) -> Action:
        """What was ordered."""
        return self.order.action

    def text(self, spec: SessionSpec) -> str:
        """Say what was done, and by whom."""
        order, cause = self.order, self.action.cause()
        if self.idle is None:
            return f"From step {order.at} on, by {order.actor}: {cause}."
        return (
            f"Order {order.id} did nothing at step {order.at} ({cause}, by {order.actor}):"
            f" {self.idle}"
        )


@dataclass(frozen=True, slots=True)
class Cancelled(Logged):
    """An order was cancelled before it was carried out."""

    kind = "cancelled"

    order: int
    actor: str

    def text(self, spec: SessionSpec) -> str:
        """Say who cancelled it."""
        return f"{self.actor} cancelled order {self.order}."


@dataclass(frozen=True, slots=True)
class BatchResized(Logged):
    """One step has `after` samples from step `at` on; `before` is None if it was not known."""

    kind = "batch_resized"

    at: int
    after: int
    before: int | None = None

    def text(self, spec: SessionSpec) -> str:
        """Say what the batch size is, and what it was."""
        was = f", where there were {self.before}" if self.before is not None else ""
        return f"From step {self.at} on, {self.after} samples are in one step{was}."
