"""A session that the ranks of a torch.distributed training share.

One rank, the first of the group, talks to the server and broadcasts each window; the others have no
connection. So a thousand ranks cost the server one client, and ranks cannot differ.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from torch import distributed

from pacesetter._client import Client
from pacesetter._core import WayBack
from pacesetter._errors import RankMismatchError
from pacesetter._info import SessionInfo
from pacesetter._reports import Scalar, Value, capture
from pacesetter._session import Session, core_of
from pacesetter._torch.ranks import ABSENT, Ranks, are_many, is_grouped, timeout_of
from pacesetter._torch.relay import SessionRelay
from pacesetter._window import Expected, Window, decode, doubles

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
        client: Each rank's own client, with the same settings. Creating one opens no connection.
        name: The session's name.
        group: The process group; torch's default group if not given.
        rank: The rank under which this process reports; by default its rank in the group.
        **options: The same as for `Client.session`; those of the first rank are used.

    Raises:
        ValueError: The group's timeout is shorter than the client may wait for the server.
        PacesetterError: What `Client.session` raises on the first rank.
    """
    if not are_many(group):
        return client.session(name, rank=rank or 0, **options)
    ranks = Ranks(group)
    _refuse_impatient(ranks, client.longest_wait)
    reporter = ranks.rank if rank is None else rank
    opened: list[Session] = []

    def ask() -> bytes:
        with client.for_all_ranks():
            opened.append(client.session(name, rank=reporter, **options))
        return _told(opened[0], sent_to=core_of(opened[0]).sent_to)

    content = ranks.from_first(ask)
    if opened:
        return opened[0]
    told = json.loads(content)
    info = SessionInfo.parse(told["info"])
    followed = client.follow(info, rank=reporter, lr_bounds=options.get("lr_bounds"))
    core_of(followed).sent_to = told["sent_to"]
    return followed


def relay_for(
    session: Session,
    *,
    mode: str = "auto",
    group: distributed.ProcessGroup | None = None,
    reports: str = "first",
) -> Relay | None:
    """Return the relay by which the ranks share a session; None for a process that trains alone.

    All ranks call it.

    Raises:
        ValueError: The options make no sense here, this process is not in the group, or the group's
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
    if mode == "each" and core_of(session).fallback is not None:
        raise ValueError(
            "mode='each' lets every rank ask the server, and on_outage='hold' and 'forecast' need "
            "one rank that decides for all: use the usual mode, or on_outage='wait'"
        )
    ranks = Ranks(group)
    _refuse_impatient(ranks, core_of(session).prefetcher.max_wait)
    return Relay(session, ranks, each=mode == "each", reports=reports)


def _refuse_impatient(ranks: Ranks, wait: float) -> None:
    """Refuse, on all ranks or on none, a group that gives up while its first rank still waits.

    The ranks compare the longest wait and the shortest timeout among them.
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


class Relay(SessionRelay):
    """Passes the windows of the first rank's session to all ranks, at the same step on each.

    All ranks call `window` for the same steps in the same order, as they step their optimizers.
    When the step is not in the window at hand, which depends on nothing else, they meet: they check
    that they are at the same step and hold the same learning rates, then the first rank asks, and
    all get the window or the error. Between two meetings nothing is exchanged. The others wait as
    long as the first rank does, whose wait is bounded; a process group's timeout must be longer.

    Args:
        session: This rank's session; only the first rank's ever asks the server for values.
        ranks: The ranks that share it.
        each: Whether every rank asks the server by itself, so that they meet only to restart.
        reports: Whose metrics are reported: the `first` rank's, the `mean` of all, or `each`.
    """

    follows = False  # no rank moves without the others

    def __init__(
        self, session: Session, ranks: Ranks, *, each: bool = False, reports: str = "first"
    ) -> None:
        super().__init__(session)
        self.ranks = ranks
        self.leads = ranks.leads
        self._each = each
        self.reports = "each" if each else reports
        self._window: Window | None = None
        # The attempt that all ranks know; the first rank's session may have moved to another by
        # itself.
        self._attempt = session.attempt
        self._waiting: list[tuple[int, str, Value]] = []

    def may_raise(self, *, edge: bool) -> bool:
        """Return whether all ranks meet at the step, so that an error of one is raised on all."""
        return edge

    def look(self, step: int) -> None:
        """Return None: reading must not make one rank wait for the others."""

    def report_all(self, step: int, metrics: Mapping[str, Scalar]) -> None:
        """Accept the metrics of this rank."""
        for name, value in metrics.items():
            self.report(step, name, value)

    def report(self, step: int, name: str, value: Any) -> None:  # noqa: ANN401 - a Scalar
        """Accept a metric of this rank."""
        if self.reports == "mean":
            self._waiting.append((step, name, capture(value)))
        elif self.reports == "each" or self.ranks.leads:
            self.session.report(step, **{name: value})

    def window(
        self,
        step: int,
        *,
        at: int = -1,
        held: Mapping[str, Scalar],
        fault: Exception | None = None,
        meets: bool = False,
        trains: bool = True,
    ) -> Window:
        """Return the window that holds a step; every rank gets the same.

        An error of one rank is raised on all of them where they meet.

        Raises:
            RankMismatchError: The ranks are not at the same step, or hold different values.
            PacesetterError: What the first rank's session raises, on all ranks alike.
        """
        rates = {name: float(rate) for name, rate in held.items()}
        if self._each:
            return super().window(step, at=at, held=rates, fault=fault, trains=trains)
        if self._window is not None and step in self._window:
            if meets:
                self._meet(step, rates, fault)
            elif fault is not None:
                raise fault
            if core_of(self.session).walks(self._window) and self.ranks.leads:
                return core_of(self.session).window(step)  # which has the next one fetched
            self._window.mark = len(self._window)
            return self._window
        self._window = None
        self._meet(step, rates, fault)
        content = self.ranks.from_first(lambda: self._ask(step, at, rates))
        window = self._asked if self.ranks.leads else self._read(content)
        assert window is not None  # noqa: S101 - the first rank has asked, or all have raised
        self._window = window
        core_of(self.session).adopt(window, leads=self.ranks.leads)
        return window

    def flush(self) -> None:
        """Deliver what all ranks have reported; all call it, and raise what one of them raises."""
        self.decide(self.session.flush)
        if self.reports != "each":
            return
        fault: Exception | None = None
        if not self.ranks.leads:
            try:
                self.session.flush()
            except Exception as error:  # all ranks raise it below
                fault = error
        self._meet(-1, {}, fault)

    def deliver(self, seconds: float) -> bool:
        """Deliver what all ranks have reported, trying for at most `seconds`; all call it."""
        delivered = self.decide(lambda: self.session.deliver(seconds))
        if self.reports == "each" and not self.ranks.leads:
            delivered = self.session.deliver(seconds)
        return delivered

    def decide(self, work: Callable[[], object]) -> bool:
        """Do something on the first rank, and return its yes or no on all; all call it."""
        self._meet(-1, {}, None)
        return bool(self.ranks.from_first(lambda: b"1" if work() else b""))

    def refuse(self, fault: Exception) -> NoReturn:
        """Raise, on all ranks, why this one does not go back to a step where others `restart`."""
        self._waiting.clear()
        self._meet(-1, {}, fault)
        raise fault

    def restart(self, way: WayBack, needed: Callable[[], bool]) -> None:
        """Go back to a step, in an attempt that the first rank opens where it is needed.

        Raises:
            RankMismatchError: The ranks go back to different steps.
            PacesetterError: What `Session.restart` raises, on all ranks alike.
        """
        self._waiting.clear()
        self._meet(way.step, {}, None)
        core = core_of(self.session)

        def go() -> None:
            if needed():
                # This rank acts for all, so the key need not be one that each could derive.
                core.go_back(dataclasses.replace(way, key=way.key or core.key_for_all(way.step)))

        self._settle(go, way.step)

    def begin(self, step: int, *, batch_size: int | None = None) -> None:
        """Settle on the first rank what becomes of steps that were trained before; all call it.

        Raises:
            ResumeError: That was not stated; on all ranks alike.
        """
        self._meet(step, {}, None)
        self._settle(lambda: core_of(self.session).begin(step, batch_size=batch_size), step)

    def _settle(self, work: Callable[[], None], step: int) -> None:
        """Run a function of the session in the first rank, and make all others follow it."""
        session, core = self.session, core_of(self.session)
        before = core.restarts

        def done() -> bytes:
            work()
            return _told(session, went_back=core.restarts != before)

        with core.prefetcher.going_back():  # no rank's reports are lost on the way
            told = json.loads(self.ranks.from_first(done))
            info = SessionInfo.parse(told["info"])
            if not self.ranks.leads:
                # Before the server has answered, an attempt after a way back has the old number.
                was = (session.name, session.attempt)
                if told["went_back"] or (info.name, info.attempt) != was:
                    core.follow(info, step)
                core.leave()
        self._attempt = info.attempt
        self._window = None

    # -- meeting ---------------------------------------------------------------------------------

    def _meet(self, step: int, held: Mapping[str, float], fault: Exception | None) -> None:
        """Check that all ranks agree, and gather their metrics; fail on all ranks or on none."""
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
        self._asked = window = core_of(self.session).fetch(step)
        moved = self.session.attempt != self._attempt
        self._attempt = self.session.attempt
        return _window_out(window, self.session, moved=moved)

    _asked: Window | None = None

    def _read(self, content: bytes) -> Window:
        session = self.session
        line = json.loads(content.partition(b"\n")[0])
        if line["moved_to"] is not None:
            core_of(session).follow(SessionInfo.parse(line["moved_to"]), line["start"])
            self._attempt = session.attempt
        expected = Expected(
            session.attempt, session.series, line["start"], _ANY, session=session.name
        )
        answer = decode(content, expected)
        window = answer.window
        assert window is not None  # noqa: S101 - decode() makes sure
        window.sealed = line["sealed"]
        core_of(session).sync.note(answer)
        return window

    # -- copies ----------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Relay:
        return Relay(self.session, self.ranks, each=self._each, reports=self.reports)

    def __reduce__(self) -> tuple[Callable[..., SessionRelay], tuple[Any, ...]]:
        # A process group stays in its process: the copy looks for the default one.
        return _rejoined, (self.session, "each" if self._each else "auto", self.reports)


def _rejoined(session: Session, mode: str, reports: str) -> SessionRelay:
    if not are_many(None):
        return SessionRelay(session)
    # The checks of relay_for are skipped: a copy is made on some ranks only.
    return Relay(session, Ranks(), each=mode == "each", reports=reports)


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
    """Return 62 bits that stand for some facts, the same in every process."""
    content = hashlib.sha256(repr(facts).encode()).digest()
    return int.from_bytes(content[:8], "big") >> 2


# -- on the way from rank to rank ------------------------------------------------------------------


def _told(session: Session, **more: object) -> bytes:
    return json.dumps({"info": dataclasses.asdict(session.info), **more}).encode()


def _window_out(window: Window, session: Session, *, moved: bool) -> bytes:
    """Return a window in the server's own form, with what else the session knows."""
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
        "notices": [dataclasses.asdict(each) for each in window.notices],
    }
    return (
        json.dumps(head).encode()
        + b"\n"
        + b"".join(doubles(window.columns[name]).tobytes() for name in session.series)
    )
