"""The one hot call: reports in, window out, in one round trip.

It is a plain ASGI endpoint with its own parsing: every trainer calls it for every window, and the
framework's typed routes would cost several times as much.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
    with_config,
)
from pydantic_core import PydanticCustomError, to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from pacesetter_service.api import bodies, problems, wire
from pacesetter_service.api.places import Place, pointer_to
from pacesetter_service.api.said import SaidBefore
from pacesetter_service.core.commands import Reading, Seal
from pacesetter_service.core.errors import PacesetterError
from pacesetter_service.core.measuring import MetricName
from pacesetter_service.core.model import MAX_HINTED, Count, OneOf, Real, Step, did_you_mean
from pacesetter_service.core.notices import Notice
from pacesetter_service.runtime import trainer
from pacesetter_service.runtime.pool import aside
from pacesetter_service.runtime.ranks import NEVER
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.trainer import AppliedValues, SyncAnswer, SyncCall

MAX_READINGS = 10_000
"""The most metric values in one call."""

MAX_APPLIED = 4_096
"""The most applied values in one call."""

HOLD_SECONDS = 5.0
"""The longest that a call is held while its step awaits a measurement; then it must ask again."""

_JSON, _WINDOW = b"application/json", wire.WINDOW_MEDIA_TYPE.encode()
_PREFERRED_WAIT = re.compile(rb"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,9}(?:\.[0-9]{1,9})?)", re.I)

MetricValue = Annotated[
    Real | Literal["nan", "inf", "-inf"],
    OneOf('Write a finite number, or one of the strings "nan", "inf" and "-inf"'),
]
"""A metric; values that are not JSON numbers are spelt out: a NaN loss is news, not an error."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@with_config(_Wire.model_config)
class ReportIn(TypedDict):
    """The metrics that one rank measured at one step; a plain dict, as there are many in a call.

    A session has at most 1,024 metric names besides those that its controllers watch.
    """

    step: Annotated[Step, Field(description="the step that was measured at")]
    metrics: Annotated[
        dict[MetricName, MetricValue],
        Field(min_length=1, max_length=256, description='metrics by name, such as `{"loss": 0.5}`'),
    ]


class Want(_Wire):
    """A wish for the values of `count` steps from `start` on."""

    start: Step = Field(description="the first step of the window")
    count: Count = Field(description="how many steps it may have; it may come shorter")


class AppliedIn(_Wire):
    """The values that a rank's optimizer really used at a step, read back from the optimizer.

    They are compared with the values that were sealed for the step in this attempt: they agree to
    the bit (`exact`), or as the nearest float32 (`float32`), which is what a tensor holds, or not
    (`differs`). `GET /v1/sessions/{name}/ranks` shows a rank that deviates. An event and a notice,
    both `rate_deviated`, report it once for each series, until the rank has applied sealed values
    again.
    """

    step: Step = Field(description="a step that was handed out")
    values: Annotated[dict[str, MetricValue], Field(min_length=1, max_length=MAX_APPLIED)] = Field(
        description='by series, `{"lr": 0.1}`; those that the rank does not apply are left out'
    )

    def used(self) -> AppliedValues:
        """Return the used values; values that are not JSON numbers are spelt out until here."""
        return AppliedValues(self.step, {name: float(value) for name, value in self.values.items()})


class Progress(_Wire):
    """Where the trainer is, and how long a step takes it."""

    step: Step = Field(description="the step that is trained now; all before it were")
    seconds_per_step: Annotated[Real, Field(gt=0, le=10**9)] | None = Field(
        default=None, description="how many seconds a step takes, as far as the trainer knows"
    )


class SyncRequest(_Wire):
    """Reports, and a wish for a window or for one step; every field is optional.

    `rank` says which rank calls, `attempt` in which attempt, and `applied` what the rank's
    optimizer really used. `batch_size` says how many samples, over all ranks together, are in one
    step from the horizon on; the session's `batch_scaling` says what a change of it does. Let only
    one rank send it: the last one counts.

    **A trainer names its `attempt`**, from its first answer on: then it is fenced when the job is
    restarted, and no operator takes back the steps that it was given. It sends its `progress` as
    well, so that its windows may be long: one call seals at most 64 steps, or as many as twenty
    seconds hold, beyond the step that the trainer has reached. A longer wish is answered by a
    shorter window.
    To look at values without sealing any, use `GET /v1/sessions/{name}/lr`: a `sync` that does not
    say that a trainer calls seals at most 64 steps beyond those that trainers hold.

    `epoch` is the epoch of the database in the last answer, and `held` the step after the last one
    that this caller was given in this attempt. A database that was replaced by an older one refuses
    the call with 409 `another_epoch` or `horizon_receded`, instead of contradicting what it has
    forgotten.

    If a step awaits a measurement, the call is held for 5 seconds, or for fewer with the header
    `Prefer: wait=2`, and then answered 503 `awaiting_measurement`.
    """

    attempt: Count | None = Field(
        default=None,
        description="the attempt that the trainer speaks for, from the answer before",
    )
    rank: Step = Field(default=0, description="who calls, from 0")
    batch_size: Count | None = Field(
        default=None, description="samples in one step over all ranks, from the horizon on"
    )
    reports: Annotated[tuple[ReportIn, ...], Field(max_length=MAX_READINGS)] = Field(
        default=(), description="metrics that the rank has measured, step by step"
    )
    applied: AppliedIn | None = Field(
        default=None, description="what the rank's optimizer really used at a step"
    )
    want: Want | None = Field(default=None, description="a window of steps that is wished for")
    step: Step | None = Field(
        default=None, description="one step whose values are wished for, in place of `want`"
    )
    progress: Progress | None = Field(default=None, description="where the trainer stands")
    epoch: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="what the last answer said of the database"
    )
    held: Step = Field(
        default=0, description="the step after the last that the caller was given in this attempt"
    )

    @model_validator(mode="after")
    def _one_wish(self) -> Self:
        if self.want is not None and self.step is not None:
            raise PydanticCustomError(
                "two_wishes", "Give `step` for one value or `want` for a window, not both"
            )
        return self

    def call(self, session: str, patience: float) -> SyncCall:
        """Return the call of a session that may be held for `patience` seconds."""
        reports, said, trains = self.reports, self.progress, self.is_trainers
        return SyncCall(
            session,
            self.rank,
            self.attempt,
            trains,
            self.readings() if reports else (),
            max(report["step"] for report in reports) if reports else NEVER,
            self.batch_size,
            None if self.applied is None else self.applied.used(),
            self.seal(trains=trains),
            NEVER if said is None else said.step,
            None if said is None else said.seconds_per_step,
            self.epoch,
            self.held,
            patience,
        )

    def readings(self) -> tuple[Reading, ...]:
        """Return the reported values one by one."""
        return tuple(
            Reading(self.rank, report["step"], metric, float(value))
            for report in self.reports
            for metric, value in report["metrics"].items()
        )

    def seal(self, *, trains: bool) -> Seal | None:
        """Return the wish as a command."""
        if self.want is not None:
            start, count = self.want.start, self.want.count
        elif self.step is not None:
            start, count = self.step, 1
        else:
            return None
        said = self.progress
        if said is None:
            return Seal(start, count, self.attempt, trains=trains)
        return Seal(start, count, self.attempt, said.step, said.seconds_per_step, trains)

    @property
    def is_trainers(self) -> bool:
        """Whether a trainer calls, which says who it is or what it did; other callers only look."""
        return not _OF_TRAINERS.isdisjoint(self.model_fields_set)


_OF_TRAINERS = {"attempt", "rank", "progress", "reports", "applied", "batch_size"}


class SyncEndpoint:
    """ASGI endpoint of `POST /v1/sessions/{name}/sync`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._said = SaidBefore()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        request = None
        try:
            body = await _body(receive)
            if len(body) <= bodies.SMALL:
                request = SyncRequest.model_validate_json(body or b"{}")
            else:  # on another thread, so that no other call waits for it
                request = await aside(SyncRequest.model_validate_json, body)
            call = request.call(scope["path_params"]["name"], _hold_seconds(scope))
            answer = await trainer.sync(self._service, call)
            binary = request.want is not None and _accepts_binary(scope)
            content = self._content(answer, request, binary=binary)
        except ClientDisconnect:  # half a body is not a body, whatever it looks like
            return
        except ValidationError as error:
            response = problems.of_validation(_mistakes(error), error.error_count())
        except PacesetterError as error:
            response = problems.of_error(error, _place(error, request))
        except HTTPException as error:
            response = problems.of_http_error(error)
        except Exception as error:
            response = problems.of_unforeseen(error, scope["path"])
        else:
            await _send(send, content, _WINDOW if binary else _JSON)
            return
        await response(scope, receive, send)

    def _content(self, answer: SyncAnswer, request: SyncRequest, *, binary: bool) -> bytes:
        """Return the answer as bytes; reuse those made before if they would be the same."""
        if answer.notices:
            return _encoded(answer, request, binary=binary)
        count = 0 if answer.block is None else answer.block.shape[1]
        window = answer.start, count, answer.attempt
        question = (*window, answer.epoch, request.step, binary)
        content = self._said.find(answer.session, question)
        if content is None:
            content = _encoded(answer, request, binary=binary)
            self._said.keep(answer.session, question, content)
        return content


def _mistakes(error: ValidationError) -> list[Mapping[str, Any]]:
    """Return the first mistakes of a call; for an unknown field, name the known ones.

    Checking for such fields beforehand, as other models do, would make every call slower.
    """
    return [
        {**each, "type": "unknown_field", "msg": _no_such_field(each["loc"])}
        if each["type"] == "extra_forbidden"
        else each
        for each in problems.first_of(error)
    ]


def _place(error: PacesetterError, request: SyncRequest | None) -> Place | None:
    """Return where in a call the refused field is."""
    if not error.field or request is None:
        return None
    if error.field == ("start",):  # the first of the wanted steps
        return {"pointer": "/step" if request.want is None else "/want/start"}
    return {"pointer": pointer_to(error.field)}


_PARTS: Mapping[str | int, Iterable[str]] = {
    "want": Want.model_fields,
    "applied": AppliedIn.model_fields,
    "progress": Progress.model_fields,
}


def _no_such_field(place: tuple[str | int, ...]) -> str:
    name = str(place[-1])[:MAX_HINTED]
    if place[0] == "reports":
        return f'Metrics stand under `metrics`: {{"step": 3, "metrics": {{"{name}": 0.5}}}}'
    known = sorted(_PARTS.get(place[0], SyncRequest.model_fields))
    return f"There is no such field.{did_you_mean(name, known)} Known here: {', '.join(known)}"


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _send(send: Send, content: bytes, media_type: bytes) -> None:
    """Answer 200. The framework's `Response` would do the same for a tenth of the call's time."""
    headers = [(b"content-length", b"%d" % len(content)), (b"content-type", media_type)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _encoded(answer: SyncAnswer, request: SyncRequest, *, binary: bool) -> bytes:
    """Return the answer as JSON, or as a binary window if the caller wants that."""
    session, block = answer.session, answer.block
    head: dict[str, Any] = {
        "attempt": answer.attempt,
        "horizon": session.horizon,
        "revision": session.revision,
        "notices": [_notice(notice) for notice in answer.notices],
        "max_lookahead": session.spec.lookahead,
        "epoch": answer.epoch,
    }
    if block is None:
        return to_json(head)
    names = list(session.timelines)
    if request.step is not None:
        values = dict(zip(names, block[:, 0].tolist(), strict=True))
        return to_json({"step": request.step, **values, **head})
    head["start"] = answer.start
    if binary:
        return wire.binary_window(head, names, block)
    head["series"] = wire.by_series(names, block)
    return to_json(head)


def _notice(notice: Notice) -> dict[str, Any]:
    """Return a notice as JSON; only one that knows which step was good has a `good_step`."""
    shown = {"step": notice.step, "code": notice.code, "message": notice.message}
    return shown if notice.good_step is None else {**shown, "good_step": notice.good_step}


def _hold_seconds(scope: Scope) -> float:
    """Return for how long a call may be held: `Prefer: wait=2.5` (RFC 7240) makes it shorter."""
    for name, value in scope["headers"]:
        if name == b"prefer" and (preferred := _PREFERRED_WAIT.search(value)):
            return min(HOLD_SECONDS, float(preferred[1]))
    return HOLD_SECONDS


def _accepts_binary(scope: Scope) -> bool:
    return any(name == b"accept" and _WINDOW in value for name, value in scope["headers"])
