"""A merge: which checkpoints to average in place of a decay, as the server says it."""

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
        steps: The checkpoints to merge, by the step before whose update their weights are; the
            oldest first.
        weights: What each of them counts; together they are 1.
        shares: With what part the updates since the checkpoint before it count; 1 for the first.
        left_out: `{"step", "reason"}` of each checkpoint that is not to be merged.
        action: The order in whose place the merge is, a `cooldown`.
        at: The step that it would hold from.
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
