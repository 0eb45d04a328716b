"""`python -m benchmarks.planner --curves DIR`: predictions of the loss, on trainings of others.

The folder holds `cooldowns-124m.json`, logs of 124M models (github.com/fabian-sp/lr-scheduling,
arXiv 2501.18965) as a list of `{"family", "dataset", "lr", "scheduler", "warmup", "iterations",
"decay_fraction", "decay_shape", "resumed", "step": [...], "val_loss": [...]}`. Each prediction sees
the training up to the start of its decay, and one short decay of its own, the probe.

The usual values of the law's parameters, and the width of the bands, were chosen on the lines that
are marked as chosen; the others were not looked at for it.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from pacesetter_service.insight.evidence import Relation, Training, doubts, gathered
from pacesetter_service.insight.loss_fit import Seen, blind, fit
from pacesetter_service.insight.loss_law import Floats, Path

NINETY = 1.645
"""How many deviations a band of 90 % reaches to either side."""

SHARES = (1.0, 0.6, 0.3)
"""How much of the trunk is seen: all of it before the decay, or less, but up to the probe."""

COMPLETE = 0.98
"""The share of its steps that a log must have."""

Log = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A decay whose end is predicted: from so much of a trunk before it, with a probe."""

    group: str
    trunk: Log
    probe: Log
    target: Log
    share: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """By how much a prediction was wrong, with and without knowing the rates."""

    error: float
    blind: float
    within: bool
    loss: float


def rates_of(log: Log) -> Floats:
    """Return the learning rates of a training as fractions of its peak."""
    total, warmup = log["iterations"], log["warmup"]
    rates = np.ones(total)
    length = round(total * log["decay_fraction"])
    if length:
        gone = np.arange(length) / length
        rates[total - length :] = 1 - (np.sqrt(gone) if log["decay_shape"] == "sqrt" else gone)
    rates[:warmup] = np.minimum(rates[:warmup], (np.arange(warmup) + 1) / warmup)
    return rates


def start_of(log: Log) -> int:
    """Return the step at which a training begins to decay."""
    return int(log["iterations"]) - round(log["iterations"] * log["decay_fraction"])


def between(log: Log, first: float, last: float) -> Seen:
    """Return what was measured from a step on and up to another one."""
    steps, losses = np.array(log["step"], np.int64), np.array(log["val_loss"], np.float64)
    known = (steps >= first) & (steps <= last)
    return Seen(Path(rates_of(log)), steps[known], losses[known])


def predicted(case: Case) -> Outcome:
    """Predict the end of a decay."""
    start = start_of(case.target)
    branched = start_of(case.probe)
    own = between(case.trunk, 0, max(case.share * start, branched))
    fitted = fit([own, between(case.probe, branched, np.inf)])
    end = np.array(case.target["step"][-1:], np.int64)
    truth = case.target["val_loss"][-1]
    losses, deviations = fitted.expected(Path(rates_of(case.target)), end)
    error = float(losses[0]) - truth
    return Outcome(
        error,
        float(blind(own).losses(end)[0]) - truth,
        abs(error) <= NINETY * float(deviations[0]),
        float(losses[0]),
    )


def cases(logs: Sequence[Log]) -> Iterator[Case]:
    """Name what is predicted: every longer decay of a trunk that has a short one as its probe."""
    whole = [log for log in logs if log["step"] and _is_whole(log)]
    wsd = [log for log in whole if log["scheduler"] == "wsd"]
    trunks = {_setting(log): log for log in wsd if not log["resumed"] and not log["decay_fraction"]}
    for (series, dataset, rate), trunk in trunks.items():
        mine = [log for log in wsd if _setting(log) == _setting(trunk) and log["decay_fraction"]]
        straight = [log for log in mine if log["decay_shape"] != "sqrt"]
        if not straight:
            continue
        probe = min(straight, key=lambda log: (log["iterations"], log["decay_fraction"]))
        for target in mine:
            if start_of(target) >= start_of(probe) and target["iterations"] > probe["iterations"]:
                chosen = series == "124m" and rate >= 5e-4 and target in straight
                group = f"{series or 'first'} series, {dataset}, {rate:g}"
                group += ", sqrt" if target not in straight else ""
                group += " (chosen)" if chosen else ""
                for share in SHARES:
                    yield Case(group, trunk, probe, target, share)


def _setting(log: Log) -> tuple[str, str, float]:
    """Return what trainings of one trunk share: the series of runs, the data and the peak rate."""
    return "124m" if "124" in log["family"] else "", log["dataset"], log["lr"]


def _is_whole(log: Log) -> bool:
    return bool(log["step"][-1] >= COMPLETE * log["iterations"])


def regrets(found: Sequence[tuple[Case, Outcome]]) -> list[tuple[float, float]]:
    """Return by how much the decay that is chosen ends above the best, and how far all differ.

    One choice is among decays of the same trunk and length, from as much of the trunk.
    """
    choices: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for case, outcome in found:
        key = (*_setting(case.target), case.target["iterations"], case.share)
        truth = float(case.target["val_loss"][-1])
        choices.setdefault(key, []).append((outcome.loss, truth))
    several = [each for each in choices.values() if len(each) > 1]
    return [
        (
            min(each)[1] - min(truth for _, truth in each),
            max(truth for _, truth in each) - min(truth for _, truth in each),
        )
        for each in several
    ]


def training(log: Log, name: str, relation: Relation, until: float, shared: int = 0) -> Training:
    """Return a log as a session's record, in its own learning rates."""
    steps, losses = np.array(log["step"], np.int64), np.array(log["val_loss"], np.float64)
    known = (steps >= shared) & (steps <= until)
    length = int(min(until, log["iterations"]))
    rates = log["lr"] * rates_of(log)[:length]
    return Training(name, relation, rates, steps[known], losses[known], shared)


def declined(logs: Sequence[Log]) -> Iterator[tuple[str, int, int]]:
    """Say of each useless kind of evidence how many plans there were, and how many had no loss."""
    known = list({case.trunk["lr"]: case for case in cases(logs) if case.share == 1}.values())
    found: dict[str, list[bool]] = {
        "no probe": [],
        "probes at another rate": [],
        "others' runs": [],
    }
    for case in known:
        own = training(case.trunk, "own", "own", start_of(case.probe))
        probes = [
            training(other.probe, "other", "donor", np.inf, start_of(other.probe))
            for other in known
            if other.trunk["lr"] != own.peak
        ]
        # As if it were of the same rate and template, it still has other losses.
        strange = training(case.probe, "strange", "donor", np.inf)
        strange = replace(strange, losses=strange.losses * 1.1)
        for name, others in zip(found, ([], probes, [strange]), strict=True):
            found[name].append(bool(doubts(gathered(own, others))))
    for name, each in found.items():
        yield name, len(each), sum(each)


def main() -> None:
    """Predict, and print how wrong that was."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner", description=__doc__)
    parser.add_argument("--curves", type=FilePath, required=True, metavar="DIR")
    logs = json.loads((parser.parse_args().curves / "cooldowns-124m.json").read_text())
    groups: dict[str, list[Outcome]] = {}
    found = [(case, predicted(case)) for case in cases(logs)]
    for case, outcome in found:
        seen = "" if case.share == 1 else f", trunk to {case.share:.0%}"
        groups.setdefault(case.group + seen, []).append(outcome)
    print(f"{'':<58} {'ends':>4} {'error':>7} {'worst':>7} {'blind':>7} {'in 90 %':>8}")
    for group, outcomes in groups.items():
        print(_row(group, outcomes))
    for share in SHARES:
        seen = "" if share == 1 else f", trunk to {share:.0%}"
        unseen = [
            each
            for group, outcomes in groups.items()
            if "chosen" not in group and group.endswith(seen or group)
            for each in outcomes
            if bool(seen) == ("trunk" in group)
        ]
        print(_row(f"all not chosen on{seen}", unseen))
    chosen = regrets(found)
    print(
        f"regret of the decay that is chosen, {len(chosen)} times: mean"
        f" {statistics.mean(each for each, _ in chosen):.4f}, largest"
        f" {max(each for each, _ in chosen):.4f}, of a spread of"
        f" {statistics.mean(spread for _, spread in chosen):.4f}"
    )
    for name, plans, without in declined(logs):
        print(f"{name}: {without} of {plans} plans predict no loss")


def _row(group: str, found: Sequence[Outcome]) -> str:
    errors = [abs(each.error) for each in found]
    ignorant = statistics.mean(abs(each.blind) for each in found)
    held = statistics.mean(each.within for each in found)
    return (
        f"{group:<58} {len(found):>4} {statistics.mean(errors):>7.4f} {max(errors):>7.4f}"
        f" {ignorant:>7.4f} {held:>8.0%}"
    )


if __name__ == "__main__":
    main()
