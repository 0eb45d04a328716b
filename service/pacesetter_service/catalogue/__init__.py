"""The catalogue: the schedules and controllers of other libraries, one file a library.

They go by the library's own names, parameters and defaults, so that a config moves over unread.
What a library does in its own way, its file does too and says so. What is a mistake there is not
repeated, and the file says that as well. Importing this package makes all of them known as kinds.

Beside them stands what advises on a choice: the templates of a team (`templates`), known pitfalls
(`lint`) and a schedule to start from (`recommend`).
"""

from pacesetter_service.catalogue import (
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
    paddle,
    timm,
    torch,
    torchtitan,
)
from pacesetter_service.catalogue.redirects import OF_CONTROLLERS
from pacesetter_service.core.controllers import Controller
from pacesetter_service.core.schedules import Schedule

for library in (fairseq, hf, keras, optax, timm, torch):
    Schedule.redirects.update(library.REDIRECTS)
Controller.redirects.update(OF_CONTROLLERS)

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
    "paddle",
    "timm",
    "torch",
    "torchtitan",
]
