"""Managing a session as a whole: labels, fork, end, archive, and taking steps back."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus

from pydantic import JsonValue, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.core.commands import Finish
from pacesetter_service.core.ending import Outcome
from pacesetter_service.core.errors import PacesetterError
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.spec import LabelName, LabelValue
from pacesetter_service.core.tokens import Role
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.charts import read_record
from pacesetter_service.dashboard.drawing import Line, Mark, chart
from pacesetter_service.dashboard.facts import Facts, read_facts
from pacesetter_service.dashboard.forms import read_form
from pacesetter_service.dashboard.mistakes import mistakes_in
from pacesetter_service.dashboard.orders import FieldError
from pacesetter_service.dashboard.persistence import persistently
from pacesetter_service.dashboard.twins import table_of
from pacesetter_service.dashboard.visitors import refuse_below, refuse_name, visitor_of
from pacesetter_service.runtime import forks, operator, trainer
from pacesetter_service.runtime.forks import ForkPlan, ForkRehearsal
from pacesetter_service.runtime.operator import TakeBackAnswer
from pacesetter_service.runtime.service import Service

POINTS = 300
"""About how many points a drawn curve has."""

WIDTH = 640
"""The width of a fork's picture, which takes half of the page."""

NEEDED: Mapping[str, Role] = {
    "labels": "operator",
    "fork": "trainer",
    "finish": "trainer",
    "take-back": "operator",
    "archive": "operator",
    "purge": "admin",
}
"""The role that each of these requires; the API requires the same."""

_LABELS: TypeAdapter[dict[LabelName, LabelValue]] = TypeAdapter(dict[LabelName, LabelValue])
_DESCRIPTION: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fork would do, with the series to draw, or why it would be refused."""

    found: ForkRehearsal | None = None
    series: str = ""
    picture: str = ""
    refused: tuple[str, ...] = ()


class Manage:
    """The page that manages a session."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._done = {
            "labels": self._relabel,
            "fork": self._fork,
            "finish": self._finish,
            "take-back": self._take_back,
            "archive": self._archive,
            "purge": self._purge,
        }

    async def show(self, request: Request) -> Response:
        """Show the forms, and what each would do."""
        return await self._page(request, {}, ())

    async def change(self, request: Request) -> Response:
        """Do what a form says, or show what it would do."""
        what = request.path_params["what"]
        if what not in NEEDED:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        refuse_below(NEEDED[what], visitor_of(request))
        form = await read_form(request)
        if what == "fork" and form.get("do") != "fork":
            return await self._page(request, form, ())
        try:
            return await persistently(lambda: self._done[what](request, form))
        except (PacesetterError, ValidationError, FieldError) as error:
            said = mistakes_in(error) if isinstance(error, ValidationError) else (str(error),)
            return await self._page(request, form, said)

    async def _relabel(self, request: Request, form: Mapping[str, str]) -> Response:
        name = request.path_params["name"]
        shown, wanted = (labels_in(form.get(each, "")) for each in ("labels_shown", "labels"))
        # Others may have set labels since: labels that were left as shown are not written.
        changes: dict[str, str | None] = {each: None for each in shown if each not in wanted}
        changes |= {each: value for each, value in wanted.items() if shown.get(each) != value}
        if changes:
            await operator.relabel_session(self._service, name, changes, visitor_of(request).name)
        return site.redirect(request, f"sessions/{name}")

    async def _finish(self, request: Request, form: Mapping[str, str]) -> Response:
        name, reason = request.path_params["name"], _reason_in(form)
        outcome: Outcome = "failed" if form.get("outcome") == "failed" else "completed"
        said = Finish(outcome=outcome, reason=reason, actor=visitor_of(request).name)
        await trainer.finish(self._service, name, said)
        return site.redirect(request, f"sessions/{name}")

    async def _take_back(self, request: Request, form: Mapping[str, str]) -> Response:
        name, reason = request.path_params["name"], _reason_in(form)
        await operator.take_back(self._service, name, visitor_of(request).name, reason)
        return site.redirect(request, f"sessions/{name}")

    async def _archive(self, request: Request, form: Mapping[str, str]) -> Response:
        name = request.path_params["name"]
        _refuse_another(name, form)
        await operator.archive_session(self._service, name)
        return site.redirect(request, f"sessions/{name}")

    async def _purge(self, request: Request, form: Mapping[str, str]) -> Response:
        name = request.path_params["name"]
        _refuse_another(name, form)
        await operator.purge_session(self._service, name, visitor_of(request).name)
        return site.redirect(request, "")

    async def _fork(self, request: Request, form: Mapping[str, str]) -> Response:
        plan = _plan_in(request, form)
        await forks.fork_session(self._service, request.path_params["name"], plan)
        return site.redirect(request, f"sessions/{plan.name}")

    async def _page(
        self, request: Request, form: Mapping[str, str], mistakes: tuple[str, ...]
    ) -> Response:
        name = request.path_params["name"]
        facts = await read_facts(self._service, name)
        spec = facts.session.spec
        open_again, closed = await self._open_again(name)
        labels = "\n".join(f"{key}: {value}" for key, value in spec.labels.items())
        said = {
            "labels": labels,
            "labels_shown": labels,
            "new_name": "",
            "step": str(facts.session.horizon),
            "description": "",
            "reason": "",
            **form,
        }
        return site.show(
            request,
            "manage.html",
            status=HTTPStatus.UNPROCESSABLE_ENTITY if mistakes else HTTPStatus.OK,
            name=name,
            facts=facts,
            session=facts.session,
            said=said,
            mistakes=mistakes,
            what=request.path_params.get("what", ""),
            needed=NEEDED,
            open_again=open_again,
            closed=closed,
            effect=await self._effect(request, facts, said),
        )

    async def _open_again(self, name: str) -> tuple[TakeBackAnswer | None, str]:
        try:
            return await operator.rehearse_take_back(self._service, name), ""
        except PacesetterError as refused:
            return None, str(refused)

    async def _effect(self, request: Request, facts: Facts, said: Mapping[str, str]) -> Effect:
        """Return what a fork would do: its curve beside the session's, or why it is refused."""
        if not visitor_of(request).may(NEEDED["fork"]):
            return Effect()
        try:
            plan = _plan_in(request, said)
            plan = plan if plan.name else replace(plan, name=_free_name(facts.name))
            found = await forks.rehearse_fork(self._service, facts.name, plan, lambda each: each)
            record = await read_record(self._service, facts, POINTS)
        except ValidationError as error:
            return Effect(refused=mistakes_in(error))
        except (PacesetterError, FieldError) as error:
            return Effect(refused=(str(error),))
        past = record.past
        series = next(
            (each for each in past.series if each.endswith("lr")), next(iter(past.series))
        )
        steps, sealed, later = record.trace(series)
        own = found.after
        rates = own.block[own.names.index(series)].tolist()
        label = f"{series} of {facts.name} (dashed from where it is a forecast), and of the fork"
        lines = [
            Line(series, steps, sealed, 0),
            Line(series, steps, later, 0, "dashed before"),
            Line(f"{series} of the fork", own.steps, rates, 1),
        ]
        picture = chart(
            lines,
            label=label,
            marks=[Mark(found.step, "attempt", f"The fork begins at step {found.step}.")],
            from_zero=True,
            width=WIDTH,
        )
        return Effect(found, series, picture + table_of(lines))


def _free_name(name: str) -> str:
    """Return a name for a rehearsal before the visitor gives one; most likely no session has it."""
    return f"{name[:110]}-{secrets.token_hex(8)}"


def _plan_in(request: Request, form: Mapping[str, str]) -> ForkPlan:
    """Return the fork that a form describes.

    Raises:
        FieldError: A field cannot be read.
        OutOfScopeError: Its name is outside of the visitor's scope.
    """
    new = form.get("new_name", "").strip()
    if new:
        refuse_name(new, visitor_of(request))
    return ForkPlan(
        name=new,
        step=_step_in(form),
        labels=None,
        description=_description_in(form),
        attempt_key="",
        actor=visitor_of(request).name,
    )


def labels_in(text: str) -> dict[str, str]:
    """Return the labels in a text with one per line, `name: value`.

    Raises:
        FieldError: A line is not a label.
        pydantic.ValidationError: A label is not valid.
    """
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, value = line.partition(":")
        if not colon:
            raise FieldError("labels", f"Write `name: value` in each line; this is none: {line}")
        found[name.strip()] = value.strip()
    return _LABELS.validate_python(found)


def _step_in(form: Mapping[str, str]) -> int:
    text = form.get("step", "").strip().replace(",", "")
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= MAX_STEP):
        raise FieldError("step", "From which step: write a whole number.")
    return int(text)


def _description_in(form: Mapping[str, str]) -> dict[str, JsonValue]:
    text = form.get("description", "").strip()
    if not text:
        return {}
    try:
        return _DESCRIPTION.validate_python(json.loads(text))
    except ValueError as error:
        if isinstance(error, ValidationError):
            raise
        raise FieldError("description", f"What differs: this is no JSON: {error}.") from error


def _reason_in(form: Mapping[str, str]) -> str:
    reason = form.get("reason", "").strip()
    if not reason:
        raise FieldError("reason", "Write down why: who reads the record later will want to know.")
    return reason


def _refuse_another(name: str, form: Mapping[str, str]) -> None:
    if form.get("name", "").strip() != name:
        raise FieldError("name", f"Write the name of the session, {name}, to say that it is meant.")
