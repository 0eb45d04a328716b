"""Distributed trainings under faults: whatever happens to the server, ranks stay alike.

`python tests/distributed/storm.py --ranks 8 --steps 2000` has torchrun train a model on several
ranks while an operator acts at random and the server is killed, restarted, stopped, slowed down and
cut off. At every step all ranks must have applied the bits that the server sealed; at the end all
have the weights, to the bit, that these rates lead to; no step waited longer than it may, and no
process died. `--fsdp` shards the model by FSDP2, and `--dtensor` makes its parameters DTensors by
tensor parallelism. `--seeds 20` runs twenty storms, one after the other.

`--elastic` has torchelastic run the training, and kills workers instead: each life of the job must
be an attempt of its own, with the right rates.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from distributed.exact import WAYS, weights_by  # noqa: E402 - found by the lines above
from distributed.launch import on_ranks, torchrun, values  # noqa: E402
from distributed.scenarios import brave  # noqa: E402
from proxy import Proxy  # noqa: E402
from serving import PATIENCE, RunningService, open_http  # noqa: E402

MAX_WAIT = 60.0
"""Seconds that a step may wait for the server."""

SLACK = 30.0
"""Seconds that the machine may stall besides."""

AT_EASE = 10
"""The number of steps that are trained at least between two events, at most."""

COSINE = {"kind": "cosine", "total_steps": 3000}


@dataclass(frozen=True)
class Weather:
    """What a storm was like.

    Attributes:
        steps: that every rank trained.
        kills: of the server, or of workers.
        stops: of the server.
        slow: phases in which its answers were slow.
        cuts: of the line to it.
        actions: of the operator.
        revisions: of the session.
        longest: seconds that the slowest step took on any rank.
    """

    steps: int
    kills: int
    stops: int
    slow: int
    cuts: int
    actions: int
    revisions: int
    longest: float


class Fate:
    """Injects the faults and orders that services meet, until it is told to stop.

    Between two events the training advances by some steps, so that on a slow machine, too, it
    trains for most of the time.
    """

    def __init__(
        self,
        service: RunningService,
        proxy: Proxy,
        dice: random.Random,
        calm: float,
        trained: Callable[[], int],
    ) -> None:
        self._trained = trained
        self.kills = self.stops = self.slow = self.cuts = self.actions = 0
        self._service = service
        self._proxy = proxy
        self._dice = dice
        self._calm = calm
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        troubles = [self._kill, self._stop, self._slow, self._cut]
        deck: list[Callable[[], None]] = []
        while not self._over.wait(self._dice.uniform(0.2, 1.8) * self._calm):
            if not deck:  # each kind of trouble comes once, and orders as often, in any order
                deck = [*troubles, *[self._act] * len(troubles)]
                self._dice.shuffle(deck)
            if self._await_steps(self._dice.randint(1, AT_EASE)):
                deck.pop()()

    def _await_steps(self, more: int) -> bool:
        """Wait until that many more steps are trained; return False if all is over before."""
        wanted = self._trained() + more
        while self._trained() < wanted:
            if self._over.wait(0.02):
                return False
        return True

    def _act(self) -> None:
        act = self._dice.choice(
            [
                {"kind": "scale", "factor": self._dice.uniform(0.5, 2.0)},
                {"kind": "set", "value": self._dice.uniform(0.01, 0.5)},
                {"kind": "hold"},
                {"kind": "release"},
            ]
        )
        with open_http(self._service.url) as http:
            # A release where nothing is held is refused, as it should be.
            answer = http.post("/v1/sessions/storm/actions", json=act)
        self.actions += answer.is_success

    def _kill(self) -> None:
        self._service.kill()
        time.sleep(self._dice.uniform(0, self._calm))
        self._service.start()
        self.kills += 1

    def _stop(self) -> None:
        self._service.process.send_signal(signal.SIGSTOP)
        time.sleep(self._dice.uniform(0, self._calm))
        self._service.process.send_signal(signal.SIGCONT)
        self.stops += 1

    def _slow(self) -> None:
        self._proxy.pause = self._dice.uniform(0.1, 0.5) * self._calm
        time.sleep(self._dice.uniform(1, 3) * self._calm)
        self._proxy.pause = 0.0
        self.slow += 1

    def _cut(self) -> None:
        self._proxy.cut()
        time.sleep(self._dice.uniform(0, 2) * self._calm)
        self._proxy.mend()
        self.cuts += 1


def storm(
    *,
    ranks: int,
    steps: int,
    seed: int = 0,
    calm: float = 1.0,
    pause: float = 0.01,
    lookahead: int | None = 32,
    way: str = "plain",
    forks: bool = False,
) -> Weather:
    """Train on several ranks under faults, and check that they stay alike.

    Args:
        ranks: how many.
        steps: how many each trains.
        seed: of what happens.
        calm: seconds between two events, roughly.
        pause: seconds that a step takes besides.
        lookahead: most steps sealed ahead; with few, every outage is felt.
        way: how the model is spread over the ranks, one of `exact.WAYS`.
        forks: whether ranks are forked, which is quicker, instead of started as programs.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with RunningService(folder / "storm.db") as service, Proxy(service.url) as proxy:
            with open_http(service.url) as http:
                spec = {"name": "storm", "schedule": COSINE, "base_lr": 0.1}
                spec |= {"max_lookahead": lookahead}
                http.post("/v1/sessions", json=spec).raise_for_status()
            trained = partial(_trained, folder)
            with Fate(service, proxy, random.Random(seed), calm, trained) as fate:
                job = _forked if forks else _started
                found = job(ranks, folder, (proxy.url, "storm", steps, MAX_WAIT, pause, way))
            with open_http(service.url) as http:
                sealed = http.get("/v1/sessions/storm/lr", params={"step": 0, "count": steps})
                revisions = http.get("/v1/sessions/storm").json()["revision"]
    curve = sealed.json()["series"]["lr"]
    wanted = [value.hex() for value in curve], weights_by(curve, way, ranks)
    assert len(curve) == steps
    for rank, (rates, weights, _) in enumerate(found):
        assert rates == wanted[0], f"rank {rank} applied other rates than were sealed"
        assert weights == wanted[1], f"rank {rank} has other weights than these rates lead to"
    longest = max(each[2] for each in found)
    assert longest < MAX_WAIT + SLACK, f"a step took {longest:.1f} s"
    return Weather(
        steps, fate.kills, fate.stops, fate.slow, fate.cuts, fate.actions, revisions, longest
    )


def _started(ranks: int, folder: Path, options: tuple[Any, ...]) -> list[Any]:
    """Let torchrun start the ranks; return what each has seen."""
    given = map(str, (folder, *options))
    with _torchrun(folder, ranks, 0, "brave.py", *given, forks=False) as agent:
        _await_end(agent, folder)
    return [json.loads(_rank_file(folder, rank).read_text()) for rank in range(ranks)]


def _forked(ranks: int, folder: Path, options: tuple[Any, ...]) -> list[Any]:
    """Fork the ranks from a process that has imported what they need."""
    outcomes = on_ranks(ranks, brave, folder, *options, patience=10 * PATIENCE)
    return values(outcomes)


def _trained(folder: Path) -> int:
    """Return how many steps the first rank has trained: it writes a byte for each."""
    file = folder / "trained"
    return file.stat().st_size if file.exists() else 0


def _rank_file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"


@contextlib.contextmanager
def _torchrun(
    folder: Path, ranks: int, restarts: int, script: str, *options: str, forks: bool
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a script of this folder on several ranks; its log is `log` in the given folder."""
    command = [*torchrun(forks=forks), "--standalone", "--nnodes=1"]
    command += [f"--nproc-per-node={ranks}", f"--max-restarts={restarts}"]
    command += ["--monitor-interval=0.1", str(TESTS / "distributed" / script), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}
    with (folder / "log").open("w") as log:
        agent = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            yield agent
        finally:
            if agent.poll() is None:
                agent.terminate()
                agent.wait()


def _await_end(agent: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Wait for the end of a job: torchrun ends well if all of its workers do."""
    code = agent.wait(10 * PATIENCE)
    assert code == 0, (folder / "log").read_text()[-12000:]


# -- workers that die ------------------------------------------------------------------------------


def elastic(*, ranks: int, steps: int, kills: int, seed: int = 0, forks: bool = False) -> Weather:
    """Have torchelastic train, kill workers, and check that each life is a separate attempt.

    Args:
        ranks: how many workers.
        steps: how many each trains in the end.
        kills: how many times one of them is killed.
        seed: of when, and which.
        forks: see `storm`.
    """
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        with RunningService(Path(folder) / "elastic.db") as service:
            with open_http(service.url) as http:
                spec = {"name": "elastic", "schedule": COSINE, "base_lr": 0.1}
                http.post("/v1/sessions", json=spec).raise_for_status()
            options = (service.url, folder, str(steps))
            with _torchrun(Path(folder), ranks, kills, "worker.py", *options, forks=forks) as agent:
                _kill_workers(agent, Path(folder), ranks, steps, kills, dice)
            with open_http(service.url) as http:
                sealed = http.get("/v1/sessions/elastic/lr", params={"step": 0, "count": steps})
                attempts = http.get("/v1/sessions/elastic/attempts").json()["attempts"]
        lived = _lived(Path(folder))
    curve = [value.hex() for value in sealed.json()["series"]["lr"]]
    # The first one is that of this process, which has made the session and trains nothing.
    assert len(attempts) == kills + 2, f"{kills} kills made these attempts: {attempts}"
    starts = {each["attempt"]: each["start"] for each in attempts}
    for (rank, attempt), seen in lived.items():
        first = min(seen)
        assert first == starts[attempt], f"rank {rank} began attempt {attempt} at {first}"
        assert seen == {step: curve[step] for step in seen}
    for rank in range(ranks):
        assert max(lived[rank, kills + 2]) == steps - 1
    return Weather(steps, kills, 0, 0, 0, 0, 0, 0.0)


def _kill_workers(
    agent: "subprocess.Popen[bytes]",
    folder: Path,
    ranks: int,
    steps: int,
    kills: int,
    dice: random.Random,
) -> None:
    """Kill a worker in each life but the last, and wait for the end of that."""
    for life in range(kills):
        _await_progress(agent, folder, life + 2, dice.randint(5, steps // (kills + 1)))
        victim = (folder / f"pid-{dice.randrange(ranks)}").read_text()
        os.kill(int(victim), signal.SIGKILL)
    _await_end(agent, folder)


def _await_progress(
    agent: "subprocess.Popen[bytes]", folder: Path, attempt: int, steps: int
) -> None:
    """Wait until all ranks of a life have trained for a while."""
    deadline = time.monotonic() + PATIENCE
    while True:
        lived = [len(seen) for (_, each), seen in _lived(folder).items() if each == attempt]
        if lived and min(lived) >= steps:
            return
        log = (folder / "log").read_text()[-12000:]
        assert time.monotonic() < deadline, f"attempt {attempt} does not train:\n{log}"
        assert agent.poll() is None, f"the job is over before it was killed:\n{log}"
        time.sleep(0.05)


def _lived(folder: Path) -> dict[tuple[int, int], dict[int, str]]:
    """Return the rate of each step, by rank and attempt, as the workers wrote them down."""
    lived: dict[tuple[int, int], dict[int, str]] = {}
    for rank, attempt, step, rate in _lines(folder):
        lived.setdefault((rank, attempt), {})[step] = rate
    return lived


def _lines(folder: Path) -> Iterator[tuple[int, int, int, str]]:
    for path in folder.glob("rank-*.jsonl"):
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):  # the last one of a worker that was killed
                rank, attempt, step, rate = json.loads(line)
                yield rank, attempt, step, rate


def main() -> None:
    """Run as many storms as the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=8, help="a power of two")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--calm", type=float, default=1.0, help="seconds between two events")
    ways = parser.add_mutually_exclusive_group()
    for way in WAYS:
        ways.add_argument(f"--{way}", dest="way", action="store_const", const=way)
    ways.add_argument("--elastic", action="store_true", help="kill workers, not the server")
    parser.set_defaults(way=WAYS[0])
    parser.add_argument("--kills", type=int, default=5, help="of workers")
    wanted = parser.parse_args()
    shape: Any = {"ranks": wanted.ranks, "steps": wanted.steps, "forks": wanted.seeds > 1}
    for seed in range(wanted.seed, wanted.seed + wanted.seeds):
        if wanted.elastic:
            weather = elastic(**shape, kills=wanted.kills, seed=seed)
        else:
            weather = storm(**shape, seed=seed, calm=wanted.calm, way=wanted.way)
        print(f"seed {seed}: {wanted.ranks} ranks stayed alike: {weather}", flush=True)


if __name__ == "__main__":
    main()
