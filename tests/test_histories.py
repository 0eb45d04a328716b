"""Random histories of sessions, beside a model that has no rules and remembers everything.

The real store and writer run in this process, on a file. Trainers of several ranks seal and report,
operators order and cancel, jobs go back to earlier steps and fork, and the service restarts, in any
order. `python tests/test_histories.py --histories 10000` is the long form.
"""

import argparse
import itertools
import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from in_process import Service
from orders import LAWS, MOMENTUM, bodies
from pacesetter_service.core.actions import Action
from pacesetter_service.core.attempts import AttemptRef
from pacesetter_service.core.commands import (
    Act,
    Cancel,
    Command,
    Pass,
    Reading,
    Report,
    Resize,
    Seal,
)
from pacesetter_service.core.decide import decide
from pacesetter_service.core.errors import (
    ActionRefusedError,
    BatchRefusedError,
    NothingToTakeBackError,
    OrderNotFoundError,
    SessionArchivedError,
    SessionFinishedError,
    StaleAttemptError,
    StepOutOfRangeError,
    SupersededAttemptError,
)
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.orders import planned
from pacesetter_service.core.reach import LOOK
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.work import Change, Create, Find, Fork, Open, Outcome, TakeBack
from pacesetter_service.store.port import Stored
from same import text_of

AHEAD = 40
"""How many steps of the future are compared when a job has gone back."""

GROUPS = {
    "body": {"base_lr": 0.1},
    "head": {"base_lr": 0.3, "schedule": {"kind": "exponential", "gamma": 0.98}},
}

PLATEAU = {"kind": "plateau", "metric": "loss", "patience": 1, "factor": 0.5, "cooldown": 1}
SMOOTH = {"kind": "plateau", "metric": "smooth", "patience": 0, "factor": 0.7}
GUARD = {"kind": "spike_guard", "metric": "loss", "window": 8, "min_window": 3, "cooldown": 2}
GUARD |= {"rewarm": 5, "recover_after": 3}
SWITCH = {
    "kind": "switch",
    "metric": "loss",
    "stages": [
        {"when": {"kind": "plateaued", "patience": 2}, "schedule": LAWS[0], "value": "continue"},
        {"when": {"kind": "below", "value": -5.0}, "schedule": LAWS[1]},
    ],
}
VIEWS = {"smooth": {"of": "loss", "smoothing": {"kind": "ema", "beta": 0.6}, "nan": "ignore"}}

RULES = [
    [],
    [PLATEAU],
    [PLATEAU, SMOOTH],
    [GUARD, SMOOTH],
    [SWITCH],
    [SWITCH, PLATEAU],
    [{**GUARD, "max_trips": 1, "then": "stop"}],
]

specs = st.fixed_dictionaries(
    {
        "controllers": st.sampled_from(RULES),
        "metrics": st.just(VIEWS),
        "ranks": st.integers(1, 3),
        "start_step": st.sampled_from([0, 7]),
        "batch_scaling": st.sampled_from(["none", "linear", "sqrt", "refuse"]),
    },
    optional={
        "max_lookahead": st.sampled_from([1, 5, 16]),
        "reaction": st.just({"decide_every": 3, "timeout": 0.0}),
        "total_steps": st.just(60),
        "batch_size": st.just(64),
        "limits": st.just({"min_lr": 1e-4, "max_lr": 3.0}),
    },
)

shapes = st.one_of(
    st.fixed_dictionaries({"base_lr": st.just(0.1), "schedule": st.sampled_from(LAWS[:4])}),
    st.just({"base_lr": 0.1, "schedule": MOMENTUM}),
    st.just({"groups": GROUPS}),
)

# SQLite knows one zero: what is read back of -0.0 is 0.0, which no controller can tell from it.
losses = st.one_of(
    st.floats(-3, 3).map(lambda loss: loss + 0.0),
    st.sampled_from([1.0, 1.0, 1.0, 40.0, math.nan, math.inf, -math.inf]),
)


REFUSALS = (
    ActionRefusedError,
    SessionFinishedError,
    StepOutOfRangeError,
)


LifeId = tuple[int, int]
"""An attempt of a session, by the session's number in the database."""


Key = tuple[int, str, int]
"""Step, metric and rank of a reading."""


@dataclass
class Chapter:
    """An attempt in the lineage: its first step, the orders pending there, and its reports."""

    ref: LifeId
    start: int
    waited: dict[Key, float]
    said: dict[Key, float] = field(default_factory=dict)


@dataclass
class Memory:
    """All that was ever sealed, ordered and reported in one session.

    Attributes:
        chapters: The lives of the path, in their order.
        path: For each step the chapter that it was trained in.
        before: For each step the state before the sealing that it came from.
        orders: The step of each order that was carried out on the path, or waits.
        keys: The keys of the session's attempts.
    """

    chapters: list[Chapter]
    path: dict[int, LifeId] = field(default_factory=dict)
    before: dict[int, Session] = field(default_factory=dict)
    orders: dict[int, int] = field(default_factory=dict)
    keys: list[str] = field(default_factory=lambda: [""])

    def heard(self, step: int) -> dict[Key, float]:
        """Return the readings of earlier steps that count there, of several with one key the first.

        They are those that were reported in any life of the lineage, however late. What was
        reported in a life outside the lineage is forgotten.
        """
        [containing, *_] = [each for each in reversed(self.chapters) if each.start <= step]
        found = dict(containing.waited)
        ends = [*(each.start for each in self.chapters[1:]), step]
        for chapter, end in zip(self.chapters, ends, strict=True):
            for key, value in chapter.said.items():
                if key[0] < min(end, step):
                    found.setdefault(key, value)
        return found

    def go_on(self, step: int, ref: LifeId, waited: dict[Key, float]) -> "Memory":
        """Return what is left of it when another life begins at a step; orders stay."""
        return Memory(
            [*(each for each in self.chapters if each.start < step), Chapter(ref, step, waited)],
            {each: ref for each, ref in self.path.items() if each < step},
            {each: state for each, state in self.before.items() if each < step},
            dict(self.orders),
            list(self.keys),
        )

    def drop_orders(self, step: int) -> None:
        """Forget the orders for a step and later ones."""
        self.orders = {number: at for number, at in self.orders.items() if at < step}


class Histories(RuleBasedStateMachine):
    """Everything that can happen to a session."""

    service: Service
    counts: ClassVar[Counter[str]] = Counter()
    progress: ClassVar[Callable[[int], None]] = staticmethod(lambda _: None)
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.name = f"history-{next(self.numbers)}"
        self.memory = Memory([])
        self.values: dict[LifeId, dict[int, bytes]] = defaultdict(dict)
        self.said: dict[LifeId, dict[tuple[int, str, int], float]] = defaultdict(dict)

    @initialize(spec=specs, shape=shapes)
    def begin(self, spec: dict[str, Any], shape: dict[str, Any]) -> None:
        """Create the session."""
        whole = {"name": self.name, **spec, **shape}
        if SWITCH in spec["controllers"] and "schedule" in shape:  # its stages drive no momentum
            whole |= {"schedule": {"kind": "constant"}}
        begun = self.service.do(Create(SessionSpec.model_validate(whole))).entry.stored.session
        self.memory = Memory([Chapter(self.ref, begun.horizon, {})])
        self.counts["histories"] += 1
        self.progress(self.counts["histories"])

    # What there is -----------------------------------------------------------------------------

    @property
    def stored(self) -> Stored:
        """The session as the writer has it."""
        return self.service.do(Find(self.name)).entry.stored

    @property
    def session(self) -> Session:
        """The session's state."""
        return self.stored.session

    @property
    def ref(self) -> LifeId:
        """The running attempt."""
        return self.stored.id, self.session.attempt.number

    def give(self, *commands: Command) -> Outcome | None:
        """Submit commands; return None if they are refused for what they are."""
        before = self.session
        try:
            outcome = self.service.do(Change(self.name, commands))
        except REFUSALS as refused:
            self.counts[type(refused).__name__] += 1
            assert text_of(self.session) == text_of(before), "what is refused leaves no trace"
            return None
        for command in commands[:-1]:  # what came with the call was known when it was answered
            before = evolve_all(before, decide(before, command).events)
        self.note(before, outcome)
        return outcome

    def note(self, before: Session, outcome: Outcome) -> None:
        """Record what was sealed, and check that it may be trained with."""
        stored, after = outcome.entry.stored, outcome.entry.stored.session
        start, end = before.horizon, after.horizon
        assert end >= start
        if end == start:
            return
        block = self.service.store.sealed_between(stored.lineage, len(after.timelines), start, end)
        if outcome.entry.tail.holds(start, end):
            assert outcome.entry.tail.window(start, end).tobytes() == block.tobytes()
        assert np.isfinite(block).all()
        rates = [name == "lr" or name.endswith(".lr") for name in after.timelines]
        assert (block[rates] >= 0).all()
        for step in range(start, end):
            assert step not in self.values[self.ref], "sealed twice in one attempt"
            self.values[self.ref][step] = block[:, step - start].tobytes()
            self.memory.path[step] = self.ref
            self.memory.before[step] = before

    def record_call(self, readings: Iterable[Reading]) -> None:
        """Record readings, each where its step was trained; a repetition changes nothing.

        A fork writes nothing into the past that it shares.
        """
        mine = [each for each in self.memory.chapters if each.ref[0] == self.stored.id]
        for reading in readings:
            lived = [each for each in mine if each.start <= reading.step]
            chapter = (lived or mine[:1])[-1]
            self.said[chapter.ref].setdefault(reading.key, reading.value)
            chapter.said.setdefault(reading.key, reading.value)

    # Trainers -----------------------------------------------------------------------------------

    @rule(count=st.integers(1, 24), behind=st.integers(0, 5))
    def seal(self, count: int, behind: int) -> None:
        """Ask for a window, which may begin with steps that are sealed."""
        session = self.session
        start = max(session.horizon - behind, session.spec.start_step)
        self.give(Seal(start, count, session.attempt.number))

    @rule(data=st.data(), several=st.integers(1, 6), then=st.booleans())
    def report(self, data: st.DataObject, several: int, then: bool) -> None:
        """Report steps for some ranks, new or old, first or again; and ask for the next step."""
        session = self.session
        first = session.spec.start_step
        if session.horizon == first:
            return
        readings = []
        for _ in range(several):
            back = data.draw(st.integers(1, min(session.horizon - first, 20)))
            rank = data.draw(st.integers(0, session.spec.ranks - 1))
            metric = data.draw(st.sampled_from(["loss", "loss", "loss", "acc"]))
            readings.append(Reading(rank, session.horizon - back, metric, data.draw(losses)))
        asked = (Seal(session.horizon, 1),) if then else ()
        if self.give(Report(tuple(readings), session.attempt.number), *asked) is not None:
            self.record_call(readings)

    @rule(count=st.integers(1, 24), ahead=st.integers(0, 3))
    def look(self, count: int, ahead: int) -> None:
        """Seal as a reader does: a little beyond what trainers hold."""
        session = self.session
        outcome = self.give(Seal(session.horizon + ahead, count, trains=False))
        if outcome is not None:
            after = outcome.entry.stored.session
            assert after.held == session.held
            assert after.horizon <= max(session.horizon, session.held + LOOK)
            self.counts["looks"] += after.horizon > session.horizon

    @rule(values=st.lists(losses, min_size=1, max_size=10))
    def train(self, values: list[float]) -> None:
        """Train as a job does: ask, train, report from every rank, in turn."""
        for loss in values:
            session = self.session
            if self.give(Seal(session.horizon, 1, session.attempt.number)) is None:
                return
            step = self.session.horizon - 1
            if step < session.spec.start_step:
                return
            ranks = range(session.spec.ranks)
            readings = tuple(Reading(rank, step, "loss", loss + rank) for rank in ranks)
            self.give(Report(readings))
            self.record_call(readings)

    @rule()
    def lose_patience(self) -> None:
        """Stop waiting for the measurements of a boundary."""
        self.give(Pass(self.session.horizon))

    @precondition(lambda self: len(self.memory.keys) > 1)
    @rule(data=st.data())
    def speak_for_an_old_attempt(self, data: st.DataObject) -> None:
        """Check that sealing, reporting and joining are refused to an attempt that is over."""
        session = self.session
        over = [
            each for each in range(1, session.attempt.number) if each not in session.attempt.carried
        ]
        if not over:
            return
        old = data.draw(st.sampled_from(over))
        commands: list[Command] = [Seal(session.horizon, 1, old)]
        if session.horizon > session.spec.start_step:
            reading = Reading(0, session.horizon - 1, "loss", 1.0)
            commands.append(Report((reading,), old))
        for command in commands:
            with pytest.raises(StaleAttemptError):
                self.service.do(Change(self.name, (command,)))
        if self.memory.keys[old - 1] not in {"", session.attempt.key}:
            with pytest.raises(SupersededAttemptError):
                self.service.do(Open(self.name, session.horizon, self.memory.keys[old - 1]))
        assert text_of(self.session) == text_of(session)

    # Operators ----------------------------------------------------------------------------------

    @rule(data=st.data(), ahead=st.none() | st.integers(-3, 25))
    def order(self, data: st.DataObject, ahead: int | None) -> None:
        """Order an action; its step must not be sealed."""
        session = self.session
        groups = sorted({series.group for series in session.spec.series()} - {""})
        action = Action.parse(data.draw(bodies(tuple(groups))))
        at = None if ahead is None else max(session.horizon + ahead, 0)
        outcome = self.give(Act(action, at, "ann"))
        if outcome is None:
            return
        after = outcome.entry.stored.session
        effective = session.horizon if at is None else at
        assert effective >= session.horizon
        assert (after.horizon, after.orders.given) == (session.horizon, session.orders.given + 1)
        assert (after.orders.given, effective) in {
            (order.id, order.at) for order in after.orders.waiting
        }
        self.memory.orders[after.orders.given] = effective
        self.counts[f"order {action.model_dump()['kind']}"] += 1

    @rule(factor=st.sampled_from([0.5, 0.9, 1.1]), count=st.integers(1, 4))
    def order_and_train(self, factor: float, count: int) -> None:
        """Order an action that is carried out in the commit in which it is given."""
        at, ordered = self.session.horizon, self.session.orders.given
        act = Act(Action.parse({"kind": "scale", "factor": factor}), at, "ann")
        outcome = self.give(act, Seal(at, count))
        if outcome is not None:
            assert outcome.entry.stored.session.orders.given == ordered + 1
            self.memory.orders[ordered + 1] = at
            self.counts["orders carried out at once"] += 1

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel a pending order, or check that there is none."""
        waiting = [order.id for order in self.session.orders.waiting]
        if waiting:
            number = data.draw(st.sampled_from(waiting))
            self.give(Cancel(number))
            self.memory.orders.pop(number, None)
        with pytest.raises(OrderNotFoundError):
            self.service.do(Change(self.name, (Cancel(10**6),)))

    @rule(batch=st.sampled_from([32, 64, 96]))
    def resize(self, batch: int) -> None:
        """Report another batch size, unless the rule or a limit refuses it."""
        before = self.session
        try:
            outcome = self.service.do(Change(self.name, (Resize(batch),)))
        except BatchRefusedError:
            assert before.spec.batch_scaling != "none"
            assert text_of(self.session) == text_of(before), "what is refused leaves no trace"
            return
        after = outcome.entry.stored.session
        assert after.control.batch_size == batch
        undone = [each for each in before.orders.waiting if each.id == before.orders.given]
        undone = [each for each in undone if each.at == before.horizon and each.batch_before]
        size = undone[0].batch_before if undone else before.control.batch_size
        scaled = (
            batch not in {before.control.batch_size, size}
            and size is not None
            and before.spec.batch_scaling != "none"
            and before.status == "active"
        )
        assert after.orders.given == before.orders.given + scaled
        assert after.horizon == before.horizon
        self.counts["resized"] += 1

    # Jobs that go back --------------------------------------------------------------------------

    @rule(data=st.data(), drop=st.booleans(), batch=st.none() | st.sampled_from([32, 64, 96]))
    def go_back(self, data: st.DataObject, drop: bool, batch: int | None) -> None:
        """Open an attempt at a step: everything is as it was when that step was handed out."""
        session = self.session
        step = data.draw(st.integers(session.spec.start_step, session.horizon))
        key = f"key-{session.attempt.number}"
        try:
            outcome = self.service.do(Open(self.name, step, key, "ann", drop, batch))
        except BatchRefusedError:
            self.counts["BatchRefusedError"] += 1
            assert session.spec.batch_scaling != "none"
            assert text_of(self.session) == text_of(session), "what is refused leaves no trace"
            return
        opened = outcome.entry.stored.session
        waited = self.compare(session, opened, step)
        self.memory = self.memory.go_on(step, self.ref, waited)
        if drop:
            self.memory.drop_orders(step)
        self.memory.keys.append(key)
        assert (opened.attempt.number, opened.attempt.start) == (session.attempt.number + 1, step)
        ours = {order.id for order in opened.orders.waiting if order.actor == "ann"}
        assert ours == {number for number, at in self.memory.orders.items() if at >= step}
        joined = self.service.do(Open(self.name, step, key))
        assert not joined.created
        assert text_of(joined.entry.stored.session) == text_of(opened)
        self.counts["attempts"] += 1

    @rule(reason=st.sampled_from(["", "somebody looked ahead"]))
    def take_back(self, reason: str) -> None:
        """Take back what no trainer holds: it is open again; its trainers go on unfenced."""
        session = self.session
        if session.held == session.horizon or session.status == "archived":
            with pytest.raises((NothingToTakeBackError, SessionArchivedError)):
                self.service.do(TakeBack(self.name, "ann", reason))
            return
        step = session.held
        opened = self.service.do(TakeBack(self.name, "ann", reason)).entry.stored.session
        waited = self.compare(session, opened, step)
        self.memory = self.memory.go_on(step, self.ref, waited)
        self.memory.keys.append(session.attempt.key)
        assert opened.attempt.number == session.attempt.number + 1
        assert opened.attempt.carried == (*session.attempt.carried, session.attempt.number)
        ours = {order.id for order in opened.orders.waiting if order.actor == "ann"}
        assert ours == {number for number, at in self.memory.orders.items() if at >= step}
        self.give(Seal(max(step - 1, session.spec.start_step), 1, session.attempt.number))
        self.counts["taken back"] += 1

    def compare(self, before: Session, restored: Session, step: int) -> dict[Key, float]:
        """Check that a restored state is the remembered one; return what is pending in it."""
        remembered = planned(self.memory.before[step], step) if step < before.horizon else before
        for name, line in remembered.timelines.items():
            ahead = restored.timelines[name].values(step, AHEAD)
            assert ahead.tobytes() == line.values(step, AHEAD).tobytes(), name
        for part in ("states", "smoothers", "limits", "consumed"):
            after, before = getattr(restored.control, part), getattr(remembered.control, part)
            assert repr(after) == repr(before), part
        assert restored.horizon == step
        waiting = {
            key: value
            for key, value in self.memory.heard(step).items()
            if key[1] in restored.watched and restored.control.consumed.get(key[1], -1) < key[0]
        }
        pending = {key: reading.value for key, reading in restored.pending.items()}
        assert repr(sorted(pending.items())) == repr(sorted(waiting.items())), self.memory.chapters
        return waiting

    @rule(data=st.data(), move=st.booleans())
    def fork(self, data: st.DataObject, move: bool) -> None:
        """Fork a session, which is left as it is; perhaps go on with the fork."""
        session = self.session
        step = data.draw(st.integers(session.spec.start_step, session.horizon))
        name = f"branch-{next(self.numbers)}"
        origin = {"session": self.name, "step": step}
        described = {**session.spec.model_dump(mode="json"), "name": name, "forked_from": origin}
        spec = session.spec.model_validate(described)
        branch = self.service.do(Fork(self.name, spec, step)).entry.stored.session
        assert text_of(self.session) == text_of(session)
        waited = self.compare(session, branch, step)
        assert (branch.orders.waiting, branch.attempt.number, branch.status) == ((), 1, "active")
        self.counts["forks"] += 1
        if move:
            self.check()
            self.name = name
            self.memory = self.memory.go_on(step, self.ref, waited)
            self.memory.drop_orders(step)
            self.memory.keys = [""]

    # The service --------------------------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        """Check that a service that comes back has what it had, to the bit."""
        before = self.stored
        self.service.restart()
        after = self.stored
        assert text_of(after.session) == text_of(before.session)
        assert (after.lineage, after.events) == (before.lineage, before.events)
        self.counts["restarts"] += 1

    def check(self) -> None:
        """Check that every value and reading of every attempt is the one that was given first."""
        stored, store = self.stored, self.service.store
        width, first = len(stored.session.timelines), stored.session.spec.start_step
        for attempt in store.attempts_of(stored):
            mine = self.values[stored.id, attempt.attempt]
            if mine:
                block = store.sealed_between(attempt.lineage, width, min(mine), max(mine) + 1)
                assert [column.tobytes() for column in block.T] == list(mine.values())
        if stored.session.horizon > first:
            block = store.sealed_between(stored.lineage, width, first, stored.session.horizon)
            for step, column in enumerate(block.T, start=first):
                assert column.tobytes() == self.values[self.memory.path[step]][step]
        for ref in stored.lineage:
            alone = (AttemptRef(ref.session_id, ref.attempt, 0),)
            found = {each.key: each.value for each in store.readings_of(alone)}
            said = self.said[ref.session_id, ref.attempt]
            assert repr(sorted(found.items())) == repr(sorted(said.items()))
        assert len(store.events_after(stored, 0, limit=10_000)) == stored.events

    def teardown(self) -> None:
        """Check all of a history once more at its end."""
        if self.memory.path:
            self.check()


def live_through(histories: int, steps: int, *, shrink: bool = True) -> Counter[str]:
    """Live through random histories; return how often each kind of event happened."""
    phases = [each for each in Phase if shrink or each not in (Phase.shrink, Phase.explain)]
    Histories.counts = Counter()
    with tempfile.TemporaryDirectory() as folder:
        Histories.service = Service(Path(folder))
        try:
            run_state_machine_as_test(
                Histories,
                settings=settings(
                    max_examples=histories,
                    stateful_step_count=steps,
                    deadline=None,
                    phases=phases,
                    report_multiple_bugs=False,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            Histories.service.close()
    return Histories.counts


def test_no_history_contradicts_the_memory_of_it() -> None:
    """One value a step, sealed is final, counted once, fenced, restored exactly: in any order."""
    counts = live_through(histories=40, steps=15)
    assert {"attempts", "forks", "restarts"} <= set(counts)


def main() -> None:
    """Live through as many histories as are asked for, and print what happened in them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--no-shrink", action="store_true", help="show what fails as it is found")
    options = parser.parse_args()

    def tell(lived: int) -> None:
        print(f"\rhistory {lived:,} of {options.histories:,}", end="", flush=True)

    Histories.progress = staticmethod(tell)
    counts = live_through(options.histories, options.steps, shrink=not options.no_shrink)
    print()
    for what, count in sorted(counts.items()):
        print(f"{count:>9,}  {what}")
    print("Nothing was contradicted.")


if __name__ == "__main__":
    main()
