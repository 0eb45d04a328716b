"""`python -m benchmarks.planner --curves DIR`: predictions of the loss, on published trainings.

`benchmarks/curves.py` documents the files of the folder. Each prediction sees the training up to
the start of its decay, and one short decay, the probe; or, of a schedule that falls from the warmup
on, as much of another training as came before the probe.

The usual values of the law's parameters, and the width of the bands, were chosen on the lines that
are marked as chosen; the others were not used for it.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

import numpy as np
from numpy.typing import NDArray

from benchmarks.curves import Run, read_curves
from pacesetter_service.insight.evidence import (
    Evidence,
    Relation,
    Training,
    doubts,
    doubts_of_fit,
    gathered,
)
from pacesetter_service.insight.loss_fit import blind, fit
from pacesetter_service.insight.loss_law import Path

NINETY = 1.645
"""How many deviations a band of 90 % extends to either side."""

SHARES = (1.0, 0.6, 0.3)
"""How much of the trunk is seen: all of it before the decay, or less, but up to the probe."""

PROBED = 8
"""The predicted training is at least this many times as long as its probe."""


@dataclass(frozen=True, slots=True)
class Case:
    """A decay whose end is predicted: from so much of a trunk before it, with a probe."""

    trunk: Run
    probe: Run
    target: Run
    share: float

    @property
    def whole(self) -> bool:
        """Whether the target is another schedule from the warmup on, and no decay of the trunk."""
        return self.target.start < self.probe.start

    @property
    def group(self) -> str:
        """The name of its line."""
        kind = ", from the warmup on" if self.whole else ", no line" if self.target.bent else ""
        return f"{self.target.trunk}{kind}{' (chosen)' if self.target.chosen else ''}"

    @property
    def end(self) -> NDArray[np.int64]:
        """The step whose loss is predicted."""
        return self.target.steps[-1:]

    def evidence(self) -> Evidence:
        """Return what a prediction sees, as a plan would get it."""
        until = self.probe.start if self.whole else self.share * self.target.start
        length = self.target.total / PROBED
        own = training(self.trunk, "own", "own", max(until, self.probe.start))
        last = self.probe.start + length
        return gathered(own, [training(self.probe, "probe", "fork", last, self.probe.start)])


@dataclass(frozen=True, slots=True)
class Outcome:
    """The error of a prediction, with and without knowing the rates."""

    error: float
    blind: float
    within: bool
    loss: float


def predicted(case: Case, evidence: Evidence | None = None) -> Outcome | None:
    """Predict the end of a decay, by its own probe or by other evidence; None if that is declined.

    What is compared is one measurement, which scatters around the mean that the band is for.
    """
    known = evidence or case.evidence()
    if doubts(known):
        return None
    fitted = fit([each.seen() for each in known.all])
    if doubts_of_fit(fitted):
        return None
    truth = float(case.target.losses[-1])
    losses, deviations = fitted.expected(Path(case.target.rates), case.end)
    error = float(losses[0]) - truth
    reach = NINETY * float(np.hypot(deviations[0], fitted.error * truth))
    return Outcome(
        error,
        float(blind(known.own.seen()).losses(case.end)[0]) - truth,
        abs(error) <= reach,
        float(losses[0]),
    )


def cases(runs: Sequence[Run]) -> Iterator[Case]:
    """Return what is predicted: every longer decay of a trunk that has a short one as its probe."""
    for name in dict.fromkeys(run.trunk for run in runs):
        mine = [run for run in runs if run.trunk == name]
        decays = [run for run in mine if run.decays]
        straight = [run for run in decays if not run.bent and run.start > run.total / 4]
        trunks = [run for run in mine if not run.decays]
        if not straight or not trunks:
            continue
        shortest = min(_size(run) for run in straight)
        for probe in (run for run in straight if _size(run) == shortest):
            trunk = min(trunks, key=lambda run: (_apart(run, probe), -run.total))
            for target in decays:
                if target.total <= probe.total:
                    continue
                whole = target.start < probe.start
                for share in SHARES[:1] if whole else SHARES:
                    yield Case(trunk, probe, target, share)


def _size(run: Run) -> tuple[int, int]:
    # To within a thousandth, since logs end where they were measured last.
    return round(run.total, -3), round(run.total - run.start, -3)


def _apart(one: Run, other: Run) -> float:
    """Return how far two runs are apart before the other's decay: 0 if one is the other's trunk."""
    both, mine, theirs = np.intersect1d(one.steps, other.steps, return_indices=True)
    early = both <= other.start
    if not early.any():
        return 0.0
    return float(np.abs(one.losses[mine] - other.losses[theirs])[early].mean())


def regrets(found: Sequence[tuple[Case, Outcome]]) -> list[tuple[float, float]]:
    """Return by how much the decay that is chosen ends above the best, and how far all differ.

    One choice is among decays of the same trunk and length, by the same evidence.
    """
    choices: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for case, outcome in found:
        target = case.target
        key = (target.trunk, case.probe.name, round(target.total, -3), case.share)
        choices.setdefault(key, []).append((outcome.loss, float(target.losses[-1])))
    several = [each for each in choices.values() if len(each) > 1]
    return [
        (
            min(each)[1] - min(truth for _, truth in each),
            max(truth for _, truth in each) - min(truth for _, truth in each),
        )
        for each in several
    ]


def training(run: Run, name: str, relation: Relation, until: float, shared: int = 0) -> Training:
    """Return a run as a session's record, in its own learning rates."""
    known = (run.steps >= shared) & (run.steps <= until)
    rates = run.peak * run.rates[: int(min(until + 1, run.total))]
    return Training(name, relation, rates, run.steps[known], run.losses[known], shared)


def declined(runs: Sequence[Run]) -> Iterator[tuple[str, int, int]]:
    """Yield each useless kind of evidence with its number of plans, and of those without a loss."""
    known = list({case.trunk.trunk: case for case in cases(runs)}.values())
    found: dict[str, list[bool]] = {
        "no probe": [],
        "probes at another rate": [],
        "others' runs at the same rate": [],
    }
    for case in known:
        own = training(case.trunk, "own", "own", case.probe.start)
        found["no probe"].append(bool(doubts(gathered(own, []))))
        probes = [
            training(each.probe, "other", "donor", np.inf, each.probe.start)
            for each in known
            if each.trunk.peak != own.peak
        ]
        if probes:
            found["probes at another rate"].append(bool(doubts(gathered(own, probes))))
    # As if they were of the same template: another model.
    for _, strange in donations(runs):
        if not strange.others:
            found["others' runs at the same rate"].append(bool(doubts(strange)))
    for name, each in found.items():
        yield name, len(each), sum(each)


def donations(runs: Sequence[Run]) -> Iterator[tuple[Case, Evidence]]:
    """Return each trunk without a probe, with the decay of another's trunk as donor."""
    known = list({case.trunk.trunk: case for case in cases(runs)}.values())
    for case in known:
        own = training(case.trunk, "own", "own", case.probe.start)
        for other in known:
            if other is not case and other.trunk.peak == own.peak:
                donor = training(_joined(other.trunk, other.probe), "other", "donor", np.inf)
                yield case, gathered(own, [donor])


def donated(runs: Sequence[Run]) -> Iterator[Outcome]:
    """Predict the ends of decays by another's, where the two are alike."""
    for case, evidence in donations(runs):
        for target in cases(runs):
            decay = target.trunk is case.trunk and target.share == 1 and not target.whole
            if evidence.others and decay:
                own = training(case.trunk, "own", "own", target.target.start)
                found = predicted(target, replace(evidence, own=own))
                if found is not None:
                    yield found


def _joined(trunk: Run, probe: Run) -> Run:
    """Return a probe with what its trunk measured before it."""
    early, late = trunk.steps < probe.start, probe.steps >= probe.start
    return replace(
        probe,
        steps=np.concatenate((trunk.steps[early], probe.steps[late])),
        losses=np.concatenate((trunk.losses[early], probe.losses[late])),
    )


def main() -> None:
    """Predict, and print how wrong that was."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner", description=__doc__)
    parser.add_argument("--curves", type=FilePath, required=True, metavar="DIR")
    runs = read_curves(parser.parse_args().curves)
    tried = [(case, predicted(case)) for case in cases(runs)]
    found = [(case, outcome) for case, outcome in tried if outcome is not None]
    if not tried:
        raise SystemExit("there is no trunk at a constant rate with a short decay and a longer one")
    if not found:
        raise SystemExit(f"all {len(tried)} plans predict no loss: too little was measured")
    print(f"{'':<62} {'ends':>4} {'error':>7} {'worst':>7} {'blind':>7} {'in 90 %':>8}")
    for group in dict.fromkeys(case.group for case, _ in found):
        for share in SHARES:
            _print(
                group if share == 1 else f"{group}, trunk to {share:.0%}",
                [each for case, each in found if case.group == group and case.share == share],
            )
    unseen = [(case, each) for case, each in found if not case.target.chosen]
    decays = [(case, each) for case, each in unseen if not case.whole]
    for share in SHARES:
        name = f"all not chosen on, trunk to {share:.0%}"
        _print(name, [each for case, each in decays if case.share == share])
    _print("all not chosen on", [each for _, each in decays])
    _print("the same from the warmup on", [each for case, each in unseen if case.whole])
    _print("no probe, another's decay within 2 % of the loss", list(donated(runs)))
    chosen = regrets(found)
    if chosen:
        print(
            f"regret of the decay that is chosen, {len(chosen)} times: mean"
            f" {statistics.mean(each for each, _ in chosen):.4f}, largest"
            f" {max(each for each, _ in chosen):.4f}, of a spread of"
            f" {statistics.mean(spread for _, spread in chosen):.4f}"
        )
    print(f"with a probe: {len(tried) - len(found)} of {len(tried)} plans predict no loss")
    for name, plans, without in declined(runs):
        print(f"{name}: {without} of {plans} plans predict no loss")


def _print(name: str, outcomes: Sequence[Outcome]) -> None:
    if not outcomes:
        return
    errors = [abs(each.error) for each in outcomes]
    ignorant = statistics.mean(abs(each.blind) for each in outcomes)
    held = statistics.mean(each.within for each in outcomes)
    print(
        f"{name:<62} {len(outcomes):>4} {statistics.mean(errors):>7.4f} {max(errors):>7.4f}"
        f" {ignorant:>7.4f} {held:>8.0%}"
    )


if __name__ == "__main__":
    main()
