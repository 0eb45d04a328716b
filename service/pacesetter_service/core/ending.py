"""How a training has ended, if its trainer has said so."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["completed", "failed"]


@dataclass(frozen=True, slots=True)
class Ending:
    """What a trainer said when its training was over.

    Attributes:
        outcome: Whether the training was completed.
        step: The first step that was not trained. A trainer that trains it resumes the training.
        reason: Why it ended, in a line for people; may be empty.
    """

    outcome: Outcome
    step: int
    reason: str = ""
