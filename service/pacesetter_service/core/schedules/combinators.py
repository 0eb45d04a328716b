"""The combinators of values: sums, products and bounds of laws.

They work on the learning rate alone; other channels that their children drive pass through.
"""

from abc import abstractmethod
from collections.abc import Iterator
from functools import reduce
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import UnresolvedLengthError
from pacesetter_service.core.model import NonNegative, Real, Written
from pacesetter_service.core.schedules.base import AnySchedule, Base, Schedule, Steps, Values
from pacesetter_service.core.schedules.out_of_range import OutOfRange, of_all

Several = Annotated[tuple[AnySchedule, ...], Field(min_length=1, max_length=64)]


def drives(law: Schedule) -> set[str] | None:
    """Name the channels that a law drives; None if unknown until its lengths are in steps."""
    try:
        return set(law.channels())
    except UnresolvedLengthError:
        return None


class OfValues(Schedule):
    """A combinator that changes the values of one child."""

    schedule: AnySchedule

    def channels(self) -> dict[str, Schedule]:  # noqa: D102
        laws = self.schedule.channels()
        return laws | {"lr": self.model_copy(update={"schedule": laws["lr"]})}

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return self.schedule.range_policy()


class Relative(OfValues):
    """A law of factors: the child sees a base of 1 and its values are multiplied by the base."""

    formula: ClassVar[str] = "base * schedule(t), where the schedule sees base = 1"
    source: ClassVar[str] = "torch.optim.lr_scheduler.LambdaLR"
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "ramp", "start": 0.1, "end": 1.0, "steps": 100}
    }

    kind: Literal["relative"] = "relative"

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        return base * self.schedule.values(t, 1.0)


class Scale(OfValues):
    """The child's values times a number."""

    formula: ClassVar[str] = "by * schedule(t)"
    source: ClassVar[str] = "timm lr_scale; torchrec lr_scale"
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "cosine", "total_steps": 100},
        "by": 0.5,
    }

    kind: Literal["scale"] = "scale"
    by: NonNegative

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        return self.by * self.schedule.values(t, base)


class Rebase(OfValues):
    """The child from another base: the base times a number; what is absolute in it stays."""

    formula: ClassVar[str] = "schedule(t), where the schedule sees by * base"
    source: ClassVar[str] = "timm cycle_decay; the restart_weights of mmengine"
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "cosine", "total_steps": 100, "min_lr": 1e-5},
        "by": 0.5,
    }

    kind: Literal["rebase"] = "rebase"
    by: NonNegative

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        return self.schedule.values(t, self.by * base)


class Clamp(OfValues):
    """The child's values, kept between two bounds."""

    formula: ClassVar[str] = "min(max(schedule(t), min), max)"
    source: ClassVar[str] = "optax (end_value); Megatron (min_lr)"
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "exponential", "gamma": 0.99},
        "min": 1e-5,
    }

    kind: Literal["clamp"] = "clamp"
    min: Real | None = None
    max: Real | None = None

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.min is not None and self.max is not None and self.min > self.max:
            yield PydanticCustomError("no_room", "`min` is above `max`; swap them")

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        values = self.schedule.values(t, base)
        if self.min is not None:
            values = np.maximum(values, self.min)
        if self.max is not None:
            values = np.minimum(values, self.max)
        return values


class Product(OfValues):
    """A schedule times factors; each factor sees a base of 1."""

    formula: ClassVar[str] = "schedule(t) * factors[0](t) * factors[1](t) ..."
    source: ClassVar[str] = "trax multifactor; big_vision; pytorch-warmup"
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "cosine", "total_steps": 1000},
        "factors": [{"kind": "ramp", "start": 0.0, "end": 1.0, "steps": 100}],
    }

    kind: Literal["product"] = "product"
    factors: Several

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        first = self.schedule.values(t, base)
        return reduce(lambda product, law: product * law.values(t, 1.0), self.factors, first)

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return of_all(law.range_policy() for law in (self.schedule, *self.factors))


class OfSeveral(Schedule):
    """A combinator of several laws into one value."""

    of: Several

    def _faults(self) -> Iterator[PydanticCustomError]:
        if any(len(drives(law) or ()) > 1 for law in self.of):
            yield PydanticCustomError(
                "nested_channels", "A law among several that are joined can drive one value only"
            )

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        return reduce(self._join, (law.values(t, base) for law in self.of))

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return of_all(law.range_policy() for law in self.of)

    @staticmethod
    @abstractmethod
    def _join(one: Values, other: Values) -> Values:
        """Make one value of two."""


class Sum(OfSeveral):
    """The sum of several laws."""

    formula: ClassVar[str] = "of[0](t) + of[1](t) ..."
    source: ClassVar[str] = "elementary"
    example: ClassVar[dict[str, Any]] = {
        "of": [{"kind": "hold", "value": 0.001}, {"kind": "exponential", "gamma": 0.9}]
    }

    kind: Literal["sum"] = "sum"

    @staticmethod
    def _join(one: Values, other: Values) -> Values:
        return one + other


class Minimum(OfSeveral):
    """The lowest of several laws."""

    formula: ClassVar[str] = "min(of[0](t), of[1](t) ...)"
    source: ClassVar[str] = "Vaswani et al. 2017, arXiv:1706.03762 (Noam)"
    example: ClassVar[dict[str, Any]] = {
        "of": [{"kind": "ramp", "start": 0.0, "end": "base", "steps": 100}, {"kind": "power_law"}]
    }

    kind: Literal["minimum"] = "minimum"

    @staticmethod
    def _join(one: Values, other: Values) -> Values:
        return np.minimum(one, other)


class Maximum(OfSeveral):
    """The highest of several laws."""

    formula: ClassVar[str] = "max(of[0](t), of[1](t) ...)"
    source: ClassVar[str] = "elementary"
    example: ClassVar[dict[str, Any]] = {
        "of": [{"kind": "hold", "value": 0.001}, {"kind": "exponential", "gamma": 0.9}]
    }

    kind: Literal["maximum"] = "maximum"

    @staticmethod
    def _join(one: Values, other: Values) -> Values:
        return np.maximum(one, other)


ChannelName = Annotated[
    str,
    Written(
        r"^[a-z][a-z0-9_]{0,31}$",
        "Name a channel by 1 to 32 small letters, digits and underscores, beginning with a letter",
    ),
]


class Channels(Schedule):
    """Several hyperparameters on one clock, each with a law of its own."""

    formula: ClassVar[str] = "each channel its own law"
    source: ClassVar[str] = "torch OneCycleLR and CyclicLR (momentum); optax.inject_hyperparams"
    example: ClassVar[dict[str, Any]] = {
        "laws": {
            "lr": {"kind": "ramp", "start": 0.01, "end": 0.1, "steps": 100},
            "momentum": {"kind": "ramp", "start": 0.95, "end": 0.85, "steps": 100},
        }
    }

    kind: Literal["channels"] = "channels"
    laws: Annotated[
        dict[ChannelName, AnySchedule],
        Field(min_length=1, max_length=16),
    ]

    def _faults(self) -> Iterator[PydanticCustomError]:
        if "lr" not in self.laws:
            yield PydanticCustomError("no_lr_channel", "Name a law for the channel `lr`")
        if any(len(drives(law) or ()) > 1 for law in self.laws.values()):
            yield PydanticCustomError(
                "nested_channels", "A law inside `channels` can drive one value only"
            )

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        return self.laws["lr"].values(t, base)

    def channels(self) -> dict[str, Schedule]:  # noqa: D102
        return {channel: law.channels()["lr"] for channel, law in self.laws.items()}

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return of_all(law.range_policy() for law in self.laws.values())
