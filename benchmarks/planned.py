"""`python -m benchmarks.planned`: the planner's choice against linear to zero, and a cosine.

What is trained is a regression on noisy labels with a thousand directions of falling curvature, ten
seeds. It is made so that a decay helps: at a constant rate the noise of the labels keeps the loss
up, and the table shows the constant rate beside the others. The noise that is drawn differs from
way to way, as it would between trainings. Losses are those that unseen data without end would give.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pacesetter_service.core.commands import Act, Seal
from pacesetter_service.core.decide import decide
from pacesetter_service.core.events import Sealed
from pacesetter_service.core.schedules.eases import Linear
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.insight.evidence import Training, gathered
from pacesetter_service.insight.loss_law import Floats
from pacesetter_service.insight.plan_search import as_planned, cooldown, lowest
from pacesetter_service.insight.planner import Candidate, Planner

TOTAL, SEEN, PROBE, EVERY = 4000, 1600, 200, 10
WIDTH, BATCH, NOISE, START, PEAK = 1000, 16, 2.0, 0.7, 0.06

SPEC = {
    "name": "run",
    "base_lr": PEAK,
    "schedule": {"kind": "warmup", "steps": 20, "schedule": {"kind": "constant"}},
    "total_steps": TOTAL,
}

SCALES = np.arange(1, WIDTH + 1) ** -0.5


@dataclass
class Regression:
    """Weights in training, and what they are trained on."""

    weights: Floats
    random: np.random.Generator

    def train(self, rates: Floats) -> Floats:
        """Make a step at each rate, and return the loss before each."""
        losses = np.empty(len(rates))
        for index, lr in enumerate(rates):
            losses[index] = self.loss()
            inputs = self.random.standard_normal((BATCH, WIDTH)) * SCALES
            apart = inputs @ self.weights - NOISE * self.random.standard_normal(BATCH)
            self.weights = self.weights - lr * 2 / BATCH * (inputs.T @ apart)
        return losses

    def loss(self) -> float:
        """Return 3 and the loss on data without noise: as of a model that leaves so much open."""
        return float(3 + ((self.weights * SCALES) ** 2).sum())

    def copy(self, seed: int) -> "Regression":
        """Return the same weights with other data ahead."""
        return Regression(self.weights.copy(), np.random.default_rng(seed))


def sealed(session: Session, until: int) -> tuple[Session, Floats]:
    """Seal a session up to a step, and return it and the rates of the steps since."""
    rates = []
    while session.horizon < until:
        draft = decide(session, Seal(session.horizon, min(64, until - session.horizon)))
        rates += [each.values["lr"] for each in draft.events if isinstance(each, Sealed)]
        session = draft.after
    return session, np.concatenate(rates)


def ways(planner: Planner) -> dict[str, Callable[[Session], Floats]]:
    """Return the rates of what is left, by the name of each way to go on."""

    def ordered(candidate: Candidate) -> Callable[[Session], Floats]:
        def rates(session: Session) -> Floats:
            for each in candidate.orders:
                session = decide(session, Act(each.action, each.at)).after
            return sealed(session, TOTAL)[1]

        return rates

    left = np.arange(TOTAL - SEEN) / (TOTAL - SEEN)
    return {
        "the planner's choice": ordered(lowest(planner, TOTAL)[0].candidate),
        "linear to zero from here": ordered(cooldown(planner, TOTAL, 1.0, "linear", Linear(), 0.0)),
        "cosine to zero from here": lambda _: PEAK * (1 + np.cos(np.pi * left)) / 2,
        "linear over the last fifth": ordered(
            cooldown(planner, TOTAL, 0.2 * TOTAL / (TOTAL - SEEN), "linear", Linear(), 0.0)
        ),
        "no decay": ordered(as_planned(TOTAL)),
    }


@dataclass(frozen=True)
class Outcome:
    """How each way ended, how wrong the prediction was, if its band held, and if it was told."""

    ends: dict[str, float]
    error: float
    held: bool
    told: bool


def one(seed: int) -> Outcome:
    """Train one seed."""
    session, rates = sealed(create(SessionSpec.model_validate(SPEC)), SEEN)
    trunk = Regression(np.full(WIDTH, START), np.random.default_rng(seed))
    losses = trunk.train(rates)
    at = np.arange(0, SEEN, EVERY)
    own = Training("run", "own", rates, at, losses[at])
    cooling = rates[-1] * np.linspace(1, 0, PROBE, endpoint=False)
    probed = trunk.copy(seed + 1000).train(cooling)
    steps = np.arange(0, PROBE, EVERY)
    probe = Training(
        "probe", "fork", np.concatenate((rates, cooling)), SEEN + steps, probed[steps], SEEN
    )
    planner = Planner(session, "lr", gathered(own, [probe]))
    if planner.effect == "nothing":
        raise SystemExit(f"seed {seed}: {planner.findings}")
    ends = {}
    for index, (name, way) in enumerate(ways(planner).items()):
        going = trunk.copy(seed + 2000 + 100 * index)
        going.train(way(session))
        ends[name] = going.loss()
    chosen = lowest(planner, TOTAL)[0]
    if chosen.curve is None:
        raise SystemExit(f"seed {seed}: {chosen.refused}")
    truth = ends["the planner's choice"]
    held = bool(chosen.curve.low[-1] <= truth <= chosen.curve.high[-1])
    return Outcome(ends, chosen.end - truth, held, planner.effect is None)


def main() -> None:
    """Train, and print how each way ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planned", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    found = [one(seed) for seed in range(parser.parse_args().seeds)]
    for name in found[0].ends:
        ends = [each.ends[name] for each in found]
        best = sum(each.ends[name] == min(each.ends.values()) for each in found)
        print(
            f"{name:<28} {statistics.mean(ends):.4f} +- {statistics.stdev(ends):.4f}"
            f"  best of {best}"
        )
    errors = [abs(each.error) for each in found]
    print(f"predicted ends were off by {statistics.mean(errors):.4f}, at most {max(errors):.4f};")
    print(f"{sum(each.held for each in found)} of {len(found)} lay in their bands of 90 %, and")
    print(f"in {sum(each.told for each in found)} of {len(found)} cases a plan would tell them")


if __name__ == "__main__":
    main()
