"""The schedules that people know by name; each only expands to the tree that it stands for."""

from pacesetter_service.core.schedules.named import (
    anneals,
    around,
    chebyshev,
    cycles,
    decays,
    endless,
    factors,
    optimal,
    piecewise,
    restarts,
    roots,
    searches,
    stages,
    warmed,
)

__all__ = [
    "anneals",
    "around",
    "chebyshev",
    "cycles",
    "decays",
    "endless",
    "factors",
    "optimal",
    "piecewise",
    "restarts",
    "roots",
    "searches",
    "stages",
    "warmed",
]
