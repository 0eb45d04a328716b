"""Runs a function on several ranks: separate processes, joined by gloo."""

import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from serving import PATIENCE


@dataclass(frozen=True)
class Outcome:
    """The outcome of one rank: what it returned, or what it raised."""

    value: Any = None
    error: str = ""
    message: str = ""
    trace: str = ""


def on_ranks(
    size: int, work: Callable[..., Any], *args: Any, patience: float = 2 * PATIENCE
) -> list[Outcome]:
    """Run `work(rank, *args)` on `size` ranks.

    Args:
        size: how many.
        work: a function of a module that can be imported; what it gives must be picklable.
        args: for all of them.
        patience: seconds in which it must be done.
    """
    # Forked from a server that has imported what is slow to import: quick, and no threads copied.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo", "distributed.scenarios"])
    with tempfile.TemporaryDirectory() as folder:
        ends, processes = [], []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(
                target=_rank, args=(rank, size, f"{folder}/store", there, work, args)
            )
            process.start()
            there.close()
            ends.append(here)
            processes.append(process)
        try:
            outcomes = [_received(end, patience) for end in ends]
        finally:
            codes = [_ended(process) for process in processes]
    return [
        Outcome(error="Died", message=f"exit code {code}", trace=f"exit code {code}")
        if code and not outcome.error
        else outcome
        for outcome, code in zip(outcomes, codes, strict=True)
    ]


FORKING = """
import torch, torch._dynamo, pacesetter.torch
from torch.distributed.run import main
main()
"""


def torchrun(*, forks: bool) -> list[str]:
    """Return the command of torchrun, without its options.

    Args:
        forks: whether its workers are forked from it, and need not import torch themselves.
    """
    if forks:
        return [sys.executable, "-c", FORKING, "--run-path", "--start-method=fork"]
    return [sys.executable, "-m", "torch.distributed.run"]


def joined() -> int:
    """Join the other workers of this life of a torchrun; return the rank."""
    from torch import distributed

    # torchelastic's store outlives its workers, and gloo would find the addresses of dead ones.
    life = f"life-{os.environ['TORCHELASTIC_RESTART_COUNT']}"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group(
        "gloo",
        store=distributed.PrefixStore(life, distributed.TCPStore(address, port, is_master=False)),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=PATIENCE),
    )
    return rank


def left_at_once() -> None:
    """End a process of torchrun that has done its work.

    A few in a hundred of those that end as Python programs do are aborted by torch 2.13's own
    threads then ("terminate called without an active exception"), whatever they have done.
    """
    if multiprocessing.parent_process() is not None:
        return  # one that was forked ends so anyway, once torchrun has heard that it is done
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def values(outcomes: list[Outcome]) -> list[Any]:
    """Return the results of the ranks, none of which may have failed."""
    for rank, outcome in enumerate(outcomes):
        assert not outcome.error, f"rank {rank}: {outcome.trace}"
    return [outcome.value for outcome in outcomes]


def _ended(process: Any) -> int:
    """Return the exit code of a process; one that does not end is killed."""
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
    code: int = process.exitcode
    process.close()
    return code


def _received(end: Connection, patience: float) -> Outcome:
    try:
        if not end.poll(patience):
            return Outcome(error="Timeout", message="no outcome came", trace="no outcome came")
        outcome: Outcome = end.recv()
    except EOFError:
        return Outcome(error="Died", message="the process died", trace="the process died")
    finally:
        end.close()
    return outcome


def _rank(
    rank: int, size: int, store: str, end: Connection, work: Callable[..., Any], args: tuple[Any]
) -> None:
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=Path(store).as_uri(),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=PATIENCE),
    )
    try:
        outcome = Outcome(work(rank, *args))
    except BaseException as error:
        outcome = Outcome(None, type(error).__name__, str(error), traceback.format_exc())
    end.send(outcome)
    end.close()
    distributed.barrier()  # no rank takes away the connections that others still use
    distributed.destroy_process_group()
    os._exit(0)
