"""Whether a training keeps to its family: the finished sessions of its template's version.

Values that were read are remembered as cells, hundredths of a training. So a look at a running
session reads only what has come since the last look, and a finished session is read once.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import numpy as np

from pacesetter_service.core.attempts import Lineage, attempt_of
from pacesetter_service.core.cost import Check
from pacesetter_service.core.session import Session
from pacesetter_service.core.tokens import EVERYTHING, NameScope
from pacesetter_service.core.watching import LEFT_FAMILY, plan_end
from pacesetter_service.insight.collapse import (
    CELLS,
    LEAST_MEMBERS,
    TOO_FAR,
    WHOLE,
    Curve,
    Departure,
    Family,
    Gathering,
    Judgement,
    is_whole,
    leaves_path,
)
from pacesetter_service.insight.loss_law import Floats
from pacesetter_service.runtime.queries.curves import MAX_CURVE
from pacesetter_service.runtime.tracks import metric_between
from pacesetter_service.store.newest import SealedStep
from pacesetter_service.store.port import Stored
from pacesetter_service.store.store import Store

MOST_LOOKED_AT, MOST_MEMBERS = 64, 24
"""The most sessions of a template that are considered, newest first, and the most members."""

MOST_LOSSES = 4
"""The most losses of a training that are judged."""

LOSSES = ("loss", "nll", "perplexity", "ppl", "bpb")
"""A metric is a loss if its name contains one of these."""

REMEMBERED = 1_024
"""For how many running, and for how many finished, sessions the cells are remembered."""

AGAIN = 3
"""Cells that are read again at each look: ranks report late."""

Reason = Literal["no_template", "no_end", "no_loss", "few_members", "another_path", "too_noisy"]

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, eq=False)
class Kin:
    """How one training compares with its family.

    Attributes:
        template: The version of the template; None if it has none.
        metric: The loss that it is judged by.
        reason: Why it is not judged, for programs; None if it is.
        message: The same for people, and how to change that.
        members: The sessions of the family.
        least: The least lasting shift that can be told from scatter, as a fraction of the loss.
        judgement: The result; None if it is not judged.
        until: The first step whose rate differs from the family's; None if there is none.
    """

    template: str | None
    metric: str | None
    reason: Reason | None
    message: str
    members: tuple[str, ...] = ()
    least: float | None = None
    judgement: Judgement | None = None
    until: int | None = None


@dataclass(slots=True)
class _Read:
    """What was read of a session; by metric, the next cell to read and the values so far."""

    lineage: Lineage
    end: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    metrics: dict[str, tuple[int, Gathering]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    """A finished session: its rate in the middle of each cell, and its losses."""

    rates: Floats
    losses: dict[str, Curve]


class Families:
    """What was read of the sessions with a template; callable from any thread."""

    def __init__(self, store: Store) -> None:
        """Start with nothing remembered."""
        self._store = store
        self._running: _Newest[int, _Read] = _Newest(REMEMBERED)
        self._finished: _Newest[tuple[int, int], _Member] = _Newest(REMEMBERED)

    def judged(
        self, stored: Stored, check: Check = lambda: None, names: NameScope = EVERYTHING
    ) -> list[Kin]:
        """Judge a training by each of its losses, or say why it is not.

        Args:
            stored: The session.
            check: Raises when no caller waits any more.
            names: The sessions that the caller may see; others are not members.

        Raises:
            StorageUnavailableError: The database did not answer.
        """
        session = stored.session
        origin, total = session.spec.origin, end_of(session)
        if origin is None:
            return [_unjudged(None, "no_template", "It was made from no template.")]
        template = origin.template
        if total is None or total - session.spec.start_step > MAX_CURVE:
            message = f"Its plan has no end, or one beyond {MAX_CURVE} steps: give `total_steps`."
            return [_unjudged(template, "no_end", message)]
        losses = [each for each in self._store.metrics_of(stored.lineage) if is_loss(each)]
        if not losses:
            told = f"No metric was reported that has {', '.join(LOSSES[:-1])} or {LOSSES[-1]} in"
            return [_unjudged(template, "no_loss", f"{told} its name.")]
        members = dict(self._members(stored, template, check, names))
        return [
            self._kin(stored, template, metric, members, len(losses[:MOST_LOSSES]), check)
            for metric in losses[:MOST_LOSSES]
        ]

    def _kin(
        self,
        stored: Stored,
        template: str,
        metric: str,
        members: dict[str, _Member],
        metrics: int,
        check: Check,
    ) -> Kin:
        alike = _of_one_path(
            {name: each for name, each in members.items() if metric in each.losses}
        )
        names = tuple(alike)
        if len(alike) < LEAST_MEMBERS:
            message = (
                f"{len(alike)} sessions of {template} were trained to their end by one path of"
                f" rates and reported {metric}; a family has {LEAST_MEMBERS}."
            )
            return _unjudged(template, "few_members", message, metric, names)
        family = Family([each.losses[metric] for each in alike.values()])
        least = family.least
        if least > TOO_FAR:
            message = (
                f"Members scatter so much that a shift of less than {least:.0%} of {metric} cannot"
                " be told from it. Report a loss that scatters less, or a mean of more steps."
            )
            return _unjudged(template, "too_noisy", message, metric, names, least)
        path = np.median([each.rates / each.rates.max() for each in alike.values()], axis=0)
        apart = leaves_path(self._rates(stored), path)
        curve = self._so_far(stored, metric, check)
        judgement = family.judged(curve, apart, metrics)
        until = None if apart >= CELLS else step_of(stored.session, apart)
        if apart == 0:
            message = "Its learning rates do not take the family's path."
            return _unjudged(template, "another_path", message, metric, names, least)
        return Kin(template, metric, None, "", names, least, judgement, until)

    def _members(
        self, stored: Stored, template: str, check: Check, names: NameScope
    ) -> Iterator[tuple[str, _Member]]:
        """Return the finished sessions of a template, newest first.

        Of sessions that share steps, as forks do, only the first counts, and none that shares steps
        with this one: they would be alike without any family.
        """
        found, taken = 0, _trained_in(stored)
        for each in self._store.of_template(template, MOST_LOOKED_AT):
            name, origin = each.session.spec.name, each.session.spec.origin
            if origin is None or origin.template != template or taken & _trained_in(each):
                continue
            if not names.holds(name) or not _is_over(each.session):
                continue
            member = self._finished.get((each.id, each.version))
            if member is None:
                member = self._read_whole(each, check)
                if _is_settled(each.session, member):
                    self._finished.put((each.id, each.version), member)
            if member.losses:
                yield name, member
                taken |= _trained_in(each)
                found += 1
            if found == MOST_MEMBERS:
                return

    def _read_whole(self, stored: Stored, check: Check) -> _Member:
        losses: dict[str, Curve] = {}
        for metric in filter(is_loss, self._store.metrics_of(stored.lineage)):
            if len(losses) == MOST_LOSSES:
                break
            if stored.session.status == "active":  # it is read again at the next look
                curve = self._so_far(stored, metric, check)
            else:
                gathered = self._read(stored, metric, 0, Gathering(), check)
                curve = gathered.curve(stored.session.spec.name)
            if is_whole(curve):
                losses[metric] = curve
        return _Member(self._rates(stored), losses)

    def _so_far(self, stored: Stored, metric: str, check: Check) -> Curve:
        """Read what a running session has measured since the last look."""
        known, end = self._running.get(stored.id), _end(stored.session)
        # If the end of the plan changes, so does the length of the cells.
        if known is None or (known.lineage, known.end) != (stored.lineage, end):
            known = _Read(stored.lineage, end)
            self._running.put(stored.id, known)
        with known.lock:  # a caller may ask while the lookout reads
            first, gathering = known.metrics.get(metric, (0, Gathering()))
            self._read(stored, metric, first, gathering, check)
            curve = gathering.curve(stored.session.spec.name)
            known.metrics[metric] = max(curve.reached - AGAIN, 0), gathering
        return curve

    def _read(
        self, stored: Stored, metric: str, first: int, gathering: Gathering, check: Check
    ) -> Gathering:
        session = stored.session
        begin, total = session.spec.start_step, _end(session)
        start, end = step_of(session, first), min(total, session.horizon)
        if start < end:
            track = metric_between(
                self._store, session.spec, stored.lineage, metric, start, end, check
            )
            gathering.add((track.steps - begin) / (total - begin), track.values, first)
        return gathering

    def _rates(self, stored: Stored) -> Floats:
        """Return the values of the first `lr` series in the middle of each sealed cell."""
        session = stored.session
        names = list(session.timelines)
        row = names.index(next(each.name for each in session.spec.series() if each.channel == "lr"))
        steps = [step_of(session, cell + 0.5) for cell in range(CELLS)]
        wanted = [
            SealedStep(attempt_of(stored.lineage, step), step, len(names))
            for step in steps
            if step < session.horizon
        ]
        found = [each for each in self._store.sealed_at(wanted) if each is not None]
        return np.array([each[row] for each in found])


def is_loss(metric: str) -> bool:
    """Return whether a metric is a loss, judging by its name."""
    return any(each in metric.lower() for each in LOSSES)


def end_of(session: Session) -> int | None:
    """Return the first step after the end of the plan; None if the plan has no end."""
    found = session.spec.total_steps or plan_end(session)
    return None if found is None or found <= session.spec.start_step else found


def step_of(session: Session, cell: float) -> int:
    """Return the first step at or after a cell's edge."""
    first = session.spec.start_step
    return first + -int(-(_end(session) - first) * cell // CELLS)


def _end(session: Session) -> int:
    found = end_of(session)
    return session.horizon if found is None else found


def told_already(session: Session, metric: str, departure: Departure) -> bool:
    """Return whether the running attempt was told of a departure, or no longer needs to be."""
    over = departure.back is not None and (
        step_of(session, departure.found + 1) <= session.attempt.start
    )
    since = step_of(session, departure.since)
    return over or session.control.watch.knows(LEFT_FAMILY, metric, since)


def _trained_in(stored: Stored) -> set[int]:
    """Return the ids of the sessions that the steps of one were trained in."""
    return {stored.id, *(ref.session_id for ref in stored.lineage)}


def _is_over(session: Session) -> bool:
    """Return whether a session can be a member: trained to its end, and in its family."""
    total, ended = end_of(session), session.control.ended
    if total is None or total - session.spec.start_step > MAX_CURVE:
        return False
    if ended is not None and ended.outcome == "failed":
        return False
    if any(code == LEFT_FAMILY for code, _, _ in session.control.watch.told):
        return False
    return session.horizon >= step_of(session, WHOLE * CELLS)


def _is_settled(session: Session, member: _Member) -> bool:
    """Return whether the losses that were read of a session are final.

    Its version does not tell, because reports of ranks do not change it. The losses of an active
    session are final once its last hundredth was measured.
    """
    curves = member.losses.values()
    whole = bool(curves) and all(each.reached == CELLS for each in curves)
    return whole or session.status != "active"


def _of_one_path(members: dict[str, _Member]) -> dict[str, _Member]:
    """Return the members whose learning rates follow the median path."""
    whole = {
        name: each
        for name, each in members.items()
        if len(each.rates) >= WHOLE * CELLS and each.rates.max() > 0
    }
    if not whole:
        return {}
    length = min(len(each.rates) for each in whole.values())
    forms = np.stack(
        [each.rates[:length] / max(each.rates.max(), 1e-300) for each in whole.values()]
    )
    path = np.median(forms, axis=0)
    return {
        name: _Member(each.rates[:length], each.losses)
        for name, each in whole.items()
        if leaves_path(each.rates, path) >= CELLS
    }


def _unjudged(
    template: str | None,
    reason: Reason,
    message: str,
    metric: str | None = None,
    members: tuple[str, ...] = (),
    least: float | None = None,
) -> Kin:
    return Kin(template, metric, reason, message, members, least)


class _Newest(Generic[Key, Value]):
    """The values that were used most recently."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
