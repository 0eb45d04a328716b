"""How `Client` carries out operations, one exchange after the other."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Generator
from typing import Any, TypeVar, cast

from pacesetter import _record
from pacesetter._errors import APIError, ServerError
from pacesetter._notebook import Look, look_at, told_by
from pacesetter._operation import (
    Call,
    Carrier,
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
from pacesetter._transport import Transport

T = TypeVar("T")


class Carrying(Carrier):
    """Carries out operations over one transport.

    Attributes:
        actor: Who gives the orders, for the record; None leaves it unstated.
    """

    _transport: Transport
    _retry_for: float
    actor: str | None

    @property
    def _look(self) -> Look:
        """The function that asks for a session's status, for notebooks."""
        return functools.partial(look_at, self._transport)

    def _done(self, asked: Described[T] | Several[T]) -> T:
        if isinstance(asked, Generator):
            return self._several(asked)
        if isinstance(asked, Call):
            answer: T = self._call(asked)
            return answer
        done: Any = self._transferred(asked)
        return cast("T", done)

    def _transferred(self, asked: Described[Any]) -> Any:  # noqa: ANN401 - of the type described
        """Export a record into a file, or restore one from a file."""
        if isinstance(asked, Upload):
            headers = self._headers()
            return asked.read(_record.restore(self._transport, asked.file, asked.name, headers))
        assert isinstance(asked, Download)  # noqa: S101 - there are no others
        _record.export(self._transport, asked.path, asked.file)
        return None

    def _call(self, call: Call[T]) -> T:
        send = self._sent if call.repeatable else self._sent_once
        content = send(call)
        return told_by(self._look, call.answered(content, self._transport.url))

    def _sent(self, call: Call[Any]) -> bytes:
        return self._transport.send(
            call.method,
            call.path,
            body=call.body,
            params=call.params,
            headers=self._headers(call),
            accept=call.accept,
            wait=self._retry_for,
        )

    def _sent_once(self, call: Call[Any]) -> bytes:
        """Send a call that must not be done twice; retry only if the server said it did nothing."""
        spell = Spell(self._transport.url, self._retry_for)
        body, headers = call.body or {}, self._headers(call)
        for delay in delays():
            try:
                content = self._transport.send_once(
                    call.method, call.path, body=body, headers=headers
                )
            except ServerError as error:  # noqa: PERF203 - a try is what the loop is for
                if not error.did_nothing or self._retry_for <= 0:
                    raise
                time.sleep(spell.pause(delay, error))
            else:
                spell.over()
                return content
        raise AssertionError  # pragma: no cover - the delays never end

    def _headers(self, call: Call[Any] | None = None) -> dict[str, str]:
        own = {} if self.actor is None else {"pacesetter-actor": self.actor}
        return own if call is None else {**own, **call.headers}

    def _several(self, plan: Several[T]) -> T:
        step = resumed(plan)
        while isinstance(step, Call):
            step = resumed(plan, self._outcome(step))
        return step.value

    def _outcome(self, call: Call[T]) -> T | APIError:
        try:
            return self._call(call)
        except APIError as error:
            return error

    def _gone_through(self, asked: Listed[T] | Feed[T]) -> Generator[T, None, None]:
        if isinstance(asked, Feed):
            if asked.before is not None:
                self._call(asked.before)
            yield from _record.followed(self._transport, asked, wait=self._retry_for)
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
                        yield told_by(self._look, item)
                else:
                    sent = self._call(each)
