"""Ranks that report in any order, twice, late or never lead to the same decisions as one in order.

Each session is random: its controllers, its metrics, its reaction, the faults of its network. The
service's core gets readings as they arrive, and is stored and read back on the way. A minimal
reference gets the same readings sorted and without repetitions. Both must agree on every decision,
on every missed step and on every bit of every learning rate.

`python tests/test_many_ranks.py --sessions 1000` takes longer than the test does.
"""

import argparse
import math
import random
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from pacesetter_service.core.commands import Command, Pass, Reading, Report, Seal
from pacesetter_service.core.controllers import Controller, Sample
from pacesetter_service.core.decide import decide, waits_for
from pacesetter_service.core.errors import ScheduleNotFiniteError
from pacesetter_service.core.events import BoundaryPassed, Decided, Event, Measured, Missed, Sealed
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.store.codec import dump_plan, dump_spec, dump_state, load_session
from same import text_of

SESSIONS = 150
"""How many random sessions the test runs."""

BLOCK = 25
"""How many of them are one test, so that a failure can be reproduced quickly."""

METRICS = ("loss", "accuracy")


# -- random sessions -------------------------------------------------------------------------------


def _plateau(dice: random.Random) -> dict[str, Any]:
    return {
        "kind": "plateau",
        "patience": dice.randint(0, 3),
        "factor": dice.uniform(0.3, 0.9),
        "mode": dice.choice(["min", "max"]),
        "cooldown": dice.randint(0, 2),
    }


def _controller(dice: random.Random, watched: list[str]) -> dict[str, Any]:
    """Draw a controller: half of them plateaus, the others of any kind."""
    kinds = [kind for kind, rule in Controller.kinds.items() if hasattr(rule, "example")]
    rule = _plateau(dice)
    if kinds and dice.random() < 0.5:
        kind = dice.choice(sorted(kinds))
        example = Controller.parse({"kind": kind, **Controller.kinds[kind].example})
        rule = example.model_dump()
        # With a training as short as this one most would see too little to decide anything.
        if "patience" in rule and dice.random() < 0.7:
            rule["patience"] = dice.randint(1, 2)
        for name in type(example).model_fields:
            if getattr(example, name) in example.watches:
                rule[name] = dice.choice(watched)
    rule["metric"] = dice.choice(watched)
    if dice.random() < 0.3:
        rule["from_step"] = dice.randint(0, 8)
    if dice.random() < 0.2:
        rule["until_step"] = rule.get("from_step", 0) + dice.randint(1, 10)
    return rule


def _smoothing(dice: random.Random) -> dict[str, Any] | None:
    size = dice.randint(1, 4)
    return dice.choice(
        [
            None,
            {"kind": "ema", "beta": dice.uniform(0, 0.99), "debias": dice.random() < 0.5},
            {"kind": "mean", "window": size},
            {"kind": "median", "window": size},
            {"kind": "every", "count": size},
        ]
    )


def _metric(dice: random.Random, ranks: int) -> dict[str, Any]:
    return {
        "aggregate": dice.choice(["mean", "median", "min", "max", "sum", "rank0"]),
        "ranks": dice.choice([None, None, dice.randint(1, ranks)]),
        "deadline": dice.choice([None, dice.randint(1, 4)]),
        "nan": dice.choice(["bad", "ignore", "guard"]),
        "smoothing": _smoothing(dice),
    }


def draw_spec(dice: random.Random) -> SessionSpec:
    """Draw a session of up to 64 ranks, with up to three controllers."""
    ranks = dice.choice([1, 2, 5, 64, 64, 64])
    described = {name: _metric(dice, ranks) for name in METRICS}
    for metric in described.values():
        metric["quorum"] = dice.choice([None, dice.randint(1, metric["ranks"] or ranks)])
    described["view"] = {
        "of": dice.choice(METRICS),
        "smoothing": _smoothing(dice),
        "nan": dice.choice(["bad", "ignore"]),
    }
    groups = {"body": {"base_lr": 0.1}, "head": {"base_lr": 1 / 3}}
    wished = {
        "name": "run",
        "ranks": ranks,
        "metrics": {name: _given(metric) for name, metric in described.items()},
        "limits": _given(
            {
                "min_lr": dice.choice([None, 0.01]),
                "max_lr": dice.choice([None, 0.4]),
                "max_change": dice.choice([None, 1.5]),
            }
        ),
        "max_lookahead": dice.choice([None, dice.randint(1, 6)]),
        "start_step": dice.choice([0, 0, 3]),
        **({"base_lr": 0.1} if dice.random() < 0.7 else {"groups": groups}),
    }
    if dice.random() < 0.6:
        wished["reaction"] = {"decide_every": dice.randint(1, 5)}
    while True:
        wished["controllers"] = [
            _controller(dice, [*METRICS, "view"]) for _ in range(dice.randint(1, 3))
        ]
        with suppress(ValidationError):  # some kinds have other requirements
            spec = SessionSpec.model_validate(_given(wished))
            if not any(rule.transitions for rule in spec.rules):
                return spec


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


# -- the reference ---------------------------------------------------------------------------------


@dataclass
class Reference:
    """The closed loop in plain loops; of the service it uses the controllers' rules alone."""

    spec: SessionSpec
    ranks: int
    horizon: int
    finished: bool = False
    passed_at: int = -1
    heard: dict[tuple[str, int], dict[int, float]] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    states: list[Any] = field(default_factory=list)
    levels: dict[str, float] = field(default_factory=dict)
    rises: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    decisions: list[Any] = field(default_factory=list)
    measured: list[Any] = field(default_factory=list)
    missed: list[Any] = field(default_factory=list)
    passes: list[Any] = field(default_factory=list)
    rates: dict[str, dict[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin before the first step."""
        self.states = [rule.init() for rule in self.spec.rules]
        if self.spec.groups is None:
            self.bases = {"": self.spec.base_lr or 0.0}
        else:
            self.bases = {name: group.base_lr for name, group in self.spec.groups.items()}
        self.levels = dict(self.bases)
        self.rates = {group: {} for group in self.bases}
        # The metrics that controllers watch: for each watched name, that of its readings.
        self.watched = sorted({self.source(n) for rule in self.spec.rules for n in rule.watches})

    def source(self, name: str) -> str:
        """Return the metric that is reported for a watched name."""
        metric = self.spec.metrics.get(name)
        return metric.of if metric is not None and metric.of is not None else name

    def record_call(self, readings: Iterable[Reading]) -> None:
        """Record readings; those of steps that were decided are too late."""
        for rank, step, metric, value in readings:
            if metric in self.watched and step > self.done.get(metric, -1):
                self.heard.setdefault((metric, step), {}).setdefault(rank, value)

    def waits(self) -> list[str]:
        """Return what the step at the horizon waits for."""
        if not self.at_boundary() or self.passed_at == self.horizon or self.finished:
            return []
        every = self.every()
        missing = set()
        for rule in self.spec.rules:
            steps = range(self.horizon - every, self.horizon)
            if any(self.awake(rule, step) for step in steps):
                for name in rule.watches:
                    metric, last = self.source(name), self.horizon - 1
                    if self.done.get(metric, -1) < last and not self.complete(metric, last):
                        missing.add(metric)
        return sorted(missing)

    def every(self) -> int:
        """Return the distance between boundaries; 0 without a reaction."""
        reaction = self.spec.reaction
        return reaction.decide_every if reaction is not None else 0  # type: ignore[return-value]

    def at_boundary(self) -> bool:
        """Return whether controllers decide at the horizon."""
        passed = self.horizon - self.spec.start_step
        return self.every() > 0 and passed > 0 and passed % self.every() == 0

    @staticmethod
    def awake(rule: Any, step: int) -> bool:
        """Return whether a controller is awake at a step."""
        return rule.from_step <= step and (rule.until_step is None or step < rule.until_step)

    def complete(self, metric: str, step: int) -> bool:
        """Return whether all required ranks have reported."""
        by_rank = self.heard.get((metric, step), {})
        spec = self.spec.metrics[metric]
        if spec.aggregate == "rank0":
            return 0 in by_rank
        return len(by_rank) >= (spec.ranks or self.ranks)

    def ask(self, start: int, count: int) -> None:
        """Seal what can be sealed of a window from the horizon on."""
        assert start == self.horizon
        if self.finished or self.waits():
            return
        self.look(last_call=False)
        if self.finished:
            return
        ahead = self.spec.max_lookahead or (self.every() or 1)
        end = start + min(count, ahead)
        if self.every():
            while any(
                (step - self.spec.start_step) % self.every() == 0 for step in range(start + 1, end)
            ):
                end -= 1
        for step in range(start, end):
            for group, level in self.levels.items():
                self.rates[group][step] = self.rate(group, level, step)
        self.horizon = end

    def rate(self, group: str, level: float, step: int) -> float:
        """Return the value at a step: the level, or less of it during a rewarm."""
        start, steps, factor = self.rises.get(group, (0, 1, 1.0))
        passed = (step - start) / steps
        return level * (factor + (1.0 - factor) * passed) if passed < 1.0 else level

    def give_up(self) -> None:
        """Stop waiting at the boundary."""
        missing = self.waits()
        if missing:
            self.look(last_call=True)
            self.passed_at = self.horizon
            self.passes.append((self.horizon, missing))

    def look(self, *, last_call: bool) -> None:
        """Close what can be closed, step by step, and call the controllers."""
        if self.every() and not self.at_boundary():
            return
        over = []
        for metric, step in self.heard:
            deadline = self.spec.metrics[metric].deadline
            later = [s for m, s in self.heard if m == metric and s > step]
            if (
                last_call
                or self.complete(metric, step)
                or any(self.complete(metric, s) for s in later)
                or (deadline is not None and any(s - step >= deadline for s in later))
            ):
                over.append((step, metric))
        for step, metric in sorted(over):
            by_rank = self.heard.pop((metric, step))
            self.done[metric] = step
            self.close(step, metric, by_rank)

    def close(self, step: int, metric: str, by_rank: dict[int, float]) -> None:
        """Aggregate several values to one, or to none."""
        spec = self.spec.metrics[metric]
        if spec.aggregate == "rank0":
            wanted, values = 1, [by_rank[0]] if 0 in by_rank else []
        else:
            wanted, values = spec.ranks or self.ranks, [by_rank[rank] for rank in sorted(by_rank)]
        needed = wanted if spec.quorum is None else min(spec.quorum, wanted)
        if len(values) < needed:
            self.missed.append((metric, step, len(values), wanted, self.horizon))
            return
        value = _one_of(values, spec.aggregate)
        self.measured.append((metric, step, repr(value), len(values)))
        shown = {}
        for name in (metric, *(n for n, m in self.spec.metrics.items() if m.of == metric)):
            self.history.setdefault(name, []).append(value)
            seen = _smooth(self.history[name], self.spec.metrics[name].smoothing)
            if seen is not None:
                shown[name] = seen
        for index, rule in enumerate(self.spec.rules):
            for name in rule.watches:
                if name in shown and not self.finished and self.awake(rule, step):
                    self.show(index, name, step, shown[name])

    def show(self, index: int, metric: str, step: int, value: float) -> None:
        """Call one controller, and apply its decision as far as the limits allow."""
        rule = self.spec.rules[index]
        policy = self.spec.metrics[metric].nan
        if not math.isfinite(value) and (
            policy == "ignore" or (policy == "guard" and not rule.guards)
        ):
            return
        seen = Sample(metric, step, value, dict(self.levels), self.bases)
        observation = rule.observe(self.states[index], seen)
        self.states[index] = observation.state
        verdict = observation.verdict
        if verdict is None:
            return
        changes = {}
        for group in self.levels:
            if group in verdict.levels:
                old, new = self.levels[group], self.limited(group, verdict.levels[group])
                if new != old:
                    changes[group] = (old, new)
                    self.levels[group] = new
        if verdict.rewarm is not None:
            self.rises = dict.fromkeys(self.levels, (self.horizon, *verdict.rewarm))
        others = (verdict.pace, verdict.rewarm, verdict.advice, verdict.finish or None)
        if changes or any(other is not None for other in others):
            self.finished = self.finished or verdict.finish
            told = (verdict.reason, sorted(changes.items()), others)
            self.decisions.append((index, metric, step, repr(value), self.horizon, *told))

    def limited(self, group: str, level: float) -> float:
        """Bring a level within the session's limits."""
        limits, old = self.spec.limits, self.levels[group]
        if limits.max_change is not None:
            level = max(level, old / limits.max_change)
            level = min(level, old * limits.max_change)
        if limits.max_lr is not None:
            level = min(level, limits.max_lr)
        return max(level, limits.min_lr)


def _one_of(values: list[float], aggregate: str) -> float:
    if aggregate != "rank0" and any(value != value for value in values):  # noqa: PLR0124 - NaN
        return math.nan
    total = 0.0
    for number, value in enumerate(values):
        total = value if number == 0 else total + value
    ordered = sorted(values)
    half = len(values) // 2
    middle = ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2
    mean = total / len(values)
    return {
        "mean": mean,
        "sum": total,
        "min": ordered[0],
        "max": ordered[-1],
        "median": middle,
        "rank0": values[0],
    }[aggregate]


def _smooth(history: list[float], smoothing: Any) -> float | None:
    """Smooth the last value of a history, by going through all of it again."""
    value = history[-1]
    if smoothing is None or not math.isfinite(value):
        return value
    numbers = [each for each in history if math.isfinite(each)]
    if smoothing.kind == "ema":
        beta = smoothing.beta
        average, weight = (0.0, 0.0) if smoothing.debias else (numbers.pop(0), 1.0)
        for each in numbers:
            average = beta * average + (1.0 - beta) * each
            weight = beta * weight + (1.0 - beta) * 1.0
        return average / weight if smoothing.debias else average
    if smoothing.kind == "every":
        if len(numbers) % smoothing.count:
            return None
        return _one_of(numbers[-smoothing.count :], "mean")
    return _one_of(numbers[-smoothing.window :], smoothing.kind)


# -- the core, as the writer drives it -------------------------------------------------------------


class Service:
    """The core under commands, stopped and started now and then."""

    def __init__(self, spec: SessionSpec, dice: random.Random) -> None:
        self.session = create(spec)
        self.events: list[Event] = []
        self._dice = dice

    def give(self, command: Command) -> None:
        """Submit a command, and forget everything but what is on the disk."""
        events = decide(self.session, command).events
        self.session = evolve_all(self.session, events)
        self.events += events
        if self._dice.random() < 0.1:
            again = restarted(self.session)
            assert text_of(again) == text_of(self.session)
            self.session = again

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


def restarted(session: Session) -> Session:
    """Store a session and read it back, as a restarted service does."""
    row = SimpleNamespace(
        spec=dump_spec(session.spec),
        plan=dump_plan(session),
        control=dump_state(session),
        horizon=session.horizon,
        held=session.held,
        revision=session.revision,
        attempt=session.attempt.number,
        status=session.status,
    )
    # The store finds the names of metrics again, in a separate table.
    return replace(load_session(row), reported=session.reported)


# -- the network -----------------------------------------------------------------------------------


class Network:
    """Carries readings from ranks: some late, some twice, some never, in any order."""

    def __init__(self, spec: SessionSpec, dice: random.Random) -> None:
        self._spec = spec
        self._dice = dice
        self._loss = dice.choice([0.0, 0.0, 0.001, 0.05])
        self._repeats = dice.choice([0.0, 0.2])
        self._stragglers = {rank for rank in range(spec.ranks) if dice.random() < 0.05}
        self._dead = dice.choice([None, None, None, dice.randrange(spec.ranks)])
        self._latency = dice.choice([0, 1, 3])
        self._under_way: list[tuple[int, Reading]] = []

    def measure(self, step: int, now: int) -> None:
        """Let every rank measure a step, and send the readings."""
        dice = self._dice
        for metric in METRICS:
            for rank in range(self._spec.ranks):
                reading = Reading(rank, step, metric, _loss_of(dice, step))
                if dice.random() < self._loss or (rank == self._dead and step > 5):
                    continue
                late = dice.randint(0, self._latency) + (4 if rank in self._stragglers else 0)
                self._under_way.append((now + late, reading))
                if dice.random() < self._repeats:
                    again = reading._replace(value=dice.choice([reading.value, 9.0]))
                    self._under_way.append((now + late + dice.randint(0, 3), again))

    def arrived(self, now: int) -> list[Reading]:
        """Return what has arrived, in any order."""
        here = [reading for due, reading in self._under_way if due <= now]
        self._under_way = [each for each in self._under_way if each[0] > now]
        self._dice.shuffle(here)
        return here


def _loss_of(dice: random.Random, step: int) -> float:
    if dice.random() < 0.002:
        return dice.choice([math.nan, math.inf, -math.inf])
    return dice.choice([1.0 / (1 + step // 4), dice.gauss(0.5, 0.3), 0.25])


# -- one life --------------------------------------------------------------------------------------


def live(seed: int, steps: int = 24) -> int:
    """Live through one random session beside its reference; return the number of decisions."""
    dice = random.Random(seed)
    spec = draw_spec(dice)
    network, service = Network(spec, dice), Service(spec, dice)
    reference = Reference(spec, spec.ranks, spec.start_step)
    waited = 0
    for now in range(8 * steps):
        readings = network.arrived(now)
        for report in _in_parts(readings, dice):
            service.give(Report(tuple(report)))
        reference.record_call(_sorted_once(readings))
        horizon, count = service.session.horizon, dice.randint(1, 8)
        assert list(waits_for(service.session, Seal(horizon, 1))) == reference.waits()
        if not _both_seal(service, reference, count):
            break
        waited = 0 if service.session.horizon > horizon else waited + 1
        if waited > 3:
            service.give(Pass(horizon))
            reference.give_up()
        for step in range(horizon, service.session.horizon):
            network.measure(step, now)
        if reference.finished or service.session.horizon > spec.start_step + steps:
            break
    _compare(service, reference)
    return len(reference.decisions)


def _both_seal(service: Service, reference: Reference, count: int) -> bool:
    """Ask both for steps; return False once their values are no learning rates any more."""
    horizon = service.session.horizon
    try:
        service.give(Seal(horizon, count))
    except ScheduleNotFiniteError:
        reference.ask(horizon, count)
        assert not all(map(math.isfinite, reference.levels.values()))
        return False
    reference.ask(horizon, count)
    return True


def _in_parts(readings: list[Reading], dice: random.Random) -> Iterable[list[Reading]]:
    while readings:
        size = dice.randint(1, 60)
        yield readings[:size]
        readings = readings[size:]


def _sorted_once(readings: list[Reading]) -> list[Reading]:
    """Return the readings in order, only the first of each rank, step and metric."""
    first: dict[tuple[int, str, int], Reading] = {}
    for reading in readings:
        first.setdefault(reading.key, reading)
    return [first[key] for key in sorted(first)]


def _compare(service: Service, reference: Reference) -> None:
    names = {group: f"{group}.lr" if group else "lr" for group in reference.bases}
    groups = {name: group for group, name in names.items()}
    assert [
        (each.metric, each.step, repr(each.value), each.ranks) for each in service.of(Measured)
    ] == reference.measured
    assert [
        (each.metric, each.step, each.ranks, each.wanted, each.at) for each in service.of(Missed)
    ] == reference.missed
    assert [
        (each.at, list(each.missing)) for each in service.of(BoundaryPassed)
    ] == reference.passes
    assert [
        (
            each.controller,
            each.metric,
            each.step,
            repr(each.value),
            each.at,
            each.reason,
            sorted((groups[name], change) for name, change in each.levels.items()),
            (each.pace, each.rewarm, each.advice, each.finish or None),
        )
        for each in service.of(Decided)
    ] == reference.decisions
    assert list(map(repr, service.session.control.states)) == list(map(repr, reference.states))
    assert (service.session.status == "finished") == reference.finished
    for group, name in names.items():
        sealed = {
            event.start + offset: value
            for event in service.of(Sealed)
            for offset, value in enumerate(event.values[name].tolist())
        }
        wanted = {step: rate for step, rate in reference.rates[group].items() if step in sealed}
        assert sealed == wanted


@pytest.mark.parametrize("block", range(0, SESSIONS, BLOCK))
def test_random_sessions_decide_as_the_reference_does(block: int) -> None:
    """Delivery in any order, repeated, late or lost, and restarts, change no decision."""
    decisions = 0
    for seed in range(block, block + BLOCK):
        try:
            decisions += live(seed)
        except Exception as error:
            error.add_note(f"with `live({seed})`")
            raise
    assert decisions > BLOCK, "hardly anything was decided: the sessions are too calm"


def main() -> None:
    """Live through as many sessions as the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first session")
    wanted = parser.parse_args()
    decisions = 0
    for seed in range(wanted.first, wanted.first + wanted.sessions):
        try:
            decisions += live(seed)
        except Exception as error:
            sys.exit(f"live({seed}): {type(error).__name__}: {error}")
    print(f"{wanted.sessions} sessions, {decisions} decisions, each as the reference decided it")


if __name__ == "__main__":
    main()
