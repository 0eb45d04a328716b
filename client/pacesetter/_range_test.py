"""The outcome of a learning rate range test, as the server evaluated it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pacesetter._errors import misfit
from pacesetter._files import writing


@dataclass(frozen=True)
class Suggestion:
    """The suggestion of one rule.

    Attributes:
        lr: The learning rate; None when the rule cannot tell.
        step: The step of the sweep at which it was read.
        reason: What was seen there, or why the rule cannot tell.
    """

    lr: float | None
    step: int | None
    reason: str


@dataclass(frozen=True)
class Proposal:
    """The one rate to start from.

    Attributes:
        lr: The rate for the peak of a schedule; None when the curve does not show one.
        agreeing: The rules whose median it is.
        reason: How it came about, or why there is none.
    """

    lr: float | None
    agreeing: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class RangeTest:
    """Loss over learning rate, and what known rules read from it.

    Attributes:
        session: The session that swept the rates; it can be read for ever.
        metric: What was measured.
        ended: Why the sweep ended; None while it runs.
        steps: The step of each measurement.
        lr: The learning rate of each measurement.
        loss: What was measured, NaN and infinities included.
        smoothed: The losses as the rules read them.
        suggestions: By rule: `steepest`, `valley`, `slide`, `minimum`, `fastai`,
            `torch_lr_finder`, `ignite` and `lightning`.
        proposal: The median of the suggestions that agree.
        picture: The curve with all suggestions, as SVG.
    """

    session: str
    metric: str
    ended: str | None
    steps: tuple[int, ...]
    lr: tuple[float, ...]
    loss: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestions: Mapping[str, Suggestion]
    proposal: Proposal
    picture: str = field(repr=False)

    @classmethod
    def parse(cls, answer: Mapping[str, Any], picture: str) -> RangeTest:
        """Read the server's JSON, and keep its picture.

        Raises:
            InvalidAnswerError: A field is missing or of the wrong type.
        """
        try:
            curve, proposal = answer["curve"], answer["proposal"]
            return cls(
                session=str(answer["session"]),
                metric=str(answer["metric"]),
                ended=answer["ended"],
                steps=tuple(int(step) for step in curve["step"]),
                lr=_floats(curve["lr"]),
                loss=_floats(curve["loss"]),
                smoothed=_floats(curve["smoothed"]),
                suggestions={
                    str(name): Suggestion(_rate(each["lr"]), each["step"], str(each["reason"]))
                    for name, each in answer["suggestions"].items()
                },
                proposal=Proposal(
                    _rate(proposal["lr"]), tuple(proposal["agreeing"]), str(proposal["reason"])
                ),
                picture=picture,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise misfit(
                f"the server described no range test ({type(error).__name__}: {error})"
            ) from error

    def save(self, path: str | Path) -> None:
        """Write the picture to a file.

        Raises:
            ValueError: The name does not end in `.svg`, the picture's format.
        """
        target = Path(path)
        if target.suffix.lower() != ".svg":
            raise ValueError(f"{target.name!r}: the picture is SVG, so name it something.svg")
        with writing(target) as out:
            out.write(self.picture.encode())


def _floats(values: list[Any]) -> tuple[float, ...]:
    """Return numbers, including the words `nan`, `inf` and `-inf`, as floats."""
    return tuple(float(value) for value in values)


def _rate(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{value!r} is no learning rate")
    return float(value)
