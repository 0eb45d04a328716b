"""Notices: typed hints to trainers, handed out with the window that holds their step."""

from dataclasses import dataclass

KEPT = 32
"""How many of the newest notices a session remembers."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a trainer should know when it reaches a step.

    Attributes:
        step: The first step that it is about.
        code: What it is, for programs.
        message: What it is, for people.
        good_step: For `roll_back`, the last step whose measurement was good: the trainer should
            load weights from before that step's update. None if there is none, or for another code.
    """

    step: int
    code: str
    message: str
    good_step: int | None = None
