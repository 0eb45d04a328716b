"""Where trainings stand: one row for each session, and few queries for each page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.core.attempts import attempt_of
from pacesetter_service.core.cost import Check
from pacesetter_service.core.errors import PacesetterError
from pacesetter_service.core.forecast import forecast
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.status import State
from pacesetter_service.core.watching import plan_end
from pacesetter_service.insight.history import measured
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.queries.listing import Page, Question, read_page
from pacesetter_service.runtime.rank_digests import Ranks, digests
from pacesetter_service.runtime.ranks import NEVER, wall_clock
from pacesetter_service.runtime.service import Service, state_by
from pacesetter_service.store.blocks import Columns
from pacesetter_service.store.newest import Newest, SealedStep
from pacesetter_service.store.port import Stored
from pacesetter_service.store.replay import readings_in

MAX_METRICS = 64
"""The most metrics of a session that are shown: the first ones by name."""

MAX_SERIES = 64
"""The most learning rates of a session that are shown: those of its first groups."""

LOOKED_BACK = 8
"""How many steps before the last reported one may be the newest that every rank reported."""

T = TypeVar("T")


class Value(NamedTuple):
    """A metric's newest value, and the step that it was measured at."""

    value: float
    step: int


@dataclass(frozen=True, slots=True)
class Status:
    """Where a session's training stands.

    Attributes:
        stored: The session, and when it was created and written.
        state: What has become of it.
        step: The newest step that was trained; None if none was. It is what ranks of the running
            attempt have said, or the step before the one at which the training is said to have
            ended. If no rank has called since the service started, it is what the record knows:
            the newest step that was reported on, the step before the one at which the trainer
            ended the training or began again, or, if the trainer reports nothing, the last step
            that it was given, beyond which it has not trained.
        total_steps: The first step after its plan; None if the plan has no end.
        lr: The learning rate of each group at that step, or at the first step if none was trained;
            None where it is not known. At most `MAX_SERIES` groups.
        metrics: The newest value of each metric: what controllers have seen or, if newer, the
            aggregate of the ranks' readings, if possible at a step that all have reported.
            At most `MAX_METRICS`.
        last_heard: When a rank last called; if none has called since the service started, when the
            session was last written; ISO 8601, UTC. None if no trainer has called.
        ranks: Its ranks.
        seconds_left: How long the rest of its plan takes at the pace of its slowest rank; None if
            no rank has said its pace, if its plan has no end, and if it does not run.
    """

    stored: Stored
    state: State
    step: int | None
    total_steps: int | None
    lr: Mapping[str, float | None]
    metrics: Mapping[str, Value]
    last_heard: str | None
    ranks: Ranks
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class _Heard:
    """A session, and what is known of its ranks."""

    stored: Stored
    ranks: Ranks
    state: State


async def list_statuses(
    service: Service, question: Question, show: Callable[[Page[Status]], T]
) -> T:
    """Return what `show` makes of a page of sessions, a row for each.

    Args:
        service: The service.
        question: Which sessions, and which page.
        show: Makes the answer from the page, on the thread that reads it.

    Raises:
        BusyError: Too many costly answers are being prepared already.
    """

    def answer(check: Check) -> T:
        page = read_page(service, question, lambda rows: _heard(service, rows), check)
        return show(Page(_statuses(service, page.found), page.behind))

    return await service.reads.run(answer)


async def read_status(service: Service, name: str) -> Status:
    """Return where the training of one session stands.

    Raises:
        SessionNotFoundError: There is none of that name.
    """
    stored = (await service.writer.find(name)).stored

    def answer() -> Status:
        [found] = _statuses(service, _heard(service, [stored]))
        return found

    return await in_thread(answer)


def newest_trained(service: Service, stored: Stored) -> int | None:
    """Return the newest step of a session that was trained; see `Status`. Not for the event loop.

    Raises:
        StorageUnavailableError: The database did not answer.
    """
    [heard] = _heard(service, [stored])
    return _trained(
        heard, service.store.newest_of({stored.lineage: 0}, MAX_METRICS)[stored.lineage]
    )


def _heard(service: Service, rows: Sequence[Stored]) -> list[_Heard]:
    some = digests(service.tracker, service.store.ranks, [each.session for each in rows])
    found = []
    for stored in rows:
        ranks = some[stored.session.spec.name]
        heard = None if ranks.quiet is None else (ranks.quiet, ranks.pace)
        found.append(_Heard(stored, ranks, state_by(stored, heard)))
    return found


def _statuses(service: Service, some: Sequence[_Heard]) -> list[Status]:
    store = service.store
    found = store.newest_of(
        {each.stored.lineage: _looked_back(each.stored) for each in some}, MAX_METRICS
    )
    newest = [found[each.stored.lineage] for each in some]
    steps = [_trained(each, metrics) for each, metrics in zip(some, newest, strict=True)]
    wanted = [_sealed_step(each.stored, step) for each, step in zip(some, steps, strict=True)]
    columns = store.sealed_at(wanted)
    return [_status(*each) for each in zip(some, steps, newest, wanted, columns, strict=True)]


def _looked_back(stored: Stored) -> int:
    return LOOKED_BACK if stored.session.spec.ranks > 1 else 0


def _trained(heard: _Heard, newest: Mapping[str, Newest]) -> int | None:
    """Return the newest step that was trained, as far as is known."""
    session, first = heard.stored.session, heard.stored.lineage[0].start
    begun = session.attempt.start  # a trainer that begins there has trained the steps before
    known = max(begun - 1, heard.ranks.trained, *map(last_step, newest.values()))
    ended = session.control.ended
    # Ranks say where they are as they fetch: a fast training ends long after its last call. A
    # step that was named as the end lies below `session.held`; if none was named, the end is
    # `session.held`, and the ranks know better.
    if ended is not None and (not heard.ranks.seen or ended.step < session.held):
        known = max(known, ended.step - 1)
    elif not heard.ranks.seen and known < begun:
        known = session.held - 1
    return None if known < first else known


def last_step(newest: Newest) -> int:
    """Return the last step at which anything is known of a metric; `NEVER` for none."""
    return max((int(each.steps[-1]) for each in newest if each is not None), default=NEVER)


def _sealed_step(stored: Stored, step: int | None) -> SealedStep:
    """Return the place of the learning rates that are shown."""
    at = stored.session.spec.start_step if step is None else step
    return SealedStep(attempt_of(stored.lineage, at), at, len(stored.session.timelines))


def _status(
    heard: _Heard,
    step: int | None,
    newest: Mapping[str, Newest],
    sealed: SealedStep,
    column: NDArray[np.float64] | None,
) -> Status:
    stored, session, ranks = heard.stored, heard.stored.session, heard.ranks
    total = plan_end(session)
    last_heard = None
    if ranks.quiet is not None:
        last_heard = wall_clock(ranks.quiet)
    elif session.held > session.attempt.start:
        last_heard = stored.changed_at
    left = None
    if heard.state == "active" and ranks.pace is not None and total is not None:
        done = session.spec.start_step if step is None else step + 1
        left = max(total - done, 0) * ranks.pace
    return Status(
        stored=stored,
        state=heard.state,
        step=step,
        total_steps=total,
        lr=_rates(session, sealed.step, column),
        metrics={name: _value(session.spec, name, each) for name, each in newest.items()},
        last_heard=last_heard,
        ranks=ranks,
        seconds_left=left,
    )


def _rates(
    session: Session, step: int, column: NDArray[np.float64] | None
) -> dict[str, float | None]:
    """Return the learning rates of a step: the sealed ones, or those that would be sealed."""
    names = [each.name for each in session.spec.series() if each.channel == "lr"][:MAX_SERIES]
    if column is not None:
        row: Mapping[str, float] = dict(zip(session.timelines, column.tolist(), strict=True))
    elif step >= session.horizon:
        row = _planned(session, step)
    else:
        row = {}
    return {name: row.get(name) for name in names}


def _planned(session: Session, step: int) -> dict[str, float]:
    try:
        values = forecast(session, step, 1)
    except PacesetterError:  # its law is too costly, or has no value there
        return {}
    return {name: float(each[0]) for name, each in values.items() if np.isfinite(each[0])}


def _value(spec: SessionSpec, metric: str, newest: Newest) -> Value:
    """Return a metric's newest value."""
    found = [_last(newest.seen)] if newest.seen is not None else []
    if newest.said is not None:
        found.append(_said(spec, metric, newest.said))
    return max(found, key=lambda each: each.step)  # of equal steps the first, which is measured


def _last(columns: Columns) -> Value:
    return Value(float(columns.values[-1]), int(columns.steps[-1]))


def _said(spec: SessionSpec, metric: str, columns: Columns) -> Value:
    """Return the ranks' last reports as one value, if possible of a step that all reported."""
    alone = len(columns) == 1 or columns.steps[-2] < columns.steps[-1]
    if alone and spec.ranks == 1:  # the usual case: nothing to combine
        return _last(columns)
    some = columns.steps[-LOOKED_BACK * spec.ranks :]
    steps, counts = np.unique(some, return_counts=True)
    wanted = _reporters(spec, metric)
    complete = steps[counts >= wanted]
    step = int(complete[-1] if len(complete) else steps[-1])
    mine = columns.between(step, step + 1)
    if len(mine) == 1:
        return _last(mine)
    track = measured(spec, metric, list(readings_in(metric, mine)))
    return Value(float(track.values[-1]), step) if len(track.values) else _last(mine)


def _reporters(spec: SessionSpec, metric: str) -> int:
    said = spec.metric(metric)
    return 1 if said.aggregate == "rank0" else said.ranks or spec.ranks
