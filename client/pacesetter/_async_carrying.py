"""How `AsyncClient` carries out operations, without blocking other tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeVar, cast

from pacesetter import _async_record
from pacesetter._async_transport import AsyncTransport
from pacesetter._errors import APIError, ServerError
from pacesetter._operation import (
    AsyncCarrier,
    Call,
    Described,
    Download,
    Feed,
    Found,
    Listed,
    Several,
    Upload,
    resumed,
)
from pacesetter._retry import Spell, delays

T = TypeVar("T")


class AsyncCarrying(AsyncCarrier):
    """Carries out operations over one transport, each in the task that asks.

    Attributes:
        actor: Who gives the orders, for the record; None leaves it unstated.
    """

    _transport: AsyncTransport
    _retry_for: float
    actor: str | None

    async def _done(self, asked: Described[T] | Several[T]) -> T:
        if isinstance(asked, Generator):
            return await self._several(asked)
        if isinstance(asked, Call):
            answer: T = await self._call(asked)
            return answer
        done: Any = await self._transferred(asked)
        return cast("T", done)

    async def _transferred(self, asked: Described[Any]) -> Any:  # noqa: ANN401 - as described
        """Export a record into a file, or restore one from a file."""
        if isinstance(asked, Upload):
            headers = self._headers()
            said = await _async_record.restore(self._transport, asked.file, asked.name, headers)
            return asked.read(said)
        assert isinstance(asked, Download)  # noqa: S101 - there are no others
        await _async_record.export(self._transport, asked.path, asked.file)
        return None

    async def _call(self, call: Call[T]) -> T:
        send = self._sent if call.repeatable else self._sent_once
        content = await send(call)
        return call.answered(content, self._transport.url)

    async def _sent(self, call: Call[Any]) -> bytes:
        return await self._transport.send(
            call.method,
            call.path,
            body=call.body,
            params=call.params,
            headers=self._headers(call),
            accept=call.accept,
            wait=self._retry_for,
        )

    async def _sent_once(self, call: Call[Any]) -> bytes:
        """Send a call that must not be done twice; retry only if the server said it did nothing."""
        spell = Spell(self._transport.url, self._retry_for)
        body, headers = call.body or {}, self._headers(call)
        for delay in delays():
            try:
                content = await self._transport.send_once(
                    call.method, call.path, body=body, headers=headers
                )
            except ServerError as error:  # noqa: PERF203 - a try is what the loop is for
                if not error.did_nothing or self._retry_for <= 0:
                    raise
                await asyncio.sleep(spell.pause(delay, error))
            else:
                spell.over()
                return content
        raise AssertionError  # pragma: no cover - the delays never end

    def _headers(self, call: Call[Any] | None = None) -> dict[str, str]:
        own = {} if self.actor is None else {"pacesetter-actor": self.actor}
        return own if call is None else {**own, **call.headers}

    async def _several(self, plan: Several[T]) -> T:
        step = resumed(plan)
        while isinstance(step, Call):
            step = resumed(plan, await self._outcome(step))
        return step.value

    async def _outcome(self, call: Call[T]) -> T | APIError:
        try:
            return await self._call(call)
        except APIError as error:
            return error

    async def _gone_through(self, asked: Listed[T] | Feed[T]) -> AsyncGenerator[T, None]:
        if isinstance(asked, Feed):
            if asked.before is not None:
                await self._call(asked.before)
            found = _async_record.followed(self._transport, asked, wait=self._retry_for)
            async with contextlib.aclosing(found) as events:
                async for event in events:
                    yield event
            return
        sent: Any = None
        with contextlib.closing(asked):
            while True:
                try:
                    each = asked.send(sent)
                except StopIteration:
                    return
                if isinstance(each, Found):
                    sent = None
                    for item in each.items:
                        yield item
                else:
                    sent = await self._call(each)
