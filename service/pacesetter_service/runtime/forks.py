"""Forks: a fork shares the past of another session up to a step, and goes on by itself."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from pydantic import JsonValue, ValidationError
from pydantic_core import PydanticCustomError

from pacesetter_service.catalogue.findings import Subject
from pacesetter_service.core.attempts import refuse_beyond_horizon, restore
from pacesetter_service.core.cost import Check, readable, refuse_costly_session
from pacesetter_service.core.decide import count_usable
from pacesetter_service.core.errors import SessionExistsError, SessionNotFoundError, TooCostlyError
from pacesetter_service.core.forecast import forecast
from pacesetter_service.core.forking import NOT_OF_THE_LAW, factors, forked
from pacesetter_service.core.mistakes import misplaced, refusal
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.spec import SessionSpec, refuse_unreadable
from pacesetter_service.runtime.operator import POINTS, REHEARSED
from pacesetter_service.runtime.queries.curves import MAX_CURVE, Curve, thinned
from pacesetter_service.runtime.queries.previews import pitfalls_of
from pacesetter_service.runtime.queries.values import block_of
from pacesetter_service.runtime.service import Service, SessionInfo, info_of
from pacesetter_service.runtime.work import Entry, Fork

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ForkPlan:
    """What a fork should be.

    Attributes:
        name: The name of the new session.
        step: Its first own step; those before it are shared.
        labels: Its labels; None for those of its parent.
        description: The fields of its parent's spec that differ from that step on.
        attempt_key: The key that all ranks of its first attempt share; empty if they share none.
        actor: Who forks.
    """

    name: str
    step: int
    labels: Mapping[str, str] | None
    description: Mapping[str, JsonValue]
    attempt_key: str
    actor: str


@dataclass(frozen=True, slots=True)
class ForkRehearsal:
    """What a fork would do.

    Attributes:
        step: Its first own step.
        before: The curve of its parent from that step on: sealed values, then the forecast.
        after: The fork's curve; it ends before the first step whose value cannot be trained with.
        kept: By series, the factor on its rate that the fork keeps; factors of 1 are left out.
        warnings: What to beware of.
        revision: The revision of the parent that this rests on.
    """

    step: int
    before: Curve
    after: Curve
    kept: Mapping[str, float]
    warnings: list[str]
    revision: int


async def rehearse_fork(
    service: Service, name: str, plan: ForkPlan, show: Callable[[ForkRehearsal], T]
) -> T:
    """Return what `show` makes of a rehearsed fork; no fork is created.

    Args:
        service: The service.
        name: The session whose past is shared.
        plan: The fork.
        show: Makes the answer from the curves, on the thread that evaluates them.

    Raises:
        SessionNotFoundError: There is no session of that name.
        SessionExistsError: The fork's name is taken by a session with another spec.
        StepOutOfRangeError: The step lies beyond the horizon.
        ValidationError: The description does not make a valid spec, or makes one with other series.
        TooCostlyError: Evaluating what it describes is beyond the budget.
        BusyError: Too many costly answers are being prepared already.
    """
    entry = await service.writer.find(name)
    spec = entry.stored.session.spec
    own = await service.checks.run(lambda _check: _described(spec, plan))
    with suppress(SessionNotFoundError):
        there = (await service.writer.find(plan.name)).stored.session.spec
        if there.model_copy(update={"labels": own.labels}) != own:
            raise SessionExistsError(plan.name)
    return await service.reads.run(lambda check: show(_rehearsed(service, entry, own, plan, check)))


async def fork_session(service: Service, name: str, plan: ForkPlan) -> tuple[SessionInfo, bool]:
    """Fork a session; return it, and whether this call created it. The same call finds it again.

    Raises:
        SessionNotFoundError: There is no session of that name.
        SessionExistsError: The fork's name is taken by a session with another spec.
        StepOutOfRangeError: The step lies beyond the horizon.
        ValidationError: The description does not make a valid spec, or makes one with other series.
        TooCostlyError: Evaluating what it describes is beyond the budget.
        BusyError: Too many large requests are being checked already.
    """
    spec = (await service.writer.find(name)).stored.session.spec
    own = await service.checks.run(lambda _check: _described(spec, plan))
    work = Fork(name, own, plan.step, plan.actor, plan.attempt_key)
    with _about_its_description():
        outcome = await service.writer.submit(work)
    return info_of(service, outcome.entry.stored), outcome.created


@contextmanager
def _about_its_description() -> Iterator[None]:
    """Name the field of the call that makes a fork too costly."""
    try:
        yield
    except TooCostlyError as error:
        raise error.about("description", *error.field) from None


def _rehearsed(
    service: Service, entry: Entry, own: SessionSpec, plan: ForkPlan, check: Check
) -> ForkRehearsal:
    """Return the curves of the parent and of the fork, from the fork's first own step on."""
    stored, parent = entry.stored, entry.stored.session
    step = plan.step
    refuse_beyond_horizon(parent, step)
    past = service.store.past(parent.spec, stored.lineage, step)
    branch = forked(restore(past, step), own, plan.attempt_key)
    with _about_its_description():
        refuse_costly_session(branch)
    total = max(own.total_steps or 0, parent.spec.total_steps or 0)
    total = total if total > step else step + REHEARSED
    count = min(total - step, MAX_CURVE // len(parent.timelines), MAX_STEP - step)
    # As many steps as two forecasts may have: a costly session shows fewer.
    costs = (parent.timelines.cost, branch.timelines.cost)
    count = max(min(count, *(readable(each) // 2 for each in costs)), 1)
    names = list(branch.timelines)
    before = block_of(service.store, entry, step, count, check)
    values = forecast(branch, step, count, check)
    after = np.stack([values[name] for name in names])
    after = after[:, : count_usable(step, values, at_least=0)]
    return ForkRehearsal(
        step,
        thinned(list(parent.timelines), before, step, POINTS),
        thinned(names, after, step, POINTS) if after.shape[1] else Curve(names, [], after),
        factors(branch) if plan.description else {},
        [f"{each.message}: {each.advice}" for each in pitfalls_of(Subject(own), check)],
        parent.revision,
    )


def _described(spec: SessionSpec, plan: ForkPlan) -> SessionSpec:
    """Return the spec of a fork.

    Raises:
        ValidationError: The description does not make a valid spec, or makes one with other series.
    """
    given = dict(plan.description)
    for field in sorted((NOT_OF_THE_LAW | {"start_step"}) & set(given)):
        message = "A fork has that from its parent, or beside `description`; leave it out here"
        raise refusal(("description", field), "not_yours", message)
    own = {
        "name": plan.name,
        "labels": spec.labels if plan.labels is None else dict(plan.labels),
        "forked_from": {
            "session": spec.name,
            "step": plan.step,
            "forked_from": spec.forked_from and spec.forked_from.model_dump(),
        },
    }
    whole = {**spec.model_dump(mode="json"), **own}
    if given:
        whole |= {"origin": None, **given}
        whole["earlier"] = {"until": plan.step, "spec": spec.model_dump(mode="json")}
    _refuse_too_many(whole)
    if not given:
        return SessionSpec.model_validate(whole)
    try:
        described = SessionSpec.model_validate(whole)
    except ValidationError as error:
        raise misplaced(error, "description") from error
    names = [series.name for series in spec.series()]
    if [series.name for series in described.series()] != names:
        message = (
            f"A fork goes on with the series of its parent: {', '.join(names)}, in this order;"
            " groups and channels can differ in their rates and schedules, not in their names"
        )
        raise refusal(("description",), "other_series", message)
    return described


def _refuse_too_many(whole: Mapping[str, JsonValue]) -> None:
    """Refuse a chain of forks that is too long for a spec to hold.

    Raises:
        ValidationError: It is too long.
    """
    try:
        refuse_unreadable({name: whole[name] for name in ("forked_from", "earlier")})
    except PydanticCustomError as error:
        message = (
            "The session is a fork of a fork of a fork, and so on, and the spec of another one has"
            " no room for what all of them were. Fork one that it comes from, or create a session"
            " whose `start_step` is the step that the training goes on from"
        )
        raise refusal((), "too_many_forks", message) from error
