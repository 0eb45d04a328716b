"""The pictures of `closed_loop.py`: learning rates above losses, the arms side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from closed_loop_arms import Fault
from closed_loop_results import Comparison, Ending
from closed_loop_run import Run
from closed_loop_tasks import Task
from demo_picture import GREY, INK, STYLE
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

COLORS = {
    "cosine": "#66727f",
    "constant": "#cf7a0a",
    "plateau": "#2b6cb0",
    "greedy": "#7a4fb3",
    "spike_guard": "#23875f",
    "cosine, clipped": "#cf7a0a",
    "only lower": "#2b6cb0",
    "only go back": "#7a4fb3",
}
SINK = "#c9483b"
WIDE, TOP, DPI = 13.0, 0.83, 110
PLAIN: dict[Any, Any] = {"axes.formatter.min_exponent": 3}


def draw_comparison(runs: Mapping[str, Sequence[Run]], task: Task, path: Path) -> None:
    """Draw each arm's learning rates, with the validation losses below; a line for each seed.

    The cosine's first training is drawn again, behind the losses of the others.
    """
    with mpl.rc_context({**STYLE, **PLAIN}):
        figure, rows = _sheet(len(runs))
        behind = next(iter(runs.values()))[0].val_losses
        places = range(task.every, task.steps + 1, task.every)
        for (name, trained), color, rates, losses in _columns(runs, rows):
            rates.set_title(name, loc="left", weight="bold", color=color, size=12)
            _lines(rates, [run.lrs for run in trained], color)
            losses.plot(places, behind, color=INK, lw=1.0, ls=(0, (2, 2)))
            _lines(losses, [run.val_losses for run in trained], color, places)
            losses.set_yscale("log")
            _note(losses, f"ends at {fmean(run.val_losses[-1] for run in trained):.3f}", color)
        rows[0][0].set_ylabel("learning rate")
        rows[1][0].set_ylabel("validation loss")
        _span(rows[1], [run.val_losses for trained in runs.values() for run in trained])
        rows[0][0].set_ylim(0, None)
        _finish(
            figure,
            path,
            f"{task.name}: {task.what}",
            "Bold: the first seed; dashes: the cosine's loss; numbers: means of all seeds.",
        )


def draw_trial(runs: Mapping[str, Sequence[Run]], fault: Fault, path: Path) -> None:
    """Draw each arm's learning rates and training losses through a fault; a line for each seed."""
    with mpl.rc_context({**STYLE, **PLAIN}):
        figure, rows = _sheet(len(runs))
        for (name, trained), color, rates, losses in _columns(runs, rows):
            rates.set_title(name, loc="left", weight="bold", color=color, size=12)
            _lines(rates, [run.lrs for run in trained], color)
            _lines(losses, [_smooth(run.losses) for run in trained], color)
            for axes in (rates, losses):
                axes.axvline(fault.at, color=SINK, lw=1.0, ls=(0, (2, 2)))
                axes.set_yscale("log")
            back = trained[0].returns
            losses.plot(
                back,
                [1.03] * len(back),
                "v",
                color=INK,
                ms=6,
                clip_on=False,
                transform=losses.get_xaxis_transform(),
            )
            _note(losses, f"{fmean(run.accuracy for run in trained):.0%} right", color)
        rows[0][0].set_ylabel("learning rate")
        rows[1][0].set_ylabel("training loss")
        floor = max(rate for trained in runs.values() for rate in trained[0].lrs) / 1e5
        rows[0][0].set_ylim(floor, None)
        rows[0][0].text(
            fault.at, 0.04, " the fault", color=SINK, transform=rows[0][0].get_xaxis_transform()
        )
        _span(rows[1], [_smooth(run.losses) for trained in runs.values() for run in trained])
        _finish(
            figure,
            path,
            f"{fault.name}: {fault.what}",
            "Bold: the first seed; ▾ back to a checkpoint; numbers: means of all seeds.",
        )


def draw_bases(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw the mean validation loss of each arm over the base learning rate, a panel per task."""
    tasks = list(dict.fromkeys(each.task for each in comparisons))
    with mpl.rc_context({**STYLE, **PLAIN}):
        figure, panels = plt.subplots(1, len(tasks), figsize=(WIDE, 4.4), squeeze=False)
        for axes, task in zip(panels[0], tasks, strict=True):
            _bases(axes, [each for each in comparisons if each.task == task])
            axes.set_title(task, loc="left", weight="bold", size=12)
        panels[0][0].set_ylabel("validation loss at the end")
        figure.subplots_adjust(left=0.06, right=0.9, top=0.8, bottom=0.13, wspace=0.4)
        _head(
            figure,
            "Base learning rates that suit, and do not",
            "Points: means over the seeds; dashes: each seed.",
        )
        figure.savefig(path, dpi=DPI)
        plt.close(figure)


def _bases(axes: Axes, comparisons: Sequence[Comparison]) -> None:
    ordered = sorted(comparisons, key=lambda each: each.base_lr)
    ends = []
    rates = [each.base_lr for each in ordered]
    for name in ordered[0].arms:
        endings = [_losses(each.arms[name]) for each in ordered]
        for rate, losses in zip(rates, endings, strict=True):
            axes.plot([rate] * len(losses), losses, "_", color=COLORS[name], ms=9, alpha=0.5)
        means = [fmean(losses) for losses in endings]
        # The guard's line often coincides with the cosine's, which is broad so that both are seen.
        width = 5.0 if name == "cosine" else 1.6
        axes.plot(rates, means, "o-", color=COLORS[name], lw=width, ms=max(6.0, 2 * width))
        ends.append((means[-1], name, COLORS[name]))
    axes.set(xscale="log", yscale="log", xlabel="base learning rate")
    axes.set_xticks(rates)
    axes.set_xticklabels([f"{rate:g}" for rate in rates])
    axes.xaxis.set_minor_locator(NullLocator())
    _grid(axes)
    _label_ends(axes, ends)


def _losses(endings: Sequence[Ending]) -> list[float]:
    return [math.nan if end.val_loss is None else end.val_loss for end in endings]


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names right of the panel at the heights of their lines, without overlaps."""
    below = -1.0
    for loss, name, color in sorted(ends):
        if isfinite(loss):
            height = axes.transAxes.inverted().transform(axes.transData.transform((1.0, loss)))[1]
            below = max(float(height), below + 0.065)
            axes.text(1.02, below, name, color=color, transform=axes.transAxes, va="center")


def _sheet(columns: int) -> tuple[Figure, Any]:
    figure, rows = plt.subplots(
        2, columns, figsize=(WIDE, 5.4), sharex=True, sharey="row", squeeze=False
    )
    figure.subplots_adjust(left=0.06, right=0.99, top=TOP, bottom=0.09, hspace=0.16, wspace=0.08)
    for axes in rows[1]:
        axes.set_xlabel("step")
    return figure, rows


def _columns(runs: Mapping[str, Sequence[Run]], rows: Any) -> Any:  # noqa: ANN401 - of matplotlib
    return zip(runs.items(), [COLORS[name] for name in runs], *rows, strict=True)


def _lines(
    axes: Axes, curves: Sequence[Sequence[float]], color: str, places: Sequence[int] | None = None
) -> None:
    """Draw the first curve plainly and the others faintly."""
    for number, curve in enumerate(curves):
        style: dict[str, Any] = {"lw": 0.8, "alpha": 0.35} if number else {"lw": 1.8, "zorder": 3}
        axes.plot(places or range(len(curve)), curve, color=color, **style)


def _smooth(losses: Sequence[float], over: int = 5) -> list[float]:
    """Return the mean of the last few losses, so that lines can be distinguished."""
    return [fmean(losses[max(step - over + 1, 0) : step + 1]) for step in range(len(losses))]


def _span(row: Sequence[Axes], curves: Sequence[Sequence[float]]) -> None:
    """Make a row show all losses, but not the height of an explosion."""
    finite = [loss for curve in curves for loss in curve if isfinite(loss) and loss > 0]
    row[0].set_ylim(min(finite) * 0.9, min(max(finite) * 1.1, 30.0))
    for axes in row:
        _grid(axes)


def _grid(axes: Axes) -> None:
    """Draw the finer lines too where the axis has less than a power of ten."""
    low, high = axes.get_ylim()
    axes.grid(which="both" if high < 10 * low else "major", axis="y")


def _note(axes: Axes, text: str, color: str) -> None:
    axes.text(0.98, 0.95, text, color=color, transform=axes.transAxes, ha="right", va="top")


def _finish(figure: Figure, path: Path, title: str, legend: str) -> None:
    _head(figure, title, legend)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _head(figure: Figure, title: str, legend: str) -> None:
    figure.text(0.06, 0.945, title, size=13, weight="bold")
    figure.text(0.06, 0.905, legend, color=GREY)
