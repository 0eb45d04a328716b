"""Controllers: closed-loop rules that read metrics and order changes of the learning rate."""

from pacesetter_service.core.controllers import plateau
from pacesetter_service.core.controllers.base import (
    AnyController,
    Controller,
    ControllerState,
    Observation,
    Seen,
    Transition,
    Verdict,
)

__all__ = [
    "AnyController",
    "Controller",
    "ControllerState",
    "Observation",
    "Seen",
    "Transition",
    "Verdict",
    "plateau",
]
