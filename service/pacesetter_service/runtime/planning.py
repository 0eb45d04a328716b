"""Ordering a candidate of a plan, in the same way as any order."""

from dataclasses import replace
from itertools import count, takewhile

from pydantic import BaseModel, Field

from pacesetter_service.core.errors import ActionRefusedError, PacesetterError, PlanStaleError
from pacesetter_service.core.tokens import EVERYTHING, NameScope
from pacesetter_service.insight.planner import Outlook, explained
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.operator import Rehearsal, rehearse
from pacesetter_service.runtime.plans import Plan
from pacesetter_service.runtime.queries.plan import Answer, PlanQuestion, read_plan
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.work import Change


class AppliedAnswer(BaseModel):
    """The orders that were given, and the revision that they made."""

    plan: str = Field(description="the plan")
    candidate: int = Field(description="the index of the candidate in it")
    orders: list[int] = Field(description="the number of each order, by which it is cancelled")
    effective_steps: list[int] = Field(description="for each order the step that it holds from")
    reason: str = Field(description="what the record says of each order")
    revision: int = Field(description="the revision of the session that they made")


async def apply_plan(
    service: Service,
    name: str,
    question: PlanQuestion,
    plan_id: str,
    candidate: int,
    *,
    reason: str = "",
    actor: str = "anonymous",
    key: str = "",
    names: NameScope = EVERYTHING,
) -> AppliedAnswer:
    """Order a candidate of a plan: all of its orders, or none.

    Args:
        service: The service.
        name: The session's name.
        question: What was planned for.
        plan_id: The plan that the operator saw.
        candidate: The index of the candidate in it.
        reason: Why, in the operator's words.
        actor: Who orders it.
        key: Makes repeating the call harmless; empty for none.
        names: The sessions that the caller may see.

    Raises:
        SessionNotFoundError: There is no session of that name.
        PlanStaleError: The plan is no longer known.
        ArgumentError: The plan has no such candidate.
        ActionRefusedError: It cannot be ordered, or has no orders.
        PacesetterError: The order was refused for another reason.
    """
    known = await _given_before(service, name, key, plan_id, candidate, reason)
    if known is not None:
        return known
    plan, outlook = await find_candidate(service, name, question, plan_id, candidate, names)
    said = reason_of(plan, outlook, reason)
    acts = [
        replace(each, actor=actor, key=f"{key}.{index}" if key and index else key)
        for index, each in enumerate(explained(outlook.candidate, said))
    ]
    try:
        changed = await service.writer.submit(Change(name, tuple(acts)))
    except PacesetterError as error:
        if error.field not in {(), ("key",)}:  # the field is one of the candidate's orders
            error.about("candidate")
        raise
    session = changed.entry.stored.session
    first = session.orders.given + 1 - len(acts)
    if key and key in session.orders.keys:
        first, _, _ = session.orders.keys[key]
    return AppliedAnswer(
        plan=plan_id,
        candidate=candidate,
        orders=list(range(first, first + len(acts))),
        effective_steps=[each.at for each in outlook.candidate.orders],
        reason=said,
        revision=session.revision,
    )


async def rehearse_candidate(service: Service, name: str, outlook: Outlook) -> Rehearsal:
    """Return what a candidate's orders would do; nothing is changed.

    Raises:
        SessionNotFoundError: There is no session of that name.
        PacesetterError: The orders would be refused.
        BusyError: Too many costly answers are being prepared already.
    """
    return await rehearse(service, name, explained(outlook.candidate, ""), lambda found: found)


async def find_candidate(
    service: Service,
    name: str,
    question: PlanQuestion,
    plan_id: str,
    candidate: int,
    names: NameScope = EVERYTHING,
) -> tuple[Plan, Outlook]:
    """Return a plan that the operator saw, and its candidate, which can be ordered.

    Raises:
        SessionNotFoundError: There is no session of that name.
        PlanStaleError: The plan is no longer known.
        ArgumentError: The plan has no such candidate.
        ActionRefusedError: It cannot be ordered, or has no orders.
        PacesetterError: The plan cannot be made again.
    """
    plan = service.plans.find(plan_id)
    if plan is None or plan.session != name:
        plan = await _planned_again(service, name, question, names)
        if plan.id != plan_id:
            raise PlanStaleError(plan_id)
    if candidate >= len(plan.outlooks):
        raise ArgumentError("candidate", f"The plan has {len(plan.outlooks)} candidates")
    outlook = plan.outlooks[candidate]
    if outlook.refused is not None:
        refused = ActionRefusedError(f"That candidate cannot be ordered: {outlook.refused}")
        raise refused.about("candidate")
    if not outlook.candidate.orders:
        nothing = ActionRefusedError("That candidate is what happens if nothing is ordered.")
        raise nothing.about("candidate")
    return plan, outlook


async def _planned_again(
    service: Service, name: str, question: PlanQuestion, names: NameScope
) -> Plan:
    """Return the plan that a request makes now; mistakes in the request are about `request`."""
    try:
        return await read_plan(service, name, question, _plan_of, names)
    except ArgumentError as error:
        raise ArgumentError("request", str(error)) from error
    except PacesetterError as error:
        if error.field:
            error.about("request", *error.field)
        raise


async def _given_before(
    service: Service, name: str, key: str, plan_id: str, candidate: int, reason: str
) -> AppliedAnswer | None:
    """Return the earlier answer to the same call; None if its key is new, or of another order.

    The plan may be forgotten by now, or was never known to this process, and it cannot be made
    again once something was ordered.
    """
    session = (await service.writer.find(name)).stored.session
    keys = session.orders.keys
    said = keys[key][2] if key and key in keys else ""
    begin = said.find(f"{reason} (plan {plan_id}: " if reason else f"plan {plan_id}: ")
    if begin < 0 or not said.endswith(_named(candidate) + (")" if reason else "")):
        return None
    given = [key, *takewhile(keys.__contains__, (f"{key}.{index}" for index in count(1)))]
    return AppliedAnswer(
        plan=plan_id,
        candidate=candidate,
        orders=[keys[each][0] for each in given],
        effective_steps=[keys[each][1] for each in given],
        reason=said[begin:],
        revision=session.revision,
    )


def _plan_of(answer: Answer) -> Plan:
    return answer.plan


def _named(candidate: int) -> str:
    """Return the end of a reason, which distinguishes the candidates of a plan.

    People count from 1, as the rank of a candidate and `pacesetter plan --apply` do.
    """
    return f", candidate {candidate + 1}"


def reason_of(plan: Plan, outlook: Outlook, reason: str) -> str:
    """Return the reason to record: why a candidate was chosen, and what was expected of it."""
    curve, total = outlook.curve, outlook.candidate.total
    if plan.effect is None and curve is not None:
        low, end, high = (float(each[-1]) for each in (curve.low, curve.losses, curve.high))
        expected = f"{plan.metric} {end:.4g} ({low:.4g} to {high:.4g}) expected at step {total}"
    else:
        place = plan.outlooks.index(outlook) + 1
        expected = f"ranked {place} of {len(plan.outlooks)} by {plan.metric} at step {total}"
    said = f"plan {plan.id}: {expected}{_named(plan.outlooks.index(outlook))}"
    return f"{reason} ({said})" if reason else said
