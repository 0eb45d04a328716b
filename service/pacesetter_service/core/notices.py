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
        good_step: With `roll_back` the last step whose measurement was good: weights from before
            its update are the ones to load. None if there is none, or it says something else.
    """

    step: int
    code: str
    message: str
    good_step: int | None = None
