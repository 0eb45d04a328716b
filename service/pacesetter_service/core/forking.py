"""Forks: sessions that go on from the past of another one, with its law or with a new one.

What a fork describes anew holds from its own first step on, by the session's own step count.
Changes of the rate's level stay as a factor. Ordered values and clocks do not: the law that they
were ordered for is gone.
"""

from dataclasses import replace

from pacesetter_service.core.controllers.adascale import Adascale
from pacesetter_service.core.measuring import Pending
from pacesetter_service.core.session import Attempt, Control, Session
from pacesetter_service.core.spec import NOT_YOURS, Series, SessionSpec
from pacesetter_service.core.timeline import Segment, Timelines

NOT_OF_THE_LAW = {"name", "labels", *NOT_YOURS}
"""The fields of a spec that are always the fork's own."""


def forked(restored: Session, spec: SessionSpec, key: str = "") -> Session:
    """Return the first state of a session that goes on from the past of another one.

    Args:
        restored: The other session, as it was at the fork's own first step.
        spec: The fork's spec.
        key: The key that all ranks of its first attempt share, if they share one.
    """
    branch = replace(
        restored,
        spec=spec,
        attempt=Attempt(start=restored.horizon, key=key, batch=restored.control.batch_size),
        orders=replace(restored.orders, waiting=(), keys={}, counted={}),
        revision=0,
        status="active",
    )
    return _described_anew(branch, restored.spec) if differing(restored.spec, spec) else branch


def differing(before: SessionSpec, spec: SessionSpec) -> tuple[str, ...]:
    """Name the fields that a fork describes differently from its parent."""
    return tuple(
        name
        for name in SessionSpec.model_fields
        if name not in NOT_OF_THE_LAW and getattr(before, name) != getattr(spec, name)
    )


def factors(session: Session) -> dict[str, float]:
    """Return the factor on each series' base from before its law was described anew."""
    segments = {name: line.segments[-1] for name, line in session.timelines.items()}
    return {
        name: segment.effective_level / segment.base
        for name, segment in segments.items()
        if segment.base and segment.effective_level != segment.base
    }


def _described_anew(branch: Session, before: SessionSpec) -> Session:
    spec = branch.spec
    batch = branch.control.batch_size if spec.batch_size == before.batch_size else spec.batch_size
    return replace(
        branch,
        timelines=_timelines(branch, before),
        control=_control(branch, before, batch),
        pending=Pending(
            reading
            for reading in branch.pending.readings()
            if reading.metric in branch.watched and reading.rank < spec.ranks
        ),
        attempt=replace(branch.attempt, batch=batch),
    )


def _control(branch: Session, before: SessionSpec, batch: int | None) -> Control:
    """Return what is kept of what controllers knew: where the description is the same, all."""
    spec, control = branch.spec, branch.control
    as_before = spec.controllers == before.controllers
    return replace(
        control,
        states=control.states if as_before else tuple(rule.init() for rule in spec.rules),
        smoothers={
            name: state
            for name, state in control.smoothers.items()
            if spec.metric(name) == before.metric(name)
        },
        limits=control.limits if spec.limits == before.limits else spec.limits,
        batch_size=batch,
    )


def _timelines(branch: Session, before: SessionSpec) -> Timelines:
    spec, at = branch.spec, branch.horizon
    as_before = spec.controllers == before.controllers
    was = {series.name: series for series in before.series()}
    return Timelines(
        (
            series.name,
            branch.timelines[series.name]
            if as_before and series == was[series.name]
            else branch.timelines[series.name]
            .append(_segment(branch, series, as_before=as_before))
            .since(at),
        )
        for series in spec.series()
    )


def _segment(branch: Session, series: Series, *, as_before: bool) -> Segment:
    """Return the segment of a series' new law; factors of the one before stay."""
    last, at = branch.timelines[series.name].segments[-1], branch.horizon
    ratio = last.level / last.base if as_before and last.base else 1.0
    # If a controller drives the clock, the clock goes on with the controller.
    driven = as_before and any(isinstance(rule, Adascale) for rule in branch.spec.rules)
    return Segment(
        start=at,
        schedule=series.schedule,
        clock=last.clock_at(at) if driven else float(at),
        base=series.base,
        level=series.base if ratio == 1.0 else series.base * ratio,
        cause="described anew when it was forked",
        scale=last.scale,
        pace=last.pace if driven else 1.0,
        rewarm=last.rewarm,
        end=series.end,
    )
