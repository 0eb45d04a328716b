"""The catalogues: all kinds of schedules, controllers and actions, one by one or in pages."""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field, JsonValue
from pydantic_core import to_json

from pacesetter_service.api import paging
from pacesetter_service.catalogue import kinds as catalogue
from pacesetter_service.core.schedules.out_of_range import OutOfRange

router = APIRouter(prefix="/v1")

MOST = 500
"""The most kinds in one answer, and the default: enough for all of them."""

Kind = Annotated[str, Path(description="the kind's name, such as `cosine`")]
KindQuery = Annotated[
    str | None,
    Query(
        max_length=128,
        description="kinds by their names: `*` stands for any characters and `?` for one, as in"
        " `torch.*`; without it all",
    ),
]
LimitQuery = Annotated[int, Query(ge=1, le=MOST, description="how many kinds there may be")]
TokenQuery = Annotated[
    str, Query(max_length=256, description="the `next_page_token` of the page before")
]


class _Described(BaseModel):
    """The description that every kind has."""

    kind: str = Field(description="its name, as it is written in a spec or an order")
    description: str = Field(description="what it does, for people")
    formula: str = Field(description="its law or rule in one line")
    parameters: dict[str, JsonValue] = Field(description="the JSON schema of its parameters")
    example: dict[str, JsonValue] = Field(description="a typical use, to be sent as it is")


class ScheduleKind(_Described):
    """A kind of schedule."""

    family: Literal["named", "building block"] = Field(
        description="whether it stands for a composition of others"
    )
    source: str = Field(description="the paper or the library's function that it comes from")
    out_of_range: OutOfRange = Field(description="what its example does past its end")


class ControllerKind(_Described):
    """A kind of controller."""

    family: Literal["rule", "preset"] = Field(
        description="whether it is a rule of its own, or one under another library's names"
    )
    source: str = Field(description="the paper or the library's class that it comes from")
    guards: bool = Field(description="whether it sees what a metric with `nan` `guard` keeps back")
    watches: list[str] = Field(description="the metrics that its example reads")


class ActionKind(_Described):
    """A kind of action: what an operator can order."""

    every_channel: bool = Field(
        description="whether momentum and other hyperparameters follow too, and not the rate alone"
    )


class SchedulePage(BaseModel):
    """Kinds of schedules, by name."""

    schedules: list[ScheduleKind] = Field(description="the kinds, by name")
    next_page_token: str | None = Field(description=paging.NEXT)


class ControllerPage(BaseModel):
    """Kinds of controllers, by name."""

    controllers: list[ControllerKind] = Field(description="the kinds, by name")
    next_page_token: str | None = Field(description=paging.NEXT)


class ActionPage(BaseModel):
    """Kinds of actions, by name."""

    actions: list[ActionKind] = Field(description="the kinds, by name")
    next_page_token: str | None = Field(description=paging.NEXT)


# Not `async`: describing every kind for the first time takes longer than other calls may wait.
@router.get("/schedules", response_model=SchedulePage, tags=["schedules"])
def list_schedules(
    kind: KindQuery = None, limit: LimitQuery = MOST, page_token: TokenQuery = ""
) -> Response:
    """List the kinds of schedules, each with its law, parameters, source and an example."""
    names = _matching(catalogue.schedules(), kind)
    return _page("schedules", names, catalogue.describe_schedule, limit, page_token)


@router.get("/schedules/{kind}", response_model=ScheduleKind, tags=["schedules"])
def read_schedule(kind: Kind) -> Response:
    """Describe one kind of schedule."""
    return _one(catalogue.describe_schedule(kind))


@router.get("/controllers", response_model=ControllerPage, tags=["controllers"])
def list_controllers(
    kind: KindQuery = None, limit: LimitQuery = MOST, page_token: TokenQuery = ""
) -> Response:
    """List the kinds of controllers, each with its rule, parameters, source and an example."""
    names = _matching(catalogue.controllers(), kind)
    return _page("controllers", names, catalogue.describe_controller, limit, page_token)


@router.get("/controllers/{kind}", response_model=ControllerKind, tags=["controllers"])
def read_controller(kind: Kind) -> Response:
    """Describe one kind of controller."""
    return _one(catalogue.describe_controller(kind))


@router.get("/actions", response_model=ActionPage, tags=["actions"])
def list_actions(
    kind: KindQuery = None, limit: LimitQuery = MOST, page_token: TokenQuery = ""
) -> Response:
    """List the kinds of actions, each with what it does, its parameters and an example."""
    names = _matching(catalogue.actions(), kind)
    return _page("actions", names, catalogue.describe_action, limit, page_token)


@router.get("/actions/{kind}", response_model=ActionKind, tags=["actions"])
def read_action(kind: Kind) -> Response:
    """Describe one kind of action."""
    return _one(catalogue.describe_action(kind))


def _matching(kinds: Iterable[str], pattern: str | None) -> list[str]:
    return [kind for kind in kinds if pattern is None or fnmatchcase(kind, pattern)]


def _page(
    plural: str,
    names: Iterable[str],
    describe: Callable[[str], Mapping[str, Any]],
    limit: int,
    page_token: str,
) -> Response:
    last = paging.place_in(page_token)
    left = [name for name in names if name > last]
    shown = left[:limit]
    token = paging.token_of(shown[-1]) if len(left) > limit else None
    return _one({plural: [describe(name) for name in shown], "next_page_token": token})


def _one(content: Mapping[str, Any]) -> Response:
    return Response(to_json(content), media_type="application/json")
