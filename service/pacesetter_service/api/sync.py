"""The one hot call: reports in, window out, in one round trip.

A plain ASGI endpoint with its own parsing: this is asked for at every window of every trainer, and
through the framework's typed routes it would cost several times as much.
"""

import re
from time import monotonic
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
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from pacesetter_service.api import problems, wire
from pacesetter_service.api.applied import Comparer, Finding, refuse_incomparable
from pacesetter_service.api.waiting import Waiters
from pacesetter_service.core.commands import Command, Pass, Reading, Report, Resize, Seal
from pacesetter_service.core.decide import is_sealed, seal_end, waits_for
from pacesetter_service.core.errors import (
    AwaitingMeasurementError,
    PacesetterError,
    StaleAttemptError,
)
from pacesetter_service.core.metrics import MetricName
from pacesetter_service.core.model import Count, OneOf, Real, Step
from pacesetter_service.core.orders import finished
from pacesetter_service.fleet import NEVER, Fleet
from pacesetter_service.ledger import Change, Entry, Ledger
from pacesetter_service.storage.store import Store

MAX_READINGS = 10_000
"""The most metric values in one call."""

MAX_APPLIED = 4_096
"""The most applied values in one call."""

HOLD_SECONDS = 5.0
"""The longest that a call is held while its step awaits a measurement; then it is to ask again."""

_PREFERRED_WAIT = re.compile(rb"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,9}(?:\.[0-9]{1,9})?)", re.I)

MetricValue = Annotated[
    Real | Literal["nan", "inf", "-inf"],
    OneOf('Input should be a finite number, or one of the strings "nan", "inf" and "-inf"'),
]
"""A metric; what is no JSON number is spelt out, because a NaN loss is news and not an error."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@with_config(_Wire.model_config)
class ReportIn(TypedDict):
    """The metrics that one rank measured at one step; a plain dict, as there are many in a call."""

    step: Step
    metrics: Annotated[dict[MetricName, MetricValue], Field(min_length=1, max_length=256)]


class Want(_Wire):
    """A wish for the values of `count` steps from `start` on."""

    start: Step
    count: Count


class AppliedIn(_Wire):
    """What a rank's optimizer really used at a step, read back from the optimizer.

    The values are compared with those that were sealed for the step in this attempt: they agree
    to the bit (`exact`), or as the nearest float32 (`float32`), which is what a tensor holds, or
    not (`differs`). Of a rank that deviates `GET /v1/sessions/{name}/fleet` says so; an event and a
    notice, both `rate_deviated`, say so once for each series, until the rank has applied what was
    sealed again.
    """

    step: Step = Field(description="a step that was handed out")
    values: Annotated[dict[str, MetricValue], Field(min_length=1, max_length=MAX_APPLIED)] = Field(
        description='by series, `{"lr": 0.1}`; those that the rank does not apply are left out'
    )


class SyncRequest(_Wire):
    """Reports, and a wish for a window or for one step; every field is optional.

    `rank` says who calls, `attempt` for which life of the job, and `applied` what the rank's
    optimizer really used. `batch_size` says how many samples, over all ranks together, are in one
    step from the horizon on; what a change of it does is the session's `batch_scaling`. Let one
    rank say it: who says it last is believed.

    Where a step awaits a measurement the call is held for 5 seconds, or for fewer with the header
    `Prefer: wait=2`, and then answered 503 `awaiting_measurement`.
    """

    attempt: Count | None = None
    rank: Step = 0
    batch_size: Count | None = None
    reports: Annotated[tuple[ReportIn, ...], Field(max_length=MAX_READINGS)] = ()
    applied: AppliedIn | None = None
    want: Want | None = None
    step: Step | None = None

    @model_validator(mode="after")
    def _one_wish(self) -> Self:
        if self.want is not None and self.step is not None:
            raise PydanticCustomError(
                "two_wishes", "Give `step` for one value or `want` for a window, not both"
            )
        return self

    def readings(self) -> tuple[Reading, ...]:
        """Give the reported values one by one."""
        return tuple(
            Reading(self.rank, report["step"], metric, float(value))
            for report in self.reports
            for metric, value in report["metrics"].items()
        )

    def seal(self) -> Seal | None:
        """Give the wish as a command."""
        if self.want is not None:
            return Seal(self.want.start, self.want.count, self.attempt)
        if self.step is not None:
            return Seal(self.step, 1, self.attempt)
        return None


class SyncEndpoint:
    """ASGI endpoint of `POST /v1/sessions/{name}/sync`."""

    def __init__(self, ledger: Ledger, store: Store, fleet: Fleet) -> None:
        self._ledger = ledger
        self._store = store
        self._fleet = fleet
        self._comparer = Comparer(fleet)
        self._waiters = Waiters()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        try:
            body = await _body(receive)
            request = SyncRequest.model_validate_json(body or b"{}")
            response = await self._sync(scope, request)
        except ValidationError as error:
            response = problems.of_validation(error.errors(include_url=False))
        except PacesetterError as error:
            response = problems.of_error(error)
        except HTTPException as error:
            response = problems.of_http(error.status_code)
        except Exception as error:
            response = problems.of_unforeseen(error, scope["path"])
        await response(scope, receive, send)

    async def _sync(self, scope: Scope, request: SyncRequest) -> Response:
        name, seal = scope["path_params"]["name"], request.seal()
        entry = self._ledger.peek(name)
        if entry is None:
            entry = await self._ledger.find(name)
        finding = None
        if request.applied is not None:
            finding = await self._compared(entry, request, request.applied)
        entry = await self._carried_out(entry, request, seal, finding)
        current = entry.stored.session.attempt
        if request.attempt is not None and request.attempt != current:
            # Even sealed steps may have other values by now; GET …/lr?attempt= has the old ones.
            raise StaleAttemptError(request.attempt, current)
        self._hear(entry, request, seal, finding)
        if seal is None:
            return Response(to_json(_head(entry, finding)), media_type="application/json")
        if seal.start >= entry.stored.session.horizon:
            entry = await self._awaited(name, entry, seal, _hold_seconds(scope))
            self._hear(entry, request, seal, None)  # again: time and revisions went by
        session = entry.stored.session
        names = list(session.timelines)
        end = min(seal_end(session, seal), session.horizon)
        head: dict[str, Any] = _head(entry, finding, seal.start, end)
        block = await self._window(entry, seal.start, end)
        if request.step is not None:
            values = dict(zip(names, block[:, 0].tolist(), strict=True))
            return Response(
                to_json({"step": request.step, **values, **head}), media_type="application/json"
            )
        head["start"] = seal.start
        if _accepts_binary(scope):
            content = wire.binary_window(head, names, block)
            return Response(content, media_type=wire.WINDOW_MEDIA_TYPE)
        head["series"] = wire.by_series(names, block)
        return Response(to_json(head), media_type="application/json")

    async def _carried_out(
        self, entry: Entry, request: SyncRequest, seal: Seal | None, finding: Finding | None
    ) -> Entry:
        """Give the session after the call; what is sealed already needs no writer."""
        readings, deviates = request.readings(), finding is not None and finding.new
        session = entry.stored.session
        nothing_new = seal is None or is_sealed(session, seal)
        resized = request.batch_size not in {None, session.batch_size}
        if nothing_new and not readings and not deviates and not resized:
            return entry
        name = session.spec.name
        commands: list[Command] = [Report(readings, request.attempt)] if readings else []
        if resized and request.batch_size is not None:
            commands.append(Resize(request.batch_size, request.attempt))
        wish = (seal,) if seal else ()
        if finding is None or not finding.new:
            return await self._changed(name, *commands, *wish)
        # Before the sealing, so that its notice is in the window.
        with self._comparer.recording(name, finding):
            return await self._changed(name, *commands, finding.command(), *wish)

    async def _compared(self, entry: Entry, request: SyncRequest, used: AppliedIn) -> Finding:
        """Compare what the caller's optimizer used with what was sealed."""
        session, step = entry.stored.session, used.step
        applied = {series: float(value) for series, value in used.values.items()}
        refuse_incomparable(session, request.rank, request.attempt, step, applied)
        block = await self._window(entry, step, step + 1)
        sealed = dict(zip(session.timelines, block[:, 0].tolist(), strict=True))
        return self._comparer.compared(session, request.rank, step, applied, sealed)

    def _hear(
        self, entry: Entry, request: SyncRequest, seal: Seal | None, finding: Finding | None
    ) -> None:
        """Have the fleet take note of a call, unless it speaks for an attempt that never was."""
        session, reports = entry.stored.session, request.reports
        attempt = session.attempt if request.attempt is None else request.attempt
        if attempt > session.attempt:
            return
        self._fleet.hear(
            session.spec.name,
            request.rank,
            attempt,
            session.revision,
            NEVER if seal is None else seal.start,
            max(report["step"] for report in reports) if reports else NEVER,
            None if finding is None else finding.comparison,
            () if finding is None else [each.series for each in finding.new],
        )

    async def _awaited(self, name: str, entry: Entry, seal: Seal, seconds: float) -> Entry:
        """Wait for so long for a step that was not sealed though it was asked for.

        Raises:
            SessionFinishedError: It will never be.
            AwaitingMeasurementError: It needs a measurement, and was waited for long enough now.
        """
        give_up, passing = monotonic() + seconds, False
        while seal.start >= (session := entry.stored.session).horizon:
            if session.status == "finished":
                raise finished(session)
            missing = waits_for(session, seal)
            if missing and session.spec.reaction is not None:
                waited = self._waiters.waited(name, (session.attempt, session.horizon))
                left = session.spec.reaction.timeout - waited
                if left <= 0 or passing:
                    # Of a jump across several boundaries only the first was waited for: nobody can
                    # have measured what lies between. Sealing comes after the commit, because it
                    # is refused if what there is ends the session.
                    passing = True
                    entry = await self._changed(name, Pass(session.horizon, session.attempt))
                    continue
                newest = self._ledger.peek(name) or entry
                if newest is not entry:  # there was news already, which nobody will tell again
                    entry = newest
                    continue
                if monotonic() >= give_up or self._waiters.released:
                    raise AwaitingMeasurementError(session.horizon, missing, session.spec.ranks)
                await self._waiters.news(name, min(left, give_up - monotonic()))
                continue
            entry = await self._changed(name, seal)
        self._waiters.forget(name, (session.attempt, session.horizon))
        return entry

    def release(self) -> None:
        """Let go of all calls that are held, and hold none any more: the server is to stop."""
        self._waiters.release()

    async def _changed(self, name: str, *commands: Command) -> Entry:
        before = self._ledger.peek(name)
        entry = (await self._ledger.submit(Change(name, commands))).entry
        session = entry.stored.session
        sealed = before is None or session.horizon != before.stored.session.horizon
        # Of a thousand ranks' reports the last one alone is worth waking a thousand calls.
        if sealed or (entry is not before and not waits_for(session, Seal(session.horizon, 1))):
            self._waiters.wake(name)
        return entry

    async def _window(self, entry: Entry, start: int, end: int) -> wire.Block:
        if entry.tail.holds(start, end):
            return entry.tail.window(start, end)
        lineage, width = entry.stored.lineage, len(entry.stored.session.timelines)
        return await run_in_threadpool(self._store.sealed_between, lineage, width, start, end)


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
    return body


def _head(
    entry: Entry, finding: Finding | None = None, start: int = 0, end: int = 0
) -> dict[str, Any]:
    """Give what every answer says; notices are those of the steps from `start` to `end`.

    What a call has found about its own rank is told in its answer, whatever steps that holds.
    """
    session = entry.stored.session
    notices = [
        {"step": notice.step, "code": notice.code, "message": notice.message}
        for notice in session.notices
        if start <= notice.step < end
    ]
    if finding is not None:
        told = {notice["message"] for notice in notices}
        notices += [
            {
                "step": min(max(notice.step, start), end - 1) if end else notice.step,
                "code": notice.code,
                "message": notice.message,
            }
            for notice in finding.notices
            if notice.message not in told
        ]
    return {
        "attempt": session.attempt,
        "horizon": session.horizon,
        "revision": session.revision,
        "notices": notices,
        "max_lookahead": session.spec.lookahead,
    }


def _hold_seconds(scope: Scope) -> float:
    """Give for how long a call may be held: `Prefer: wait=2.5` (RFC 7240) makes it shorter."""
    for name, value in scope["headers"]:
        preferred = _PREFERRED_WAIT.search(value) if name == b"prefer" else None
        if preferred:
            return min(HOLD_SECONDS, float(preferred[1]))
    return HOLD_SECONDS


def _accepts_binary(scope: Scope) -> bool:
    wanted = wire.WINDOW_MEDIA_TYPE.encode()
    return any(name == b"accept" and wanted in value for name, value in scope["headers"])
