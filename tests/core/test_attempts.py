"""Going back to a step: by restarts, by forks, and by one after the other, to the bit."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from in_process import Service
from pacesetter_service.core import orders
from pacesetter_service.core.actions import Action, Order
from pacesetter_service.core.attempts import (
    AttemptRef,
    RestorePoint,
    branch,
    restore,
    spans,
)
from pacesetter_service.core.commands import (
    Act,
    Archive,
    Cancel,
    Reading,
    Report,
    Resize,
    Seal,
)
from pacesetter_service.core.cost import REPLAY, REPLAYED, replay_cost
from pacesetter_service.core.errors import (
    ActionRefusedError,
    AttemptRefusedError,
    BatchRefusedError,
    SessionArchivedError,
    SessionFinishedError,
    StaleAttemptError,
    StepOutOfRangeError,
    SupersededAttemptError,
)
from pacesetter_service.core.events import Acted
from pacesetter_service.core.orders import planned
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.work import Change, Create, Find, Fork, Open

STEPS = 48

LOSSES = [1.0, 0.9, 0.9, 0.95, math.nan, 0.8, 0.8, 5.0, 0.8, 0.81, 0.7, math.inf]
"""The losses of each session, repeated: plateaus, jumps, and NaN."""

PLATEAU = {"kind": "plateau", "metric": "loss", "patience": 1, "factor": 0.5, "cooldown": 1}
GUARD = {"kind": "spike_guard", "metric": "loss", "window": 8, "min_window": 3, "cooldown": 2}

CONTROLLED: dict[str, dict[str, Any]] = {
    "plateau": {"controllers": [PLATEAU], "schedule": {"kind": "cosine", "total_steps": 60}},
    "smoothed": {
        "controllers": [{"kind": "plateau", "metric": "smooth", "patience": 0, "factor": 0.7}],
        "metrics": {"smooth": {"of": "loss", "smoothing": {"kind": "ema", "beta": 0.8}}},
    },
    "guarded": {
        "controllers": [{**GUARD, "rewarm": 4, "recover_after": 2, "max_trips": 100}],
        "schedule": {"kind": "exponential", "gamma": 0.99},
    },
    "switched": {
        "controllers": [
            {
                "kind": "switch",
                "metric": "loss",
                "stages": [
                    {
                        "when": {"kind": "plateaued", "patience": 2},
                        "schedule": {"kind": "cosine", "total_steps": 20},
                    },
                    {
                        "when": {"kind": "plateaued", "patience": 4},
                        "schedule": {"kind": "exponential", "gamma": 0.9},
                        "value": "continue",
                    },
                ],
            }
        ]
    },
}


@pytest.fixture(name="service")
def _service(tmp_path: Path) -> Iterator[Service]:
    """Return a service for one test."""
    service = Service(tmp_path)
    yield service
    service.close()


class Job:
    """A training that follows a session."""

    def __init__(
        self, service: Service, name: str = "job", *, new: bool = True, **spec: Any
    ) -> None:
        self.service, self.name = service, name
        if new:
            whole = SessionSpec.model_validate({"name": name, "base_lr": 0.1, **spec})
            service.do(Create(whole))

    @property
    def session(self) -> Session:
        """The session's state."""
        return self.service.do(Find(self.name)).entry.stored.session

    def give(self, *commands: Any) -> Session:
        """Submit commands."""
        return self.service.do(Change(self.name, commands)).entry.stored.session

    def order(self, at: int | None = None, **body: Any) -> int:
        """Order an action, and return its number."""
        return self.give(Act(Action.parse(body), at, "ann")).orders.given

    def report(self, *steps: int) -> None:
        """Report the loss of some steps."""
        self.give(Report(tuple(Reading(0, s, "loss", LOSSES[s % len(LOSSES)]) for s in steps)))

    def train(self, until: int, window: int = 1, late: int = 0) -> None:
        """Train from the horizon on, in windows, reporting each step `late` steps late."""
        for start in range(self.session.horizon, until, window):
            end = min(start + window, until)
            while (at := self.session.horizon) < end:  # a window ends with the plan
                self.give(Seal(at, end - at, pace=1e-3))
            steps = [step - late for step in range(start, end) if step >= late]
            if steps:
                self.report(*steps)

    def back(self, step: int, key: str, **more: Any) -> Session:
        """Restart from a checkpoint."""
        return self.service.do(Open(self.name, step, key, "ann", **more)).entry.stored.session

    def fork(self, name: str, step: int) -> "Job":
        """Branch off."""
        spec = self.session.spec
        origin = {"session": self.name, "step": step}
        whole = {**spec.model_dump(mode="json"), "name": name, "forked_from": origin}
        self.service.do(Fork(self.name, SessionSpec.model_validate(whole), step))
        return Job(self.service, name, new=False)

    def values(self, start: int = 0) -> list[float]:
        """Return the sealed rates along the lineage of the running attempt."""
        stored = self.service.do(Find(self.name)).entry.stored
        block = self.service.store.sealed_between(stored.lineage, 1, start, stored.session.horizon)
        values: list[float] = block[0].tolist()
        return values

    def past(self, step: int) -> RestorePoint:
        """Return what a restart at a step would read."""
        stored = self.service.do(Find(self.name)).entry.stored
        return self.service.store.past(stored.session.spec, stored.lineage, step)


# -- exactness -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONTROLLED)
def test_a_restart_at_any_step_repeats_the_run(service: Service, kind: str) -> None:
    """Restarted anywhere, in any order of steps, a job that sees the same gets the same bits."""
    job = Job(service, **CONTROLLED[kind])
    job.train(STEPS)
    values, end = job.values(), job.session
    assert len(set(values)) > 4, "the controllers have something to do"
    for number, step in enumerate([*range(STEPS, -1, -7), *range(0, STEPS, 5)]):
        job.back(step, f"key-{number}")
        job.train(STEPS)
        assert job.values() == values
        assert repr(job.session.control.states) == repr(end.control.states)
        assert repr(job.session.control.smoothers) == repr(end.control.smoothers)


@pytest.mark.parametrize("kind", CONTROLLED)
def test_a_fork_at_every_step_repeats_the_run(service: Service, kind: str) -> None:
    """A fork at any step, and a fork of that fork, go on as the source did."""
    job = Job(service, **CONTROLLED[kind])
    job.train(STEPS)
    values = job.values()
    for step in range(0, STEPS + 1, 3):
        child = job.fork(f"child-{step}", step)
        child.train(min(step + 10, STEPS))
        assert child.values() == values[: min(step + 10, STEPS)]
        grandchild = child.fork(f"grandchild-{step}", min(step + 4, STEPS))
        grandchild.train(STEPS)
        assert grandchild.values() == values
    assert job.values() == values


@pytest.mark.parametrize("kind", CONTROLLED)
@pytest.mark.parametrize("late", [0, 3, 20])
def test_windows_and_late_readings_are_restored(service: Service, kind: str, late: int) -> None:
    """With windows of 16 and late readings, each step's state is what it was then."""
    job = Job(service, **CONTROLLED[kind], max_lookahead=16)
    before: dict[int, Session] = {}
    for start in range(0, 64, 16):
        before |= dict.fromkeys(range(start, start + 16), job.session)
        job.train(start + 16, window=16, late=late)
    for step, state in before.items():
        remembered, restored = planned(state, step), restore(job.past(step), step)
        assert restored.horizon == step
        assert repr(restored.control.states) == repr(remembered.control.states)
        assert repr(restored.control.smoothers) == repr(remembered.control.smoothers)
        expected = remembered.timelines["lr"].values(step, 30).tobytes()
        assert restored.timelines["lr"].values(step, 30).tobytes() == expected


@pytest.mark.parametrize("kind", CONTROLLED)
def test_a_restart_at_a_windows_edge_repeats_the_run(service: Service, kind: str) -> None:
    """Where nothing was sealed ahead of the checkpoint, windows repeat to the bit as well."""
    job = Job(service, **CONTROLLED[kind], max_lookahead=16)
    job.train(64, window=16)
    values = job.values()
    for number, step in enumerate([48, 16, 32, 0]):
        job.back(step, f"key-{number}")
        job.train(64, window=16)
        assert job.values() == values


def test_what_was_reported_too_late_decides_at_the_first_step(service: Service) -> None:
    """A restart in the middle of a window knows what was measured in it before the checkpoint."""
    job = Job(service, controllers=[{**PLATEAU, "patience": 0}], max_lookahead=16)
    job.give(Seal(0, 16))
    job.give(Report(tuple(Reading(0, step, "loss", 1.0) for step in range(16))))
    restored = job.back(8, "once")
    assert sorted(step for step, _, _ in restored.pending) == list(range(8))
    job.give(Seal(8, 8))
    assert job.values(6) == [0.1, 0.1, *job.values(8)]
    assert job.values(8)[0] < 0.1


def test_the_first_of_two_readings_counts_after_a_restart_too(service: Service) -> None:
    """A rank's second value, in another attempt, does not replace one that is still pending."""
    job = Job(service, controllers=[PLATEAU], ranks=2)
    job.give(Seal(0, 1))
    job.give(Report((Reading(0, 0, "loss", 1.0),)))
    for number in range(3):
        state = job.back(1, f"key-{number}")
        assert [reading.value for reading in state.pending.values()] == [1.0]
        job.give(Report((Reading(0, 0, "loss", 9.0 + number),)))


def test_a_reading_of_an_attempt_that_never_sealed_is_not_lost(service: Service) -> None:
    """It stays pending, though its attempt has sealed no step."""
    job = Job(service, controllers=[PLATEAU], ranks=2)
    job.give(Seal(0, 1))
    job.back(1, "first")
    job.give(Report((Reading(0, 0, "loss", 1.0),)))
    job.back(1, "second")
    state = job.back(1, "third")
    assert [reading.value for reading in state.pending.values()] == [1.0]


def test_limits_and_orders_of_the_past_are_restored(service: Service) -> None:
    """What was carried out before the step holds again, in its place."""
    job = Job(service, schedule={"kind": "cosine", "total_steps": 60})
    job.order(5, kind="limit", max_lr=0.2)
    job.order(8, kind="hold")
    job.order(12, kind="release")
    job.order(15, kind="scale", factor=0.5)
    job.train(30)
    values = job.values()
    for step in range(0, 31, 2):
        assert job.back(step, f"key-{step}").control.limits.max_lr == (0.2 if step > 5 else None)
        job.train(30)
        assert job.values() == values


def test_a_switch_by_hand_is_restored(service: Service) -> None:
    """The order moves the controller again, at its step, for a restart before or after it."""
    job = Job(service, **CONTROLLED["switched"])
    job.order(6, kind="switch")
    job.train(STEPS)
    values = job.values()
    assert values[5] == 0.1
    for step in (3, 6, 7, 20):
        job.back(step, f"key-{step}")
        job.train(STEPS)
        assert job.values() == values


# -- orders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop", [False, True])
def test_orders_for_later_steps_are_kept_unless_dropped(service: Service, drop: bool) -> None:
    """Orders for later steps may be done or pending; those of earlier steps hold in any case."""
    job = Job(service)
    numbers = {at: job.order(at, kind="scale", factor=0.5) for at in (5, 10, 15, 40)}
    job.train(30)
    state = job.back(10, "once", drop_actions=drop)
    kept = [] if drop else [numbers[at] for at in (10, 15, 40)]
    assert [order.id for order in state.orders.waiting] == kept
    job.train(50)
    later = [0.05] * 45 if drop else [0.05] * 5 + [0.025] * 5 + [0.0125] * 25 + [0.00625] * 10
    assert job.values() == [0.1] * 5 + later


def test_what_was_cancelled_or_dropped_stays_so(service: Service) -> None:
    """Later attempts do not restore what an earlier one had no longer."""
    job = Job(service)
    job.give(Cancel(job.order(20, kind="scale", factor=0.5)))
    job.order(12, kind="scale", factor=0.5)
    job.train(15)
    job.back(10, "first", drop_actions=True)
    assert job.back(5, "second").orders.waiting == ()
    job.train(25)
    assert job.values() == [0.1] * 25


def test_a_dropped_order_may_be_given_again_under_its_key(service: Service) -> None:
    """Its key is forgotten with it; that of an order that holds is not."""
    job = Job(service)
    halve = Action.parse({"kind": "scale", "factor": 0.5})
    for at in (3, 8):
        job.give(Act(halve, at, "ann", f"at {at}"))
    job.train(10)
    job.back(5, "once", drop_actions=True)
    for at in (3, 8):
        job.give(Act(halve, at, "ann", f"at {at}"))
    job.train(10)
    assert job.values() == [0.1] * 3 + [0.05] * 5 + [0.025] * 2


def test_a_forks_orders_have_numbers_of_their_own(service: Service) -> None:
    """Before its own beginning a fork has its source's orders; none is confused with another."""
    job = Job(service)
    job.order(5, kind="scale", factor=0.5)
    job.train(20)
    child = job.fork("child", 10)
    child.order(12, kind="scale", factor=0.5)
    child.back(2, "early")
    assert len({order.id for order in child.session.orders.waiting}) == 2
    child.train(20)
    assert child.values() == [0.1] * 5 + [0.05] * 7 + [0.025] * 8


# -- whose turn it is ----------------------------------------------------------------------------


def test_an_old_attempt_can_read_and_nothing_else(service: Service) -> None:
    """Sealing and reporting are refused; its values can be read as it had them."""
    job = Job(service, **CONTROLLED["plateau"])
    job.train(20)
    first = job.values()
    job.back(10, "once")
    job.order(None, kind="scale", factor=0.5)
    job.train(20)
    assert job.values()[10:] != first[10:]
    for command in (Seal(20, 1, 1), Report((Reading(0, 19, "loss", 1.0),), 1)):
        with pytest.raises(StaleAttemptError, match="attempt 2 is the running one"):
            job.give(command)
    stored = service.do(Find("job")).entry.stored
    old, new = service.store.attempts_of(stored)
    assert service.store.sealed_between(old.lineage, 1, 0, 20)[0].tolist() == first
    assert service.store.sealed_between(new.lineage, 1, 0, 20)[0].tolist() == job.values()


def test_all_ranks_join_by_one_key(service: Service) -> None:
    """The key that opened an attempt returns it, at its own step, until it is over."""
    job = Job(service)
    job.train(20)
    first = job.back(10, "night")
    job.train(15)
    assert job.back(10, "night").attempt.number == first.attempt.number == 2
    assert job.session.horizon == 15
    with pytest.raises(AttemptRefusedError, match="must load the same checkpoint"):
        job.back(11, "night")
    job.back(12, "morning")
    with pytest.raises(SupersededAttemptError, match="attempt 3 is the running one"):
        job.back(10, "night")


def test_only_steps_that_were_handed_out_can_be_gone_back_to(service: Service) -> None:
    """From the first step of the session to its horizon; an archived one takes no restart."""
    job = Job(service, start_step=5)
    job.give(Seal(5, 5))
    for step in (4, 11):
        with pytest.raises(StepOutOfRangeError, match="are 5 to 9"):
            job.back(step, "wrong")
        with pytest.raises(StepOutOfRangeError, match="are 5 to 9"):
            job.fork(f"child-{step}", step)
    assert (job.back(10, "end").horizon, job.back(5, "start").horizon) == (10, 5)
    service.do(Change("job", (Archive(),)))
    with pytest.raises(SessionArchivedError):
        job.back(5, "again")


def test_what_was_finished_then_is_finished_again(service: Service) -> None:
    """A restart at the end of a finished session does not go on; one before its end does."""
    stop = {"kind": "spike_guard", "metric": "loss", "max_trips": 0, "then": "stop"}
    job = Job(service, controllers=[stop])
    job.train(5)
    job.give(Seal(5, 1))
    with pytest.raises(SessionFinishedError):
        job.give(Seal(5, 1))
    assert job.back(5, "end").status == "finished"
    with pytest.raises(SessionFinishedError):
        job.give(Seal(5, 1))
    assert job.fork("on", 5).session.status == "active"
    assert job.back(3, "before").status == "active"
    job.give(Seal(3, 1))


# -- batch sizes ---------------------------------------------------------------------------------

RULES: dict[str, Callable[[float], float]] = {
    "none": lambda _: 1.0,
    "linear": lambda ratio: ratio,
    "sqrt": lambda ratio: ratio**0.5,
}


@pytest.mark.parametrize("rule", RULES)
def test_another_batch_size_scales_the_rate_by_the_sessions_rule(
    service: Service, rule: str
) -> None:
    """It holds from the attempt's first step on, by the ratio to that step's batch size."""
    job = Job(service, batch_scaling=rule, batch_size=64)
    job.train(30)

    def factor(batch: int) -> float:
        return RULES[rule](batch / 64)

    def rates(start: int) -> list[float]:
        job.train(30)
        return job.values(start)

    job.back(20, "more", batch_size=192)
    assert rates(20) == [0.1 * factor(192)] * 10
    job.back(25, "the same")
    assert rates(20) == [0.1 * factor(192)] * 10
    job.back(10, "earlier", batch_size=96)
    assert rates(10) == [0.1 * factor(96)] * 20
    job.back(10, "there again, dropping", batch_size=128, drop_actions=True)
    assert rates(10) == [0.1 * factor(128)] * 20
    job.back(10, "as it was", batch_size=64)
    assert rates(0) == [0.1] * 30


def test_two_changes_of_the_batch_size_multiply(service: Service) -> None:
    """Each scales the result of the one before."""
    job = Job(service, batch_scaling="linear", batch_size=64)
    job.train(10)
    job.back(10, "more", batch_size=128)
    job.train(20)
    job.back(20, "still more", batch_size=256)
    job.train(30)
    assert job.values() == [0.1] * 10 + [0.2] * 10 + [0.4] * 10
    job.back(15, "back to the first", batch_size=64)
    job.train(30)
    assert job.values() == [0.1] * 10 + [0.2] * 5 + [0.1] * 15


def test_orders_that_wait_again_keep_nobody_from_giving_others(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that restores very many orders accepts as many new ones as any other."""
    most = 16  # that many or any other number, but each order is a commit
    monkeypatch.setattr(orders, "MAX_ORDERS", most)
    job = Job(service)
    for step in range(most + 1):
        job.train(step + 1)
        job.order(kind="set", lr=0.1 + step / 1000)
    job.train(most + 2)
    rates = job.values()
    job.back(0, "all over again")
    assert len(job.session.orders.waiting) == most + 1
    for _ in range(most):
        number = job.order(at=10_000, kind="scale", factor=1.5)
        job.give(Cancel(number)) if number % 2 else None
    for _ in range(most // 2):
        job.order(at=10_000, kind="set", lr=0.1)
    with pytest.raises(ActionRefusedError, match=f"{most} orders wait already"):
        job.order(at=10_000, kind="set", lr=0.1)
    job.train(most + 2)
    assert job.values() == rates


def test_a_change_while_training_is_found_again_and_left_behind(service: Service) -> None:
    """An attempt that begins after it has its rates; one that begins before it scales anew."""
    job = Job(service, batch_scaling="linear", batch_size=64)
    job.train(10)
    job.give(Resize(128))
    job.give(Resize(96), Resize(128), Resize(128))
    job.train(20)
    assert job.values() == [0.1] * 10 + [0.2] * 10
    rates = job.values()
    job.back(15, "after it")
    assert job.session.control.batch_size == 128
    job.train(20)
    assert job.values() == rates
    job.back(10, "at it", batch_size=64)
    job.train(20)
    assert job.values() == [0.1] * 20
    job.back(5, "before it", batch_size=32)
    job.train(10)
    assert job.values() == [0.1] * 5 + [0.05] * 5


def test_several_changes_before_a_step_are_one(service: Service) -> None:
    """The scale is from the first size to the last, to the bit; superseded ones leave no order."""
    job = Job(service, batch_scaling="sqrt", batch_size=24)
    job.train(4)
    for size in (32, 24, 32, 96):
        job.give(Resize(size))
    [order] = job.session.orders.waiting
    assert order.batch_before == 24
    job.give(Resize(24))
    assert job.session.orders.waiting == ()
    job.give(Resize(96))
    job.train(8)
    assert job.values() == [0.1] * 4 + [0.2] * 4
    narrow = Job(service, "narrow", batch_scaling="linear", batch_size=64, limits={"max_change": 2})
    narrow.give(Resize(128))
    with pytest.raises(BatchRefusedError, match="by more than the limit"):
        narrow.give(Resize(256))
    assert narrow.session.control.batch_size == 128


def test_what_an_operator_orders_between_two_changes_keeps_its_meaning(service: Service) -> None:
    """The second change scales what was set after the first one."""
    job = Job(service, batch_scaling="linear", batch_size=64)
    job.give(Resize(128))
    job.order(kind="set", lr=0.5)
    job.give(Resize(256))
    job.train(3)
    assert job.values() == [1.0] * 3


def test_an_order_of_the_batch_rule_is_not_cancelled(service: Service) -> None:
    """The next restart would order it again, so the refusal says what to order instead."""
    job = Job(service, batch_scaling="linear", batch_size=64)
    job.give(Resize(128))
    with pytest.raises(ActionRefusedError, match="Order a `scale` that undoes it"):
        job.give(Cancel(1))


def test_changes_of_the_batch_size_leave_operators_their_keys(service: Service) -> None:
    """However many there are, an operator's order that is sent again is the same one."""
    job = Job(service, batch_scaling="linear", batch_size=64)
    act = Act(Action.parse({"kind": "scale", "factor": 0.5}), 10_000, "ann", "op-1")
    job.give(act)
    for at in range(300):
        job.give(Resize(64 + at % 2 * 64), Seal(at, 1))
    ordered = job.session.orders.given
    job.give(act)
    assert job.session.orders.given == ordered


def test_a_finished_session_is_opened_at_its_end_with_any_batch_size(service: Service) -> None:
    """No step of it is trained any more, so nothing is scaled and nothing refused."""
    guard = {**GUARD, "max_trips": 0, "then": "stop"}
    job = Job(service, batch_scaling="linear", batch_size=64, controllers=[guard])
    job.give(Seal(0, 1), Report((Reading(0, 0, "loss", math.nan),)))
    job.give(Seal(1, 1))
    assert job.session.status == "finished"
    job.give(Resize(128))
    assert job.back(1, "again").attempt.number == 2
    assert job.back(1, "and again", batch_size=256).control.batch_size == 256


def test_an_attempt_is_joined_with_the_size_that_it_was_opened_with(service: Service) -> None:
    """A repeated call counts as the same, whatever the batch size is by now."""
    job = Job(service, batch_scaling="linear", batch_size=64)
    job.train(4)
    job.back(3, "k", batch_size=128)
    job.give(Resize(256))
    assert job.back(3, "k", batch_size=128).attempt.number == 2
    with pytest.raises(AttemptRefusedError, match="a batch size of 128, not 256"):
        job.back(3, "k", batch_size=256)


def test_a_number_is_never_given_to_two_orders(service: Service) -> None:
    """This holds if one was given and carried out within one commit, and the service restarted."""
    job = Job(service)
    job.give(Act(Action.parse({"kind": "scale", "factor": 0.5}), None, "ann"), Seal(0, 4))
    service.restart()
    assert job.order(kind="scale", factor=0.5) == 2


def test_a_forks_attempts_do_not_know_what_its_parent_was_told_later(service: Service) -> None:
    """Its past ends where it began: a late report to the parent is the parent's."""
    spec = {"controllers": [PLATEAU | {"patience": 0, "cooldown": 0}], "ranks": 2}
    job = Job(service, **spec, max_lookahead=4)
    job.give(Seal(0, 4), Report(tuple(Reading(0, step, "loss", 1.0) for step in range(4))))
    fork = job.fork("fork", 4)
    rates = [fork.give(Seal(step, 1)) and fork.values(step)[0] for step in (4, 5)]
    job.give(Report(tuple(Reading(1, step, "loss", 1.0) for step in range(4))))
    fork.back(4, "again")
    assert [fork.give(Seal(step, 1)) and fork.values(step)[0] for step in (4, 5)] == rates


def test_a_batch_size_may_be_refused_and_then_nothing_has_happened(service: Service) -> None:
    """The rule `refuse` may forbid it, or the limits may not allow the resulting rate."""
    strict = Job(service, "strict", batch_scaling="refuse", batch_size=64)
    narrow = Job(service, "narrow", batch_scaling="linear", batch_size=64, limits={"max_lr": 0.3})
    for job, hint in ((strict, "Train with the old one"), (narrow, "outside the limits")):
        job.train(10)
        before = job.session
        with pytest.raises(BatchRefusedError, match=hint):
            job.back(5, "once", batch_size=256)
        assert job.session == before
        assert len(service.store.attempts_of(service.do(Find(job.name)).entry.stored)) == 1
        assert job.back(5, "once", batch_size=64).attempt.number == 2


def test_an_unknown_batch_size_scales_nothing(service: Service) -> None:
    """Without a first size there is no change."""
    job = Job(service, batch_scaling="linear")
    job.train(10)
    job.back(5, "once", batch_size=128)
    job.train(10)
    assert job.values() == [0.1] * 10


# -- snapshots and lineage -----------------------------------------------------------------------


def test_a_restart_replays_a_bounded_number_of_measurements(service: Service) -> None:
    """This holds for any length of run and any restart of the service; the state is the same."""
    job = Job(service, **CONTROLLED["plateau"], max_lookahead=100)
    states: dict[int, Session] = {}
    for start in range(0, 4000, 100):
        states[start] = planned(job.session, start)
        if start in (700, 1500, 2300, 3100):
            service.restart()
        job.train(start + 100, window=100)
    for step, state in states.items():
        past = job.past(step)
        assert len(past.replayed) <= REPLAYED + 100
        restored = restore(past, step)
        assert repr(restored.control.states) == repr(state.control.states)


def test_a_restart_replays_no_more_than_costs_little(service: Service) -> None:
    """With many groups, controllers and group orders, few facts follow the last snapshot.

    And there are not many more snapshots than that takes.
    """
    groups = {f"g{index}": {"base_lr": 0.1} for index in range(256)}
    rules = [{"kind": "plateau", "metric": "loss", "patience": 50}] * 16
    watched = Job(service, "watched", base_lr=None, groups=groups, controllers=rules)
    ordered = Job(service, "ordered", base_lr=None, groups=groups)
    watched.train(120)
    for step in range(120):
        ordered.order(kind="scale", factor=0.999)
        ordered.train(step + 1)
    for job in (watched, ordered):
        replayed = [job.past(step).replayed for step in range(0, 120, 4)]
        dearest = max(replay_cost(job.session.spec, facts) for facts in replayed)
        assert REPLAY / 2 < dearest <= 1.1 * REPLAY
        assert snapshots(service, job.name) <= 7


def test_a_snapshot_is_written_once_in_so_many_measurements(service: Service) -> None:
    """A session without controllers has only its first, and a long one few."""
    plain, watched = Job(service, "plain"), Job(service, "watched", **CONTROLLED["plateau"])
    plain.train(2500, window=500)
    watched.give(Seal(0, 1))
    for job, expected in ((plain, 1), (watched, 2)):
        job.train(job.session.horizon + 500)
        assert snapshots(service, job.name) == expected


def snapshots(service: Service, name: str) -> int:
    """Return the number of snapshots of a session."""
    query = "SELECT count(*) FROM snapshots JOIN sessions ON sessions.id = session_id WHERE name=?"
    with service.store._reader.connect() as connection:
        return int(connection.exec_driver_sql(query, (name,)).scalar() or 0)


def test_lives_share_the_steps_between_them() -> None:
    """Each step belongs to one attempt, and a branch replaces those that began at it or later."""
    lineage = branch(branch((AttemptRef(1, 1, 0),), AttemptRef(1, 2, 10)), AttemptRef(2, 1, 15))
    assert [(s.ref.attempt, s.start, s.end) for s in spans(lineage, 5, 20)] == [
        (1, 5, 10),
        (2, 10, 15),
        (1, 15, 20),
    ]
    assert branch(lineage, AttemptRef(2, 2, 10)) == (AttemptRef(1, 1, 0), AttemptRef(2, 2, 10))
    assert list(spans(lineage, 12, 12)) == []


def test_restoring_carries_out_facts_in_their_order() -> None:
    """It works from a snapshot and facts alone, without a store."""
    state = create(SessionSpec.model_validate({"name": "pure", "base_lr": 0.1}))
    halve, hold = (
        Order(number, at, Action.parse(body), "ann")
        for number, at, body in (
            (1, 4, {"kind": "scale", "factor": 0.5}),
            (2, 6, {"kind": "hold"}),
        )
    )
    facts = [Acted(halve), Acted(hold)]
    restored = restore(RestorePoint(state, facts, (), ()), 9)
    assert restored.timelines["lr"].value(9) == 0.05
    assert restored.timelines["lr"].segments[-1].frozen == 6
    assert (restored.horizon, restored.orders.given) == (9, 2)


def test_a_fork_keeps_its_events_over_a_restart(service: Service) -> None:
    """An operator's order in a new fork after a restart is in its log."""
    job = Job(service)
    job.train(5)
    child = job.fork("child", 3)
    service.restart()
    child.order(None, kind="scale", factor=0.5)
    stored = service.do(Find("child")).entry.stored
    assert stored.events == len(service.store.events_after(stored, 0, limit=10)) == 2
