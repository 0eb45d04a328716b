"""Suggestions of torch_lr_finder for sweeps."""

# requires: torch==2.13.0 numpy==2.4.6 torch-lr-finder==0.2.2 matplotlib

from importlib.metadata import version

import matplotlib as mpl
from range_test.sweeps import Curve, curves, write
from torch_lr_finder import LRFinder

mpl.use("Agg")


def suggested(curve: Curve) -> float | None:
    """Return its suggestion; None where it refuses."""
    finder = LRFinder.__new__(LRFinder)
    finder.history = dict(zip(("lr", "loss"), curve, strict=True))
    try:
        return float(finder.plot(ax=mpl.pyplot.figure().add_subplot())[1])
    except RuntimeError:
        return None


write(
    "torch_lr_finder",
    version("torch-lr-finder"),
    {name: {"torch_lr_finder": suggested(curve)} for name, curve in curves().items()},
)
