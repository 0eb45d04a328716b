"""Forks: a session that shares the past of another one up to a step, and goes on by itself."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue, ValidationError

from pacesetter_service.core.errors import TooCostlyError
from pacesetter_service.core.forking import NOT_OF_THE_LAW
from pacesetter_service.core.mistakes import misplaced, refusal
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.service import Service, SessionInfo, info_of
from pacesetter_service.runtime.work import Fork


@dataclass(frozen=True, slots=True)
class ForkPlan:
    """What is to become of a fork.

    Attributes:
        name: The name of the new session.
        step: The first step of its own; those before it are shared.
        labels: Its labels; None for those of its parent.
        description: The fields of its parent's spec that are to differ from that step on.
        attempt_key: What all ranks of its first attempt share; empty if they share nothing.
        actor: Who forks.
    """

    name: str
    step: int
    labels: Mapping[str, str] | None
    description: Mapping[str, JsonValue]
    attempt_key: str
    actor: str


async def fork_session(service: Service, name: str, plan: ForkPlan) -> tuple[SessionInfo, bool]:
    """Return a fork of a session, and whether this call created it; the same call finds it again.

    Raises:
        SessionNotFoundError: There is no session of that name.
        SessionExistsError: The fork's name is taken by a session with another spec.
        StepOutOfRangeError: The step lies beyond the horizon.
        ValidationError: The description makes no spec, or one of other series.
        TooCostlyError: To evaluate what it describes is beyond the budget.
        BusyError: Too much is being checked already.
    """
    spec = (await service.writer.find(name)).stored.session.spec
    own = await service.checks.run(lambda _check: _described(spec, plan))
    work = Fork(name, own, plan.step, plan.actor, plan.attempt_key)
    try:
        outcome = await service.writer.submit(work)
    except TooCostlyError as error:
        raise error.about("description", *error.field) from None
    return info_of(service, outcome.entry.stored), outcome.created


def _described(spec: SessionSpec, plan: ForkPlan) -> SessionSpec:
    """Return the spec of a fork.

    Raises:
        ValidationError: The description makes none, or one of other series.
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
    if not given:
        return SessionSpec.model_validate(whole)
    whole |= {"origin": None, **given}
    whole["earlier"] = {"until": plan.step, "spec": spec.model_dump(mode="json")}
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
