"""The picture of `live_control.py`: the realised learning rate with its orders, above the loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from demo_picture import GREY, INK, STYLE
from live_control_story import Given, Story
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LIVED, DEAD = "#2b6cb0", "#c9483b"
DPI = 110
OVER = 8
"""The number of losses that are drawn as their mean: batches are small."""

LEFT, RIGHT, TOP, BOTTOM = 0.058, 0.985, 0.86, 0.075
CLEAR: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
"""The box behind words, so that lines do not cross them."""


def draw(story: Story, path: Path) -> None:
    """Draw the story."""
    with mpl.rc_context({**STYLE, "axes.formatter.min_exponent": 3}):
        figure, (rates, losses) = plt.subplots(
            2, 1, figsize=(13, 8), sharex=True, height_ratios=(1.7, 1)
        )
        figure.subplots_adjust(left=LEFT, right=RIGHT, top=TOP, bottom=BOTTOM, hspace=0.09)
        _headline(figure)
        _draw_rates(rates, story)
        _draw_losses(losses, story)
        _mark(rates, losses, story)
        figure.savefig(path, dpi=DPI)
        plt.close(figure)


def _headline(figure: Figure) -> None:
    figure.text(LEFT, 0.945, "One training, steered by REST while it ran", size=18, weight="bold")
    figure.text(
        LEFT,
        0.905,
        "Blue: the learning rate that each step of the finished training used, as the service has "
        "it on record. Circles: orders, at the first step that they hold for.",
        size=10.5,
        color=GREY,
    )


def _draw_rates(axes: Axes, story: Story) -> None:
    most = max(*story.planned, *story.lrs)
    axes.plot(story.planned, color=GREY, lw=1.3, ls=(0, (1, 2)))
    axes.plot(story.lrs, color=LIVED, lw=2.4)
    axes.fill_between(range(story.steps), story.lrs, color=LIVED, alpha=0.07, lw=0)
    dead = story.dead
    places = range(dead.start, dead.start + len(dead.lrs))
    axes.plot(places, dead.lrs, color=DEAD, lw=2.4, ls=(0, (2, 1)), zorder=3)
    axes.set_ylim(0, most * 1.25)
    axes.set_xlim(0, story.steps)
    axes.set_ylabel("learning rate")
    axes.tick_params(bottom=False)
    step = round(story.steps * 0.3)
    axes.text(step + 4, story.planned[step], "as planned", color=GREY, va="bottom")


def _draw_losses(axes: Axes, story: Story) -> None:
    axes.plot(_smooth(story.losses), color=LIVED, lw=1.6)
    axes.plot(*zip(*story.val_losses, strict=True), "o-", color=INK, ms=3.5, lw=1.1)
    dead = story.dead
    # The mean continues from the attempt before, as that of the running one does.
    before = story.losses[max(dead.start - OVER, 0) : dead.start]
    smooth = _smooth([*before, *dead.losses])[len(before) :]
    places = range(dead.start, dead.start + len(smooth))
    axes.plot(places, smooth, color=DEAD, lw=1.8, ls=(0, (2, 1)), zorder=3)
    axes.set_yscale("log")
    axes.grid(which="both", axis="y")
    axes.set_ylabel("loss")
    axes.set_xlabel("step")
    low, high = axes.get_ylim()
    axes.set_ylim(low, min(high, 3.0))
    step, loss = story.val_losses[len(story.val_losses) // 4]
    axes.text(step, loss * 0.72, "validation", color=INK, va="top", ha="right")
    trained = _smooth(story.losses)
    axes.text(step, trained[step] * 1.45, "training", color=LIVED, va="bottom")


def _smooth(losses: Sequence[float | None]) -> list[float]:
    """Return the mean of the last few losses that are known."""
    known = [loss for loss in losses if loss is not None]
    return [fmean(known[max(step - OVER + 1, 0) : step + 1]) for step in range(len(known))]


def _mark(rates: Axes, losses: Axes, story: Story) -> None:
    """Mark each order where it holds, and the death with what followed."""
    top = rates.get_ylim()[1]
    for number, given in enumerate(story.orders):
        step = given.effective_step
        _line(rates, losses, step, GREY)
        rates.plot([step], [story.lrs[step]], "o", ms=7, mfc="white", mec=INK, mew=1.5, zorder=5)
        _label(rates, step, top * (0.985 - 0.075 * (number % 2)), _words(given), INK)
    dead = story.dead
    for axes in (rates, losses):
        axes.axvspan(dead.start, dead.last, color=DEAD, alpha=0.08, lw=0)
    height = story.lrs[dead.last]
    rates.plot([dead.last], [height], "X", ms=10, color=DEAD, mec="white", zorder=6)
    rates.annotate(
        f"SIGKILL after step {dead.last}.\nAttempt 2 lives again from step {dead.start}, its\n"
        "checkpoint: dashes are the first life.",
        (dead.last, height),
        (dead.last + 6, top * 0.62),
        color=DEAD,
        va="center",
        linespacing=1.4,
        bbox=CLEAR,
        arrowprops={"arrowstyle": "-", "color": DEAD, "lw": 0.8, "shrinkB": 7, "relpos": (0, 0)},
    )


def _words(given: Given) -> str:
    body: dict[str, Any] = given.body
    text = {
        "scale": lambda: f"scale by {body['factor']:g}",
        "retime": lambda: f"retime: end at {body['total_steps']}",
        "cooldown": lambda: f"cooldown until {body['until']}",
    }.get(given.kind, lambda: given.kind)()
    return f"{text}\n(ordered while nobody trained)" if given.while_dead else text


def _line(rates: Axes, losses: Axes, step: int, color: str) -> None:
    for axes in (rates, losses):
        axes.axvline(step, color=color, lw=0.8, ls=(0, (1, 2)), zorder=1)


def _label(axes: Axes, step: int, height: float, text: str, color: str) -> None:
    axes.text(step + 3, height, text, color=color, va="top", linespacing=1.4)
