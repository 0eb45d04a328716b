"""Several sessions side by side: their curves, their differences, and the tree of forks."""

from collections.abc import Collection, Sequence
from http import HTTPStatus
from math import isfinite
from typing import NamedTuple

from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.core.actions import Cooldown
from pacesetter_service.core.errors import PacesetterError
from pacesetter_service.core.events import Acted
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.charts import Part, Record, read_record, with_gaps
from pacesetter_service.dashboard.drawing import Line, chart
from pacesetter_service.dashboard.facts import Facts, read_facts
from pacesetter_service.dashboard.twins import table_of
from pacesetter_service.dashboard.visitors import Visitor, refuse_name, visitor_of
from pacesetter_service.runtime.pool import aside
from pacesetter_service.runtime.queries.compare import Difference, differences
from pacesetter_service.runtime.queries.events import list_events
from pacesetter_service.runtime.queries.sessions import list_kin
from pacesetter_service.runtime.service import Service

FEWEST, MOST = 2, 10
"""The fewest and the most sessions that can be compared."""

POINTS = 300
"""About how many points of each session the server draws."""

LIVE = 600
"""About how many points a script draws."""

MOST_KIN = 20
"""The most sessions that share steps with one and are shown: those that were written last."""

MOST_ORDERS = 100
"""How many orders of a session are searched for cooldowns: the first ones."""

PERCENT = 100.0

METRICS = 6
"""The most metrics that are drawn."""


class Compared(NamedTuple):
    """A session, and the data that is drawn for it."""

    facts: Facts
    record: Record

    @property
    def lr(self) -> str:
        """The learning rate that is drawn: the first one."""
        names = list(self.record.past.series)
        return next((each for each in names if each.endswith("lr")), names[0])

    def place(self, steps: Sequence[int], *, by_part: bool) -> list[float]:
        """Return the places of steps: the steps themselves, or percentages of the plan."""
        if not by_part:
            return list(steps)
        start, end = _plan_of(self.facts)
        return [PERCENT * (step - start) / (end - start) for step in steps]

    def as_json(self, metrics: Sequence[str], *, by_part: bool) -> dict[str, object]:
        """Return the data that a script draws."""
        past = self.record.past
        steps, sealed, forecast = self.record.trace(self.lr)
        return {
            "name": self.facts.name,
            "places": self.place(steps, by_part=by_part),
            "sealed": sealed,
            "forecast": forecast,
            "measured": self.place(past.steps, by_part=by_part),
            "metrics": {
                each: with_gaps(past.metrics[each]) for each in metrics if each in past.metrics
            },
        }


class Branch(NamedTuple):
    """A session in the tree of forks.

    Attributes:
        name: Its name.
        depth: Its depth in the tree.
        step: The step at which it was forked; None if it is not a fork.
        shown: Whether it is among the compared sessions.
        known: Whether it exists: a purged one leaves only its name.
        cooldowns: The cooldowns that were ordered for it, in words.
    """

    name: str
    depth: int
    step: int | None
    shown: bool
    known: bool
    cooldowns: tuple[str, ...] = ()


class Compare:
    """The page that compares sessions."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """Show sessions side by side; if there are too few, ask for more."""
        names = _names_in(request)
        by_part = request.query_params.get("by") == "part"
        logarithmic = request.query_params.get("scale") == "log"
        if "live" in request.query_params and len(names) >= FEWEST:  # a script draws the curves
            standing = [await read_facts(self._service, name) for name in names]
            metrics = _metrics(standing)
            return site.show(request, "standing.html", standing=standing, metrics=metrics)
        some: list[Compared] = []
        if len(names) >= FEWEST:
            some = [await self._compared(name, POINTS) for name in names]
        view = View(by_part, logarithmic, _axis(some, by_part=by_part))
        standing = [each.facts for each in some]
        metrics = _metrics(standing)
        tree = await self._tree(standing, visitor_of(request))

        def drawn() -> Response:
            return site.show(
                request,
                "compare.html",
                names=names,
                most=MOST,
                some=some,
                standing=standing,
                by="part" if by_part else "step",
                scale="log" if logarithmic else "",
                picture=_rates(some, view) if some else "",
                metrics=metrics,
                drawn={name: _metric(some, name, view) for name in metrics},
                twin=_twin(some, metrics, by_part=by_part),
                differences=_differences([each.session.spec for each in standing]),
                tree=tree,
            )

        return await aside(drawn)

    async def chart(self, request: Request) -> Response:
        """Answer with the numbers that a script draws, for part of the axis if it asks for that."""
        names, by_part = _names_in(request), request.query_params.get("by") == "part"
        ends = _number_in(request, "start"), _number_in(request, "end")
        some = [await self._compared(name, LIVE, ends, by_part=by_part) for name in names]
        metrics = _metrics([each.facts for each in some])

        def drawn() -> Response:
            sessions = [each.as_json(metrics, by_part=by_part) for each in some]
            return site.show_json(request, {"sessions": sessions, "metrics": metrics})

        return await aside(drawn)

    async def _compared(
        self,
        name: str,
        points: int,
        ends: tuple[float | None, float | None] = (None, None),
        *,
        by_part: bool = False,
    ) -> Compared:
        facts = await read_facts(self._service, name)
        start, end = (None if each is None else _step_at(facts, each, by_part) for each in ends)
        return Compared(facts, await read_record(self._service, facts, points, Part(start, end)))

    async def _tree(self, some: Sequence[Facts], visitor: Visitor) -> list[Branch]:
        """Return the sessions, those that they were forked from, and the forks of all these."""
        known = {facts.name: facts.session for facts in some}
        shown = set(known)
        for facts in some:
            for each in await list_kin(self._service, facts.name, MOST_KIN):
                if visitor.scope.holds(each.spec.name):
                    known.setdefault(each.spec.name, each)
        found = branches([each.spec for each in known.values()], shown)
        return [
            each._replace(cooldowns=await self._cooldowns(known[each.name]))
            if each.name in known
            else each
            for each in found
        ]

    async def _cooldowns(self, session: Session) -> tuple[str, ...]:
        """Return the cooldowns that were ordered for a session, in words."""
        try:
            page = await list_events(
                self._service, session.spec.name, 0, MOST_ORDERS, ["acted"], lambda page: page
            )
        except PacesetterError:  # it was purged meanwhile
            return ()
        done = [each.event.order for each in page.events if isinstance(each.event, Acted)]
        return tuple(
            f"cooldown from step {each.at:,} to {each.action.settles(each.at):,}"
            for each in (*done, *session.orders.waiting)
            if isinstance(each.action, Cooldown)
        )


def _names_in(request: Request) -> list[str]:
    """Return the names of the sessions to compare.

    Raises:
        OutOfScopeError: One is outside of the visitor's scope.
        HTTPException: There are too many.
    """
    said = [text for each in request.query_params.getlist("name") for text in each.split()]
    names = list(dict.fromkeys(said))
    for name in names:
        refuse_name(name, visitor_of(request))
    if len(names) > MOST:
        told = f"{len(names)} sessions are more than one page compares; name {MOST} at most."
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, told)
    return names


def _number_in(request: Request, name: str) -> float | None:
    try:
        found = float(request.query_params.get(name, ""))
    except ValueError:
        return None
    return found if isfinite(found) else None


def _plan_of(facts: Facts) -> tuple[int, int]:
    """Return the first step of a session, and the one after its plan or its sealed steps."""
    session = facts.session
    start = session.spec.start_step
    plan = max(session.spec.total_steps or 0, facts.total or 0)
    return start, max(plan or session.horizon, start + 1)


def _step_at(facts: Facts, place: float, by_part: bool) -> int:  # noqa: FBT001 - of the address
    """Return the step at a place of the axis."""
    if by_part:
        start, end = _plan_of(facts)
        place = start + (end - start) * place / PERCENT
    return int(min(max(place, 0), MAX_STEP))


def _metrics(some: Sequence[Facts]) -> list[str]:
    return sorted({each for facts in some for each in facts.session.reported})[:METRICS]


class View(NamedTuple):
    """How curves are drawn: over fractions of plans or steps, the scale, and the range."""

    by_part: bool
    logarithmic: bool
    axis: tuple[float, float]


def _axis(some: Sequence[Compared], *, by_part: bool) -> tuple[float, float]:
    places = [
        place
        for each in some
        for place in each.place(
            [*each.record.past.steps[:1], *each.record.past.steps[-1:], *each.record.future.steps],
            by_part=by_part,
        )
    ]
    return min(places, default=0.0), max(places, default=1.0)


def _twin(some: Sequence[Compared], metrics: Sequence[str], *, by_part: bool) -> Markup:
    lines = []
    for each in some:
        steps, sealed, later = each.record.trace(each.lr)
        at = each.place(steps, by_part=by_part)
        name = each.facts.name
        lines += [Line(f"{each.lr} of {name}", at, values) for values in (sealed, later)]
        past = each.record.past
        at = each.place(past.steps, by_part=by_part)
        lines += [
            Line(f"{metric} of {name}", at, with_gaps(past.metrics[metric]))
            for metric in metrics
            if metric in past.metrics
        ]
    return table_of(lines, "% of the plan" if by_part else "step")


def _rates(some: Sequence[Compared], view: View) -> Markup:
    lines = []
    for colour, each in enumerate(some):
        steps, sealed, later = each.record.trace(each.lr)
        at = each.place(steps, by_part=view.by_part)
        lines.append(Line(each.facts.name, at, sealed, colour))
        lines.append(Line(each.facts.name, at, later, colour, "dashed"))
    label = f"The learning rates of {', '.join(each.facts.name for each in some)}"
    return chart(lines, label=label, from_zero=True, logarithmic=view.logarithmic, axis=view.axis)


def _metric(some: Sequence[Compared], name: str, view: View) -> Markup:
    lines = []
    for colour, each in enumerate(some):
        past = each.record.past
        if name in past.metrics:
            at = each.place(past.steps, by_part=view.by_part)
            lines.append(Line(each.facts.name, at, past.metrics[name], colour))
    return chart(
        lines,
        label=f"{name} of each",
        logarithmic=view.logarithmic,
        axis=view.axis,
        height=220,
    )


def _differences(specs: Sequence[SessionSpec]) -> list[Difference]:
    """Return where specs differ, and the value of each there."""
    left_out = {"name", "earlier", "forked_from"}
    return differences(
        {spec.name: spec.model_dump(mode="json", exclude=left_out) for spec in specs}
    )


def branches(some: Sequence[SessionSpec], shown: Collection[str]) -> list[Branch]:
    """Return sessions and those that they were forked from, parents before their forks.

    Args:
        some: Their specs.
        shown: The names of the compared sessions.
    """
    parents: dict[str, tuple[str, int] | None] = {}
    for spec in some:
        name, origin = spec.name, spec.forked_from
        while origin is not None:
            parents[name] = (origin.session, origin.step)
            name, origin = origin.session, origin.forked_from
        parents.setdefault(name, None)
    if not any(parents.values()):
        return []
    known = {spec.name for spec in some}
    found: list[Branch] = []

    def add(name: str, depth: int) -> None:
        parent = parents[name]
        found.append(Branch(name, depth, parent and parent[1], name in shown, name in known))
        for fork, origin in sorted(parents.items()):
            if origin is not None and origin[0] == name:
                add(fork, depth + 1)

    for root in sorted(name for name, parent in parents.items() if parent is None):
        add(root, 0)
    return found
