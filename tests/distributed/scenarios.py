"""What single ranks do in the tests of distributed trainings; see `launch`."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed import checkpoint
from torch.nn.parallel import DistributedDataParallel

from distributed.exact import Training
from pacesetter import Client, OutagePolicy, PacesetterError
from pacesetter.distributed import open_session
from pacesetter.torch import RemoteLR
from serving import PATIENCE

NOWHERE = "http://127.0.0.1:9"
"""An address without a server: a rank that gets it cannot have called one."""


def sgd(*rates: float) -> torch.optim.SGD:
    """Return an optimizer with a param group for each rate."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(3))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=0.1)


def held(optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the learning rates that an optimizer holds, to the bit."""
    return [float(group["lr"]).hex() for group in optimizer.param_groups]


def connect(rank: int, url: str, **options: Any) -> Client:
    """Open a client; only the first rank gets the server's address."""
    where = url if rank == 0 else NOWHERE
    return Client(where, **{"retry_for": 20.0, "max_wait": 20.0} | options)


def walk(scheduler: RemoteLR, steps: int, pause: float = 0.0) -> list[list[str]]:
    """Return what the optimizer holds at each of some steps, from the present one on."""
    seen = []
    for _ in range(steps):
        seen.append(held(scheduler.optimizer))
        scheduler.optimizer.step()
        time.sleep(pause)
        scheduler.step()
    return seen


def outcome_of(work: Any) -> tuple[str, str]:
    """Return the class and the text of the error that a call raises."""
    try:
        work()
    except PacesetterError as error:
        return type(error).__name__, str(error)
    return "", ""


def follow(rank: int, url: str, name: str, steps: int, pauses: Sequence[float]) -> Any:
    """Train in lockstep, each rank at another pace."""
    with connect(rank, url) as client:
        scheduler = RemoteLR(sgd(0.1), open_session(client, name))
        return walk(scheduler, steps, pauses[rank])


def begin_at(rank: int, url: str, name: str, step: int) -> Any:
    """Open a session at a step; after five more the first rank takes it back, alone."""
    with connect(rank, url) as client:
        scheduler = RemoteLR(sgd(0.1), open_session(client, name, step=step))
        rates = walk(scheduler, 5)
        if rank == 0:
            scheduler.session.restart(2)
        return rates, outcome_of(lambda: walk(scheduler, 100))


def fail_to_open(rank: int, url: str, name: str) -> Any:
    """Open a session that does not exist."""
    with connect(rank, url) as client:
        return outcome_of(lambda: open_session(client, name))


def write_elsewhere(rank: int, url: str, name: str) -> Any:
    """Let other code write to the optimizer of rank 1."""
    with connect(rank, url) as client:
        scheduler = RemoteLR(sgd(0.1), open_session(client, name))

        def train() -> None:
            for _ in range(10_000):
                if rank == 1:
                    scheduler.optimizer.param_groups[0]["lr"] = 7.0
                scheduler.step()

        return *outcome_of(train), scheduler.last_epoch


def write_unnoticed(rank: int, url: str, name: str) -> Any:
    """Do the same, without a check of the rank's own optimizer."""
    with connect(rank, url) as client:
        scheduler = RemoteLR(sgd(0.1), open_session(client, name), verify=False)

        def train() -> None:
            for _ in range(10_000):
                if rank == 1:
                    scheduler.optimizer.param_groups[0]["lr"] = 7.0
                scheduler.step()

        return outcome_of(train)


def part(rank: int, url: str, name: str) -> Any:
    """Let rank 1 load another step than the others."""
    with connect(rank, url) as client:
        scheduler = RemoteLR(sgd(0.1), open_session(client, name))
        walk(scheduler, 20)
        state = scheduler.state_dict()
        state["last_epoch"] = 10 + rank
        failed = outcome_of(lambda: scheduler.load_state_dict(state))
        state["last_epoch"] = 10
        scheduler.load_state_dict(state)
        return failed, scheduler.session.attempt, scheduler.last_epoch


def load_anothers(rank: int, url: str, name: str) -> Any:
    """Have rank 1 load a checkpoint of another session; then all load the right one."""
    with connect(rank, url) as client:
        scheduler = RemoteLR(sgd(0.1), open_session(client, name), reports="mean")
        walk(scheduler, 20)
        state = {**scheduler.state_dict(), "last_epoch": 10}
        scheduler.report(20, loss=1.0)
        other = {**state, "session": "another"} if rank == 1 else state
        failed = outcome_of(lambda: scheduler.load_state_dict(other))
        position = scheduler.last_epoch
        scheduler.load_state_dict(state)
        walk(scheduler, 3)
        return failed, position, scheduler.last_epoch


def misfit(rank: int, url: str, name: str) -> Any:
    """Build an optimizer on rank 1 that does not fit the session."""
    with connect(rank, url) as client:
        rates = (0.1, 0.5) if rank == 1 else (0.1,)
        session = open_session(client, name)
        return outcome_of(lambda: RemoteLR(sgd(*rates), session))


def add_groups(rank: int, url: str, name: str) -> Any:
    """Add a param group that the session has, and one that it does not have."""
    with connect(rank, url) as client:
        optimizer = sgd(0.1)
        optimizer.param_groups[0]["name"] = "head"
        scheduler = RemoteLR(optimizer, open_session(client, name))
        seen = walk(scheduler, 5)
        for added in ("body", "tail"):
            weight = torch.nn.Parameter(torch.ones(3))
            optimizer.add_param_group({"params": [weight], "name": added, "lr": 7.0})
            seen += walk(scheduler, 5)[1:]  # the first is driven from within its first update
        again = RemoteLR(optimizer, scheduler.session, groups=["head", "body", None])
        return seen + walk(again, 50), again.session.attempt


def drive_parts(rank: int, url: str, name: str) -> Any:
    """Drive another group on each rank, as the stages of a pipeline do."""
    with connect(rank, url) as client:
        wished = ["body"] if rank == 0 else ["body", "head"]
        scheduler = RemoteLR(sgd(*[0.1] * len(wished)), open_session(client, name), groups=wished)
        return walk(scheduler, 200)


def lead_a_group(rank: int, url: str, name: str) -> Any:
    """Train in the group of the ranks 1 and 2, whose first rank asks."""
    group = distributed.new_group([1, 2])
    if rank == 0:
        return None
    with connect(rank - 1, url) as client:
        session = open_session(client, name, group=group)
        return walk(RemoteLR(sgd(0.1), session, group=group), 200)


def mean_of_losses(rank: int, url: str, name: str, losses: list[list[float]]) -> Any:
    """Report another loss on each rank, of which the mean counts."""
    with connect(rank, url) as client:
        session = open_session(client, name)
        scheduler = RemoteLR(sgd(0.1), session, reports="mean")
        seen = []
        for each in losses:
            scheduler.step(each[rank])
            seen.append(held(scheduler.optimizer))
        scheduler._report(float(rank))
        scheduler.flush()
        return seen


def own_reports(rank: int, url: str, name: str, losses: list[list[float]]) -> Any:
    """Report each rank's loss separately, as a session of several ranks expects."""
    with Client(url, max_wait=20.0) as client:
        session = open_session(client, name)
        refusal = outcome_of(lambda: RemoteLR(sgd(0.1), session))
        scheduler = RemoteLR(sgd(0.1), session, reports="each")
        seen = []
        for each in losses:
            scheduler._report(each[rank])
            session.flush()
            distributed.barrier()
            scheduler.step()
            seen.append(held(scheduler.optimizer))
        return refusal, seen


def flush_in_vain(rank: int, url: str, name: str) -> Any:
    """Report on each rank, where all but the first are cut off from the server."""
    with connect(rank, url, max_wait=1.0) as client:
        scheduler = RemoteLR(sgd(0.1), open_session(client, name), reports="each")
        scheduler.report(0, loss=1.0)
        return outcome_of(scheduler.flush)


def ask_each(rank: int, url: str, name: str) -> Any:
    """Let every rank call the server itself, and restart together."""
    with Client(url, max_wait=20.0) as client:
        scheduler = RemoteLR(sgd(0.1), client.session(name, rank=rank), mode="each")
        first = walk(scheduler, 100, 0.0005 * rank)
        scheduler.restart(50)
        return first, walk(scheduler, 100), scheduler.session.attempt


def resume(rank: int, url: str, name: str) -> Any:
    """Train, go back, train again; then find that the job is fenced."""
    with connect(rank, url) as client:
        scheduler = RemoteLR(sgd(0.1), open_session(client, name))
        first = walk(scheduler, 60)
        scheduler.load_state_dict(scheduler.state_dict() | {"last_epoch": 30})
        second = walk(scheduler, 60)
        attempt = scheduler.session.attempt
        if rank == 0:
            with Client(url) as other:
                other.session(name, step=40)
        distributed.barrier()
        return first, second, attempt, outcome_of(lambda: walk(scheduler, 100_000))


def grow(rank: int, url: str, name: str) -> Any:
    """Train with other batch sizes: reported on the way, with a restart, and a refused one."""
    with connect(rank, url) as client:
        session = open_session(client, name)
        scheduler = RemoteLR(sgd(0.1), session, batch_size=64)
        horizon = walk(scheduler, 10) and scheduler.session.horizon
        scheduler.resize(128)
        said = walk(scheduler, horizon)[horizon - 10 :]
        grown = RemoteLR(sgd(0.1), open_session(client, name), batch_size=256)
        grown.load_state_dict({"last_epoch": 5})
        return said, walk(grown, 5), outcome_of(lambda: grown.resize(64_000))


def grow_silently(rank: int, url: str, name: str) -> Any:
    """Train, then begin again with another batch size and without a checkpoint."""
    with connect(rank, url) as client:
        first = RemoteLR(sgd(0.1), open_session(client, name), batch_size=64)
        walk(first, 10)
        horizon = first.session.horizon
        again = RemoteLR(sgd(0.1), open_session(client, name, resume="continue"), batch_size=128)
        return walk(again, horizon + 5)[horizon - 1 :]


def outlive(rank: int, url: str, name: str, policy: Any, there: Any, back: Any) -> Any:
    """Train through the death of the server; queues carry messages to the test and back."""
    with connect(rank, url, on_outage=policy, max_wait=1.0) as client:
        scheduler = RemoteLR(sgd(0.1), open_session(client, name))
        walk(scheduler, 20)
        distributed.barrier()
        if rank == 0:
            there.put("trained")
            back.get(timeout=PATIENCE)
        distributed.barrier()
        seen: list[list[str]] = []
        failed = ("", "")
        while not failed[0] and len(seen) < 3000:
            failed = outcome_of(lambda: seen.extend(walk(scheduler, 1)))
        at = scheduler.last_epoch
        distributed.barrier()
        if rank == 0:
            there.put("failed")
            back.get(timeout=PATIENCE)
        distributed.barrier()
        for _ in range(50):
            with suppress(PacesetterError):
                scheduler.step()
                break
        return failed, at, seen, scheduler.last_epoch, held(scheduler.optimizer)


def hold_each(rank: int, url: str, name: str) -> None:
    """Ask for a policy by which each rank calls, and holds if it gets no answer."""
    with Client(url, on_outage="hold") as client:
        RemoteLR(sgd(0.1), client.session(name, base_lr=0.1), mode="each")


def wait_too_long(rank: int, url: str, name: str, kind: str) -> Any:
    """Ask to wait for the server longer than the group has patience; only rank 1 does."""
    group = distributed.new_group([0, 1], timeout=timedelta(seconds=70.0))
    with connect(rank, url, max_wait=300.0 if rank == 1 else 20.0) as client:
        session = client.session(name) if rank == 0 else _followed(client, url, name)
        work = (
            (lambda: open_session(client, name, group=group))
            if kind == "open"
            else (lambda: RemoteLR(sgd(0.1), session, group=group, mode=kind))
        )
        refused = ""
        try:
            work()
        except ValueError as error:
            refused = str(error)
    with connect(rank, url, max_wait=40.0) as client:  # no longer than it may be
        walked = walk(RemoteLR(sgd(0.1), open_session(client, name, group=group), group=group), 20)
    return refused, walked


def _followed(client: Client, url: str, name: str) -> Any:
    with Client(url) as other:
        return client.follow(other.session(name).info)


def stand_apart(rank: int, url: str, name: str) -> str:
    """Pass a group that this process is not in."""
    group = distributed.new_group([0])
    if rank == 0:
        return ""
    try:
        with connect(rank, url) as client:
            open_session(client, name, group=group)
    except ValueError as error:
        return str(error)
    return "nothing"


def train_in_halves(rank: int, url: str, names: Sequence[str]) -> Any:
    """Train two models on two ranks each, a session for each; then the second goes back."""
    groups = [distributed.new_group([0, 1]), distributed.new_group([2, 3])]
    half = rank // 2
    with connect(rank % 2, url) as client:
        session = open_session(client, names[half], group=groups[half])
        scheduler = RemoteLR(sgd(0.1), session, group=groups[half], reports="mean", metric="loss")
        first = walk(scheduler, 150, 0.0005 * rank)
        if half == 1:
            scheduler.load_state_dict(scheduler.state_dict() | {"last_epoch": 50})
        scheduler._report(float(rank))
        scheduler.flush()
        return first, walk(scheduler, 50), scheduler.session.attempt


def race(rank: int, url: str, name: str) -> Any:
    """Let every rank of a DDP model call the server itself, each at another pace."""
    torch.manual_seed(rank)  # DDP makes the ranks' weights equal by itself
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Client(url, max_wait=20.0) as client:
        session = client.session(name, rank=rank)
        scheduler = RemoteLR(optimizer, session, mode="each", metric="loss")
        seen = []
        for _ in range(200):
            loss = model(torch.randn(2, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            seen += held(optimizer)
            optimizer.step()
            time.sleep(0.0005 * rank)
            scheduler.step(loss)
        scheduler.flush()
    weights = [each.detach().numpy().tobytes().hex() for each in model.parameters()]
    return seen, weights


def save_by_all(rank: int, url: str, name: str, folder: str, how: str) -> Any:
    """Train 30 steps, write a distributed checkpoint, and train on."""
    with connect(rank, url) as client:
        scheduler = RemoteLR(sgd(0.1), open_session(client, name))
        walk(scheduler, 30)
        if how == "async":
            future = checkpoint.async_save({"lr": scheduler}, checkpoint_id=folder)
            walk(scheduler, 20)
            future.result()  # type: ignore[union-attr]
        else:
            checkpoint.save({"lr": scheduler}, checkpoint_id=folder)
            walk(scheduler, 20)
        return scheduler.session.attempt


def load_by_all(rank: int, url: str, name: str, folder: str) -> Any:
    """Load a distributed checkpoint, and train on."""
    with connect(rank, url) as client:
        scheduler = RemoteLR(sgd(0.1), open_session(client, name))
        checkpoint.load({"lr": scheduler}, checkpoint_id=folder)
        at = scheduler.last_epoch
        return at, walk(scheduler, 50), scheduler.session.attempt


def resume_cut_off(rank: int, proxy: str, name: str, path: str, there: Any, back: Any) -> Any:
    """Go on from a checkpoint by a file while the server is away, until it is back and beyond."""
    policy = OutagePolicy("forecast", patience=0.1, max_steps=5000)
    with connect(rank, proxy, on_outage=policy, timeout=2.0, retry_for=0.2) as client:
        scheduler = RemoteLR(sgd(0.1), open_session(client, name, bootstrap=path))
        scheduler.load_state_dict({"last_epoch": 30, "attempt": 1})
        seen = walk(scheduler, 20)
        if rank == 0:
            there.put("trained")
            back.get(timeout=PATIENCE)
        distributed.barrier()
        attempt = torch.ones(1)
        while attempt < 2 and len(seen) < 4000:
            seen += walk(scheduler, 10)
            attempt.fill_(scheduler.session.attempt)
            # The first rank knows of it as soon as it is opened, the others by the next window.
            distributed.all_reduce(attempt, op=distributed.ReduceOp.MIN)
        return seen, scheduler.session.attempt, scheduler.state_dict()


def hear(rank: int, url: str, name: str) -> Any:
    """Listen to notices on each rank."""
    heard = []
    with connect(rank, url) as client:
        session = open_session(client, name)
        session.on_notice(lambda notice: heard.append((notice.step, notice.code)))
        scheduler = RemoteLR(sgd(0.1), session)
        for loss in (1.0, 2.0, 3.0, 4.0):
            scheduler.step(loss)
    return heard


def brave(
    rank: int,
    folder: Path,
    url: str,
    name: str,
    steps: int,
    max_wait: float,
    pause: float,
    way: str,
) -> Any:
    """Train a model in lockstep; return the rates, the weights to the bit, and the longest step.

    The first rank writes a byte into the file `trained` after each step.
    """
    with (
        connect(rank, url, max_wait=max_wait, retry_for=max_wait) as client,
        (Path(os.devnull) if rank else folder / "trained").open("wb", buffering=0) as trained,
    ):
        training = Training(way, rank, distributed.get_world_size())
        session = open_session(client, name)
        scheduler = RemoteLR(training.optimizer, session, metric="loss")
        rates, longest = [], 0.0
        for _ in range(steps):
            loss = training.backward()
            rates += held(training.optimizer)
            training.optimizer.step()
            time.sleep(pause)
            began = time.monotonic()
            scheduler.step(loss)
            longest = max(longest, time.monotonic() - began)
            trained.write(b".")
        weights = training.weights()
    return rates, weights, longest
