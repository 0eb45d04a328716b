"""Controllers: closed-loop rules that read metrics and order changes of the learning rate."""

from pacesetter_service.core.controllers import (
    adascale,
    bold_driver,
    dlib_slope,
    greedy,
    hypergradient,
    kl_adaptive,
    newbob,
    plateau,
    range_test,
    slope_test,
    spike_guard,
    stationarity,
    switch,
)
from pacesetter_service.core.controllers.base import (
    AnyController,
    Controller,
    ControllerState,
    Observation,
    Sample,
    Transition,
    Verdict,
)

__all__ = [
    "AnyController",
    "Controller",
    "ControllerState",
    "Observation",
    "Sample",
    "Transition",
    "Verdict",
    "adascale",
    "bold_driver",
    "dlib_slope",
    "greedy",
    "hypergradient",
    "kl_adaptive",
    "newbob",
    "plateau",
    "range_test",
    "slope_test",
    "spike_guard",
    "stationarity",
    "switch",
]
