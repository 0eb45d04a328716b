"""Schedules: learning-rate laws as frozen data, evaluated in closed form over blocks of steps.

A few primitives (`primitives`, `tables`, `expression`), eases and combinators (`combinators` of
values, `clocks` of time, `warmup`, `noise`) express all laws. A named kind (`named`), here or in
the catalogue of other libraries, only expands to a tree of those.
"""

from pacesetter_service.core.schedules import (
    clocks,
    combinators,
    expression,
    named,
    noise,
    primitives,
    tables,
    warmup,
)
from pacesetter_service.core.schedules.base import AnySchedule, Named, Schedule, Steps, Values

__all__ = [
    "AnySchedule",
    "Named",
    "Schedule",
    "Steps",
    "Values",
    "clocks",
    "combinators",
    "expression",
    "named",
    "noise",
    "primitives",
    "tables",
    "warmup",
]
