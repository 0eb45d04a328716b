"""A session that the ranks of a torch.distributed training share.

One rank, the first of the group, talks to the server and broadcasts each window; the others have no
connection. So a thousand ranks cost the server one client, and ranks cannot differ.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import distributed

from pacesetter._attempts import drawn_key
from pacesetter._client import Client
from pacesetter._errors import RankMismatchError
from pacesetter._info import SessionInfo
from pacesetter._reports import Value, capture
from pacesetter._session import Session
from pacesetter._torch.ranks import ABSENT, Ranks, are_many, is_grouped, timeout_of
from pacesetter._window import Expected, Window, decode

__all__ = ["Relay", "open_session", "relay_for"]

MODES = ("auto", "broadcast", "each")
REPORTS = ("first", "mean", "each")
_ANY = 2**62

MARGIN = 30.0
"""Seconds by which a group's timeout must exceed the longest wait for the server."""


def open_session(
    client: Client,
    name: str,
    *,
    group: distributed.ProcessGroup | None = None,
    rank: int | None = None,
    **options: Any,  # noqa: ANN401 - Client.session's keywords, typed there
) -> Session:
    """Open a session on all ranks of a group; only the first one asks the server.

    All ranks call it; all of them get the session, or all raise the same error. Without
    torch.distributed, or in a group of one, it is `client.session(...)`.

    Args:
        client: every rank's own, with the same settings. Making one connects to nothing.
        name: of the session.
        group: the process group; by default the default one.
        rank: under which this process reports; by default its rank in the group.
        **options: as for `Client.session`; those of the first rank are used.

    Raises:
        ValueError: the group's timeout is shorter than the client may wait for the server.
        PacesetterError: what `Client.session` raises on the first rank.
    """
    if not are_many(group):
        return client.session(name, rank=rank or 0, **options)
    ranks = Ranks(group)
    _refuse_impatient(ranks, client.longest_wait)
    reporter = ranks.rank if rank is None else rank
    opened: list[Session] = []

    def ask() -> bytes:
        opened.append(client.session(name, rank=reporter, **options))
        return _info_out(opened[0].info)

    content = ranks.from_first(ask)
    if opened:
        return opened[0]
    return client.follow(_info_in(content), rank=reporter, lr_bounds=options.get("lr_bounds"))


def relay_for(
    session: Session,
    *,
    mode: str = "auto",
    group: distributed.ProcessGroup | None = None,
    reports: str = "first",
) -> Relay | None:
    """How the ranks of this training share a session; None for a process that trains alone.

    All ranks call it.

    Raises:
        ValueError: the options make no sense here, this process is not in the group, or the group's
            timeout is shorter than the client may wait for the server.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}: choose from {', '.join(MODES)}")
    if reports not in REPORTS:
        raise ValueError(f"reports={reports!r}: choose from {', '.join(REPORTS)}")
    if not are_many(group):
        if mode == "broadcast" and not is_grouped():
            raise ValueError(
                "mode='broadcast' needs torch.distributed: call init_process_group first, or "
                "leave mode out"
            )
        return None
    if mode == "each" and session.goes_on_in_outages:
        raise ValueError(
            "mode='each' lets every rank ask the server, and on_outage='hold' and 'forecast' need "
            "one rank that decides for all: use the usual mode, or on_outage='wait'"
        )
    ranks = Ranks(group)
    _refuse_impatient(ranks, session.longest_wait)
    return Relay(session, ranks, each=mode == "each", reports=reports)


def _refuse_impatient(ranks: Ranks, wait: float) -> None:
    """Refuse, on all ranks or on none, a group that gives up while its first rank still waits.

    The ranks compare the longest wait and the shortest timeout of any.
    """
    timeout = timeout_of(ranks.group)
    told = [_milliseconds(wait), ABSENT if timeout is None else _milliseconds(timeout)]
    (_, longest), (shortest, _) = ranks.extremes(told)
    if longest + _milliseconds(MARGIN) > shortest:
        raise ValueError(
            f"the process group gives up after {shortest / 1000:g} s, and the client may wait for "
            f"the server for {longest / 1000:g} s: pass a timeout of "
            f"{longest / 1000 + MARGIN:g} s or more to init_process_group or new_group, or a "
            "shorter max_wait and retry_for to Client"
        )


def _milliseconds(seconds: float) -> int:
    return int(min(seconds, 1e12) * 1000)


class Relay:
    """Passes the windows of the first rank's session to all ranks, at the same step on each.

    All ranks call `window` for the same steps in the same order, as they step their optimizers.
    When the step is not in the window at hand, which depends on nothing else, they meet: they check
    that they are at the same step and hold the same learning rates, then the first rank asks, and
    all get the window or the error. Between two meetings nothing is exchanged. The others wait as
    long as the first rank does, whose wait is bounded; a process group's timeout must be longer.

    Args:
        session: of this rank; only the first rank's ever talks to the server for values.
        ranks: who shares it.
        each: every rank asks the server by itself; they meet only to restart.
        reports: whose metrics are reported: the `first` rank's, the `mean` of all, or `each`.
    """

    def __init__(
        self, session: Session, ranks: Ranks, *, each: bool = False, reports: str = "first"
    ) -> None:
        self.session = session
        self.ranks = ranks
        self._each = each
        self.reports = "each" if each else reports
        self._window: Window | None = None
        # What all ranks know of; the first rank's session may have gone on to another by itself.
        self._attempt = session.attempt
        self._waiting: list[tuple[int, str, Value]] = []

    def report(self, step: int, name: str, value: Any) -> None:  # noqa: ANN401 - a Scalar
        """Take a metric of this rank."""
        if self.reports == "mean":
            self._waiting.append((step, name, capture(value)))
        elif self.reports == "each" or self.ranks.leads:
            self.session.report(step, **{name: value})

    def window(
        self, step: int, *, at: int = -1, held: Mapping[str, float], fault: Exception | None = None
    ) -> Window:
        """The window that holds a step; every rank gets the same.

        Args:
            step: the step wanted.
            at: the step that the training is at now, -1 for none.
            held: what the optimizer holds at it, by series; those that this rank drives.
            fault: what is wrong on this rank; then all ranks raise it.

        Raises:
            RankMismatchError: the ranks are not at the same step, or hold different values.
            PacesetterError: what the first rank's session raises, on all ranks alike.
        """
        if self._each:
            if fault is not None:
                raise fault
            if held:
                self.session.applied(at, held)
            return self.session.window(step)
        if self._window is not None and step in self._window:
            if self.session.walks(self._window) and self.ranks.leads:
                return self.session.window(step)  # which has the next one fetched
            self._window.mark = len(self._window)
            return self._window
        self._window = None
        self._meet(step, held, fault)
        content = self.ranks.from_first(lambda: self._ask(step, at, held))
        window = self._asked if self.ranks.leads else self._read(content)
        assert window is not None  # noqa: S101 - the first rank has asked, or all have raised
        self._window = window
        self.session.adopt(window, leads=self.ranks.leads)
        return window

    def flush(self) -> None:
        """Deliver what all ranks have reported; all call it."""
        self._meet(-1, {}, None)

        def deliver() -> bytes:
            self.session.flush()
            return b""

        self.ranks.from_first(deliver)
        if self.reports == "each" and not self.ranks.leads:
            self.session.flush()

    def deliver(self, seconds: float) -> bool:
        """Deliver what all ranks have reported, trying for so long at most; all call it."""
        delivered = self.decide(lambda: self.session.deliver(seconds))
        if self.reports == "each" and not self.ranks.leads:
            delivered = self.session.deliver(seconds)
        return delivered

    def resize(self, batch_size: int) -> None:
        """Tell the server how many samples are in one step of all ranks; all call it."""

        def tell() -> bool:
            self.session.resize(batch_size)
            return True

        self.decide(tell)

    def decide(self, work: Callable[[], bool]) -> bool:
        """Do something on the first rank that gives yes or no to all; all call it."""
        self._meet(-1, {}, None)
        return bool(self.ranks.from_first(lambda: b"1" if work() else b""))

    def restart(
        self,
        step: int,
        *,
        key: str | None,
        needed: Callable[[], bool],
        known: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Go back to a step, in an attempt that the first rank opens where it is needed.

        Raises:
            RankMismatchError: the ranks go back to different steps.
            PacesetterError: what `Session.restart` raises, on all ranks alike.
        """
        self._waiting.clear()
        self._meet(step, {}, None)
        session = self.session

        def go() -> bytes:
            if needed():
                # For all ranks, so it need not be one that they could make alike.
                key_of_all = key or drawn_key()
                session.restart(step, key=key_of_all, known=known, batch_size=batch_size)
            return _info_out(session.info)

        info = _info_in(self.ranks.from_first(go))
        if not self.ranks.leads and info.attempt != session.attempt:
            session.follow(info, step)
        self._attempt = info.attempt
        self._window = None

    # -- meeting ---------------------------------------------------------------------------------

    def _meet(self, step: int, held: Mapping[str, float], fault: Exception | None) -> None:
        """See that all ranks are alike, and gather their metrics; fails on all ranks or on none."""
        series = self.session.series
        numbers = [
            ABSENT if fault is None else self.ranks.rank,
            _digest(self.session.name, series, self.reports, self._each),
            self._attempt,
            step,
            _digest([(step, name) for step, name, _ in self._waiting]),
            *(_bits(held[name]) if name in held else ABSENT for name in series),
        ]
        (faulty, _), *pairs = self.ranks.extremes(numbers)
        self.ranks.raise_of(faulty, fault)
        what = ("session", "attempt", "step", "steps reported", *series)
        for name, (low, high) in zip(what, pairs, strict=True):
            if low not in {ABSENT, high}:
                raise RankMismatchError(_mismatch(name, low, high, in_bits=name in series))
        if self._waiting:
            self._report_means()

    def _report_means(self) -> None:
        means = self.ranks.mean([float(value) for _, _, value in self._waiting])
        if self.ranks.leads:
            for (step, name, _), mean in zip(self._waiting, means, strict=True):
                self.session.report(step, **{name: mean})
        self._waiting.clear()

    def _ask(self, step: int, at: int, held: Mapping[str, float]) -> bytes:
        if held:
            self.session.applied(at, held)
        self._asked = window = self.session.fetch(step)
        moved = self.session.attempt != self._attempt
        self._attempt = self.session.attempt
        return _window_out(window, self.session, moved=moved)

    _asked: Window | None = None

    def _read(self, content: bytes) -> Window:
        session = self.session
        line = json.loads(content.partition(b"\n")[0])
        if line["moved_to"] is not None:
            session.follow(SessionInfo.parse(line["moved_to"]), line["start"])
            self._attempt = session.attempt
        expected = Expected(
            session.attempt, session.series, line["start"], _ANY, session=session.name
        )
        answer = decode(content, expected)
        window = answer.window
        assert window is not None  # noqa: S101 - decode() makes sure
        window.sealed = line["sealed"]
        session.note(answer)
        return window

    # -- copies ----------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Relay:
        return Relay(self.session, self.ranks, each=self._each, reports=self.reports)

    def __reduce__(self) -> tuple[Callable[..., Relay | None], tuple[Any, ...]]:
        # A process group stays in its process: the copy looks for the default one.
        return _rejoined, (self.session, "each" if self._each else "auto", self.reports)


def _rejoined(session: Session, mode: str, reports: str) -> Relay | None:
    each = mode == "each"  # without the checks of relay_for: a copy is made on some ranks only
    return Relay(session, Ranks(), each=each, reports=reports) if are_many(None) else None


def _mismatch(name: str, low: int, high: int, *, in_bits: bool) -> str:
    if in_bits:
        return (
            f"the ranks hold different values of {name}, from {_double(low)!r} to "
            f"{_double(high)!r}: something other than this scheduler writes them, or the ranks "
            "loaded different checkpoints"
        )
    if name in {"session", "steps reported"}:
        return (
            f"the ranks differ in the {name}: give all ranks the same session and options, and "
            "call report and step alike on each"
        )
    return (
        f"the ranks differ in the {name}, from {low} to {high}: call step() and load_state_dict() "
        "alike on each, with the same checkpoint"
    )


def _bits(value: float) -> int:
    number: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return number


def _double(bits: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<q", bits))[0]
    return value


def _digest(*facts: object) -> int:
    """62 bits that stand for some facts, the same in every process."""
    content = hashlib.sha256(repr(facts).encode()).digest()
    return int.from_bytes(content[:8], "big") >> 2


# -- on the way from rank to rank ------------------------------------------------------------------


def _info_out(info: SessionInfo) -> bytes:
    return json.dumps(dataclasses.asdict(info)).encode()


def _info_in(content: bytes) -> SessionInfo:
    return SessionInfo.parse(json.loads(content))


def _window_out(window: Window, session: Session, *, moved: bool) -> bytes:
    """A window in the server's own form, with what the session knows besides."""
    head = {
        "attempt": session.attempt,
        "horizon": session.horizon,
        "revision": session.revision,
        "max_lookahead": session.max_lookahead,
        "start": window.start,
        "count": len(window),
        "series": list(session.series),
        "sealed": window.sealed,
        "moved_to": dataclasses.asdict(session.info) if moved else None,
        "notices": [
            {"step": each.step, "code": each.code, "message": each.message}
            for each in window.notices
        ],
    }
    return (
        json.dumps(head).encode()
        + b"\n"
        + b"".join(_block(window.columns[name]) for name in session.series)
    )


def _block(column: Sequence[float]) -> bytes:
    doubles = array("d", column)
    if sys.byteorder == "big":
        doubles.byteswap()
    return doubles.tobytes()
