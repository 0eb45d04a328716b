"""The one hot call: reports in, window out, in one round trip.

A plain ASGI endpoint with its own parsing: this is asked for at every window of every trainer, and
through the framework's typed routes it would cost several times as much.
"""

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
from pacesetter_service.api.waiting import Waiters
from pacesetter_service.core.commands import Command, Pass, Reading, Report, Seal
from pacesetter_service.core.decide import is_sealed, seal_end, waits_for
from pacesetter_service.core.errors import AwaitingMeasurementError, PacesetterError
from pacesetter_service.core.metrics import MetricName
from pacesetter_service.core.model import Count, OneOf, Real, Step
from pacesetter_service.core.orders import finished
from pacesetter_service.ledger import Change, Entry, Ledger
from pacesetter_service.storage.store import Store

MAX_READINGS = 10_000
"""The most metric values in one call."""

HOLD_SECONDS = 5.0
"""The longest that a call is held while its step awaits a measurement; then it is to ask again."""

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


class SyncRequest(_Wire):
    """Reports, and a wish for a window or for one step; every field is optional."""

    attempt: Count | None = None
    rank: Step = 0
    reports: Annotated[tuple[ReportIn, ...], Field(max_length=MAX_READINGS)] = ()
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

    def __init__(self, ledger: Ledger, store: Store) -> None:
        self._ledger = ledger
        self._store = store
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
        entry = await self._applied(name, request.readings(), seal, request.attempt)
        if seal is None:
            return Response(to_json(_head(entry)), media_type="application/json")
        if seal.start >= entry.stored.session.horizon:
            entry = await self._awaited(name, entry, seal)
        session = entry.stored.session
        names = list(session.timelines)
        end = min(seal_end(session, seal), session.horizon)
        head: dict[str, Any] = _head(entry, seal.start, end)
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

    async def _applied(
        self, name: str, readings: tuple[Reading, ...], seal: Seal | None, attempt: int | None
    ) -> Entry:
        """Give the session after the call; what is sealed already needs no writer."""
        entry = self._ledger.peek(name)
        if entry is None:
            entry = await self._ledger.find(name)
        nothing_new = seal is None or is_sealed(entry.stored.session, seal)
        if nothing_new and not readings:
            return entry
        commands = (*((Report(readings, attempt),) if readings else ()), *((seal,) if seal else ()))
        return await self._changed(name, *commands)

    async def _awaited(self, name: str, entry: Entry, seal: Seal) -> Entry:
        """Wait for a step that was not sealed though it was asked for.

        Raises:
            SessionFinishedError: It will never be.
            AwaitingMeasurementError: It needs a measurement, and was waited for long enough now.
        """
        give_up, passing = monotonic() + HOLD_SECONDS, False
        while seal.start >= (session := entry.stored.session).horizon:
            if session.status == "finished":
                raise finished(session)
            missing = waits_for(session, seal)
            if missing and session.spec.reaction is not None:
                left = session.spec.reaction.timeout - self._waiters.waited(name, session.horizon)
                if left <= 0 or passing:
                    # Of a jump across several boundaries only the first was waited for: nobody can
                    # have measured what lies between. Sealing comes after the commit, because it
                    # is refused if what there is ends the session.
                    passing = True
                    entry = await self._changed(name, Pass(session.horizon))
                    continue
                newest = self._ledger.peek(name) or entry
                if newest is not entry:  # there was news already, which nobody will tell again
                    entry = newest
                    continue
                if monotonic() >= give_up or self._waiters.released:
                    raise AwaitingMeasurementError(session.horizon, missing, session.spec.ranks)
                await self._waiters.news(name, min(left, give_up - monotonic()))
                if self._waiters.released:
                    continue
            entry = await self._changed(name, seal)
        self._waiters.forget(name, entry.stored.session.horizon)
        return entry

    def release(self) -> None:
        """Let go of all calls that are held, and hold none any more: the server is to stop."""
        self._waiters.release()

    async def _changed(self, name: str, *commands: Command) -> Entry:
        before = self._ledger.peek(name)
        entry = (await self._ledger.submit(Change(name, commands))).entry
        session = entry.stored.session
        # Of a thousand ranks' reports the last one alone is worth waking a thousand calls.
        if entry is not before and not waits_for(session, Seal(session.horizon, 1)):
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


def _head(entry: Entry, start: int = 0, end: int = 0) -> dict[str, Any]:
    """Give what every answer says; notices are those of the steps from `start` to `end`."""
    session = entry.stored.session
    return {
        "attempt": session.attempt,
        "horizon": session.horizon,
        "revision": session.revision,
        "notices": [
            {"step": notice.step, "code": notice.code, "message": notice.message}
            for notice in session.notices
            if start <= notice.step < end
        ],
        "max_lookahead": session.spec.lookahead,
    }


def _accepts_binary(scope: Scope) -> bool:
    wanted = wire.WINDOW_MEDIA_TYPE.encode()
    return any(name == b"accept" and wanted in value for name, value in scope["headers"])
