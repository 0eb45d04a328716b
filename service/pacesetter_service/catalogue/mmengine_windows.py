"""What mmengine's schedules share: the window in which each is active, and its unit of counting."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import Duration, StepCount, StepPoint, known, whole
from pacesetter_service.core.model import Flag
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import Freeze, Part, Sequence, Span, Stair
from pacesetter_service.core.schedules.primitives import Hold

NO_END = 1_000_000_000
"""The number that mmengine counts up to if a schedule has no `end`."""


def _in_epochs(length: object) -> object:
    """Turn bare numbers of epochs into lengths, and leave anything else as it is."""
    if isinstance(length, list | tuple):
        return [_in_epochs(each) for each in length]
    if isinstance(length, int | float) and not isinstance(length, bool):
        return {"epochs": length}
    return length


class Windowed(Named):
    """What mmengine's schedules share: the window in which they are active, and their counting."""

    lengths: ClassVar[tuple[str, ...]] = ()
    """The names of lengths besides `begin` and `end`."""

    begin: StepPoint = 0
    end: StepCount | None = None
    by_epoch: Flag = True
    convert_to_iter_based: Flag = False
    every: StepCount = 1

    @model_validator(mode="before")
    @classmethod
    def _count_epochs(cls, data: Any) -> Any:  # noqa: ANN401 - whatever a caller sent
        """Convert bare numbers to lengths in epochs; only once: a resolved schedule has `every`."""
        if not isinstance(data, dict) or "every" in data or data.get("by_epoch", True) is not True:
            return data
        names = [name for name in ("begin", "end", *cls.lengths) if name in data]
        smooth = data.get("convert_to_iter_based") is True
        return (
            data
            | {name: _in_epochs(data[name]) for name in names}
            | {"every": 1 if smooth else {"epochs": 1}}
        )

    @model_validator(mode="after")
    def _ends_after_its_begin(self) -> Self:
        if known(self.begin) and known(self.end) and self.end <= self.begin:
            raise PydanticCustomError("empty_window", "`end` must be above `begin`")
        return self

    @model_validator(mode="after")
    def _whole_counts(self) -> Self:
        every = self.every
        lengths = [each for each in self._lengths() if not isinstance(each, Duration)]
        if not isinstance(every, Duration) and any(length % every for length in lengths):
            raise PydanticCustomError(
                "part_of_an_epoch",
                "The schedule counts epochs, and a length of it is not a whole number of them; set"
                " `convert_to_iter_based` to true to count steps",
            )
        return self

    def _lengths(self) -> Iterator[int | Duration]:
        for name in ("begin", "end", *self.lengths):
            length = getattr(self, name)
            if length is not None:
                yield from length if isinstance(length, tuple) else (length,)

    def is_resolved(self) -> bool:
        """Return whether all lengths are in steps."""
        return all(map(known, (self.every, *self._lengths())))

    @abstractmethod
    def law(self) -> Schedule:
        """Return the law by the counts since `begin`, from the rate that it finds there."""

    def is_factor(self) -> bool:
        """Return whether the law only multiplies the rate, whatever other schedules are active."""
        return True

    def looks_back(self) -> bool:
        """Return whether the law aims at a fraction of the base, not of the rate that it finds."""
        return False

    def counts(self, length: Any) -> int:  # noqa: ANN401 - a length, whole by now
        """Return a length in counts."""
        return int(whole(length)) // whole(self.every)

    @property
    def window(self) -> tuple[int, int]:
        """The steps from which and until which the schedule is active."""
        end = NO_END * whole(self.every) if self.end is None else whole(self.end)
        return whole(self.begin), end

    @property
    def span(self) -> int:
        """How many counts the window has."""
        begin, end = self.window
        return self.counts(end - begin)

    def since(self, step: int) -> Schedule:
        """Return the law on a clock that starts at a step, not later than `begin`."""
        begin, end = self.window
        law, every = self.law(), whole(self.every)
        if every != 1:
            law = Stair(schedule=Span(schedule=law, ratio=every), every=every)
        active = law if self.end is None else Freeze(schedule=law, at=end - begin - 1)
        if begin == step:
            return active
        return Sequence(parts=(Part(schedule=Hold(), until=begin - step), Part(schedule=active)))

    def expand(self) -> Schedule:  # noqa: D102
        return self.since(0)
