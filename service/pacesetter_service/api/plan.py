"""Plans: the loss under other schedules for the rest of a training, and ordering one of them."""

from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from pydantic_core import PydanticCustomError, to_json

from pacesetter_service.api import bodies
from pacesetter_service.api.actions import Key
from pacesetter_service.api.callers import answer, unless_gone
from pacesetter_service.api.context import Actor, Names, Service, SessionName
from pacesetter_service.api.openapi import body_of
from pacesetter_service.core.actions import AnyAction
from pacesetter_service.core.lengths import StepCount
from pacesetter_service.core.measuring import MetricName
from pacesetter_service.core.model import Checked, Line, Model, Positive, Step
from pacesetter_service.insight.planner import Curve, Outlook, Planned
from pacesetter_service.runtime import planning
from pacesetter_service.runtime.planning import AppliedAnswer
from pacesetter_service.runtime.plans import Plan
from pacesetter_service.runtime.queries import plan as plans
from pacesetter_service.runtime.queries.plan import Answer, Goal, PlanQuestion, Wanted

router = APIRouter(prefix="/v1/sessions/{name}/plan", tags=["actions"])

MOST_CANDIDATES = 16


class PlannedOrder(Model):
    """An order of a candidate: an action, and the step from which it should hold."""

    action: AnyAction = Field(description="as POST …/actions takes it")
    at: Step = Field(description="the first step that it holds for")


class CandidateRequest(Model):
    """One way to go on, for comparison with others."""

    orders: Annotated[tuple[PlannedOrder, ...], Field(min_length=1, max_length=4)] = Field(
        description="what carries it out, in the order in which it is given"
    )
    label: Annotated[Line, Field(max_length=100)] = Field(default="", description="its name")
    total_steps: StepCount | None = Field(
        default=None, description="where the training ends then; by default where the plan says"
    )


class PlanRequest(Checked):
    """What to plan for."""

    metric: MetricName = Field(description="the loss that is to be low at the end")
    goal: Goal = Field(
        default="lowest_loss",
        description="the lowest loss at `total_steps`, the fewest steps to `loss`, or the lowest"
        " loss that `steps` more come to",
    )
    total_steps: StepCount | None = Field(
        default=None,
        description="where the training ends, for `fewest_steps` at the latest; by default where"
        " the session's plan does",
    )
    loss: Positive | None = Field(
        default=None, description="for `fewest_steps`: the loss to come to"
    )
    steps: StepCount | None = Field(default=None, description="for `budget`: how many steps more")
    candidates: (
        Annotated[tuple[CandidateRequest, ...], Field(min_length=1, max_length=MOST_CANDIDATES)]
        | None
    ) = Field(default=None, description="what is compared; looked for by itself if not given")
    group: str | None = Field(
        default=None, max_length=64, description="the parameter group whose rate is meant"
    )
    metric_kind: Literal["loss", "other"] = Field(
        default="loss", description="`other` declines a plan: the law is one of losses"
    )
    stage: Literal["pretraining", "finetuning"] | None = Field(
        default=None,
        description="`finetuning` declines a plan; by default what the label `stage` says",
    )
    epochs: Positive | None = Field(
        default=None,
        description="how often the training goes over its data; by default what"
        " `steps_per_epoch` says",
    )

    def _faults(self) -> Iterator[PydanticCustomError]:
        if (self.goal == "fewest_steps") != (self.loss is not None):
            message = "Give `loss` with the goal fewest_steps, and with no other"
            yield PydanticCustomError("loss_and_goal", message)
        if (self.goal == "budget") != (self.steps is not None):
            message = "Give `steps` with the goal budget, and with no other"
            yield PydanticCustomError("steps_and_goal", message)
        if self.goal == "budget" and self.total_steps is not None:
            message = "The goal budget has its end by `steps`; leave `total_steps` out"
            yield PydanticCustomError("two_ends", message)
        if self.goal == "fewest_steps" and self.candidates is not None:
            message = "The goal fewest_steps looks for candidates itself; leave `candidates` out"
            yield PydanticCustomError("candidates_and_goal", message)

    def question(self) -> PlanQuestion:
        """Return the question for the use case."""
        candidates = self.candidates
        return PlanQuestion(
            self.metric,
            self.goal,
            self.total_steps,
            self.loss,
            self.steps,
            None if candidates is None else tuple(map(_wanted, candidates)),
            self.group,
            self.metric_kind == "loss",
            self.stage,
            self.epochs,
        )


class ApplyRequest(Model):
    """A candidate to order, from a plan that was made before."""

    plan: Annotated[str, Field(max_length=64)] = Field(description="the `id` of the plan")
    request: PlanRequest = Field(description="what was planned for, as it was sent")
    candidate: Annotated[int, Field(ge=0, lt=256)] = Field(description="its index in the answer")
    # The recorded reason also contains the plan, and what was expected of it.
    reason: Annotated[Line, Field(max_length=700)] = Field(
        default="", description="why, for the record"
    )


class PlanFinding(BaseModel):
    """Why a plan says less than was asked for."""

    code: str = Field(description="for programs; stays as it is")
    message: str = Field(description="what is the matter, and what helps")
    effect: Literal["nothing", "ranking"] = Field(description="what is left of the plan")


class PlanSource(BaseModel):
    """A training that the plan rests on."""

    session: str = Field(description="its name")
    relation: Literal["own", "fork", "donor"] = Field(
        description="whether it is the one that is planned, shares steps with it, or is of the same"
        " template"
    )
    measured: int = Field(description="how many measurements of its own it has")
    decayed: int = Field(description="how many of them at a rate far below the peak")
    last_step: int | None = Field(description="the last step that it was measured at")


class PlanLeftOut(BaseModel):
    """A session that says nothing about this one, and why."""

    session: str = Field(description="its name")
    reason: str = Field(description="why it says nothing")


class PlanBand(BaseModel):
    """An expected loss, and a band that holds 9 of 10."""

    loss: float = Field(description="the mean of the metric that is expected")
    low: float = Field(description="where the band of 9 in 10 begins")
    high: float = Field(description="where it ends")


class PlanCurve(BaseModel):
    """The expected curve, step by step."""

    steps: list[int] = Field(description="the steps; the last is the first behind the end")
    lr: list[float] = Field(description="the learning rate of each, as it would be sealed")
    loss: list[float] = Field(description="the loss that is expected before each")
    low: list[float] = Field(description="where the band of each begins")
    high: list[float] = Field(description="where it ends")
    blind: list[float] | None = Field(
        description="what a law expects that knows no learning rate, for comparison; null if"
        " nothing was measured at a constant rate"
    )


class PlanMeasured(BaseModel):
    """A sample of the measurements so far, for a picture."""

    steps: list[int] = Field(description="the steps, about a hundred")
    lr: list[float] = Field(description="the learning rate of each")
    loss: list[float] = Field(description="what was measured there")


class PlanCandidate(BaseModel):
    """One way to go on, and what is expected of it."""

    label: str = Field(description="what it is, in some words")
    orders: list[PlannedOrder] = Field(
        description="what carries it out; POST …/actions takes each action, with its `at`"
    )
    total_steps: int = Field(description="the first step that is not trained any more")
    rank: int | None = Field(description="1 is the best; null if it is refused")
    end: PlanBand | None = Field(description="at the end; null if no loss is predicted")
    gain: float | None = Field(
        description="by how much lower the end is than as planned; null if that is not known"
    )
    blind: float | None = Field(
        description="the end that a law expects which knows no learning rate, for comparison"
    )
    curve: PlanCurve | None = Field(
        description="from the first step that can still change; null if no loss is predicted"
    )
    reasons: list[str] = Field(description="what speaks for it and against it")
    refused: str | None = Field(description="why it cannot be ordered or predicted")


class PlanLaw(BaseModel):
    """The parameters of the law; rates are fractions of the peak."""

    floor: float = Field(description="the loss that is never reached")
    scale: float = Field(description="how far above it the first steps are")
    alpha: float = Field(description="how fast that falls with the sum of the rates")
    gain: float = Field(description="what a drop of the rate to nothing gains in the end")
    speed: float = Field(description="how soon it does")
    beta: float = Field(description="how that tails off")
    gamma: float = Field(description="how much sooner a small rate gains than a large one")
    error: float = Field(description="by how much measurements differ from it, as a fraction")


class PlanProbe(BaseModel):
    """A short decay in a fork, which would measure how much a decay gains."""

    step: int = Field(description="where the fork begins")
    steps: int = Field(description="how many steps it is trained")
    action: AnyAction = Field(description="what is ordered of the fork")
    advice: str = Field(description="how it is trained")


class PlanView(BaseModel):
    """What the loss will be under several ways to go on, and how reliable that is."""

    id: str = Field(description="names the plan where a candidate of it is applied")
    session: str = Field(description="the session's name")
    metric: str = Field(description="the metric that is predicted, and no other")
    goal: Goal = Field(description="what was planned for")
    horizon: int = Field(description="the first step that can still change")
    total_steps: int = Field(description="the end that was planned for")
    predicts: Literal["loss", "ranking", "nothing"] = Field(
        description="whether losses are predicted, or only which candidate is better, or neither"
    )
    findings: list[PlanFinding] = Field(description="why less is said than was asked for")
    candidates: list[PlanCandidate] = Field(description="the best first")
    measured: PlanMeasured = Field(description="what was measured so far, thinned out")
    law: PlanLaw | None = Field(description="what was fitted; null if no loss is predicted")
    sources: list[PlanSource] = Field(description="the trainings that it rests on")
    left_out: list[PlanLeftOut] = Field(description="related sessions that say nothing")
    probe: PlanProbe | None = Field(description="what would calibrate the plan, if it is not")
    unknown: list[str] = Field(description="what the prediction does not know")


@router.post("", response_model=PlanView, openapi_extra=body_of("PlanRequest"))
async def plan(
    name: SessionName,
    body: Annotated[PlanRequest, bodies.model(PlanRequest)],
    request: Request,
    service: Service,
    names: Names,
) -> Response:
    """Predict the loss of a pretraining under other schedules for its rest; nothing is changed.

    The law is fitted to the session's own rates and measurements, to those of forks of its lineage,
    and to those of sessions of the same template at the same peak rate. Without a decay among them,
    candidates are only ranked, and the answer offers a probe. Bands hold 9 of 10. Several epochs,
    fine-tuning and metrics that are not a loss are declined, with the reason in `findings`.
    """
    reading = plans.read_plan(service, name, body.question(), _json, names)
    return await answer(request, reading, "application/json")


@router.post("/apply", status_code=201, openapi_extra=body_of("ApplyRequest"))
async def apply_plan(
    name: SessionName,
    body: Annotated[ApplyRequest, bodies.model(ApplyRequest)],
    request: Request,
    service: Service,
    names: Names,
    idempotency_key: Key = "",
    actor: Actor = "anonymous",
) -> AppliedAnswer:
    """Order a candidate of a plan, as `POST …/actions` would: all of its orders, or none.

    `plan` is the answer's `id`, and `request` is the question. If the training has gone on since
    and the plan is not remembered, nothing is ordered (409 `plan_stale`).
    """
    applied = planning.apply_plan(
        service,
        name,
        body.request.question(),
        body.plan,
        body.candidate,
        reason=body.reason,
        actor=actor,
        key=idempotency_key,
        names=names,
    )
    return await unless_gone(request, applied)


def _wanted(candidate: CandidateRequest) -> Wanted:
    orders = tuple(Planned(each.at, each.action) for each in candidate.orders)
    label = candidate.label or ", then ".join(each.action.order() for each in orders)
    return Wanted(label, orders, candidate.total_steps)


def _json(found: Answer) -> bytes:
    return to_json(view(found))


def view(found: Answer) -> PlanView:
    """Return the view of a plan."""
    made = found.plan
    return PlanView(
        id=made.id,
        session=made.session,
        metric=found.question.metric,
        goal=found.question.goal,
        horizon=made.horizon,
        total_steps=found.total,
        predicts=made.effect or "loss",
        findings=[PlanFinding(**each._asdict()) for each in made.findings],
        candidates=[_candidate(made, each) for each in made.outlooks],
        measured=PlanMeasured(
            steps=made.measured.steps.tolist(),
            lr=made.measured.rates.tolist(),
            loss=made.measured.losses.tolist(),
        ),
        law=_law(made),
        sources=[
            PlanSource(
                session=each.session,
                relation=each.relation,
                measured=each.measured,
                decayed=each.decayed,
                last_step=each.last,
            )
            for each in made.sources
        ],
        left_out=[PlanLeftOut(session=each.session, reason=each.reason) for each in made.left_out],
        probe=_probe(found),
        unknown=plans.unknowns(found),
    )


def _candidate(made: Plan, outlook: Outlook) -> PlanCandidate:
    candidate, curve = outlook.candidate, outlook.curve
    told = made.effect is None and curve is not None
    return PlanCandidate(
        label=candidate.label,
        orders=[PlannedOrder(at=each.at, action=each.action) for each in candidate.orders],
        total_steps=candidate.total,
        rank=None if curve is None else made.outlooks.index(outlook) + 1,
        end=_band(outlook) if told else None,
        gain=plans.gain_of(made, outlook) if told else None,
        blind=_blind(curve) if told else None,
        curve=_curve(outlook) if told else None,
        reasons=plans.reasons_for(made, outlook),
        refused=outlook.refused,
    )


def _band(outlook: Outlook) -> PlanBand | None:
    curve = outlook.curve
    if curve is None:
        return None
    low, loss, high = (float(each[-1]) for each in (curve.low, curve.losses, curve.high))
    return PlanBand(loss=loss, low=low, high=high)


def _curve(outlook: Outlook) -> PlanCurve | None:
    curve = outlook.curve
    if curve is None:
        return None
    return PlanCurve(
        steps=curve.steps.tolist(),
        lr=curve.rates.tolist(),
        loss=curve.losses.tolist(),
        low=curve.low.tolist(),
        high=curve.high.tolist(),
        blind=None if curve.blind is None else curve.blind.tolist(),
    )


def _blind(curve: Curve | None) -> float | None:
    return None if curve is None or curve.blind is None else float(curve.blind[-1])


def _law(made: Plan) -> PlanLaw | None:
    if made.fitted is None or made.effect is not None:
        return None
    return PlanLaw(**made.fitted.law._asdict(), error=made.fitted.error)


def _probe(found: Answer) -> PlanProbe | None:
    offer = plans.probe_for(found)
    if offer is None:
        return None
    return PlanProbe(
        step=offer.step,
        steps=offer.steps,
        action=offer.action,
        advice=f"Fork the session at step {offer.step}, order this of the fork, and train it"
        f" {offer.steps} steps from a checkpoint of that step, measuring {found.question.metric} at"
        " least eight times. In Python `pacesetter.torch.probe` does that and leaves the model as"
        " it was. The next plan picks the fork up by itself.",
    )
