"""The page of a session: its curves, why they are as they are, and what an operator can do."""

import json
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.dashboard import drawing, site
from pacesetter_service.dashboard.as_yaml import as_yaml
from pacesetter_service.dashboard.axes import UNITS, Unit
from pacesetter_service.dashboard.charts import Look, Part, Record, read_record
from pacesetter_service.dashboard.facts import Facts, read_facts
from pacesetter_service.dashboard.problems import divergence
from pacesetter_service.dashboard.snippets import snippets_of
from pacesetter_service.dashboard.timeline import latest_events
from pacesetter_service.dashboard.troubles import troubles_of
from pacesetter_service.runtime.pool import aside
from pacesetter_service.runtime.queries.explain import explain_step
from pacesetter_service.runtime.queries.history import History, HistoryQuestion, read_history
from pacesetter_service.runtime.queries.sessions import list_attempts
from pacesetter_service.runtime.service import Service

DRAWN = 500
"""About how many steps the server draws."""

LIVE = 1_500
"""About how many steps a script draws."""

TABLE = 40
"""About how many rows the table beside the charts has."""

SAVED = 100_000
"""About how many rows a downloaded table has."""

LATEST = 12
"""How many of the newest events the page shows."""

SPARKED = 60
"""About how many points a small picture has."""

MOST_SPARKED = 200_000
"""How many of the newest steps a small picture shows."""

DRAWN_METRICS = 6
"""How many metrics are drawn at first."""


class SessionPages:
    """The pages about one session."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """Show a session."""
        name = request.path_params["name"]
        facts = await read_facts(self._service, name)
        chosen = _attempt_in(request)
        record = table = None
        series = _chosen(request.query_params.getlist("series"), facts)
        if "live" not in request.query_params:
            part = Part(attempt=chosen, over=_shows_over(request))
            record = await read_record(self._service, facts, DRAWN, part)
            table = _table(record, series)
        step = _step_in(request, "step")
        return await aside(
            site.show,
            request,
            "session.html",
            name=name,
            facts=facts,
            session=facts.session,
            spec=facts.session.spec,
            record=record,
            table=table,
            series=series,
            metrics=[] if record is None else list(record.past.metrics)[:DRAWN_METRICS],
            look=_look_in(request),
            shows_over=_shows_over(request),
            asked={
                **{each: request.query_params.get(each, "") for each in KEPT},
                "series": request.query_params.getlist("series"),
            },
            events=await latest_events(self._service, name, LATEST),
            attempts=await list_attempts(self._service, name),
            attempt=chosen,
            step=step,
            troubles=[*troubles_of(facts), *await divergence(self._service, facts)],
            ordered=_step_in(request, "ordered"),
            ordered_at=_step_in(request, "at") or 0,
            cancelled=_step_in(request, "cancelled"),
            held=_is_held(facts),
            explanation=None if step is None else await self._explained(name, step),
            snippets=snippets_of(request, facts.session.spec),
        )

    async def chart(self, request: Request) -> Response:
        """Answer with the numbers that a script draws."""
        name = request.path_params["name"]
        facts = await read_facts(self._service, name)
        part = Part(
            _step_in(request, "start"),
            _step_in(request, "end"),
            _attempt_in(request),
            _shows_over(request),
        )
        record = await read_record(self._service, facts, LIVE, part)
        series = _chosen(request.query_params.getlist("series"), facts)

        def drawn() -> Response:
            said = {**record.as_json(series, facts.trained), "pace": facts.pace}
            return site.show_json(request, said)

        return await aside(drawn)

    async def explain(self, request: Request) -> Response:
        """Explain the values at a step, as a part of a page."""
        name, step = request.path_params["name"], _step_in(request, "step")
        if step is None:
            return site.refusal(request, HTTPStatus.BAD_REQUEST, "Say at which `step`.")
        text = await self._explained(name, step)
        return site.show(request, "explanation.html", explanation=text, step=step)

    async def _explained(self, name: str, step: int) -> str:
        return await explain_step(self._service, name, step, lambda found: found.explanation.text())

    async def spec(self, request: Request) -> Response:
        """Answer with the session's description as JSON, for download."""
        facts = await read_facts(self._service, request.path_params["name"])
        spec = facts.session.spec
        text = json.dumps(spec.model_dump(mode="json", exclude_defaults=True), indent=2)
        return _kept(f"{text}\n", "application/json", f"{spec.name}.json")

    async def spec_as_yaml(self, request: Request) -> Response:
        """Answer with the same as YAML."""
        facts = await read_facts(self._service, request.path_params["name"])
        spec = facts.session.spec
        text = as_yaml(spec.model_dump(mode="json", exclude_defaults=True))
        return _kept(text, "application/yaml", f"{spec.name}.yaml")

    async def table(self, request: Request) -> Response:
        """Answer with the session's record as a table, for download."""
        name = request.path_params["name"]
        question = HistoryQuestion(None, None, SAVED, None, by_rank=False, attempt=None)
        text = await read_history(self._service, name, question, _csv)
        return _kept(text, "text/csv", f"{name}.csv")

    async def picture(self, request: Request) -> Response:
        """Answer with the learning rate as a picture, for download."""
        name = request.path_params["name"]
        facts = await read_facts(self._service, name)
        record = await read_record(self._service, facts, DRAWN)
        series = _chosen([], facts)
        drawn = await aside(record.picture, series, facts.trained, Look())
        text = str(drawn).replace(
            '<svg class="chart"', '<svg xmlns="http://www.w3.org/2000/svg" class="chart"', 1
        )
        style = "<style>" + _STYLE + "</style>"
        text = text.replace(">", f">{style}", 1)
        return _kept(text, "image/svg+xml", f"{name}.svg")

    async def spark(self, request: Request) -> Response:
        """Answer with a small picture of a session: its learning rate, and its loss behind it."""
        name = request.path_params["name"]
        facts = await read_facts(self._service, name)
        loss = facts.loss
        session, metrics = facts.session, [loss[0]] if loss else []
        start = max(session.horizon - MOST_SPARKED, session.spec.start_step)
        question = HistoryQuestion(start, None, SPARKED, metrics, by_rank=False, attempt=None)
        drawn = await read_history(
            self._service, name, question, lambda past: _spark(past, facts.trained, metrics)
        )
        headers = {"cache-control": "private, max-age=20"}
        return Response(drawn, headers=headers, media_type="image/svg+xml")


def _spark(past: History, trained: int | None, metrics: list[str]) -> str:
    until = past.end if trained is None else trained + 1
    shown = [place for place, step in enumerate(past.steps) if step < until]
    rates = next((row for name, row in past.series.items() if name.endswith("lr")), [])
    values = [past.metrics[each] for each in metrics]
    steps = [past.steps[place] for place in shown]
    return drawing.small_picture(
        steps,
        [rates[place] for place in shown] if rates else [],
        [row[place] for row in values for place in shown],
    )


_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#555}.grid{stroke:#ddd}"
    ".curve{fill:none;stroke-width:2}.c0{stroke:#2f62d9}.c1{stroke:#c2410c}.c2{stroke:#15803d}"
    ".c3{stroke:#7c3aed}.c4{stroke:#a16207}.c5{stroke:#0e7490}.dashed{stroke-dasharray:5 4}"
    ".over{opacity:.45}.ahead{fill:#2f62d9;opacity:.1}.mark line{stroke:#888;stroke-dasharray:2 3}"
)
"""The styles of a picture outside of a page."""


def _is_held(facts: Facts) -> bool:
    session = facts.session
    return any(
        line.segment_at(session.horizon).frozen is not None for line in session.timelines.values()
    )


def _chosen(wanted: list[str], facts: Facts) -> list[str]:
    """Return the series to draw: those asked for, or the learning rates."""
    known = list(facts.session.timelines)
    chosen = [each for each in wanted if each in known]
    return chosen or [each for each in known if each.endswith("lr")][:6] or known[:1]


def _table(record: Record, series: list[str]) -> tuple[list[str], list[list[object]]]:
    """Return a table of what the charts show for some series: its headings, and some rows."""
    past = record.past
    every = max(len(past.steps) // TABLE, 1)
    heads = ["step", *series, *past.metrics]
    columns = [past.steps, *(past.series[each] for each in series), *past.metrics.values()]
    rows = [list(each) for each in zip(*columns, strict=True)]
    chosen = rows[::every]
    if rows and (not chosen or chosen[-1] is not rows[-1]):
        chosen.append(rows[-1])
    return heads, chosen[::-1]


def _csv(found: History) -> str:
    columns = {"step": found.steps, **found.series, **found.metrics}
    heads = [f"'{each}" if each.startswith(("+", "-", "@", "=")) else each for each in columns]
    rows = zip(*columns.values(), strict=True)
    lines = [",".join("" if each is None else str(each) for each in row) for row in rows]
    return "\n".join([",".join(heads), *lines]) + "\n"


def _kept(text: str, media_type: str, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return Response(text, headers=headers, media_type=media_type)


def _step_in(request: Request, name: str) -> int | None:
    said = request.query_params.get(name, "")
    whole = said.isascii() and said.isdigit() and len(said) < 20
    return int(said) if whole and int(said) <= MAX_STEP else None


KEPT = ("axis", "scale", "over", "attempt")
"""The parameters of an address for the charts; links that change one keep the others."""


def _look_in(request: Request) -> Look:
    said = request.query_params
    unit: Unit = next((each for each in UNITS if each == said.get("axis")), "step")
    return Look(unit, said.get("scale") == "log")


def _shows_over(request: Request) -> bool:
    return request.query_params.get("over") != "no"


def _attempt_in(request: Request) -> int | None:
    found = _step_in(request, "attempt")
    return found or None
