"""Suggestions of Lightning's learning rate finder for sweeps."""

# requires: torch==2.13.0 numpy==2.4.6 lightning==2.6.6

from importlib.metadata import version

from lightning.pytorch.tuner.lr_finder import _LRFinder
from range_test.sweeps import Curve, curves, write


def suggested(curve: Curve) -> float | None:
    """Return its suggestion; None where it has too few points."""
    finder = _LRFinder("exponential", 1e-8, 1.0, len(curve[0]))
    finder.results = dict(zip(("lr", "loss"), curve, strict=True))
    return finder.suggestion()


write(
    "lightning",
    version("lightning"),
    {name: {"lightning": suggested(curve)} for name, curve in curves().items()},
)
