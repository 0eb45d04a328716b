"""The planner: its predictions, what it declines, and that a prediction is of a real order."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pacesetter_service.core.actions.level import Cooldown
from pacesetter_service.core.commands import Act, Seal
from pacesetter_service.core.decide import decide
from pacesetter_service.core.events import Sealed
from pacesetter_service.core.schedules.eases import Linear
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.insight.evidence import Training, gathered
from pacesetter_service.insight.loss_fit import LATER, MODEL_ERROR, Fitted
from pacesetter_service.insight.loss_law import LossLaw, Path
from pacesetter_service.insight.plan_search import as_planned, cooldown, fewest, lowest
from pacesetter_service.insight.planner import NINETY, Candidate, Planned, Planner, explained
from pacesetter_service.insight.remainder import best_remainder

LAW = LossLaw(2.7, 9.0, 0.4, 0.22, 0.03, 0.4, 0.5)
TOTAL, SEEN, PROBED, PROBE = 6000, 3000, 2500, 300

SPEC: dict[str, Any] = {
    "name": "run",
    "base_lr": 1e-3,
    "schedule": {"kind": "warmup", "steps": 50, "schedule": {"kind": "constant"}},
    "total_steps": TOTAL,
}


def sealed(spec: dict[str, Any], until: int) -> tuple[Session, np.ndarray]:
    """Return a session with that many sealed steps, and their rates."""
    return sealed_on(create(SessionSpec.model_validate(spec)), until)


def sealed_on(session: Session, until: int) -> tuple[Session, np.ndarray]:
    """Return a session that was trained on up to a step, and the rates of the steps since."""
    rates = []
    while session.horizon < until:
        draft = decide(session, Seal(session.horizon, min(64, until - session.horizon)))
        rates += [each.values["lr"] for each in draft.events if isinstance(each, Sealed)]
        session = draft.after
    return session, np.concatenate(rates)


def measured(
    rates: np.ndarray, name: str, relation: Any, law: LossLaw = LAW, shared: int = 0, **noise: float
) -> Training:
    """Return a training whose loss follows a law, measured at every tenth step."""
    steps = np.arange(10, len(rates), 10)
    rng = np.random.default_rng(len(rates))
    losses = Path(rates).losses(law, np.maximum(steps, 60))
    losses = losses * (1 + noise.get("noise", 0.0005) * rng.normal(size=len(steps)))
    return Training(name, relation, rates, steps, losses, shared)


@pytest.fixture(name="run", scope="module")
def _run() -> tuple[Session, Training]:
    """Return a training that was seen at a constant rate."""
    session, rates = sealed(SPEC, SEEN)
    return session, measured(rates, "run", "own")


def probe_of(run: tuple[Session, Training], law: LossLaw = LAW) -> Training:
    """Return a fork of it that was cooled down."""
    rates = run[1].rates[:PROBED]
    rates = np.concatenate((rates, rates[-1] * np.linspace(1, 0, PROBE + 1)[1:]))
    return measured(rates, "probe", "fork", law, shared=PROBED)


def planned(run: tuple[Session, Training], *others: Training) -> Planner:
    """Return the planner of a training."""
    session, own = run
    return Planner(session, "lr", gathered(own, others))


def codes(planner: Planner) -> dict[str, str]:
    """Return the codes of obstacles and restrictions."""
    return {each.code: each.effect for each in planner.findings}


def truth(run: tuple[Session, Training], candidate: Candidate) -> float:
    """Return the loss that the law really reaches."""
    session = run[0]
    for each in candidate.orders:
        session = decide(session, Act(each.action, each.at)).after
    _, ahead = sealed_on(session, candidate.total)
    rates = np.concatenate((run[1].rates, ahead))
    return float(Path(rates).losses(LAW, np.array([candidate.total]))[0])


def test_with_a_probe_ends_are_predicted(run: tuple[Session, Training]) -> None:
    """Ends of other decays lie near the truth and in their bands; a law without rates misses."""
    planner = planned(run, probe_of(run))
    assert planner.effect is None
    for span in (1.0, 0.5, 0.2):
        candidate = cooldown(planner, TOTAL, span, "linear", Linear(), 0.0)
        outlook = planner.outlook(candidate)
        assert outlook.curve is not None
        error = abs(outlook.end - truth(run, candidate))
        assert error < 0.02
        assert outlook.curve.low[-1] <= truth(run, candidate) <= outlook.curve.high[-1]
        assert outlook.curve.blind is not None
        assert abs(outlook.curve.blind[-1] - truth(run, candidate)) > 5 * error


def test_what_is_predicted_is_what_the_order_leads_to(run: tuple[Session, Training]) -> None:
    """The rates behind a prediction are, to the bit, those that the session seals afterwards."""
    planner = planned(run, probe_of(run))
    best = lowest(planner, TOTAL)[0]
    assert best.curve is not None
    assert best.candidate.orders
    session = run[0]
    for act in explained(best.candidate, "because"):
        session = decide(session, act).after
    _, ahead = sealed_on(session, TOTAL)
    told = best.curve.steps < TOTAL
    assert (best.curve.rates[told] == ahead[best.curve.steps[told] - SEEN]).all()


def test_the_best_that_is_found_is_hardly_worse_than_the_best(
    run: tuple[Session, Training],
) -> None:
    """Of cooldowns over any length, the chosen one ends within 0.005 of the lowest."""
    planner = planned(run, probe_of(run))
    found = lowest(planner, TOTAL)
    ends = [
        truth(run, cooldown(planner, TOTAL, span, "linear", Linear(), 0.0))
        for span in np.linspace(0.05, 1, 20)
    ]
    assert truth(run, found[0].candidate) < min(ends) + 0.005
    assert found[-1].candidate == as_planned(TOTAL)
    assert truth(run, as_planned(TOTAL)) > min(ends) + 0.05


def test_the_fewest_steps_to_a_loss_are_found(run: tuple[Session, Training]) -> None:
    """The end that is found reaches the loss, and one a little sooner does not."""
    planner = planned(run, probe_of(run))
    goal = lowest(planner, 5000)[0].end
    first = fewest(planner, goal, TOTAL)[0]
    assert first.end <= goal
    assert first.candidate.total <= 5100
    assert not fewest(planner, goal - 0.0005, first.candidate.total - 200)


def test_without_a_decay_there_is_a_ranking_alone(run: tuple[Session, Training]) -> None:
    """Without a probe, the gain of a decay is unknown, so no loss is predicted."""
    planner = planned(run)
    assert codes(planner) == {"no_decay": "ranking"}
    first = lowest(planner, TOTAL)[0]
    assert truth(run, first.candidate) < truth(run, as_planned(TOTAL)) - 0.05


def test_a_probe_at_another_rate_says_nothing(run: tuple[Session, Training]) -> None:
    """A decay from another peak is left out with the reason, and so there is a ranking alone."""
    probe = probe_of(run)
    other = Training("other", "donor", probe.rates * 0.5, probe.steps, probe.losses, shared=0)
    planner = planned(run, other)
    assert codes(planner) == {"no_decay": "ranking"}
    [left] = planner.evidence.left_out
    assert "at another rate" in left.reason


def test_the_curves_of_others_say_nothing(run: tuple[Session, Training]) -> None:
    """A donor with other losses at the same steps is another model, or has other data."""
    theirs = LAW._replace(floor=3.4, gain=0.5)
    rates = probe_of(run).rates
    planner = planned(run, measured(rates, "theirs", "donor", theirs))
    assert codes(planner) == {"no_decay": "ranking"}
    assert "another model" in planner.evidence.left_out[0].reason
    alike = planned(run, measured(rates, "alike", "donor"))
    assert alike.effect is None


def test_a_training_without_a_rate_is_declined(run: tuple[Session, Training]) -> None:
    """Zeros, or no step at all, give no plan, with or without a fork of the same kind."""
    for count in (0, 100):
        nothing = Training("run", "own", np.zeros(count), np.arange(count), np.ones(count))
        fork = Training("fork", "fork", np.zeros(count), np.arange(count), np.ones(count))
        assert codes(planned((run[0], nothing), fork)) == {"too_few": "nothing"}


CORRUPT: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "accuracy": (lambda loss: 1 / loss, "not_falling"),
    "reward": (lambda loss: loss - 3.3, "not_a_loss"),
    "noise": (
        lambda loss: loss[-1] * (1 + 0.5 * np.random.default_rng(1).normal(size=len(loss)) ** 2),
        "too_noisy",
    ),
    "nothing": (lambda loss: np.full_like(loss, np.nan), "too_few"),
}


@pytest.mark.parametrize("case", CORRUPT)
def test_what_is_no_loss_is_declined(run: tuple[Session, Training], case: str) -> None:
    """A metric that rises, is negative, scatters too much, or has few values gives no plan."""
    change, code = CORRUPT[case]
    own = run[1]
    changed = Training("run", "own", own.rates, own.steps, change(own.losses))
    planner = planned((run[0], changed), probe_of(run))
    assert planner.effect == "nothing"
    assert code in codes(planner) or (case == "noise" and "not_falling" in codes(planner))


@pytest.mark.parametrize(("jump", "effect"), [(0.97, "ranking"), (0.8, "nothing")])
def test_what_does_not_follow_the_law_is_declined(
    run: tuple[Session, Training], jump: float, effect: str
) -> None:
    """A loss that jumps is not predicted; after a small jump, candidates are still ranked."""
    own = run[1]
    jumped = np.where((own.steps > 800) & (own.steps < 1600), own.losses * jump, own.losses)
    changed = Training("run", "own", own.rates, own.steps, jumped)
    assert codes(planned((run[0], changed), probe_of(run))) == {"does_not_follow": effect}


def test_an_end_far_ahead_is_ranked_alone(run: tuple[Session, Training]) -> None:
    """More than twelve times as far as was seen, no loss is predicted."""
    planner = planned(run, probe_of(run))
    planner.refuse_far(TOTAL)
    assert planner.effect is None
    planner.refuse_far(13 * SEEN)
    assert codes(planner) == {"too_far": "ranking"}


def test_limits_hold_for_candidates(run: tuple[Session, Training]) -> None:
    """A candidate beyond them is refused with the reason, and the search stays within them."""
    limited = {**SPEC, "limits": {"min_lr": 1e-4}}
    session, rates = sealed(limited, SEEN)
    planner = planned((session, measured(rates, "run", "own")), probe_of(run))
    low = Candidate("", (Planned(SEEN, Cooldown(steps=500)),), TOTAL)
    refused = planner.outlook(low).refused
    assert refused is not None
    assert "limits" in refused
    best = lowest(planner, TOTAL)[0]
    assert best.curve is not None
    assert best.curve.rates.min() >= 1e-4


def test_a_rate_that_was_never_trained_with_is_not_predicted(
    run: tuple[Session, Training],
) -> None:
    """Above the peak nothing is known."""
    from pacesetter_service.core.actions.level import Scale

    planner = planned(run, probe_of(run))
    refused = planner.outlook(Candidate("", (Planned(SEEN, Scale(factor=1.5)),), TOTAL)).refused
    assert refused is not None
    assert "above the" in refused


@pytest.mark.parametrize("least", [0.0, 1e-4])
def test_the_best_remainder_is_no_worse_than_linear_to_zero(least: float) -> None:
    """It ends lower, by the law and in truth; it falls, and stays within the limits."""
    session, rates = sealed({**SPEC, "limits": {"min_lr": least}}, SEEN)
    run = session, measured(rates, "run", "own")
    planner = planned(run, probe_of(run))
    candidate = best_remainder(planner, TOTAL)
    assert candidate is not None
    outlook = planner.outlook(candidate)
    assert outlook.curve is not None
    straight = cooldown(planner, TOTAL, 1.0, "linear", Linear(), 0.0)
    assert outlook.end < planner.end_of(straight)
    assert truth(run, candidate) < truth(run, straight)
    assert (np.diff(outlook.curve.rates) <= 0).all()
    assert outlook.curve.rates.min() >= least


def test_bands_do_not_shrink_to_nothing(run: tuple[Session, Training]) -> None:
    """However well the law fits, an end is no surer than the law is right."""
    candidate = cooldown(planned(run), TOTAL, 0.2, "linear", Linear(), 0.0)
    exact = [replace(each, losses=_by_law(each)) for each in (run[1], probe_of(run))]
    planner = planned((run[0], exact[0]), exact[1])
    curve = planner.outlook(candidate).curve
    assert curve is not None
    assert (curve.high[-1] - curve.low[-1]) / 2 > NINETY * MODEL_ERROR * curve.losses[-1] * 0.99


def _by_law(training: Training) -> np.ndarray:
    return Path(training.rates).losses(LAW, np.maximum(training.steps, 60))


def test_bands_widen_with_the_scatter(run: tuple[Session, Training]) -> None:
    """Measurements that scatter ten times as much make an end less certain."""
    widths = []
    for noise in (0.0005, 0.005):
        own = measured(run[1].rates, "run", "own", noise=noise)
        fork = probe_of(run)
        fork = measured(fork.rates, "probe", "fork", shared=PROBED, noise=noise)
        planner = planned((run[0], own), fork)
        curve = planner.outlook(cooldown(planner, TOTAL, 0.2, "linear", Linear(), 0.0)).curve
        assert curve is not None
        widths.append(curve.high[-1] - curve.low[-1])
    assert widths[1] > 1.5 * widths[0]


def test_late_decays_gain_less_than_the_law_says() -> None:
    """Their gain shrinks by a part that grows with the rates since the decay that was seen."""
    rates = np.concatenate((np.linspace(0.1, 1, 10), np.ones(4990), np.linspace(1, 0, 1000)))
    path, end = Path(rates), np.array([len(rates)])
    gain = float(path.gains(LAW, end)[0])
    assert gain > 0.1
    for ago in (1.0, 2.0, 4.0):
        decayed = float(path.sums(end)[0]) / ago
        fitted = Fitted(LAW, np.zeros((7, 7)), 0.0, decayed)
        less = float(fitted.expected(path, end).losses[0] - path.losses(LAW, end)[0])
        assert less == pytest.approx(LATER * gain * np.log(ago), abs=1e-12)


def test_a_donor_counts_at_the_level_of_the_run(run: tuple[Session, Training]) -> None:
    """Losses a percent higher, as another seed's may be, are not taken for a smaller gain."""
    rates = probe_of(run).rates
    alike = measured(rates, "alike", "donor")
    above = replace(alike, losses=alike.losses * 1.01)
    candidate = cooldown(planned(run, alike), TOTAL, 0.2, "linear", Linear(), 0.0)
    ends = [planned(run, donor).end_of(candidate) for donor in (alike, above)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-3)
    assert abs(ends[1] - truth(run, candidate)) < 0.02


def test_a_long_warmup_leaves_something_to_plan_by() -> None:
    """A tenth of warmup, as frameworks have it, does not postpone a plan to half of the run."""
    spec = {**SPEC, "schedule": {**SPEC["schedule"], "steps": TOTAL // 10}}
    session, rates = sealed(spec, SEEN)
    steps = np.arange(TOTAL // 10 + 10, len(rates), 10)
    own = Training("run", "own", rates, steps, Path(rates).losses(LAW, steps))
    planner = Planner(session, "lr", gathered(own, []))
    assert codes(planner) == {"no_decay": "ranking"}
