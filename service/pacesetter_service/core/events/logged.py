"""What every event of a session's log has: its kind, its step, its sentence and its stored form."""

import json
from abc import abstractmethod
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pacesetter_service.core.mistakes import first_mistake
from pacesetter_service.core.spec import SessionSpec


class Logged:
    """An event with a line of its own in the log; a subclass is a frozen dataclass.

    The event is stored as its fields, by their declared types; those with their default are left
    out. So a field that is added later needs a default, which is what its absence in old lines
    means.
    """

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: ClassVar[str]
    """Its name in the log, on the wire and in the database."""

    kinds: ClassVar[dict[str, type["Logged"]]] = {}
    """The class of each kind."""

    def __init_subclass__(cls) -> None:
        cls.kinds[cls.kind] = cls

    @property
    def from_step(self) -> int | None:
        """The step from which the event holds, its field `at`; None if it has no such field."""
        at: int | None = getattr(self, "at", None)
        return at

    @property
    def author(self) -> str:
        """Who brought the event about, its field `actor`; empty if it has no actor."""
        author: str = getattr(self, "actor", "")
        return author

    @abstractmethod
    def text(self, spec: SessionSpec) -> str:
        """Return a sentence for readers of the log of a session with this spec."""

    def fields(self) -> dict[str, Any]:
        """Return its fields as plain types, without those that have their default."""
        # In JSON mode, pydantic would turn an infinity within a state into null.
        plain: dict[str, Any] = _form(self.kind).dump_python(self, exclude_defaults=True)
        return plain

    def dump(self) -> str:
        """Return its fields as JSON; floats by their shortest exact form, NaN as Python does."""
        return json.dumps(self.fields(), separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def load(cls, text: str, spec: SessionSpec) -> Self:
        """Read what `dump` wrote about a session with this spec.

        Raises:
            ValueError: It is not what this class declares.
        """
        try:
            event: Self = _form(cls.kind).validate_json(text, strict=True, context=spec)
        except ValidationError as wrong:
            raise ValueError(first_mistake(wrong)) from wrong
        return event


def load_event(kind: str, text: str, spec: SessionSpec) -> Logged:
    """Read an event of a kind.

    Raises:
        ValueError: There is no such kind, or it is another event.
    """
    if kind not in Logged.kinds:
        raise ValueError(f"an event of the kind {kind!r} was written by a newer service")
    return Logged.kinds[kind].load(text, spec)


@cache
def _form(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(Logged.kinds[kind])
