"""The demo's picture: for each training, its learning rate, and the loss below it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from demo_digits import EPOCH, EPOCHS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

if TYPE_CHECKING:
    from demo import Run

COLUMNS = 3
COLORS = ("#2b6cb0", "#c9483b", "#23875f", "#7a4fb3", "#cf7a0a", "#c9483b")
INK, GREY, PALE = "#17202b", "#66727f", "#e3e8ed"
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#b8c1cb",
    "axes.labelcolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "xtick.major.width": 0.8,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


def draw(runs: list[Run], path: Path) -> None:
    """Draw all runs and write the picture."""
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(13, 8.9))
        place = {"left": 0.048, "right": 0.985, "top": 0.805, "bottom": 0.055}
        rows = -(-len(runs) // COLUMNS)
        grid = figure.add_gridspec(rows, COLUMNS, hspace=0.42, wspace=0.12, **place)
        _headline(figure, place["left"])
        for index, (run, color) in enumerate(zip(runs, COLORS, strict=True)):
            _panel(figure, grid[index], run, color)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
        plt.close(figure)


def _headline(figure: Figure, left: float) -> None:
    figure.text(left, 0.95, "Six trainings, paced by one service", size=20, weight="bold")
    figure.text(
        left,
        0.928,
        "A network of 128 hidden units learns to read handwritten digits. Each colored line is "
        "the learning rate in its optimizer,\nfetched over HTTP while it trains; the white dashes "
        "on it are torch's own scheduler, run beside it. Below, the loss.",
        size=10.5,
        color=GREY,
        va="top",
        linespacing=1.5,
    )


def _panel(figure: Figure, place: SubplotSpec, run: Run, color: str) -> None:
    split = place.subgridspec(2, 1, height_ratios=(1.2, 1), hspace=0.14)
    losses = figure.add_subplot(split[1])
    rates = figure.add_subplot(split[0], sharex=losses)
    _draw_title(rates, run, color)
    _draw_rates(rates, run, color)
    _draw_losses(losses, run, color)
    if run.plan.kill_at is not None:
        text = f"server killed and\nrestarted: this\nstep waits {run.longest_wait:.1f} s"
        _mark(rates, losses, run, run.plan.kill_at, text)
    if run.halved_from is not None:
        _draw_unhalved(rates, run, run.halved_from, color)
        _mark(rates, losses, run, run.halved_from, "halved by one REST call\n(dotted: without it)")
    first_row, first_column = place.is_first_row(), place.is_first_col()
    if first_row and first_column:
        _label_directly(rates, losses, run, color)
    for axes in (rates, losses):
        axes.tick_params(labelleft=first_column)
    rates.tick_params(bottom=False, labelbottom=False)
    losses.set_xlim(0, EPOCHS)
    losses.set_xticks(range(0, EPOCHS + 1, 20))
    if not first_row:
        losses.set_xlabel("epoch", labelpad=2)


def _draw_title(axes: Axes, run: Run, color: str) -> None:
    axes.set_title(run.plan.name, loc="left", weight="bold", color=color, size=13, pad=22)
    _beside(axes, 0, 1.075, run.plan.law)
    _beside(axes, 1, 1.075, f"{run.requests_per_step:.2f} requests per step")


def _beside(axes: Axes, x: float, y: float, text: str) -> None:
    side = "left" if x == 0 else "right"
    axes.text(x, y, text, transform=axes.transAxes, color=GREY, size=9.5, ha=side)


def _draw_rates(axes: Axes, run: Run, color: str) -> None:
    epochs = [step / EPOCH for step in range(len(run.lrs))]
    axes.plot(epochs, run.lrs, color=color, lw=4)
    axes.plot(epochs, run.torch_lrs, color="white", lw=1.1, ls=(0, (5, 4)))
    axes.fill_between(epochs, run.lrs, color=color, alpha=0.07, lw=0)
    axes.set_ylim(0, 0.107)
    axes.set_yticks([0, 0.05, 0.1])


def _draw_unhalved(axes: Axes, run: Run, halved_from: int, color: str) -> None:
    rest = range(halved_from, len(run.lrs))
    epochs = [step / EPOCH for step in rest]
    axes.plot(epochs, [2 * run.lrs[step] for step in rest], color=color, lw=1.2, ls=(0, (1, 2)))


def _draw_losses(axes: Axes, run: Run, color: str) -> None:
    epochs = range(1, EPOCHS + 1)
    axes.plot(epochs, run.learner.val_losses, color=GREY, lw=1.2)
    axes.plot(epochs, run.learner.epoch_losses, color=color, lw=2)
    axes.set_yscale("log")
    axes.set_ylim(0.005, 3)
    axes.set_yticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
    _beside(axes, 1, 0.62, f"{run.learner.accuracy():.1%} of test digits right")


def _label_directly(rates: Axes, losses: Axes, run: Run, color: str) -> None:
    rates.text(42, 0.056, "learning rate (dashes: torch's)", color=color)
    losses.text(21, run.learner.val_losses[21] * 1.5, "validation loss", color=GREY)
    losses.text(21, run.learner.epoch_losses[21] * 0.25, "training loss", color=color)


def _mark(rates: Axes, losses: Axes, run: Run, step: int, text: str) -> None:
    epoch = step / EPOCH
    for axes in (rates, losses):
        axes.axvline(epoch, color=INK, lw=0.9, ls=(0, (1, 2)))
    rates.plot([epoch], [run.lrs[step]], "o", ms=8, mfc="white", mec=INK, mew=1.6, zorder=5)
    # Further to the right, as the plateau's first cut comes soon after the kill.
    rates.text(epoch + 8, 0.1, text, va="top", linespacing=1.4)
