"""Changing a session: each order is shown before it is given, with the resulting curve."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.core.commands import Act
from pacesetter_service.core.errors import PacesetterError
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.facts import read_facts
from pacesetter_service.dashboard.forms import read_fields, status_of
from pacesetter_service.dashboard.mistakes import mistakes_in
from pacesetter_service.dashboard.orders import (
    FORMS,
    FieldError,
    Form,
    action_of,
    forms_for,
    suggested,
)
from pacesetter_service.dashboard.persistence import persistently
from pacesetter_service.dashboard.rehearsals import draw_rehearsal
from pacesetter_service.dashboard.visitors import visitor_of
from pacesetter_service.runtime import operator
from pacesetter_service.runtime.operator import Rehearsal
from pacesetter_service.runtime.service import Service

_KEY = re.compile(r"[A-Za-z0-9_-]{16,64}")


@dataclass(frozen=True, slots=True)
class Effect:
    """What an order would do, or why it would be refused."""

    found: Rehearsal | None = None
    picture: str = ""
    refused: tuple[str, ...] = ()


class Control:
    """The pages that change a session."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """Show the form of an order, with the effect that it would have as filled in."""
        form = _form_in(request)
        facts = await read_facts(self._service, request.path_params["name"])
        said = suggested(form, facts.session)
        said |= {
            each: value for each, value in request.query_params.items() if each in {*said, "at"}
        }
        effect = Effect()
        if form.ready or all(said.get(each.name) for each in form.fields if each.needed):
            effect = await self._effect(request, form, said, [])
        return await self._page(request, form, said, [], effect)

    async def order(self, request: Request) -> Response:
        """Show what an order would do, or give it."""
        form, fields = _form_in(request), await read_fields(request)
        said = {name: text for name, text in fields if name != "groups"}
        groups = [text for name, text in fields if name == "groups"]
        if said.get("do") != "order":
            effect = await self._effect(request, form, said, groups)
            return await self._page(request, form, said, groups, effect)
        if not said.get("reason", "").strip():
            effect = await self._effect(request, form, said, groups)
            mistake = "Write down why: who reads the record later will want to know."
            return await self._page(request, form, said, groups, effect, mistake)
        try:
            name, act = request.path_params["name"], _act(request, form, said, groups)
            answer = await persistently(lambda: operator.order(self._service, name, act))
        except (PacesetterError, ValidationError, FieldError) as error:
            effect = Effect(refused=_reasons(error))
            return await self._page(request, form, said, groups, effect)
        return site.redirect(
            request,
            f"sessions/{request.path_params['name']}",
            ordered=answer.id,
            at=answer.effective_step,
        )

    async def cancel(self, request: Request) -> Response:
        """Cancel a pending order."""
        name, number = request.path_params["name"], request.path_params["number"]
        await read_fields(request)
        actor = visitor_of(request).name
        await persistently(lambda: operator.cancel_order(self._service, name, number, actor))
        return site.redirect(request, f"sessions/{name}", cancelled=number)

    async def _effect(
        self, request: Request, form: Form, said: Mapping[str, str], groups: list[str]
    ) -> Effect:
        name = request.path_params["name"]
        try:
            act = _act(request, form, said, groups)
            found = await operator.rehearse(self._service, name, (act,), lambda each: each)
            return Effect(found, await draw_rehearsal(self._service, name, found))
        except (PacesetterError, ValidationError, FieldError) as error:
            return Effect(refused=_reasons(error))

    async def _page(
        self,
        request: Request,
        form: Form,
        said: Mapping[str, str],
        groups: list[str],
        effect: Effect,
        mistake: str = "",
    ) -> Response:
        facts = await read_facts(self._service, request.path_params["name"])
        session = facts.session
        wrong = bool(mistake or (effect.refused and request.method == "POST"))
        return site.show(
            request,
            "control.html",
            status=status_of(said, wrong=wrong),
            name=session.spec.name,
            facts=facts,
            session=session,
            form=form,
            forms=forms_for(session),
            said={"at": "", "reason": "", **said},
            groups=groups,
            all_groups=list(session.spec.groups or {}),
            key=key_in(said) or secrets.token_urlsafe(18),
            effect=effect,
            mistake=mistake,
        )


def _form_in(request: Request) -> Form:
    form = FORMS.get(request.path_params["kind"])
    if form is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return form


def _act(request: Request, form: Form, said: Mapping[str, str], groups: list[str]) -> Act:
    """Return the order in a form, with the visitor as its author, given once for each key.

    Raises:
        FieldError: A field cannot be read.
        pydantic.ValidationError: The fields together do not make such an action.
    """
    at = said.get("at", "").strip().replace(",", "")
    if at and not (at.isascii() and at.isdigit() and len(at) < 20 and int(at) <= MAX_STEP):
        raise FieldError("at", "From which step: write a whole number, or nothing for the next.")
    action = action_of(form, said, groups)
    return Act(action, int(at) if at else None, visitor_of(request).name, key_in(said))


def key_in(said: Mapping[str, str]) -> str:
    """Return the key of a form, which shows that it is sent twice; empty if it is invalid."""
    key = said.get("key", "")
    return key if _KEY.fullmatch(key) else ""


def _reasons(error: Exception) -> tuple[str, ...]:
    return mistakes_in(error) if isinstance(error, ValidationError) else (str(error),)
