"""What a session notices by itself: metrics and ranks that are silent, and a plan that is over.

All of it is derived when steps are sealed, from what was reported until then. So each notice comes
at the same step however often the record is replayed. Each is given once in an attempt, and not
again in the attempts that carry it on.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from math import inf
from typing import TYPE_CHECKING

from pacesetter_service.core.applied import KEPT
from pacesetter_service.core.controllers.improvement import Improvement
from pacesetter_service.core.events import Noticed
from pacesetter_service.core.lengths import whole
from pacesetter_service.core.model import did_you_mean
from pacesetter_service.core.wording import kind_of, listed, number

if TYPE_CHECKING:
    from pacesetter_service.core.session import Session

NAMES_KEPT = 64
"""How many names of metrics that no controller watches are kept, to find misspelt ones."""

ABSENT_KEPT = 16
"""How many ranks that do not report a metric are named."""

DEVIATING_KEPT = 1_024
"""How many ranks that train with other values the log reports at any one time."""

LEFT_FAMILY = "left_family"
"""The code of a notice that a metric has left the family of the session's template."""

GAPS = 3
"""A metric has stopped once it is overdue by this many of its longest gaps so far."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """When a metric was measured: the last step, and the longest gap between two of them."""

    step: int
    gap: int


@dataclass(frozen=True, slots=True)
class Absence:
    """Ranks that were missing from every measurement of a metric since a step."""

    since: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Watch:
    """What one attempt has heard of its metrics, and which notices it was given.

    Attributes:
        seen: For each watched metric that was measured, when.
        absent: For each watched metric the ranks that its latest measurements lack.
        names: Metrics that were reported and that no controller watches.
        told: What was noticed already: its code, what it is about, and the step of the notice.
        deviating: For each rank, the series that the log reports as trained with other values than
            were sealed, and that the rank has not applied as sealed since.
    """

    seen: Mapping[str, Sighting] = field(default_factory=dict)
    absent: Mapping[str, Absence] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    told: tuple[tuple[str, str, int], ...] = ()
    deviating: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def heard(self, names: Iterable[str]) -> "Watch":
        """Remember names; the same object if all are known, so that nothing is written again."""
        new = sorted(set(names).difference(self.names))[: NAMES_KEPT - len(self.names)]
        return replace(self, names=(*self.names, *new)) if new else self

    def measured(self, metric: str, step: int, first: int) -> "Watch":
        """Remember a measurement in an attempt that began at step `first`."""
        before = self.seen.get(metric, Sighting(first - 1, 1))
        sighting = Sighting(step, max(before.gap, step - before.step))
        return replace(self, seen={**self.seen, metric: sighting})

    def without(self, steps: Mapping[str, int], missing: Mapping[str, tuple[int, ...]]) -> "Watch":
        """Remember which ranks were missing from the measurements that closed up to some steps."""
        if not missing and not self.absent:
            return self
        absent = {metric: each for metric, each in self.absent.items() if metric not in steps}
        for metric, ranks in missing.items():
            before = self.absent.get(metric)
            still = tuple(rank for rank in before.ranks if rank in ranks) if before else ()
            since = before.since if before and still else steps[metric]
            absent[metric] = Absence(since, still or ranks)
        return replace(self, absent=absent)

    def has_told(self, code: str, about: str, at: int) -> "Watch":
        """Remember a notice."""
        return replace(self, told=(*self.told, (code, about, at)))

    def knows(self, code: str, about: str, since: int) -> bool:
        """Return whether there was such a notice at a step or later."""
        return any(each[:2] == (code, about) and each[2] >= since for each in self.told)

    def taken_back(self, first: int) -> "Watch":
        """Forget notices for a step and later ones, which no trainer holds.

        So nothing was measured there either.
        """
        return replace(self, told=tuple(each for each in self.told if each[-1] < first))

    def room_for(self, rank: int) -> int:
        """Return for how many more series of a rank a deviation may be recorded."""
        if rank not in self.deviating and len(self.deviating) >= DEVIATING_KEPT:
            return 0
        return KEPT - len(self.deviating.get(rank, ()))

    def deviated(self, rank: int, series: str) -> "Watch":
        """Remember that the log reports a rank's deviation in a series."""
        before = self.deviating.get(rank, ())
        return replace(self, deviating={**self.deviating, rank: (*before, series)})

    def agreed(self, rank: int, series: Iterable[str]) -> "Watch":
        """Forget the deviations of a rank in some series, which have come to an end."""
        others = {each: named for each, named in self.deviating.items() if each != rank}
        still = tuple(each for each in self.deviating.get(rank, ()) if each not in series)
        return replace(self, deviating={**others, rank: still} if still else others)


def absentees(reported: Iterable[int], expected: int) -> tuple[int, ...]:
    """Name the first ranks that have not reported."""
    there, missing = set(reported), list[int]()
    for rank in range(expected):
        if rank not in there:
            missing.append(rank)
        if len(missing) == ABSENT_KEPT:
            break
    return tuple(missing)


def noticed(session: "Session", end: int) -> Iterator[Noticed]:
    """Return the notices that go with the steps from the horizon to `end`."""
    told = {(code, about) for code, about, _ in session.control.watch.told}
    for found in chain(_silences(session), _negatives(session), _ended(session, end)):
        if (found.code, found.about) not in told:
            yield found


def _silences(session: "Session") -> Iterator[Noticed]:
    """Notice metrics without news for too long, and ranks that do not report them."""
    spec = session.spec
    trained = session.horizon - (spec.lookahead or 1)  # later steps may not be trained yet
    for metric, measure in spec.measured.items():
        asleep = [rule for rule in spec.rules if metric in _sources(session, rule.watches)]
        awake = [rule for rule in asleep if rule.is_awake(trained)]
        if not awake:
            continue
        first = max(session.attempt.start, min(whole(rule.from_step) for rule in awake))
        sighting = session.control.watch.seen.get(metric)
        patience = spec.patience_for_metrics
        if sighting is not None:
            first = max(first, sighting.step + 1)
            patience = max(patience, GAPS * sighting.gap)
        if trained + 1 - first >= patience:
            yield _silence(session, metric, first, trained, seen=sighting is not None)
        absence = session.control.watch.absent.get(metric)
        if absence and trained + 1 - absence.since >= patience and measure.aggregate != "rank0":
            yield _rank_silent(session, metric, absence.ranks, absence.since)


def _silence(session: "Session", metric: str, first: int, trained: int, *, seen: bool) -> Noticed:
    waiting = session.pending.by_metric().get(metric, {})
    reporting = {rank for ranks in waiting.values() for rank in ranks}
    if reporting:
        wanted = session.spec.measured[metric].ranks or 1
        rank0 = session.spec.measured[metric].aggregate == "rank0"
        return _rank_silent(session, metric, absentees(reporting, 1 if rank0 else wanted), first)
    deciding = listed(
        [
            f"{kind_of(rule)} #{index}"
            for index, rule in enumerate(session.spec.controllers)
            if metric in _sources(session, rule.watches)
        ]
    )
    steps = trained + 1 - first
    if seen:
        return Noticed(
            session.horizon,
            "metric_stopped",
            metric,
            f"{metric} was measured last at step {first - 1}, {steps} steps ago: {deciding} cannot"
            " decide. See whether it is still reported.",
        )
    names = session.control.watch.names
    told = f"Reported so far: {listed(names)}." if names else "No other metric was reported either."
    return Noticed(
        session.horizon,
        "metric_never_seen",
        metric,
        f"{metric} has not been measured in the {steps} steps from {first} on: {deciding} cannot"
        f" decide. {told}{did_you_mean(metric, names)} Report it under that name; if it is measured"
        " less often, say so with `silent_after`.",
    )


def _rank_silent(session: "Session", metric: str, ranks: tuple[int, ...], since: int) -> Noticed:
    more = " or more" if len(ranks) == ABSENT_KEPT else ""
    who = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}{more}"
    return Noticed(
        session.horizon,
        "rank_silent",
        metric,
        f"{who} of {session.spec.measured[metric].ranks} {'have' if len(ranks) > 1 else 'has'} not"
        f" reported {metric} since step {since}, and others have. See whether it runs; with"
        " `quorum` and `deadline` the metric does not wait for all.",
    )


def _sources(session: "Session", watched: Iterable[str]) -> set[str]:
    """Name the metrics that ranks report for what a controller watches."""
    return {session.spec.metric(name).of or name for name in watched}


def _negatives(session: "Session") -> Iterator[Noticed]:
    """Notice rules with a relative threshold whose metric turned out to be negative."""
    rules = zip(session.spec.rules, session.control.states, strict=True)
    for index, (rule, state) in enumerate(rules):
        expanded, best = getattr(rule, "expanded", rule), getattr(state, "best", None)
        improvement = getattr(expanded, "improvement", None)
        if not isinstance(improvement, Improvement) or not improvement.needs_positive:
            continue
        if isinstance(best, float) and -inf < best < 0:
            yield Noticed(
                session.horizon,
                "relative_threshold",
                rule.metric,
                f"{rule.metric} is negative, {number(best)} at best, and {kind_of(rule)} #{index}"
                " has a relative threshold: it takes somewhat worse values for better ones. Use"
                ' `plateau` with threshold_mode "signed_rel", or "abs" with a threshold in the'
                " metric's own unit.",
            )


def plan_end(session: "Session") -> int | None:
    """Return the first step past every learning rate's plan; None if one has no end."""
    last = None
    for series in session.spec.series():
        if series.channel == "lr":
            over = session.timelines[series.name].segments[-1].over
            if over is None:
                return None
            last = over if last is None else max(last, over)
    return last


def _ended(session: "Session", end: int) -> Iterator[Noticed]:
    """Notice that the plan was over before steps below `end` are trained.

    A trainer that has made its last update still asks for the step past the plan, but does not
    train it. So the notice comes with the step after that.
    """
    over = plan_end(session)
    if over is None or over + 1 >= end:
        return
    yield Noticed(
        max(over + 1, session.horizon),
        "plan_over",
        str(over),
        f"the plan is over at step {over}, and its last learning rate is kept from there on. To"
        " train longer by a plan, order `replace` with the schedule that is to follow; before its"
        ' end `retime` gives it another one. Sessions with after_end "law" follow the law instead.',
    )
