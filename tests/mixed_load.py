"""A process that uses a service as many clients: trainers, an operator, readers, followers.

`soak.py` starts it with the service's address, reads its progress from its standard output, a line
of JSON a second, and ends it by closing its standard input. The last line says which threads and
files are left once all clients are closed.
"""

import itertools
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from pacesetter import Client, NotFoundError
from pacesetter.torch import RemoteLR

PATIENCE = 120.0
STEP = 0.02
"""Seconds that a trainer's step takes."""

TRAINERS = 3
"""Permanent trainers, beside one that follows the service with an optimizer."""

BACK = 3_000
"""Steps after which a trainer goes back to a checkpoint."""

JOB = {
    "base_lr": 0.1,
    "schedule": {
        "kind": "warmup",
        "steps": 1000,
        "schedule": {"kind": "exponential", "gamma": 0.99999},
    },
    "controllers": [{"kind": "plateau", "metric": "loss", "patience": 50, "factor": 0.999}],
}


class Tally:
    """Counts of what was done, and the errors in words."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []

    def add(self, **done: int) -> None:
        """Add to a count."""
        with self._lock:
            self.counts.update(done)

    def fail(self, who: str, error: BaseException) -> None:
        """Record an error."""
        with self._lock:
            self.errors.append(f"{who}: {error!r}")

    def line(self, **more: object) -> str:
        """Return all of it as a line of JSON."""
        with self._lock:
            return json.dumps({"done": self.counts, "errors": self.errors, **more})


Work = Callable[[Client, Tally, threading.Event], None]


def train(number: int) -> Work:
    """Return a trainer, which reports two numbers a step and goes back now and then.

    The first one has each step decided on the measurements of the step before; the others run
    ahead.
    """

    def work(client: Client, tally: Tally, stop: threading.Event) -> None:
        dice, step = random.Random(number), 0
        lookahead = 1 if number == 0 else 64
        session = client.create_session(f"run-{number}", max_lookahead=lookahead, **JOB)
        tally.add(sessions=1)
        for trained in itertools.count(1):
            session.lr(step)
            session.report(step, loss=1.0 / (1 + step) + 0.1 * dice.random(), norm=dice.random())
            tally.add(steps=1, values=2)
            step += 1
            if stop.wait(STEP):
                break
            if trained % BACK == 0:
                session.flush()
                step -= dice.randrange(1, 100)
                session.restart(step)
                tally.add(restarts=1)
        session.close()

    return work


def optimize(client: Client, tally: Tally, stop: threading.Event) -> None:
    """Train a small model, whose optimizer follows a session."""
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session = client.create_session("optimizer", **JOB)
    tally.add(sessions=1)
    scheduler = RemoteLR(optimizer, session, metric="loss")
    while not stop.wait(STEP):
        inputs = torch.randn(4, 8)
        loss = (model(inputs) - inputs.sum(dim=1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step(loss.detach())
        tally.add(steps=1, values=1)
    session.close()


def come_and_go(client: Client, tally: Tally, stop: threading.Event) -> None:
    """Create one session after another, train it for a while, and have it purged."""
    for number in itertools.count():
        name = f"short-{number}"
        with client.create_session(name, **JOB) as session:
            for step in range(50):
                session.lr(step)
                session.report(step, loss=0.5)
            session.finish()
        client.archive(name)
        try:
            client.purge(name)
        except NotFoundError as error:  # done already, by a call that had no answer
            if error.code != "session_purged":
                raise
        tally.add(purged=1)
        if stop.wait(1.0):
            return


def operate(client: Client, tally: Tally, stop: threading.Event) -> None:
    """Order one change after another, and hold a training for a moment now and then."""
    dice = random.Random("operator")
    while not stop.is_set():
        name = f"run-{dice.randrange(TRAINERS)}"
        client.scale(name, dice.choice((0.98, 1.0 / 0.98)), reason="as it is done all day")
        tally.add(orders=1)
        if dice.random() < 0.05:
            client.hold(name)
            client.release(name)
            tally.add(orders=2)
        stop.wait(0.5)


def read(client: Client, tally: Tally, stop: threading.Event) -> None:
    """Read what people and programs read: an equal part of any record, however long it is."""
    dice = random.Random("reader")

    def newest(name: str) -> int:
        return max(client.get(name).horizon - 500, 0)

    looks: list[Callable[[str], object]] = [
        client.status_of,
        client.explain,
        lambda name: client.columns(name, start=newest(name)),
        lambda name: client.history(name, start=newest(name)),
        lambda name: client.forecast(name, start=None),
        lambda _: list(itertools.islice(client.sessions(), 10)),
        lambda name: list(itertools.islice(client.events(name), 10)),
    ]
    while not stop.wait(0.2):
        dice.choice(looks)(f"run-{dice.randrange(TRAINERS)}")
        tally.add(reads=1)


def follow(client: Client, tally: Tally, stop: threading.Event) -> None:
    """Follow the events of a session for as long as there are any."""
    for _ in client.events("run-0", follow=True):
        tally.add(followed=1)
        if stop.is_set():
            return


def follow_for_a_while(client: Client, tally: Tally, stop: threading.Event) -> None:
    """Follow all events, leave in the midst of them, and come back."""
    while not stop.is_set():
        events = client.events(after="now", follow=True)
        for _ in itertools.islice(events, 10):
            tally.add(followed=1)
        del events


def _insisting(name: str, work: Work, url: str, tally: Tally, stop: threading.Event) -> None:
    try:
        with Client(url, retry_for=PATIENCE, max_wait=PATIENCE) as client:
            work(client, tally, stop)
    except BaseException as error:
        tally.fail(name, error)


def _held() -> Counter[str]:
    """Return the threads of this process by name, and its open files."""
    held = Counter(f"thread {each.name}" for each in threading.enumerate())
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            held[f"file {each.readlink()}"] += 1
    return held


def _left(before: Counter[str]) -> list[str]:
    """Return what is held now and was not before; wait until nothing is, or patience ends."""
    deadline = time.monotonic() + PATIENCE
    while left := sorted((_held() - before).elements()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return left


def main(url: str) -> None:
    """Use a service until the standard input is closed."""
    torch.set_num_threads(1)
    tally, stop, rest = Tally(), threading.Event(), threading.Event()
    ended = threading.Thread(target=sys.stdin.read, daemon=True)
    ended.start()
    before = _held()
    # The operator and the passing trainings end last: a follower of events ends at the next one.
    active: dict[str, Work] = {"operator": operate, "who comes and goes": come_and_go}
    others: dict[str, Work] = {f"trainer {each}": train(each) for each in range(TRAINERS)}
    others |= {"optimizer": optimize, "reader": read, "follower": follow}
    others |= {"who follows for a while": follow_for_a_while}
    threads = []
    for works, until in ((others, stop), (active, rest)):
        for name, work in works.items():
            thread = threading.Thread(
                target=_insisting, args=(name, work, url, tally, until), name=name
            )
            threads.append(thread)
    _begin(threads, tally)
    while ended.is_alive():
        print(tally.line(), flush=True)
        ended.join(1.0)
    stop.set()
    _await(threads[: len(others)])
    rest.set()
    _await(threads[len(others) :])
    print(tally.line(left=_left(before)), flush=True)
    os._exit(0)  # remaining threads are not waited for


def _begin(threads: list[threading.Thread], tally: Tally) -> None:
    """Start the trainers first: the others ask for their sessions."""
    for thread in threads[: TRAINERS + 1]:
        thread.start()
    deadline = time.monotonic() + PATIENCE
    while tally.counts["sessions"] < TRAINERS + 1 and not tally.errors:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    for thread in threads[TRAINERS + 1 :]:
        thread.start()


def _await(threads: list[threading.Thread]) -> None:
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))


if __name__ == "__main__":
    main(sys.argv[1])
