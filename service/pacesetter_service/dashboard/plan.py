"""The page of a plan: the loss under other schedules, and ordering one of them."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from keyword import iskeyword
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.core.commands import Act
from pacesetter_service.core.errors import PacesetterError, PlanStaleError
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.control import key_in
from pacesetter_service.dashboard.facts import Facts, read_facts
from pacesetter_service.dashboard.forms import read_form
from pacesetter_service.dashboard.mistakes import mistakes_in
from pacesetter_service.dashboard.orders import FieldError
from pacesetter_service.dashboard.persistence import persistently
from pacesetter_service.dashboard.plan_drawing import Foresight, span_of_ends, whisker
from pacesetter_service.dashboard.plan_form import GOALS, asked_in, question_in, said_in
from pacesetter_service.dashboard.rehearsals import draw_rehearsal
from pacesetter_service.dashboard.timeline import latest_events
from pacesetter_service.dashboard.visitors import refuse_name, visitor_of
from pacesetter_service.insight.planner import Outlook
from pacesetter_service.runtime import forks, operator, planning
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.forks import ForkPlan
from pacesetter_service.runtime.operator import Rehearsal
from pacesetter_service.runtime.plans import Plan
from pacesetter_service.runtime.queries import plan as plans
from pacesetter_service.runtime.queries.history import HistoryQuestion, read_history
from pacesetter_service.runtime.queries.plan import Answer, Probe, read_plan, series_of
from pacesetter_service.runtime.service import Service

POINTS = 500
"""About how many measured points are drawn."""

DRAWN = 3
"""How many of the best candidates are drawn at first, beside the current plan."""

ROWS = 24
"""About how many rows the table of a candidate's curve has."""

PROBE_MEASURED = 12
"""How often the lines that train a probe measure it."""

TITLES: Mapping[str, str] = {
    "no_decay": "No decay was seen yet",
    "too_far": "The end is too far ahead",
    "several_epochs": "The data is seen more than once",
    "fine_tuning": "This is fine-tuning",
    "not_a_loss": "This metric is no loss",
    "not_falling": "This metric does not fall",
    "too_noisy": "This metric scatters too much",
    "too_few": "Too little was measured",
    "not_reached": "That loss is not come to",
    "does_not_follow": "The measurements do not follow the law",
}
"""Obstacles to a plan, in few words."""

WHY = "Write down why: who reads the record later will want to know."

MISTAKES = (PacesetterError, ArgumentError, ValidationError, FieldError)
"""Errors that the page shows beside the form."""


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate as a row of a table.

    Attributes:
        index: Its index in the plan.
        outlook: The candidate, and what is expected of it.
        gain: By how much lower it ends than without orders, if known.
        reasons: What speaks for and against it.
        whisker: The picture of its end within its band; empty if no loss is predicted.
    """

    index: int
    outlook: Outlook
    gain: float | None
    reasons: list[str]
    whisker: str

    @property
    def curve(self) -> list[tuple[float, ...]]:
        """Some rows of its curve: step, rate, loss, band, and the loss predicted without rates."""
        found = self.outlook.curve
        if found is None:
            return []
        columns = [found.steps, found.rates, found.losses, found.low, found.high]
        rows = list(zip(*(each.tolist() for each in columns), strict=True))
        every = max(len(rows) // ROWS, 1)
        return [*rows[:-1:every], rows[-1]]


class PlanPages:
    """The pages about plans."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """Show the form, and the plan that it asks for."""
        return await self._page(request, request.query_params)

    async def probe(self, request: Request) -> Response:
        """Create the probe that a plan offers: fork the session, and order a cooldown for it."""
        form, name = await read_form(request), request.path_params["name"]
        if not form.get("reason", "").strip():
            return await self._page(request, form, (WHY,))
        facts = await read_facts(self._service, name)
        said = said_in(form, facts)
        try:
            found = await self._planned(request, facts, said)
            offer = plans.probe_for(found)
            if offer is None or str(offer.step) != form.get("step"):
                message = "The training has gone on: look at the probe that is offered now."
                return await self._page(request, form, (message,))
            reason = form["reason"].strip()
            fork = await persistently(lambda: self._fork(request, offer, reason))
        except MISTAKES as error:
            return await self._page(request, form, _told(error))
        return site.redirect(request, f"sessions/{name}/plan", **asked_in(said), probed=fork)

    async def _fork(self, request: Request, offer: Probe, reason: str) -> str:
        name, visitor = request.path_params["name"], visitor_of(request)
        fork = probe_name(name, offer.step)
        refuse_name(fork, visitor)
        branch = ForkPlan(fork, offer.step, None, {}, "", visitor.name)
        info, _ = await forks.fork_session(self._service, name, branch)
        orders = info.session.orders
        fresh = not orders.waiting and info.session.horizon == offer.step
        if fresh:  # otherwise it cools down already
            action = offer.action.model_copy(update={"reason": f"a probe: {reason}"[:1000]})
            # Pressing twice makes one order. After a cancelled order, it makes another one.
            key = f"probe-{offer.step}-{orders.given}"
            act = Act(action, offer.step, visitor.name, key)
            await operator.order(self._service, fork, act)
        return fork

    async def candidate(self, request: Request) -> Response:
        """Show what ordering a candidate would do, or order it."""
        posted = request.method == "POST"
        form = await read_form(request) if posted else dict(request.query_params)
        facts = await read_facts(self._service, request.path_params["name"])
        said, mistake = said_in(form, facts), ""
        try:
            if posted and form.get("reason", "").strip():
                # Before the plan is looked up: a repeated order gets the same answer as before.
                return await self._ordered(request, facts, said, form)
            plan, outlook = await self._chosen(request, facts, said, form.get("plan", ""))
            mistake = WHY if posted else ""
            found = await planning.rehearse_candidate(self._service, facts.name, outlook)
        except MISTAKES as error:
            return self._stale(request, facts, said, error)
        return site.show(
            request,
            "plan_candidate.html",
            status=HTTPStatus.UNPROCESSABLE_ENTITY if mistake else HTTPStatus.OK,
            name=facts.name,
            facts=facts,
            asked=asked_in(said),
            metric=said["metric"],
            plan=plan,
            row=_row(plan, outlook),
            told=plan.effect is None,
            found=found,
            body=_as_json(outlook),
            picture=await draw_rehearsal(self._service, facts.name, found),
            key=key_in(form) or secrets.token_urlsafe(18),
            mistake=mistake,
            untaken=_untaken(facts, found),
        )

    async def _chosen(
        self, request: Request, facts: Facts, said: Mapping[str, str], plan_id: str
    ) -> tuple[Plan, Outlook]:
        return await planning.find_candidate(
            self._service,
            facts.name,
            question_in(said, facts.session),
            plan_id,
            request.path_params["number"],
            visitor_of(request).scope,
        )

    async def _ordered(
        self,
        request: Request,
        facts: Facts,
        said: Mapping[str, str],
        form: Mapping[str, str],
    ) -> Response:
        visitor = visitor_of(request)
        applied = await persistently(
            lambda: planning.apply_plan(
                self._service,
                facts.name,
                question_in(said, facts.session),
                form.get("plan", ""),
                request.path_params["number"],
                reason=form["reason"].strip()[:900],
                actor=visitor.name,
                key=key_in(form),
                names=visitor.scope,
            )
        )
        return site.redirect(
            request,
            f"sessions/{facts.name}",
            ordered=applied.orders[0],
            at=applied.effective_steps[0],
        )

    def _stale(
        self, request: Request, facts: Facts, said: Mapping[str, str], error: Exception
    ) -> Response:
        """Say why a candidate cannot be ordered, and link to the plan as it is now."""
        stale = isinstance(error, PlanStaleError)
        return site.show(
            request,
            "plan_stale.html",
            status=HTTPStatus.CONFLICT if stale else HTTPStatus.UNPROCESSABLE_ENTITY,
            name=facts.name,
            facts=facts,
            asked=asked_in(said),
            said=_told(error),
        )

    async def _planned(self, request: Request, facts: Facts, said: Mapping[str, str]) -> Answer:
        question = question_in(said, facts.session)
        scope = visitor_of(request).scope
        return await read_plan(self._service, facts.name, question, lambda found: found, scope)

    async def _page(
        self, request: Request, form: Mapping[str, str], mistakes: tuple[str, ...] = ()
    ) -> Response:
        name = request.path_params["name"]
        # Read this first, so that the page hears of events meanwhile, and is read again.
        newest = await latest_events(self._service, name, 1)
        facts = await read_facts(self._service, name)
        said = said_in(form, facts)
        foresight, refused = None, tuple[str, ...]()
        # A script reads only where the training is: the plan on the page stays as it is.
        if said["metric"] and "live" not in request.query_params:
            try:
                found = await self._planned(request, facts, said)
                foresight = await self._foresight(request, found)
            except MISTAKES as error:
                refused = _told(error)
        wrong = mistakes or (refused and _was_asked(form))
        return site.show(
            request,
            "plan.html",
            status=HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK,
            name=facts.name,
            facts=facts,
            session=facts.session,
            said=said,
            asked=asked_in(said),
            goals=GOALS,
            known=sorted(facts.session.reported),
            groups=[each.group for each in facts.session.spec.series() if each.channel == "lr"],
            mistakes=(*mistakes, *refused),
            reason=form.get("reason", ""),
            probed=form.get("probed", ""),
            after=(newest[0].seq or 0) if newest else 0,
            **_shown(facts, foresight),
        )

    async def _foresight(self, request: Request, found: Answer) -> Foresight:
        metric, start = found.question.metric, found.session.spec.start_step
        question = HistoryQuestion(start, None, POINTS, [metric], by_rank=False, attempt=None)
        past = await read_history(self._service, found.plan.session, question, lambda each: each)
        series = series_of(found.session, found.question.group)
        whole = request.query_params.get("view") == "whole"
        return Foresight(found, past, series, _drawn(request, found.plan), whole)


def probe_name(name: str, step: int) -> str:
    """Return the name of a probe's fork, here and in `pacesetter.torch.probe`."""
    return f"{name}-probe-{step}"


def _shown(facts: Facts, foresight: Foresight | None) -> dict[str, Any]:
    """Return what the page shows of a plan."""
    if foresight is None:
        return {"plan": None, "foresight": None}
    found, plan = foresight.found, foresight.found.plan
    span = span_of_ends(plan.outlooks) if foresight.told else (0.0, 0.0)
    offer = plans.probe_for(found)
    return {
        "plan": plan,
        "foresight": foresight,
        "total": found.total,
        "told": foresight.told,
        "titles": TITLES,
        "rows": [_row(plan, each, span) for each in plan.outlooks],
        "unknown": plans.unknowns(found),
        "offer": offer,
        "fork": None if offer is None else probe_name(facts.name, offer.step),
        "lines": "" if offer is None else probe_lines(facts.name, found.question.metric, offer),
    }


def probe_lines(name: str, metric: str, offer: Probe) -> str:
    """Return the Python that trains a probe."""
    every = max(offer.steps // PROBE_MEASURED, 1)
    plain = metric.isidentifier() and not iskeyword(metric)
    said = f"{metric}=evaluate(model)" if plain else f"**{{{metric!r}: evaluate(model)}}"
    return f"""\
from pacesetter.torch import probe

if scheduler.last_epoch == {offer.step}:
    with probe(
        model, optimizer, {name!r}, step={offer.step}, steps={offer.steps}
    ) as fork:
        for step in fork:
            train(next(batches))
            if step % {every} == 0:
                fork.report(step, {said})
"""


def _row(plan: Plan, outlook: Outlook, span: tuple[float, float] = (0.0, 0.0)) -> Row:
    told = plan.effect is None
    return Row(
        plan.outlooks.index(outlook),
        outlook,
        plans.gain_of(plan, outlook) if told and outlook.candidate.orders else None,
        plans.reasons_for(plan, outlook),
        whisker(outlook, *span) if told else "",
    )


def _drawn(request: Request, plan: Plan) -> list[int]:
    """Return the candidates to draw: the chosen ones, or the best and the current plan."""
    can = [index for index, each in enumerate(plan.outlooks) if each.curve is not None]
    chosen = {each for each in request.query_params.getlist("show") if each.isascii()}
    if chosen:
        return [index for index in can if str(index) in chosen]
    planned = [index for index in can if not plan.outlooks[index].candidate.orders]
    return sorted({*can[:DRAWN], *planned})


def _as_json(outlook: Outlook) -> str:
    """Return a candidate's orders as the API takes them."""
    said = [
        {**each.action.model_dump(mode="json", exclude_defaults=True), "at": each.at}
        for each in outlook.candidate.orders
    ]
    return json.dumps(said, indent=2)


def _untaken(facts: Facts, found: Rehearsal) -> bool:
    """Return whether the orders would hold sooner if sealed steps were taken back."""
    session = facts.session
    return session.horizon > session.held and found.step == session.horizon


def _was_asked(form: Mapping[str, str]) -> bool:
    return "metric" in form


def _told(error: Exception) -> tuple[str, ...]:
    if isinstance(error, ValidationError):
        return mistakes_in(error)
    return (error.message if isinstance(error, ArgumentError) else str(error),)
