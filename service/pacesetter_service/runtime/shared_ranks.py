"""The ranks of all processes: what each process has heard, merged in the database."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from time import monotonic
from typing import Any

from pacesetter_service.core.applied import Compared, Comparison
from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.runtime.ranks import (
    Position,
    RankSnapshot,
    RankState,
    RankTracker,
    foremost,
    merged,
)
from pacesetter_service.store.port import Stored
from pacesetter_service.store.ranks import Place, RankRow, RankTable


def tell_others(tracker: RankTracker, table: RankTable) -> None:
    """Write what was heard here since the last time.

    Raises:
        StorageUnavailableError: The database did not accept it. After any error it is written the
            next time.
    """
    heard = tracker.take_untold()
    if not heard:
        return

    def merge(now: float, place: Place, there: RankRow | None) -> RankRow:
        mine = heard[place].later(now - monotonic())
        return _row(mine if there is None else merged(_state(there), mine))

    try:
        table.merge(list(heard), merge)
    except BaseException:
        tracker.put_back(heard)
        raise


def snapshot(tracker: RankTracker, table: RankTable | None, stored: Stored) -> RankSnapshot:
    """Return what all processes know of a session's ranks; not for the event loop.

    Raises:
        StorageUnavailableError: The database did not answer.
    """
    session = stored.session
    here = tracker.snapshot(session.spec.name)
    if table is None:
        return here
    clock, rows = table.read(session.spec.name)
    now = monotonic()
    ranks = {rank: _state(row).later(now - clock) for rank, row in rows.items()}
    for rank, heard in here.ranks.items():
        ranks[rank] = merged(heard, ranks[rank]) if rank in ranks else heard
    for rank, heard in ranks.items():
        if heard.attempt == session.attempt.began_as:  # the session itself has the newest value
            heard.deviating = session.control.watch.deviating.get(rank, ())
    return RankSnapshot(stored.created_at, now, ranks)


def last_words(table: RankTable, names: Collection[str]) -> dict[str, tuple[float, float | None]]:
    """Return for how many seconds no process has heard of each session, and the pace of a step.

    The pace is that of the rank that called last, if it has said one. Sessions whose ranks were
    never heard are left out. Not for the event loop.

    Raises:
        StorageUnavailableError: The database did not answer.
    """
    clock, rows = table.latest(names)
    return {name: (clock - row.at, _state(row).pace) for name, row in rows.items()}


def position(tracker: RankTracker, table: RankTable | None, stored: Stored) -> Position | None:
    """Return where a session's foremost trainer is by now; None if none has said where it was.

    Where processes share a database, this is not for the event loop.
    """
    if table is None:
        return tracker.position(stored.session)
    try:
        known = snapshot(tracker, table, stored)
    except StorageUnavailableError:  # an order that was accepted must not fail because of this
        return tracker.position(stored.session)
    return foremost(stored.session, known.ranks.values(), known.now)


def counts(tracker: RankTracker, table: RankTable | None) -> tuple[int, int]:
    """Count the ranks of all sessions that called lately, and those of them that deviate."""
    if table is not None:
        try:
            return table.counts(tracker.recent)
        except StorageUnavailableError:
            pass  # what was heard here is better than nothing
    return tracker.counts()


def _row(heard: RankState) -> RankRow:
    text = json.dumps(asdict(heard), separators=(",", ":"))  # NaN is spelt as Python reads it
    return RankRow(heard.attempt, heard.at, heard.deviates, text)


def _state(row: RankRow) -> RankState:
    """Return a rank's state; what a newer version has added to it is left out."""
    state: dict[str, Any] = json.loads(row.state)
    applied = state.get("applied")
    if applied is not None:
        width = len(Compared._fields)
        values = tuple(Compared(*each[:width]) for each in applied["values"])
        state["applied"] = Comparison(**{**_known(Comparison, applied), "values": values})
    state["deviating"] = tuple(state.get("deviating", ()))
    return RankState(**_known(RankState, state))


def _known(kind: type[RankState | Comparison], said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is a field of a dataclass."""
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in said.items() if name in names}
