"""How a training compares with its template's family: the finished sessions of that version."""

from collections.abc import Sequence

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from pacesetter_service.api.callers import unless_gone
from pacesetter_service.api.context import Names, Service, SessionName
from pacesetter_service.core.session import Session
from pacesetter_service.insight.collapse import Judgement
from pacesetter_service.runtime.families import Kin, step_of
from pacesetter_service.runtime.queries.family import read_family as read

router = APIRouter(prefix="/v1/sessions/{name}/family", tags=["events"])


class FamilyCurveView(BaseModel):
    """The loss by hundredths of the training, and the loss that its family suggests."""

    steps: list[int] = Field(description="the last step of each hundredth that was measured")
    losses: list[float] = Field(description="the mean of what was measured in it")
    low: list[float] = Field(description="the lowest that it could be in one hundredth")
    high: list[float] = Field(description="the highest")


class DepartureView(BaseModel):
    """One departure of a training from its family."""

    since: int = Field(description="about the first step at which it was too far")
    found: int = Field(description="the step up to which it was measured when that could be seen")
    apart: float = Field(
        description="by which part of the loss it was above what was expected; below 0: under it"
    )
    back: int | None = Field(
        description="the step at which it was near its family again; null if it is not"
    )


class KinView(BaseModel):
    """One loss of a training, judged by its family, or why it is not."""

    metric: str | None = Field(description="the loss; null if none was reported")
    judged: bool = Field(description="whether it is judged")
    reason: str | None = Field(
        description="why it is not: `no_template`, `no_end`, `no_loss`, `few_members`,"
        " `another_path` or `too_noisy`; null if it is"
    )
    message: str = Field(description="the same in words, and what helps; empty if it is judged")
    members: list[str] = Field(description="the finished sessions that it is judged by")
    least: float | None = Field(
        description="the lasting shift that can be told from scatter, as a part of the loss"
    )
    until: int | None = Field(
        description="the first step that is not judged, because its learning rate is another than"
        " the family's; null if there is none"
    )
    curve: FamilyCurveView | None = Field(description="what is compared; null if nothing is")
    departures: list[DepartureView] = Field(description="when it left, in their order")


class FamilyView(BaseModel):
    """How a training compares with its family."""

    session: str = Field(description="the session's name")
    template: str | None = Field(description="the version of the template; null without one")
    losses: list[KinView] = Field(description="each of its losses, four at most")


@router.get("", response_model=FamilyView)
async def read_family(
    name: SessionName, request: Request, service: Service, names: Names
) -> FamilyView:
    """Compare a training's losses with those of the finished sessions of its template's version.

    A departure from the family is reported as an event and a notice (`left_family`) as soon as it
    is seen. This call shows what is compared, or why nothing is.
    """
    return await unless_gone(request, read(service, name, _view, names))


def _view(session: Session, found: Sequence[Kin]) -> FamilyView:
    return FamilyView(
        session=session.spec.name,
        template=found[0].template,
        losses=[_kin(session, each) for each in found],
    )


def _kin(session: Session, kin: Kin) -> KinView:
    judgement = kin.judgement
    return KinView(
        metric=kin.metric,
        judged=judgement is not None,
        reason=kin.reason,
        message=kin.message,
        members=list(kin.members),
        least=kin.least,
        until=kin.until,
        curve=None if judgement is None else _curve(session, judgement),
        departures=[
            DepartureView(
                since=step_of(session, each.since),
                found=step_of(session, each.found + 1) - 1,
                apart=each.apart,
                back=None if each.back is None else step_of(session, each.back),
            )
            for each in (() if judgement is None else judgement.departures)
        ],
    )


def _curve(session: Session, judgement: Judgement) -> FamilyCurveView:
    expected, reach = judgement.expected, judgement.reach
    return FamilyCurveView(
        steps=[step_of(session, cell + 1) - 1 for cell in judgement.cells.tolist()],
        losses=judgement.losses.tolist(),
        low=(expected * (1 - reach)).tolist(),
        high=(expected * (1 + reach)).tolist(),
    )
