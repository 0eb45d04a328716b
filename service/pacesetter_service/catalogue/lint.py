"""Lint: what a spec may contain although it is known to end badly.

A rule examines the spec and its curve over the planned steps, and yields findings. It never
refuses anything: a finding says what, where, what to do, and who says so. The rules about
controllers are in a module of their own.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pacesetter_service.catalogue import lint_controllers  # noqa: F401 - to have its rules registered
from pacesetter_service.catalogue.findings import RULES, Curve, Finding, Subject, rule
from pacesetter_service.core.cost import Check
from pacesetter_service.core.model import Model
from pacesetter_service.core.schedules.clocks import Repeat
from pacesetter_service.core.schedules.primitives import TriangleWave


def lint(subject: Subject, check: Check = lambda: None) -> list[Finding]:
    """Return every finding, the most serious first."""
    order = {"error": 0, "warning": 1, "info": 2}
    found: list[Finding] = []
    for each in RULES:
        check()
        found += each(subject)
    return sorted(found, key=lambda finding: (order[finding.severity], finding.pointer))


@rule
def warmup_missing(subject: Subject) -> Iterator[Finding]:
    """A transformer, or a very large batch, starts at its full rate."""
    transformer = subject.architecture == "transformer"
    large_batch = (subject.spec.batch_size or 0) > 1024
    if not (transformer or large_batch):
        return
    for curve in subject.curves:
        if curve.peak > 0 and curve.values[0] > 0.5 * curve.peak:
            why = "a transformer" if transformer else "a batch of more than 1,024"
            yield Finding(
                "warmup_missing",
                "warning",
                curve.pointer,
                f"{why} starts at {curve.values[0] / curve.peak:.0%} of its peak learning rate",
                'wrap it: {"kind": "warmup", "steps": {"fraction": 0.05}, "schedule": ...}',
                "Vaswani et al. 2017, arXiv:1706.03762; Goyal et al. 2017, arXiv:1706.02677",
            )


@rule
def warmup_too_long(subject: Subject) -> Iterator[Finding]:
    """The peak comes late in the run, after nothing but a rise."""
    for curve in subject.curves:
        rising = curve.values[: max(int(curve.peak_part * len(curve.values)), 1)]
        steadily = len(rising) > 1 and bool((np.diff(rising) >= 0).all())
        if steadily and curve.peak_part > 0.5 and curve.values[0] < 0.9 * curve.peak:
            yield Finding(
                "warmup_too_long",
                "warning",
                curve.pointer,
                f"the learning rate is still rising after {curve.peak_part:.0%} of the run",
                "5 to 10 % of the run is usual, up to 30 % for one-cycle; shorten the warmup",
                "Smith and Topin 2017, arXiv:1708.07120; common practice",
            )


@rule
def first_step_is_wasted(subject: Subject) -> Iterator[Finding]:
    """The first step trains with a learning rate of 0."""
    for curve in subject.curves:
        if curve.values[0] == 0.0 and curve.peak > 0:
            yield Finding(
                "first_step_is_wasted",
                "info",
                curve.pointer,
                "the first step has a learning rate of 0, so its batch teaches nothing",
                "give the warmup `offset: 1`, or a small `start_factor`",
                "transformers#31870, torchtitan#1284",
            )


@rule
def decays_too_early(subject: Subject) -> Iterator[Finding]:
    """Most of the learning rate is gone in the first part of the run."""
    for curve in subject.curves:
        tenth = np.flatnonzero(curve.values < 0.1 * curve.peak)
        after_peak = tenth[tenth > np.argmax(curve.values)]
        if len(after_peak) and curve.peak > 0:
            part = after_peak[0] / len(curve.values)
            stays = bool((curve.values[after_peak[0] :] < 0.5 * curve.peak).all())
            if part < 0.3 and stays:
                yield Finding(
                    "decays_too_early",
                    "warning",
                    curve.pointer,
                    f"after {part:.0%} of the run the learning rate is below a tenth of its peak",
                    "let the model learn at high rates for longer: move the first decay back",
                    "common practice: do not decay too early",
                )


@rule
def ends_too_early(subject: Subject) -> Iterator[Finding]:
    """The learning rate is too low for any use long before the end."""
    for curve in subject.curves:
        useful = np.flatnonzero(curve.values > 1e-3 * curve.peak)
        if not len(useful) or curve.peak == 0:
            continue
        part = (useful[-1] + 1) / len(curve.values)
        if part < 0.9:
            yield Finding(
                "ends_too_early",
                "warning",
                curve.pointer,
                f"the last {1 - part:.0%} of the run train with less than a thousandth of the peak",
                "make the schedule as long as the run, or give it a floor (`min_lr`)",
                "open_clip#413, composer#1384: horizon and run of different lengths",
            )


@rule
def does_not_end(subject: Subject) -> Iterator[Finding]:
    """A decay is cut off by the end of the run, far from its target."""
    for curve in subject.curves:
        if len(curve.values) < 20 or curve.peak == 0:
            continue
        later = np.array([curve.start + 2.0 * curve.total])
        range_policy = float(curve.schedule.values(later, curve.base)[0])
        last, before = float(curve.values[-1]), float(curve.values[-len(curve.values) // 10])
        if last > 0.1 * curve.peak and last < before and range_policy < 0.5 * last:
            yield Finding(
                "does_not_end",
                "warning",
                curve.pointer,
                f"the run ends at {last / curve.peak:.0%} of the peak, in the middle of the decay",
                "make the schedule as long as the run (total_steps), so that it anneals",
                "open_clip#413, OneTrainer#1604",
            )


@rule
def floor_above_base(subject: Subject) -> Iterator[Finding]:
    """A floor lies above the learning rate that it is a floor of."""
    for pointer, schedule, base in subject.laws:
        for path, node in _nodes(schedule, ""):
            floor = getattr(node, "min_lr", None)
            if isinstance(floor, float) and floor > base > 0:
                yield Finding(
                    "floor_above_base",
                    "error",
                    pointer + path,
                    f"min_lr {floor:g} is above the base learning rate {base:g}:"
                    " the rate rises where it should fall",
                    "lower min_lr, or raise base_lr",
                    "elementary",
                )


@rule
def floor_in_pretraining(subject: Subject) -> Iterator[Finding]:
    """A transformer's decay ends on a floor of about a tenth of the peak."""
    if subject.architecture != "transformer":
        return
    for curve in subject.curves:
        last = float(curve.values[-1])
        if not 0.05 * curve.peak <= last <= 0.3 * curve.peak:
            continue
        later = np.array([curve.start + 1.5 * curve.total])
        beyond = float(curve.schedule.values(later, curve.base)[0])
        after_peak = curve.values[int(np.argmax(curve.values)) :]
        if last <= 1.01 * float(np.min(after_peak)) and beyond >= 0.9 * last:
            yield Finding(
                "floor_in_pretraining",
                "info",
                curve.pointer,
                f"the decay ends on a floor of {last / curve.peak:.0%} of the peak",
                "in pretraining a decay to zero ends lower, the more so the more tokens a parameter"
                " has seen; keep a floor only if the training goes on from there",
                "Bergsma et al. 2025, arXiv:2502.15938",
            )


@rule
def base_is_ignored(subject: Subject) -> Iterator[Finding]:
    """The schedule is written in absolute numbers, and the base learning rate is another one."""
    for curve in subject.curves:
        base = curve.base
        with_double = curve.schedule.values(curve.steps, 2 * base)
        if base > 0 and (with_double == curve.values).all() and curve.peak != base:
            yield Finding(
                "base_is_ignored",
                "info",
                curve.pointer,
                f"the schedule is written in absolute learning rates; base_lr {base:g} is not used",
                'write "base" where the peak stands, or set base_lr to the peak',
                "elementary",
            )


@rule
def stops_mid_cycle(subject: Subject) -> Iterator[Finding]:
    """The run ends in the middle of a cycle, at a high learning rate."""
    for curve in subject.curves:
        for path, node in _nodes(curve.schedule, ""):
            if isinstance(node, Repeat | TriangleWave) and _is_mid_cycle(curve):
                yield Finding(
                    "stops_mid_cycle",
                    "warning",
                    curve.pointer + path,
                    "the run ends in the middle of a cycle,"
                    f" at {curve.values[-1] / curve.peak:.0%} of the peak",
                    "choose the period so that the run is a whole number of cycles",
                    "Loshchilov and Hutter 2016, arXiv:1608.03983: take the model at a cycle's end",
                )
                break


@rule
def horizon_shorter_than_run(subject: Subject) -> Iterator[Finding]:
    """The schedule names a shorter total than the session."""
    if subject.total is None:
        return
    for pointer, schedule, _ in subject.laws:
        for field in ("total_steps", "num_training_steps"):
            named = getattr(schedule, field, None)
            if isinstance(named, int) and named < subject.total:
                yield Finding(
                    "horizon_shorter_than_run",
                    "warning",
                    f"{pointer}/{field}",
                    f"the schedule is {named} steps long, the run {subject.total}",
                    'write {"fraction": 1.0} there, and the session\'s total_steps decides',
                    "open_clip#413, composer#1384",
                )


def _is_mid_cycle(curve: Curve) -> bool:
    low = float(np.min(curve.values))
    return float(curve.values[-1]) > low + 0.2 * (curve.peak - low)


def _nodes(model: Model, path: str) -> Iterator[tuple[str, Model]]:
    """Return a schedule and everything in it, each once, with their places."""
    return _unseen(model, path, {})


def _unseen(model: Model, path: str, seen: dict[int, Model]) -> Iterator[tuple[str, Model]]:
    """Return the models not seen yet: nested named kinds would repeat what they expand to."""
    if id(model) in seen:
        return
    seen[id(model)] = model
    yield path, model
    for name in type(model).model_fields:
        for place, child in _children(getattr(model, name), f"{path}/{name}"):
            yield from _unseen(child, place, seen)
    expanded = getattr(model, "expanded", None)
    if isinstance(expanded, Model):
        yield from ((path, node) for _, node in _unseen(expanded, "", seen))


def _children(value: Any, path: str) -> Iterator[tuple[str, Model]]:  # noqa: ANN401 - any field
    if isinstance(value, Model):
        yield path, value
    elif isinstance(value, tuple):
        for index, each in enumerate(value):
            yield from _children(each, f"{path}/{index}")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _children(each, f"{path}/{key}")
