"""Presets: the schedules of other libraries, by their own names, parameters and defaults.

A config moves over unread. What a library does in its own way, a preset does too and says so; what
is a mistake there is not repeated, and the preset says that as well.
"""

from pacesetter_service.core.schedules.base import Schedule
from pacesetter_service.core.schedules.presets import (
    composer,
    deepspeed,
    fairseq,
    fastai,
    hf,
    ignite,
    keras,
    megatron,
    mmengine,
    optax,
    timm,
    torch,
    torchtitan,
)

for library in (fairseq, hf, keras, optax, timm, torch):
    Schedule.elsewhere.update(library.ELSEWHERE)

__all__ = [
    "composer",
    "deepspeed",
    "fairseq",
    "fastai",
    "hf",
    "ignite",
    "keras",
    "megatron",
    "mmengine",
    "optax",
    "timm",
    "torch",
    "torchtitan",
]
