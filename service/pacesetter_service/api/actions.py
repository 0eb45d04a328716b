"""Actions: changing a running session."""

from typing import Annotated, NamedTuple

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, WithJsonSchema
from pydantic_core import to_json

from pacesetter_service.api import bodies, paging, wire
from pacesetter_service.api.answers import SampledCurve
from pacesetter_service.api.callers import unless_gone
from pacesetter_service.api.context import Actor, OrderBounds, Service, SessionName
from pacesetter_service.api.openapi import body_of
from pacesetter_service.core.actions import Action, Order
from pacesetter_service.core.commands import Act
from pacesetter_service.core.model import AnyOf, Flag, Step, Written, jsonable
from pacesetter_service.runtime import operator
from pacesetter_service.runtime.operator import ActionAnswer, Rehearsal
from pacesetter_service.runtime.queries import sessions

router = APIRouter(prefix="/v1/sessions/{name}/actions", tags=["actions"])

Key = Annotated[
    str,
    Written(
        r"^[\x21-\x7e]{0,128}$",
        "Write at most 128 characters of ASCII, all of them printable: no blanks",
    ),
    Header(alias="Idempotency-Key", description="what makes a repeated order the same one"),
]


class OrderFields(BaseModel):
    """The fields of an order besides its action."""

    model_config = ConfigDict(extra="ignore")

    at: Step | None = Field(default=None, description="the first step that it holds for")
    dry_run: Flag = Field(default=False, description="only show what it would do")
    if_revision: Step | None = Field(
        default=None,
        description="refuse it if the session's revision is another one by now: `revision` of a"
        " dry run, for an order that is to be what that has shown",
    )


class OrderView(BaseModel):
    """An order as it was given: by whom, why, and in words."""

    id: int = Field(description="the order's number in its session, from 1")
    at: int = Field(description="the first step that it holds for")
    action: Annotated[dict[str, JsonValue], WithJsonSchema(AnyOf(Action).described())] = Field(
        description="what was ordered, as it was posted"
    )
    actor: str = Field(description="who ordered it")
    reason: str = Field(description="why, as that one said")
    text: str = Field(description="the order in words")


class OrderList(BaseModel):
    """Pending orders."""

    orders: list[OrderView] = Field(description="the orders, by step")
    next_page_token: str | None = Field(default=None, description=paging.WHOLE)


class DryRun(BaseModel):
    """What an action would do: curves from its step on, before and after, and what to beware of.

    A curve ends before the first step whose value no trainer could use, if there is one.
    """

    effective_step: int = Field(description="the first step that the order would hold for")
    steps_away: int | None = Field(
        description="how many steps the foremost trainer makes before that; null if it is not known"
    )
    seconds_away: float | None = Field(
        description="about how many seconds that takes; null if it is not known"
    )
    start: int = Field(description="the first step of both curves")
    before: SampledCurve = Field(description="the curve without the order")
    after: SampledCurve = Field(description="the curve with the order")
    warnings: list[str] = Field(description="what to beware of")
    revision: int = Field(
        description="of the session that was looked at: `if_revision` of an order says that it is"
        " meant for that"
    )


class Asked(NamedTuple):
    """An action, and the other fields of its order."""

    action: Action
    fields: OrderFields


_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


def asked_for(body: JsonValue) -> Asked:
    """Read an order.

    Raises:
        pydantic.ValidationError: It is not an order.
    """
    said = _OBJECT.validate_python(body)
    fields = OrderFields.model_validate(said)
    action = {name: value for name, value in said.items() if name not in OrderFields.model_fields}
    return Asked(Action.parse(action), fields)


@router.post(
    "",
    status_code=201,
    response_model=ActionAnswer | DryRun,
    openapi_extra=body_of("Action"),
)
async def take_action(
    name: SessionName,
    body: Annotated[Asked, bodies.read_by(asked_for)],
    request: Request,
    service: Service,
    bounds: OrderBounds,
    idempotency_key: Key = "",
    actor: Actor = "anonymous",
) -> ActionAnswer | Response:
    """Change the learning rate of a running session.

    The body is an action with its parameters, and optionally `at`, the first step that it holds for
    (without it, the first step that was not handed out yet; the answer names it), and `dry_run`.
    With an Idempotency-Key header, repeating the call changes nothing more and answers the same.
    """
    action, fields = body
    act = Act(action, fields.at, actor, idempotency_key, bounds, fields.if_revision)
    if fields.dry_run:
        content = await unless_gone(request, operator.rehearse(service, name, (act,), _rehearsal))
        return Response(content, status_code=201, media_type="application/json")
    return await operator.order(service, name, act)


@router.get("")
async def list_orders(name: SessionName, service: Service) -> OrderList:
    """List the pending orders, by step."""
    return OrderList(orders=[_view(order) for order in await sessions.list_orders(service, name)])


@router.delete("/{number}", status_code=204)
async def cancel_order(
    name: SessionName,
    number: int,
    service: Service,
    bounds: OrderBounds,
    actor: Actor = "anonymous",
) -> None:
    """Cancel an order whose step was not handed out yet; with bounds, only one's own orders."""
    await operator.cancel_order(service, name, number, actor, own=bounds is not None)


def _view(order: Order) -> OrderView:
    return OrderView(
        id=order.id,
        at=order.at,
        action=jsonable(order.action),
        actor=order.actor,
        reason=order.action.reason,
        text=order.action.cause(),
    )


def _rehearsal(found: Rehearsal) -> bytes:
    answer = DryRun(
        effective_step=found.step,
        **found.distance._asdict(),
        start=found.step,
        before=SampledCurve(**wire.curve(found.before)),
        after=SampledCurve(**wire.curve(found.after)),
        warnings=found.warnings,
        revision=found.revision,
    )
    return to_json(answer)
