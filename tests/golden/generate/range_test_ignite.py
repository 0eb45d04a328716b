"""Suggestions of ignite's FastaiLRFinder for sweeps."""

# requires: torch==2.13.0 numpy==2.4.6 pytorch-ignite==0.5.5

from importlib.metadata import version

from ignite.handlers import FastaiLRFinder
from range_test.sweeps import Curve, curves, write


def suggested(curve: Curve) -> float | None:
    """Return its suggestion; None where it refuses, or takes a NaN for the lowest loss."""
    lr, losses = curve
    finder = FastaiLRFinder()
    finite = [loss for loss in losses if loss == loss]  # noqa: PLR0124 - NaN is not itself
    finder._history = {"lr": lr[: len(finite)], "loss": finite}
    try:
        return float(finder.lr_suggestion())
    except RuntimeError:
        return None


write(
    "ignite",
    version("pytorch-ignite"),
    {name: {"ignite": suggested(curve)} for name, curve in curves().items()},
)
