"""Held calls: they wait for the measurement that decides their step.

A *held step* is another thing: a step whose value a trainer has (`Session.held`).
"""

from contextlib import suppress
from math import inf
from time import monotonic, time

from pacesetter_service.core.commands import Await, Command, Pass, Seal
from pacesetter_service.core.decide import is_sealed, seal_end, waits_for
from pacesetter_service.core.errors import AwaitingMeasurementError, SessionFinishedError
from pacesetter_service.core.session import Session
from pacesetter_service.core.status import finished
from pacesetter_service.runtime.signals import Signals
from pacesetter_service.runtime.work import Change, Entry
from pacesetter_service.runtime.writer import Writer

MOST_PASSED = 1_000
"""The most decision boundaries that are passed in one commit."""

MOST_HELD = 8_192
"""How many calls may be held simultaneously, unless a setting says otherwise."""


class HeldCalls:
    """The calls that wait until their step can be sealed, and what wakes them."""

    def __init__(self, writer: Writer, most: int = MOST_HELD) -> None:
        """Start without held calls.

        Args:
            writer: The writer, which seals the steps that they wait for.
            most: How many calls may be held simultaneously; further ones must ask again.
        """
        self._writer = writer
        self._most = most
        self._held = 0
        self._signals = Signals()

    @property
    def signals(self) -> Signals:
        """The signals that wake the held calls."""
        return self._signals

    @property
    def held(self) -> int:
        """How many calls are held now."""
        return self._held

    def release(self) -> None:
        """Release all held calls, and hold none from now on: the server stops."""
        self._signals.release()

    async def change(self, name: str, *commands: Command) -> Entry:
        """Apply commands to a session, through the writer, and wake the held calls that can go on.

        Raises:
            PacesetterError: A command was refused, and none of them was applied.
        """
        before = self._writer.remembered(name)
        entry = (await self._writer.submit(Change(name, commands))).entry
        if not self._signals.is_awaited(name):  # a call that begins to wait now sees the new state
            return entry
        session = entry.stored.session
        sealed = before is None or session.horizon != before.stored.session.horizon
        # Of a thousand ranks' reports, only the last one is worth waking a thousand calls.
        if sealed or (entry is not before and not waits_for(session, Seal(session.horizon, 1))):
            self._signals.tell(name)
        return entry

    async def until_sealed(self, entry: Entry, wish: Seal, seconds: float) -> Entry:
        """Return a session once the step that a call wishes for is sealed.

        Args:
            entry: The session, in which the step is not sealed.
            wish: The steps that the call asks for.
            seconds: For how long the call may be held.

        Raises:
            SessionFinishedError: The step will never be sealed.
            AwaitingMeasurementError: It needs a measurement, and the call has waited long enough.
        """
        name = entry.stored.session.spec.name
        give_up, passing = monotonic() + seconds, False
        while wish.start >= (session := entry.stored.session).horizon:
            if session.status == "finished":
                raise finished(session)
            missing = waits_for(session, wish)
            if not missing or session.spec.reaction is None:
                entry = await self.change(name, wish)
                continue
            entry, left = await self._left(name, entry, wish)
            if waits_for(entry.stored.session, wish) != missing:  # there was news in the meantime
                continue
            if left <= 0 or passing:
                # In a jump across several boundaries only the first is waited for: no rank can have
                # measured the steps between.
                passing = True
                entry = await self._pass(name, session, wish)
                continue
            newest = await self._writer.find(name)
            if newest is not entry:  # this news is not signalled again
                entry = newest
                continue
            if monotonic() >= give_up or self._signals.released or self._held >= self._most:
                raise AwaitingMeasurementError(session.horizon, missing, session.spec.ranks)
            self._held += 1
            try:
                await self._signals.news(name, min(left, give_up - monotonic()))
            finally:
                self._held -= 1
        if not is_sealed(session, wish, seal_end(session, wish)):
            # Another call has sealed it meanwhile; now the trainer of this call holds it too.
            entry = await self.change(name, wish)
        return entry

    async def _left(self, name: str, entry: Entry, wish: Seal) -> tuple[Entry, float]:
        """Return the session, and for how many more seconds a step waits for its measurement.

        The time waited so far is part of the session's state, so it holds on every replica and
        after a restart. A caller that only looks neither shortens the wait nor ends it.
        """
        session, now = entry.stored.session, time()
        reaction = session.spec.reaction
        if not wish.trains or reaction is None:
            return entry, inf
        if session.waited is None or not session.waited.is_noted(now):
            entry = await self.change(name, Await(now, wish.attempt))
        waited = entry.stored.session.waited
        return entry, reaction.timeout - (0.0 if waited is None else waited.until(now).seconds)

    async def _pass(self, name: str, session: Session, wish: Seal) -> Entry:
        """Go on without the measurement that the horizon waits for, in few commits.

        Sealing may be refused because a decision on the way finishes the session. Then only the
        first boundary is passed, so that its decision is kept.
        """
        first = Pass(session.horizon, session.attempt.number)
        every = session.spec.decide_every
        if every is not None and wish.start >= session.horizon + every:
            boundaries = range(session.horizon, wish.start + 1, every)[:MOST_PASSED]
            steps = ((Pass(boundary, session.attempt.number), wish) for boundary in boundaries)
            with suppress(SessionFinishedError):
                return await self.change(name, *(each for pair in steps for each in pair))
        return await self.change(name, first)
