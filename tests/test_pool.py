"""A pool does slow work off the event loop, and drops work whose caller has left."""

import asyncio
import threading

import pytest

from pacesetter_service.core.cost import Check
from pacesetter_service.core.errors import BusyError
from pacesetter_service.runtime.lanes import Lanes
from pacesetter_service.runtime.pool import AT_ONCE, AbandonedError, Pool, in_thread
from pacesetter_service.runtime.watchdog import Progress

PATIENCE = 60.0


class Blocked:
    """Work that goes on until it is released or given up."""

    def __init__(self) -> None:
        self.begun, self.let_go, self.given_up = (threading.Event() for _ in range(3))

    def __call__(self, check: Check) -> str:
        """Work, and return the name of the thread."""
        self.begun.set()
        while not self.let_go.wait(0.005):
            try:
                check()
            except AbandonedError:
                self.given_up.set()
                raise
        return threading.current_thread().name


async def happened(event: threading.Event) -> None:
    """Wait for an event without blocking the loop."""
    assert await asyncio.to_thread(event.wait, PATIENCE)


def test_the_loop_goes_on_and_what_is_too_much_is_refused() -> None:
    """While one works and one waits a third is refused at once; then both get their answers."""

    async def scene() -> None:
        pool, first, second = Pool("reads", workers=1, waiting=1), Blocked(), Blocked()
        working = asyncio.ensure_future(pool.run(first))
        await happened(first.begun)
        waiting = asyncio.ensure_future(pool.run(second))
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="Try again"):
            await pool.run(Blocked())
        assert not second.begun.is_set()
        first.let_go.set()
        second.let_go.set()
        assert await working == await waiting == "reads-1"

    asyncio.run(scene())


def test_what_nobody_waits_for_is_given_up_running_or_not() -> None:
    """A cancelled caller's work ends at its next check; a waiting one frees its place."""

    async def scene() -> None:
        pool, running, waiting = Pool("reads", workers=1, waiting=1), Blocked(), Blocked()
        callers = [asyncio.ensure_future(pool.run(running))]
        await happened(running.begun)
        callers.append(asyncio.ensure_future(pool.run(waiting)))
        await asyncio.sleep(0)
        callers[1].cancel()
        await asyncio.sleep(0)
        third = Blocked()
        third.let_go.set()
        callers.append(asyncio.ensure_future(pool.run(third)))  # there is room again
        await asyncio.sleep(0)
        callers[0].cancel()
        await happened(running.given_up)
        assert await callers[2] == "reads-1"
        assert not waiting.begun.is_set()

    asyncio.run(scene())


def test_a_failure_is_its_callers_alone() -> None:
    """What the function raises reaches its caller, and the thread takes the next call."""

    def fail(_check: Check) -> None:
        raise ZeroDivisionError

    async def scene() -> None:
        pool = Pool("reads", workers=1, waiting=1)
        with pytest.raises(ZeroDivisionError):
            await pool.run(fail)
        assert await pool.run(lambda _check: 7) == 7

    asyncio.run(scene())


def test_costly_jobs_take_turns_by_session() -> None:
    """However many wait for one session, the other one's comes second."""
    lanes: Lanes[str] = Lanes()
    for job in ("a1", "a2", "a3"):
        lanes.put("a", job)
    lanes.put("b", "b1")
    assert (len(lanes), lanes.waiting("a"), lanes.waiting("c")) == (4, 3, 0)
    order = [lanes.take(lambda _job: False) for _ in range(5)]
    assert order == [["a1"], ["b1"], ["a2"], ["a3"], []]
    assert not lanes


def test_what_became_light_goes_along() -> None:
    """Jobs that the first one has made cheap are done with it, and wait for no turn."""
    lanes: Lanes[int] = Lanes()
    for job in range(6):
        lanes.put("a", job)
    assert lanes.take(lambda job: job % 2 == 0) == [0, 2, 4]
    assert len(lanes) == 3


def test_a_thread_that_rests_is_not_late() -> None:
    """Only work counts, and each result restarts the count."""
    progress = Progress()
    assert progress.seconds_without == 0.0
    progress.made()
    first = progress.seconds_without
    assert progress.seconds_without >= first >= 0.0
    progress.rests()
    assert progress.seconds_without == 0.0


def test_a_crowd_of_callers_has_a_few_threads() -> None:
    """However many wait for the disk, a bounded number of threads works, and all get answers."""
    together = threading.Barrier(AT_ONCE)
    seen: set[int] = set()

    def read(number: int) -> int:
        together.wait(PATIENCE)  # as many as are allowed are at work at this moment
        seen.add(threading.get_ident())
        return number

    async def crowd() -> list[int]:
        return await asyncio.gather(*(in_thread(read, each) for each in range(10 * AT_ONCE)))

    assert asyncio.run(crowd()) == list(range(10 * AT_ONCE))
    assert len(seen) == AT_ONCE


def test_a_function_keeps_its_place_when_its_caller_goes_away() -> None:
    """Callers who come and go start no more threads than those who wait; what waits is not run."""
    release, begun = threading.Event(), set[int]()

    def work(number: int) -> None:
        begun.add(number)
        release.wait(PATIENCE)

    async def scene() -> None:
        for number in range(3 * AT_ONCE):
            call = asyncio.ensure_future(in_thread(work, number))
            while number < AT_ONCE and number not in begun:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        release.set()
        assert await in_thread(lambda: "served") == "served"

    asyncio.run(scene())
    assert begun == set(range(AT_ONCE))
