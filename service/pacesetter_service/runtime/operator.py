"""What an operator does: create, change, archive and purge sessions, and take steps back."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import structlog
from pydantic import BaseModel, Field

from pacesetter_service.catalogue.findings import Finding, Subject
from pacesetter_service.catalogue.templates import Published, TemplateUse
from pacesetter_service.core.actions import Order
from pacesetter_service.core.commands import Act, Archive, Cancel, Relabel
from pacesetter_service.core.cost import Check, readable
from pacesetter_service.core.decide import count_usable, decide
from pacesetter_service.core.errors import (
    SessionPurgedError,
    StorageUnavailableError,
    TooCostlyError,
    concerning,
)
from pacesetter_service.core.events import Ordered
from pacesetter_service.core.forecast import forecast
from pacesetter_service.core.model import MAX_STEP, few_hints
from pacesetter_service.core.orders import pitfalls, planned
from pacesetter_service.core.reach import untaken
from pacesetter_service.core.schedules import Values
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.status import refuse_if_archived
from pacesetter_service.runtime.arguments import MAX_ERRORS
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.queries.curves import MAX_CURVE, Curve, thinned
from pacesetter_service.runtime.queries.previews import pitfalls_of
from pacesetter_service.runtime.queries.templates import find_template
from pacesetter_service.runtime.ranks import wall_clock
from pacesetter_service.runtime.service import Service, SessionInfo, info_of
from pacesetter_service.runtime.shared_ranks import position
from pacesetter_service.runtime.work import Change, Create, TakeBack
from pacesetter_service.store import purging
from pacesetter_service.store.port import Stored

log = structlog.get_logger("pacesetter.orders")

REHEARSED = 1000
"""How many steps a dry run shows at least, as far as its budget allows."""

POINTS = 500
"""About how many points of each curve a dry run shows."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CreatedSession:
    """A session that was asked for.

    Attributes:
        info: The session.
        created: Whether this call created it; repeating the call finds it.
        findings: The known pitfalls of its spec.
    """

    info: SessionInfo
    created: bool
    findings: list[Finding]


class Distance(NamedTuple):
    """How far a step lies ahead of the foremost trainer, as far as trainers have reported.

    Attributes:
        steps_away: How many steps that trainer makes before reaching it.
        seconds_away: About how many seconds these steps take.
    """

    steps_away: int | None
    seconds_away: float | None


class ActionAnswer(BaseModel):
    """The step from which an action holds, its number, and the revision that it made."""

    id: int = Field(
        description="the order's number in its session, from 1; what it is cancelled by"
    )
    effective_step: int = Field(description="the first step that the order holds for")
    steps_away: int | None = Field(
        description="how many steps the foremost trainer makes before that one, as it said itself;"
        " null if none has said where it is since the service was started"
    )
    seconds_away: float | None = Field(
        description="about how many seconds that takes, at the pace that the trainer said"
    )
    revision: int = Field(
        description="how often the session's future has been changed, with this change"
    )


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What orders would do.

    Attributes:
        step: The first step that they would hold for.
        distance: How far that step lies ahead.
        before: The curve from that step on without the orders.
        after: The curve with them; both end before the first step that cannot be trained with.
        warnings: What to beware of.
        revision: The revision of the session that this rests on.
    """

    step: int
    distance: Distance
    before: Curve
    after: Curve
    warnings: list[str]
    revision: int


class TakeBackAnswer(BaseModel):
    """The steps that are open again: from `horizon` up to, but not including, `until`."""

    horizon: int = Field(description="the first step that is open again")
    until: int = Field(description="the first step that was not sealed before")
    attempt: int = Field(description="the attempt that the steps are decided in anew")
    revision: int = Field(
        description="how often the session's future has been changed, with this change"
    )


async def create_session(
    service: Service, asked: SessionSpec | TemplateUse, key: str
) -> CreatedSession:
    """Create a session, or find the one that the same call has created.

    Args:
        service: The service.
        asked: Its spec, or the template to make it from.
        key: The key that all ranks of its first attempt share; empty if they share none.

    Raises:
        SessionExistsError: The name is taken by a session with another spec.
        TemplateNotFoundError: There is no such template.
        TooCostlyError: Evaluating its schedules is beyond the budget.
        BusyError: Too many large requests are being checked already.
    """
    spec, findings = asked, list[Finding]()
    if isinstance(spec, TemplateUse):
        with concerning("template"):
            published = await find_template(service, *spec.reference)
        findings = _deprecation(published)
        spec = await _filled_in(service, spec, published)
    subject = Subject(spec)
    try:
        findings += await service.checks.run(lambda check: pitfalls_of(subject, check))
    except TooCostlyError as error:
        if spec is not asked:  # what costs too much is in the template
            error.about("template")
        raise
    outcome = await service.writer.submit(Create(spec, key))
    return CreatedSession(info_of(service, outcome.entry.stored), outcome.created, findings)


async def relabel_session(
    service: Service, name: str, labels: Mapping[str, str | None], actor: str
) -> SessionInfo:
    """Set labels of a session, remove those that are None, and return the session.

    Raises:
        SessionNotFoundError: There is no session of that name.
        ActionRefusedError: It would have too many.
    """
    outcome = await service.writer.submit(Change(name, (Relabel(labels, actor),)))
    return info_of(service, outcome.entry.stored)


async def archive_session(service: Service, name: str) -> None:
    """Archive a session: it stays readable and takes no more commands.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    await service.writer.submit(Change(name, (Archive(),)))


async def rehearse_purge(service: Service, name: str) -> None:
    """Refuse what `purge_session` would refuse, without changing anything.

    Raises:
        PacesetterError: The session would not be purged.
    """

    def refused() -> None:
        with service.store.transaction(frees=True) as connection:
            purging.refuse_unless_purgeable(connection, name)

    await service.writer.call(refused)


async def purge_session(service: Service, name: str, actor: str) -> None:
    """Remove an archived session for good; its rows are deleted in the background.

    It may be called on any event loop: `retention` does so.

    Raises:
        SessionNotFoundError: There is no session of that name.
        SessionNotArchivedError: It is not archived.
        SessionHasForksError: Other sessions share its steps.
    """
    loop = asyncio.get_running_loop()

    def hidden() -> None:
        try:
            with service.store.transaction(frees=True) as connection:
                purging.hide(connection, name, actor, wall_clock())
        except StorageUnavailableError as error:
            if error.kept == "perhaps":  # then memory must not know better than the database
                _forget_purged(service, name, loop)
            raise
        except SessionPurgedError:  # by an earlier try, whose answer was lost
            _forget_purged(service, name, loop)
            raise
        _forget_purged(service, name, loop)

    await service.writer.call(hidden)


def _forget_purged(service: Service, name: str, loop: asyncio.AbstractEventLoop) -> None:
    """Forget a purged session, and tell all who wait for it; on the writer's thread.

    It is done there, and not by the caller, who may be cancelled while the writer purges.
    """
    service.writer.forget(name)
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(service.tracker.forget, name)
    for signals in (service.held.signals, service.logged):
        signals.tell_from_thread([name])
    service.janitor.wake()


async def order(service: Service, name: str, act: Act) -> ActionAnswer:
    """Record an order, which changes the session from its step on, and return the answer.

    Raises:
        SessionNotFoundError: There is no session of that name.
        ActionRefusedError: The order makes no sense, or oversteps the limits.
        PacesetterError: The order was refused for another reason.
    """
    outcome = await service.writer.submit(Change(name, (act,)))
    stored = outcome.entry.stored
    session = stored.session
    number, step = session.orders.given, session.horizon if act.at is None else act.at
    if act.key:
        number, step, _ = session.orders.keys[act.key]
    away = await _distance_if_known(service, stored, step)
    return ActionAnswer(id=number, effective_step=step, **away._asdict(), revision=session.revision)


async def rehearse(
    service: Service, name: str, acts: Sequence[Act], show: Callable[[Rehearsal], T]
) -> T:
    """Return what `show` makes of rehearsed orders; nothing is changed.

    Args:
        service: The service.
        name: The session's name.
        acts: The orders, at least one, as they would be given one after the other.
        show: Makes the answer from the curves, on the thread that evaluates them.

    Raises:
        SessionNotFoundError: There is no session of that name.
        PacesetterError: The order would be refused.
        BusyError: Too many costly answers are being prepared already.
    """
    stored = (await service.writer.find(name)).stored
    return await service.reads.run(lambda check: show(_rehearsed(service, stored, acts, check)))


async def cancel_order(
    service: Service, name: str, number: int, actor: str, *, own: bool = False
) -> None:
    """Cancel an order whose step was not handed out yet; with `own`, only if the actor gave it.

    Raises:
        SessionNotFoundError: There is no session of that name.
        OrderNotFoundError: There is no pending order of that number.
        ActionRefusedError: The order follows from a batch size, and would be given again.
        BeyondBoundsError: Another actor gave it.
    """
    await service.writer.submit(Change(name, (Cancel(number, actor, own),)))


async def take_back(service: Service, name: str, actor: str, reason: str) -> TakeBackAnswer:
    """Reopen the sealed steps that no trainer holds, so that actions can change them.

    Raises:
        SessionNotFoundError: There is no session of that name.
        NothingToTakeBackError: Trainers hold all that is sealed.
    """
    taken = await service.writer.submit(TakeBack(name, actor, reason))
    session = taken.entry.stored.session
    assert taken.horizon_before is not None  # noqa: S101 - it goes with every attempt
    return TakeBackAnswer(
        horizon=session.horizon,
        until=taken.horizon_before,
        attempt=session.attempt.number,
        revision=session.revision,
    )


async def rehearse_take_back(service: Service, name: str) -> TakeBackAnswer:
    """Return which steps `take_back` would reopen; nothing is changed.

    Raises:
        SessionNotFoundError: There is no session of that name.
        SessionArchivedError: The session takes no more commands.
        NothingToTakeBackError: Trainers hold all that is sealed.
    """
    session = (await service.writer.find(name)).stored.session
    refuse_if_archived(session)
    step = untaken(session)
    return TakeBackAnswer(
        horizon=step,
        until=session.horizon,
        attempt=session.attempt.number + 1,
        revision=session.revision + 1,
    )


async def _filled_in(service: Service, use: TemplateUse, published: Published) -> SessionSpec:
    """Return the spec that a template makes."""

    def filled(_check: Check) -> SessionSpec:
        with few_hints(MAX_ERRORS):
            return use.spec(published.template)

    return await service.checks.run(filled)


def _deprecation(published: Published) -> list[Finding]:
    if published.deprecated is None:
        return []
    return [
        Finding(
            code="template_deprecated",
            severity="warning",
            pointer="/template",
            message=f"{published.reference} is deprecated: {published.deprecated}",
            advice="look for a newer version",
            source="the template's owners",
        )
    ]


async def _distance_if_known(service: Service, stored: Stored, step: int) -> Distance:
    """Return how far a step lies ahead, for an order that is committed: this must not fail.

    The order counts, so an error in place of its answer would only have it repeated.
    """
    try:
        if service.store.ranks is None:
            return _distance(service, stored, step)
        return await in_thread(_distance, service, stored, step)
    except Exception:
        log.exception("distance_unknown", session=stored.session.spec.name)
        return Distance(None, None)


def _distance(service: Service, stored: Stored, step: int) -> Distance:
    found = position(service.tracker, service.store.ranks, stored)
    return Distance(None, None) if found is None else Distance(*found.until(step))


def _rehearsed(service: Service, stored: Stored, acts: Sequence[Act], check: Check) -> Rehearsal:
    """Return the curves before and after some orders, without giving them."""
    before = after = stored.session
    given = list[tuple[Order, Session]]()
    for act in acts:
        draft = decide(after, replace(act, key=""))  # so that repeated orders are shown again
        after = draft.after
        given += [(each.order, after) for each in draft.events if isinstance(each, Ordered)]
    start = min(order.at for order, _ in given)
    end = max(order.action.settles(order.at) for order, _ in given)
    wanted = max(before.spec.total_steps or 0, start + REHEARSED, end + 1) - start
    count = min(wanted, MAX_CURVE // len(before.timelines), MAX_STEP - start)
    # As many steps as two forecasts may have: a costly session shows fewer.
    count = max(min(count, readable(planned(after, start + count).timelines.cost) // 2), 1)
    curves = forecast(after, start, count, check)
    told = [
        notice.message for notice in after.control.notices if notice not in before.control.notices
    ]
    for order, then in given:
        later = {name: values[order.at - start :] for name, values in curves.items()}
        told += pitfalls(then, order, later)
    return Rehearsal(
        start,
        _distance(service, stored, start),
        before=_curve(forecast(before, start, count, check), start),
        after=_curve(curves, start),
        warnings=told,
        revision=before.revision,
    )


def _curve(values: dict[str, Values], start: int) -> Curve:
    names = list(values)
    block = np.stack([values[name] for name in names])
    block = block[:, : count_usable(start, values, at_least=0)]
    return thinned(names, block, start, POINTS) if block.shape[1] else Curve(names, [], block)
