"""Presets: the controllers of other libraries, by their own names, parameters and defaults.

A preset decides as its library does, and names the traps of that. Where it does not repeat what is
plainly a mistake, it says so.
"""

from pacesetter_service.core.controllers.base import Controller
from pacesetter_service.core.controllers.presets import (
    fastai,
    hf,
    keras,
    optax,
    paddle,
    timm,
    torch,
)
from pacesetter_service.core.controllers.presets.elsewhere import ELSEWHERE

Controller.elsewhere.update(ELSEWHERE)

__all__ = ["fastai", "hf", "keras", "optax", "paddle", "timm", "torch"]
