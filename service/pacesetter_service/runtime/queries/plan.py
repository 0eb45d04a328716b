"""Predicts the loss under other schedules for the rest of a training."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeVar

import numpy as np
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from pacesetter_service.core.actions.level import Cooldown
from pacesetter_service.core.attempts import Lineage
from pacesetter_service.core.commands import Seal
from pacesetter_service.core.cost import Check
from pacesetter_service.core.errors import StepOutOfRangeError
from pacesetter_service.core.lengths import StepCount, resolve, whole
from pacesetter_service.core.model import Model
from pacesetter_service.core.schedules.eases import Linear
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import MAX_VALUES
from pacesetter_service.core.status import refuse_unless_taken
from pacesetter_service.core.tokens import EVERYTHING, NameScope
from pacesetter_service.core.watching import plan_end
from pacesetter_service.insight.evidence import (
    Evidence,
    Finding,
    LeftOut,
    Relation,
    Training,
    gathered,
)
from pacesetter_service.insight.plan_search import as_planned, fewest, lowest
from pacesetter_service.insight.planner import Candidate, Outlook, Planned, Planner, ranked
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.plans import Plan, measured_of, sources_of
from pacesetter_service.runtime.queries.curves import MAX_CURVE
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.tracks import metric_between
from pacesetter_service.runtime.work import Entry
from pacesetter_service.store.port import Stored
from pacesetter_service.store.store import Store

Goal = Literal["lowest_loss", "fewest_steps", "budget"]

MOST_KIN = 16
"""The most sessions of one lineage that serve as evidence."""

MOST_DONORS = 8
"""The most sessions of the same template that serve as evidence."""

STAGE = "stage"
"""The label that marks a session as fine-tuning."""

FINE_TUNING = frozenset({"finetuning", "fine-tuning", "fine_tuning", "sft", "rlhf"})
"""Its values that do so."""

ONE_PASS = 1.02
"""The most passes over the data that still count as one."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A candidate that is asked for: its orders, and its end; None for the question's end."""

    label: str
    orders: tuple[Planned, ...]
    total: StepCount | None = None


@dataclass(frozen=True, slots=True)
class PlanQuestion:
    """What is asked for.

    Attributes:
        metric: The loss that is predicted.
        goal: The lowest loss at an end, the fewest steps to a loss, or the lowest loss within a
            budget of steps.
        total: The end, and for the fewest steps the latest one; None for the end of the plan.
        loss: The loss to reach, for the fewest steps.
        steps: The budget, from the first step that can still change.
        candidates: The candidates to compare; None to search for them.
        group: The parameter group whose rate is meant; None for the first.
        is_loss: Whether the caller says that the metric is a loss.
        stage: `finetuning` if the caller says so.
        epochs: How many passes over the data the training makes; None if the caller has not said.
    """

    metric: str
    goal: Goal = "lowest_loss"
    total: StepCount | None = None
    loss: float | None = None
    steps: StepCount | None = None
    candidates: tuple[Wanted, ...] | None = None
    group: str | None = None
    is_loss: bool = True
    stage: str | None = None
    epochs: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A plan, its session, and its end; None if each candidate has its own end."""

    session: Session
    question: PlanQuestion
    total: int
    plan: Plan


async def read_plan(
    service: Service,
    name: str,
    question: PlanQuestion,
    show: Callable[[Answer], T],
    names: NameScope = EVERYTHING,
) -> T:
    """Return what `show` makes of a plan; nothing is changed.

    Args:
        service: The service.
        name: The session's name.
        question: What is asked for.
        show: Makes the answer from the plan, on the thread that makes it.
        names: The sessions that the caller may see; others are not used as evidence.

    Raises:
        SessionNotFoundError: There is no session of that name.
        SessionFinishedError: Its training is over.
        SessionArchivedError: It accepts no more orders.
        ArgumentError: No such metric was reported, there is no such group, or no end is known.
        StepOutOfRangeError: The end is sealed already, or the session is too long.
        BusyError: Too many costly answers are being prepared already.
    """
    entry = await service.writer.find(name)
    session = entry.stored.session
    refuse_unless_taken(session, Seal(session.horizon, 1))
    return await service.reads.run(
        lambda check: show(_answer(service, entry, question, names, check))
    )


def _answer(
    service: Service, entry: Entry, question: PlanQuestion, names: NameScope, check: Check
) -> Answer:
    session = entry.stored.session
    total = end_of(session, question)
    series = series_of(session, question.group)
    evidence = _evidence(service.store, entry.stored, series, question.metric, names, check)
    plan_id = _id_of(entry.stored, question, evidence)
    plan = service.plans.find(plan_id)
    if plan is None:
        plan = _planned(session, series, evidence, question, total, plan_id, check)
        service.plans.keep(plan)
    return Answer(session, question, total, plan)


def _planned(
    session: Session,
    series: str,
    evidence: Evidence,
    question: PlanQuestion,
    total: int,
    plan_id: str,
    check: Check,
) -> Plan:
    planner = Planner(session, series, evidence, check, tuple(_said(session, question, total)))
    planner.refuse_far(total)
    outlooks = list[Outlook]()
    if planner.effect != "nothing":
        outlooks = _outlooks(planner, question, total)
    if question.loss is not None and planner.effect is None and not outlooks:
        planner.findings.append(_not_reached(planner, question.loss, total))
    return Plan(
        plan_id,
        session.spec.name,
        question.metric,
        session.horizon,
        planner.effect,
        tuple(planner.findings),
        measured_of(evidence.own, session.spec.start_step),
        sources_of(evidence, session.spec.start_step),
        evidence.left_out,
        planner.fitted,
        tuple(outlooks),
    )


def _outlooks(planner: Planner, question: PlanQuestion, total: int) -> list[Outlook]:
    if question.candidates is not None:
        found = [planner.outlook(as_planned(total))]
        for each in question.candidates:
            end = (
                total
                if each.total is None
                else _in_steps(planner.session, each.total, "candidates")
            )
            found.append(planner.outlook(Candidate(each.label, each.orders, end)))
        for outlook in found:
            planner.refuse_far(outlook.candidate.total)
        return ranked(found)
    if question.goal == "fewest_steps" and question.loss is not None:
        if planner.effect is not None:
            return []  # which loss will be reached is not known
        return fewest(planner, question.loss, total)
    return lowest(planner, total)


def _not_reached(planner: Planner, loss: float, total: int) -> Finding:
    best = lowest(planner, total)[0].end
    return Finding(
        "not_reached",
        f"No cooldown comes to {loss:.4g} by step {total}; the lowest that is expected there is"
        f" {best:.4g}. Ask for a later `total_steps`, or a higher loss.",
        "nothing",
    )


def _said(session: Session, question: PlanQuestion, total: int) -> Iterator[Finding]:
    """Return obstacles to a plan that the request or the session's description reveals."""
    if not question.is_loss:
        message = "The law is one of losses, and the request says that this metric is none."
        yield Finding("not_a_loss", message, "nothing")
    label = session.spec.labels.get(STAGE, "").lower()
    stage = question.stage or label
    if stage in FINE_TUNING:
        by = "the request" if question.stage else f"the label {STAGE}={label}"
        yield Finding(
            "fine_tuning",
            f"This is fine-tuning, says {by}. The law describes a pretraining from the first step"
            " on; of other trainings it predicts nothing.",
            "nothing",
        )
    epochs, per_epoch = question.epochs, session.spec.steps_per_epoch
    if epochs is None and per_epoch is not None:
        epochs = total / per_epoch
    if epochs is not None and epochs > ONE_PASS:
        yield Finding(
            "several_epochs",
            f"The training goes {epochs:.3g} times over its data, and the law describes one pass:"
            " what is seen again gains less, and how much less is not known.",
            "nothing",
        )
    if question.goal == "fewest_steps" and question.loss is None:
        raise ArgumentError("loss", "Say which loss is to be come to")


class _Length(Model):
    """A length on its own, so that it can be converted to steps."""

    steps: StepCount


def _in_steps(session: Session, length: StepCount, field: str) -> int:
    """Return a length in steps; `field` is its name in the request.

    Raises:
        ArgumentError: The session does not say how many steps its unit makes.
    """
    try:
        return whole(resolve(_Length(steps=length), session.spec.clock).steps)
    except PydanticCustomError as unknown:
        raise ArgumentError(field, unknown.message()) from unknown
    except ValidationError as wrong:
        raise ArgumentError(field, str(wrong.errors()[0]["msg"])) from wrong


def end_of(session: Session, question: PlanQuestion) -> int:
    """Return the end that is asked for: the first step that is no longer trained.

    Raises:
        ArgumentError: Neither the request nor the session says it.
        StepOutOfRangeError: It is sealed already, or too far away.
    """
    end = "steps" if question.goal == "budget" else "total_steps"
    if question.goal == "budget":
        if question.steps is None:
            raise ArgumentError("steps", "Say how many steps more there may be")
        total = session.horizon + _in_steps(session, question.steps, end)
    elif question.total is not None:
        total = _in_steps(session, question.total, end)
    else:
        known = session.spec.total_steps or plan_end(session)
        if known is None:
            message = "The session's plan has no end; say at which step the training is to end"
            raise ArgumentError("total_steps", message)
        total = known
    if total <= session.horizon:
        raise StepOutOfRangeError(
            f"The training would end at step {total}, and the steps before {session.horizon} are"
            " sealed: nothing is left to plan. Name a later end."
        ).about(end)
    if total - session.spec.start_step > MAX_CURVE:
        raise StepOutOfRangeError(
            f"A plan goes up to {MAX_CURVE} steps from the session's first, and step {total} lies"
            " behind that."
        ).about(end)
    return total


def series_of(session: Session, group: str | None) -> str:
    """Return the series of a parameter group's learning rate; of the first group for None.

    Raises:
        ArgumentError: There is no such group.
    """
    rates = {each.group: each.name for each in session.spec.series() if each.channel == "lr"}
    if group is None:
        return next(iter(rates.values()))
    if group not in rates:
        known = ", ".join(rates) if list(rates) != [""] else "none"
        raise ArgumentError("group", f"There is no such group; there are: {known}")
    return rates[group]


def _evidence(
    store: Store, stored: Stored, series: str, metric: str, names: NameScope, check: Check
) -> Evidence:
    session = stored.session
    reported = store.metrics_of(stored.lineage)
    if metric not in reported and metric not in session.spec.measured:
        there = ", ".join(sorted(reported)[:64]) or "none yet"
        raise ArgumentError("metric", f"No rank has reported {metric!r}; there are: {there}")
    own = _training(store, stored, "own", series, metric, 0, check)
    kin = [each for each in store.kin(stored, MOST_KIN) if names.holds(each.session.spec.name)]
    others, unread = list[Training](), list[LeftOut]()
    related: list[tuple[Stored, Relation, int]] = [
        (each, "fork", shared_until(stored.lineage, each.lineage)) for each in kin
    ]
    origin = session.spec.origin
    if origin is not None:
        known = {stored.id, *(each.id for each in kin)}
        related += [
            (each, "donor", 0)
            for each in store.of_template(origin.template, MOST_DONORS)
            if each.id not in known and names.holds(each.session.spec.name)
        ]
    for each, relation, shared in related:
        spec = each.session.spec
        if series not in each.session.timelines:
            unread.append(LeftOut(spec.name, f"it has no series {series}"))
        elif each.session.horizon - spec.start_step > MAX_CURVE:
            unread.append(LeftOut(spec.name, f"it has more than {MAX_CURVE} steps"))
        elif each.session.horizon > spec.start_step:
            others.append(_training(store, each, relation, series, metric, shared, check))
    found = gathered(own, others)
    return replace(found, left_out=(*found.left_out, *unread))


def shared_until(one: Lineage, other: Lineage) -> int:
    """Return the first step that two lineages have not trained in the same attempt."""
    common = 0
    while common < min(len(one), len(other)) and one[common] == other[common]:
        common += 1
    if not common:
        return 0
    next_starts = [each[common].start for each in (one, other) if len(each) > common]
    return min(next_starts, default=0)


def _training(
    store: Store,
    stored: Stored,
    relation: Relation,
    series: str,
    metric: str,
    shared: int,
    check: Check,
) -> Training:
    """Read what was trained and measured up to a session's horizon."""
    session = stored.session
    spec, horizon = session.spec, session.horizon
    width, row = len(session.timelines), list(session.timelines).index(series)
    first = spec.start_step
    rates = [np.empty(0)]
    edges = [*range(first, horizon, max(MAX_VALUES // width, 1)), horizon]
    for start, end in pairwise(edges):
        check()
        rates.append(store.sealed_between(stored.lineage, width, start, end)[row])
    track = metric_between(store, spec, stored.lineage, metric, max(first, shared), horizon, check)
    return Training(
        spec.name,
        relation,
        np.concatenate(rates),
        track.steps - first,
        track.values,
        max(shared - first, 0),
    )


def _id_of(stored: Stored, question: PlanQuestion, evidence: Evidence) -> str:
    """Return a short text that changes with the question and with the evidence."""
    digest = hashlib.sha256(f"{stored.id} {stored.version} {question!r}".encode())
    for each in evidence.all:
        digest.update(f"{each.session} {len(each.rates)}".encode())
        digest.update(np.ascontiguousarray(each.steps).tobytes())
        digest.update(np.ascontiguousarray(each.losses).tobytes())
    digest.update(repr(evidence.left_out).encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Probe:
    """A short decay in a fork, which would measure how much a decay gains."""

    step: int
    steps: int
    action: Cooldown


PROBE = 0.05
"""The length of a probe, as a fraction of the training."""


def probe_for(found: Answer) -> Probe | None:
    """Return the probe that would calibrate a plan; None if it needs none, or none would help."""
    if all(each.code != "no_decay" for each in found.plan.findings):
        return None
    steps = max(round((found.total - found.session.spec.start_step) * PROBE), 20)
    least = found.session.control.limits.min_lr
    action = Cooldown(steps=steps, to=least or None, ease=Linear())
    return Probe(found.plan.horizon, steps, action)


def gain_of(made: Plan, outlook: Outlook) -> float | None:
    """Return by how much lower an end is than without orders; None if that is not known."""
    planned = next((each for each in made.outlooks if not each.candidate.orders), None)
    if planned is None or planned.curve is None or outlook.curve is None:
        return None
    if planned.candidate.total != outlook.candidate.total:
        return None
    return planned.end - outlook.end


def reasons_for(made: Plan, outlook: Outlook) -> list[str]:
    """Return what speaks for and against a candidate."""
    curve = outlook.curve
    if curve is None:
        return []
    found = []
    last = float(curve.rates[-1])
    found.append(f"the learning rate comes from {curve.rates[0]:.4g} to {last:.4g}")
    if made.effect is not None:
        place = made.outlooks.index(outlook) + 1
        found.append(f"ranked {place} by the usual gain of decays, which may not be this one's")
        return found
    gain, reach = gain_of(made, outlook), float(curve.high[-1] - curve.losses[-1])
    if gain is not None and outlook.candidate.orders:
        word = "below" if gain >= 0 else "above"
        found.append(f"ends {abs(gain):.3g} {word} what happens if nothing is ordered")
        if abs(gain) < reach:
            found.append(f"that is within the {reach:.2g} by which the end itself is uncertain")
    best = made.outlooks[0]
    if outlook is not best and outlook.end - best.end < reach:
        found.append(f"hardly worse than the best: by {outlook.end - best.end:.2g}")
    return found


ONLY_THIS = (
    "It predicts this metric only: what else matters of the model, such as how well it is"
    " fine-tuned afterwards, may favour another schedule."
)


def unknowns(found: Answer) -> list[str]:
    """Return what a prediction does not take into account."""
    session = found.session
    told = [
        "The band is that of the mean that measurements scatter around, and not of a single one."
    ]
    if session.spec.rules:
        told.append("Controllers may change the rate as metrics come; that is not foreseen.")
    if session.spec.start_step > 0:
        told.append("What was trained before the session's first step is not known here.")
    if session.control.batch_size != session.spec.batch_size:
        told.append("The batch size has changed in this training; the law assumes one size.")
    rates = [each for each in session.spec.series() if each.channel == "lr"]
    if len(rates) > 1:
        told.append("The law follows one parameter group; others may have another path.")
    return [*told, ONLY_THIS]
