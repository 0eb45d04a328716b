"""A draft: what a command would lead to, before it is committed."""

from pacesetter_service.core.events import Event
from pacesetter_service.core.evolve import evolve
from pacesetter_service.core.session import Session


class Draft:
    """Events in the making, and the session after them; each event is folded once.

    A draft belongs to the function that makes it. After a refusal or a failed commit, dropping the
    draft undoes everything.
    """

    __slots__ = ("_events", "after")

    def __init__(self, session: Session) -> None:
        self._events: list[Event] = []
        self.after = session

    @property
    def events(self) -> tuple[Event, ...]:
        """The events, in their order."""
        return tuple(self._events)

    def record(self, *events: Event) -> "Draft":
        """Append events, fold them, and return the draft."""
        for event in events:
            self.after = evolve(self.after, event)
            self._events.append(event)
        return self

    def follow(self, *drafts: "Draft") -> "Draft":
        """Append drafts that began where this one ended, and return this one."""
        for draft in drafts:
            self._events += draft._events  # noqa: SLF001 - it is one of its own
            self.after = draft.after
        return self
