"""Suggestions of fastai's `Learner.lr_find` for sweeps, which replace its own.

It computes in float32.
"""

# requires: torch==2.13.0 numpy==2.4.6 fastcore==2.2.39 fasttransform==0.0.5 fastprogress==1.1.6
# requires: fastdownload==0.0.8 plum-dispatch==2.9.0 pandas scipy scikit-learn matplotlib pillow
# requires: cloudpickle pyyaml requests packaging
# requires-no-deps: fastai==2.8.12

import contextlib
import warnings
from importlib.metadata import version
from types import SimpleNamespace

from fastai.basics import Learner
from fastai.callback.schedule import SuggestionMethod
from range_test.sweeps import PLANNED, Curve, curves, write

warnings.simplefilter("ignore")

METHODS = {
    "valley": SuggestionMethod.Valley,
    "slide": SuggestionMethod.Slide,
    "minimum": SuggestionMethod.Minimum,
    "fastai": SuggestionMethod.Steep,
}
"""Our names of its methods."""


def suggested(curve: Curve, method: object, planned: int) -> float | None:
    """Return its suggestion, with its training left out; None where it fails."""
    learner = SimpleNamespace(
        dls=SimpleNamespace(train=[0]),
        recorder=SimpleNamespace(lrs=curve[0], losses=curve[1]),
        no_logging=contextlib.nullcontext,
        fit=lambda *_arguments, **_more: None,
    )
    try:
        return float(
            Learner.lr_find(learner, num_it=planned, show_plot=False, suggest_funcs=(method,))[0]
        )
    except IndexError:
        return None


write(
    "fastai",
    version("fastai"),
    {
        name: {
            rule: suggested(curve, method, PLANNED.get(name, len(curve[0])))
            for rule, method in METHODS.items()
        }
        for name, curve in curves().items()
    },
)
