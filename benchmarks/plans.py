"""Plans and families: the cost of a fit, a whole plan and a judgement of a run, in processor time.

They run on separate threads, beside the event loop and the writer. The baseline of a fit is a
power law of the step without rates, fitted by SciPy to every measurement, as one would by hand;
that of a plan is its fit; that of a judgement is the fit of that power law, too.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import curve_fit

from benchmarks.collapse import KINDS, Run, family_of
from benchmarks.harness import (
    OUR_CORE,
    Effort,
    Result,
    pinned,
    result,
    seconds_of,
    take_turns,
)
from pacesetter_service.core.commands import Seal
from pacesetter_service.core.decide import decide
from pacesetter_service.core.events import Sealed
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.insight.collapse import curve_of
from pacesetter_service.insight.evidence import Evidence, Training
from pacesetter_service.insight.loss_fit import fit
from pacesetter_service.insight.loss_law import Floats, LossLaw, Path
from pacesetter_service.insight.plan_search import lowest
from pacesetter_service.insight.planner import Planner

LAW = LossLaw(2.7, 9.0, 0.4, 0.22, 0.03, 0.4, 0.5)
BY_HAND = "power law, by hand"
SCATTER = 0.002


def run(effort: Effort) -> Iterator[Result]:
    """Fit, plan, and judge."""
    steps = effort.size(20_000, 2_000)
    spec = {
        "name": "run",
        "base_lr": 1e-3,
        "schedule": {"kind": "warmup", "steps": 100, "schedule": {"kind": "constant"}},
        "total_steps": 2 * steps,
    }
    session, rates = _sealed(create(SessionSpec.model_validate(spec)), steps)
    own = _measured("own", rates, 0)
    cooling = np.concatenate((rates, rates[-1] * np.linspace(1, 0, steps // 20, endpoint=False)))
    evidence = Evidence(own, (_measured("probe", cooling, steps),))
    seen = [each.seen() for each in evidence.all]

    def by_hand() -> object:
        start = (own.losses.min() * 0.9, 1.0, 0.5)
        return curve_fit(_power_law, own.steps / steps, own.losses, start)

    def plan() -> object:
        return lowest(Planner(session, "lr", evidence), 2 * steps)

    random = np.random.default_rng(0)
    family = family_of(KINDS[0], random)
    watched = Run(KINDS[0], random)
    losses = watched.losses()

    def look() -> object:
        return family.judged(curve_of("run", watched.parts, losses))

    with pinned(OUR_CORE):
        fitting = f"plan: fit {len(own.losses):,} losses and a probe"
        yield _line(effort, fitting, lambda: fit(seen), by_hand, BY_HAND)
        yield _line(effort, "plan: fit, search, predict", plan, lambda: fit(seen), "its fit")
        yield _line(effort, "family: look at a whole run", look, by_hand, BY_HAND)


def _sealed(session: Session, until: int) -> tuple[Session, Floats]:
    """Seal a session up to a step, and return it and the rates of the steps since."""
    rates = []
    while session.horizon < until:
        draft = decide(session, Seal(session.horizon, min(64, until - session.horizon)))
        rates += [each.values["lr"] for each in draft.events if isinstance(each, Sealed)]
        session = draft.after
    return session, np.concatenate(rates)


def _power_law(at: Floats, low: float, scale: float, power: float) -> Floats:
    found: Floats = low + scale * at**-power
    return found


def _line(
    effort: Effort,
    name: str,
    ours: Callable[[], object],
    baseline: Callable[[], object],
    against: str,
) -> Result:
    turns = take_turns(
        name, effort.rounds, lambda: 1e3 * seconds_of(ours), lambda: 1e3 * seconds_of(baseline)
    )
    pairs = [(mine, other) for mine, other in turns]
    return result(name, pairs, unit="ms cpu", against=against)


def _measured(name: str, rates: Floats, shared: int) -> Training:
    """Return a training whose loss follows the law, measured at every tenth step."""
    steps = np.arange(max(shared, 200), len(rates), 10)
    losses = Path(rates).losses(LAW, steps)
    losses = losses * (1 + SCATTER * np.random.default_rng(0).normal(size=len(steps)))
    return Training(name, "fork" if shared else "own", rates, steps, losses, shared)
