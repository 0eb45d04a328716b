"""The catalogue: the schedules and controllers of other libraries, one file for each library.

They have the library's own names, parameters and defaults, so that a config can be copied as it is.
A library's peculiarities are kept, and its file says so. Its mistakes are not repeated, and the
file says that as well. Importing this package registers all of them as kinds.

Other modules help with a choice: the templates of a team (`templates`), known pitfalls (`lint`) and
a schedule to start from (`recommend`).
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
