"""Several sessions beside each other: their curves, what differs, and who was forked from whom."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

from markupsafe import Markup
from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.catalogue.templates import diff
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.charts import Record, read_record
from pacesetter_service.dashboard.drawing import Line, chart
from pacesetter_service.dashboard.facts import Facts, read_facts
from pacesetter_service.dashboard.visitors import refuse_name, visitor_of
from pacesetter_service.runtime.service import Service

FEWEST, MOST = 2, 10
"""How many sessions can be compared."""

POINTS = 300
"""About how many points of each are drawn."""

PERCENT = 100.0

METRICS = 6
"""How many metrics are drawn."""


class Compared(NamedTuple):
    """A session, and what is drawn of it."""

    facts: Facts
    record: Record

    @property
    def lr(self) -> str:
        """The learning rate that is drawn: the first one."""
        names = list(self.record.past.series)
        return next((each for each in names if each.endswith("lr")), names[0])

    def place(self, steps: Sequence[int], *, by_part: bool) -> list[float]:
        """Return where steps stand: as they are, or as parts of the plan, in percent."""
        if not by_part:
            return list(steps)
        start = self.facts.session.spec.start_step
        end = self.facts.total or max([*self.record.past.steps, start + 1])
        return [PERCENT * (step - start) / max(end - start, 1) for step in steps]


class Difference(NamedTuple):
    """One place in which specs differ: what each of them says there."""

    pointer: str
    values: list[JsonValue]


class Compare:
    """The page on which sessions are compared."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """Show sessions beside each other; without enough of them, ask which."""
        names = _names_in(request)
        for name in names:
            refuse_name(name, visitor_of(request))
        if len(names) > MOST:
            said = f"{len(names)} sessions are more than one page compares; name {MOST} at most."
            return site.refusal(request, HTTPStatus.UNPROCESSABLE_ENTITY, said)
        by_part = request.query_params.get("by") == "part"
        logarithmic = request.query_params.get("scale") == "log"
        some: list[Compared] = []
        if len(names) >= FEWEST:
            for name in names:
                record = await read_record(self._service, name, POINTS)
                some.append(Compared(await read_facts(self._service, name), record))
        view = View(by_part, logarithmic, _axis(some, by_part=by_part))
        metrics = sorted({each for one in some for each in one.record.past.metrics})[:METRICS]
        return site.show(
            request,
            "compare.html",
            names=names,
            some=some,
            by="part" if by_part else "step",
            scale="log" if logarithmic else "",
            picture=_rates(some, view) if some else "",
            metrics={name: _metric(some, name, view) for name in metrics},
            differences=_differences([each.facts.session.spec for each in some]),
            tree=_tree([each.facts for each in some]),
        )


def _names_in(request: Request) -> list[str]:
    said = [text for each in request.query_params.getlist("name") for text in each.split()]
    return list(dict.fromkeys(said))


class View(NamedTuple):
    """How curves are drawn: over parts of plans or steps, on which scale, between which places."""

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
    """Return where specs differ, and what each of them says there."""
    if len(specs) < FEWEST:
        return []
    texts = [spec.model_dump(mode="json", exclude={"name", "earlier"}) for spec in specs]
    first, *others = texts
    found: dict[str, list[JsonValue]] = {}
    for place, other in enumerate(others, 1):
        for each in diff(first, other):
            row = found.setdefault(each.pointer, [each.before] * len(specs))
            row[place] = each.after
    return [Difference(pointer, row) for pointer, row in sorted(found.items())]


class Branch(NamedTuple):
    """A session in the tree of forks: how deep it stands, and where it was forked."""

    name: str
    depth: int
    step: int | None
    shown: bool


def _tree(some: Sequence[Facts]) -> list[Branch]:
    """Return the sessions and what they were forked from, parents before their forks."""
    parents: dict[str, tuple[str, int] | None] = {}
    for facts in some:
        name, origin = facts.name, facts.session.spec.forked_from
        while origin is not None:
            parents[name] = (origin.session, origin.step)
            name, origin = origin.session, origin.forked_from
        parents.setdefault(name, None)
    if not any(parents.values()):
        return []
    shown = {facts.name for facts in some}
    found: list[Branch] = []

    def add(name: str, depth: int) -> None:
        parent = parents[name]
        found.append(Branch(name, depth, parent and parent[1], name in shown))
        for fork, origin in sorted(parents.items()):
            if origin is not None and origin[0] == name:
                add(fork, depth + 1)

    for root in sorted(name for name, parent in parents.items() if parent is None):
        add(root, 0)
    return found
