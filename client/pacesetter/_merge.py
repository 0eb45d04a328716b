"""A merge: which checkpoints to average in place of a decay, as the server says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pacesetter._errors import misfit


@dataclass(frozen=True)
class Merge:
    """Which checkpoints to merge, with which weights, and what the merge stands for.

    Attributes:
        session: The session.
        shape: The shape of the decay.
        steps: The checkpoints to merge, oldest first, each by the step before whose update its
            weights are.
        weights: The weight of each of them; their sum is 1.
        shares: For each checkpoint, the fraction at which the updates since the one before it
            count; 1 for the first.
        left_out: `{"step", "reason"}` of each checkpoint to leave out.
        action: The order that the merge replaces, a `cooldown`.
        at: The step that the order would hold from.
        answer: All of the server's answer.
    """

    session: str
    shape: str
    steps: tuple[int, ...]
    weights: tuple[float, ...]
    shares: tuple[float, ...]
    left_out: tuple[Mapping[str, Any], ...]
    action: Mapping[str, Any]
    at: int
    answer: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Merge:
        """Read a server's answer.

        Raises:
            InvalidAnswerError: A field is missing or of the wrong type.
        """
        try:
            found, instead = answer["checkpoints"], answer["stands_for"]
            return cls(
                session=str(answer["session"]),
                shape=str(answer["shape"]),
                steps=tuple(int(each["step"]) for each in found),
                weights=tuple(float(each["weight"]) for each in found),
                shares=tuple(float(each["share"]) for each in found),
                left_out=tuple(answer["left_out"]),
                action=instead["action"],
                at=int(instead["at"]),
                answer=answer,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise misfit(
                f"the server described no merge ({type(error).__name__}: {error})"
            ) from error
