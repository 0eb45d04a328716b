"""Actions: changing a running session."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.concurrency import run_in_threadpool

from pacesetter_service.api import wire
from pacesetter_service.api.context import Actor, Service, SessionName
from pacesetter_service.core.actions import Action, Order
from pacesetter_service.core.commands import Act, Cancel
from pacesetter_service.core.decide import count_usable, decide
from pacesetter_service.core.events import Ordered
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.forecast import forecast
from pacesetter_service.core.model import MAX_STEP, Flag, Step, jsonable
from pacesetter_service.core.orders import pitfalls
from pacesetter_service.core.schedules import Values
from pacesetter_service.ledger import Change, Entry

router = APIRouter(prefix="/v1/sessions/{name}/actions", tags=["actions"])

Key = Annotated[str, Header(alias="Idempotency-Key", max_length=128, pattern=r"^[\x21-\x7e]*$")]


class OrderFields(BaseModel):
    """What an order says besides its action."""

    model_config = ConfigDict(extra="ignore")

    at: Step | None = Field(default=None, description="the first step that it holds for")
    dry_run: Flag = Field(default=False, description="only show what it would do")


class OrderView(BaseModel):
    """An order as it was taken: by whom, why, and in words."""

    id: int
    at: int
    action: dict[str, JsonValue]
    actor: str
    reason: str
    text: str


class ActionAnswer(BaseModel):
    """From which step on an action holds, its number, and the revision that it made."""

    id: int
    effective_step: int
    revision: int


class DryRun(BaseModel):
    """What an action would do: curves from its step on, before and after, and what to beware of.

    A curve ends before the first step that nobody could train with, if it comes to one.
    """

    effective_step: int
    start: int
    before: dict[str, Any]
    after: dict[str, Any]
    warnings: list[str]


@router.post("", status_code=201)
async def take_action(
    name: SessionName,
    body: Annotated[dict[str, JsonValue], Body()],
    service: Service,
    idempotency_key: Key = "",
    actor: Actor = "somebody",
) -> ActionAnswer | DryRun:
    """Change the learning rate of a running session.

    The body is an action with its parameters, and optionally `at`, the first step that it holds for
    (without it, the first step that was not handed out yet; the answer names it), and `dry_run`.
    With an Idempotency-Key header, repeating the call changes nothing more and answers the same.
    """
    fields = OrderFields.model_validate(body)
    action = Action.parse({k: v for k, v in body.items() if k not in OrderFields.model_fields})
    act = Act(action, fields.at, actor, idempotency_key)
    if fields.dry_run:
        return await run_in_threadpool(_rehearse, await service.ledger.find(name), act)
    outcome = await service.ledger.submit(Change(name, (act,)))
    session = outcome.entry.stored.session
    number, at = session.ordered, fields.at if fields.at is not None else session.horizon
    if idempotency_key:
        number, at, _ = session.keys[idempotency_key]
    return ActionAnswer(id=number, effective_step=at, revision=session.revision)


@router.get("")
async def list_waiting(name: SessionName, service: Service) -> list[OrderView]:
    """List the orders that wait to be carried out, by step."""
    session = (await service.ledger.find(name)).stored.session
    return [_view(order) for order in session.orders]


@router.delete("/{number}", status_code=204)
async def cancel_action(
    name: SessionName, number: int, service: Service, actor: Actor = "somebody"
) -> None:
    """Cancel an order whose step was not handed out yet."""
    await service.ledger.submit(Change(name, (Cancel(number, actor),)))


def _view(order: Order) -> OrderView:
    return OrderView(
        id=order.id,
        at=order.at,
        action=jsonable(order.action),
        actor=order.actor,
        reason=order.action.reason,
        text=order.action.cause(),
    )


REHEARSED = 1000
"""How many steps a dry run shows, if the session does not say how long it is."""


def _rehearse(entry: Entry, act: Act) -> DryRun:
    """Show the curve before and after an order, without giving it."""
    before = entry.stored.session
    events = decide(before, replace(act, key=""))  # an order given before is shown again
    after = evolve_all(before, events)
    [given] = [event.order for event in events if isinstance(event, Ordered)]
    end, total = given.action.settles(given.at), before.spec.total_steps or 0
    wanted = max(total, given.at + REHEARSED, end + 1) - given.at
    count = min(wanted, wire.MAX_CURVE // len(before.timelines), MAX_STEP - given.at)
    curves = forecast(after, given.at, count)
    told = [notice.message for notice in after.notices if notice not in before.notices]
    return DryRun(
        effective_step=given.at,
        start=given.at,
        before=_curve(forecast(before, given.at, count), given.at),
        after=_curve(curves, given.at),
        warnings=[*told, *pitfalls(after, given, curves)],
    )


def _curve(values: dict[str, Values], start: int) -> dict[str, Any]:
    names = list(values)
    block = wire.stacked(values, names)[:, : count_usable(start, values, at_least=0)]
    if block.shape[1] == 0:
        return {"steps": [], "series": {name: [] for name in names}}
    return wire.curve(names, block, start, 500)
