"""What the loss of a training will be under different schedules for its remaining steps.

A candidate is a list of ordinary orders. They are given to the session as an operator would give
them. So the prediction is of what they would lead to, limits and waiting orders included.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.core.actions import Action
from pacesetter_service.core.commands import Act
from pacesetter_service.core.cost import Check
from pacesetter_service.core.decide import count_usable, decide
from pacesetter_service.core.errors import (
    ActionRefusedError,
    ScheduleNotFiniteError,
    StepOutOfRangeError,
    TooCostlyError,
)
from pacesetter_service.core.forecast import decimate, forecast
from pacesetter_service.core.orders import planned
from pacesetter_service.core.session import Session
from pacesetter_service.insight.evidence import (
    AHEAD,
    SAME_RATE,
    Effect,
    Evidence,
    Finding,
    doubts,
    doubts_of_fit,
)
from pacesetter_service.insight.loss_fit import BlindLaw, Fitted, blind, fit
from pacesetter_service.insight.loss_law import Floats, Path

NINETY = 1.645
"""How many standard deviations a band of 90 % extends to either side."""

POINTS = 120
"""About how many points are predicted of each curve."""

REFUSALS = (ActionRefusedError, ScheduleNotFiniteError, StepOutOfRangeError, TooCostlyError)
"""The errors that make a candidate impossible; their message becomes its refusal."""


@dataclass(frozen=True, slots=True)
class Planned:
    """An order of a candidate: an action from a step on."""

    at: int
    action: Action


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to go on.

    Attributes:
        label: A short description.
        orders: What carries it out; empty for the candidate that orders nothing.
        total: The first step that is no longer trained.
    """

    label: str
    orders: tuple[Planned, ...]
    total: int


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What is expected: at each step the loss, and a band that holds 9 of 10; float64[n].

    `blind` is the expectation of a law that ignores the learning rate; None if there is none.
    """

    steps: NDArray[np.int64]
    rates: Floats
    losses: Floats
    low: Floats
    high: Floats
    blind: Floats | None


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """A candidate, and what is expected of it.

    Attributes:
        candidate: The candidate.
        curve: From the first step that can still change to the end; None if it is refused.
        refused: Why it cannot be ordered, or is not predicted; None if it is.
    """

    candidate: Candidate
    curve: Curve | None
    refused: str | None = None

    @property
    def end(self) -> float:
        """The loss expected at the end; infinite if it is refused."""
        return float("inf") if self.curve is None else float(self.curve.losses[-1])


class Planner:
    """The law of one training, and a session to try orders on.

    Attributes:
        findings: Why the plan says less than was asked for; empty if nothing stands in the way.
        fitted: The law; None if none could be fitted.
    """

    def __init__(
        self,
        session: Session,
        series: str,
        evidence: Evidence,
        check: Check = lambda: None,
        said: Sequence[Finding] = (),
    ) -> None:
        """Fit the law.

        Args:
            session: As it is now.
            series: Which of its learning rates the evidence concerns.
            evidence: What was trained and measured up to its horizon.
            check: Called now and then; raises if the caller has gone.
            said: Findings that the caller already has.
        """
        self._session = session
        self._series = series
        self._check = check
        self.evidence = evidence
        self.findings = [*said, *doubts(evidence)]
        self.fitted: Fitted | None = None
        if self.effect != "nothing":
            self.fitted = fit([each.seen() for each in evidence.all])
            self.findings += doubts_of_fit(self.fitted)

    @property
    def effect(self) -> Effect | None:
        """What is left of the plan: None for all of it, else `ranking` or `nothing`."""
        effects = {each.effect for each in self.findings}
        if "nothing" in effects:
            return "nothing"
        return "ranking" if effects else None

    @property
    def session(self) -> Session:
        """The session as it is now."""
        return self._session

    @property
    def first(self) -> int:
        """The session's first step, from which the law counts."""
        return self._session.spec.start_step

    @property
    def present(self) -> float:
        """The rate of the first step that can still change, if nothing is ordered."""
        horizon = self._session.horizon
        return planned(self._session, horizon + 1).timelines[self._series].value(horizon)

    def refuse_far(self, total: int) -> None:
        """Add a finding if an end lies too far ahead to be predicted."""
        own = self.evidence.own
        steps = own.steps[own.own]
        if not len(steps) or total - self.first <= AHEAD * int(steps[-1]):
            return
        if all(each.code != "too_far" for each in self.findings):
            self.findings.append(
                Finding(
                    "too_far",
                    f"Step {total} is more than {AHEAD:.0f} times as far as was measured. So"
                    " candidates are ranked, and no loss is predicted. Ask again later.",
                    "ranking",
                )
            )

    def outlook(self, candidate: Candidate) -> Outlook:
        """Predict a candidate."""
        self._check()
        try:
            rates = self._rates(candidate)
        except REFUSALS as refusal:
            return Outlook(candidate, None, str(refusal))
        reason = self._unpredictable(candidate, rates)
        if reason is not None or self.fitted is None:
            return Outlook(candidate, None, reason or "there is no law")
        horizon = self._session.horizon - self.first
        told = decimate({"lr": rates[horizon:]}, POINTS) + horizon
        # The loss after a step depends on that step's rate.
        steps = np.unique(np.append(told[told > 0], len(rates)))
        found = self.fitted.expected(Path(rates), steps)
        reach = NINETY * found.deviations
        shown = rates[np.minimum(steps, len(rates) - 1)]
        return Outlook(
            candidate,
            Curve(
                steps + self.first,
                shown,
                found.losses,
                found.losses - reach,
                found.losses + reach,
                None if self._blind is None else self._blind.losses(steps),
            ),
        )

    def end_of(self, candidate: Candidate) -> float:
        """Return the loss expected at the end of a candidate; infinite if it is refused."""
        return self.outlook(candidate).end

    @cached_property
    def _blind(self) -> BlindLaw | None:
        try:
            return blind(self.evidence.own.seen())
        except ValueError:
            return None

    def _rates(self, candidate: Candidate) -> Floats:
        """Return the rates from the first step to the end, as the orders would make them."""
        session = self._session
        for each in candidate.orders:
            session = decide(session, Act(each.action, each.at)).after
        horizon, total = session.horizon, candidate.total
        if total <= horizon:
            raise StepOutOfRangeError(
                f"It would end at step {total}, and the steps before {horizon} are sealed."
                " Name a later end."
            ).about("candidates")
        ahead = forecast(session, horizon, total - horizon, self._check)
        count_usable(horizon, ahead)
        return np.concatenate((self.evidence.own.rates, ahead[self._series]))

    def _unpredictable(self, candidate: Candidate, rates: Floats) -> str | None:
        """Say why a path cannot be ordered by a plan, or cannot be predicted."""
        ahead = rates[self._session.horizon - self.first :]
        peak = self.evidence.own.peak
        if ahead.max() > peak * (1 + SAME_RATE):
            return (
                f"the learning rate would rise to {ahead.max():.6g}, above the {peak:.6g} that was"
                " trained with: nothing is known of that"
            )
        limits = self._session.control.limits
        if candidate.orders and ahead.min() < limits.min_lr:
            return (
                f"the learning rate would fall to {ahead.min():.6g}, below the limit of"
                f" {limits.min_lr:.6g}"
            )
        return None


def ranked(outlooks: Sequence[Outlook]) -> list[Outlook]:
    """Return the best first; those that are refused come last."""
    return sorted(outlooks, key=lambda each: (each.end, each.candidate.total))


def explained(candidate: Candidate, reason: str) -> tuple[Act, ...]:
    """Return the commands that carry a candidate out, each with a reason."""
    return tuple(
        Act(each.action.model_copy(update={"reason": reason[:1000]}), each.at)
        for each in candidate.orders
    )


def renamed(outlook: Outlook, label: str) -> Outlook:
    """Return an outlook with another label for its candidate."""
    return replace(outlook, candidate=replace(outlook.candidate, label=label))
