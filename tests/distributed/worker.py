"""One worker of a torchelastic job: it trains from the last checkpoint, and records its rates."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

import torch
from torch import distributed

from distributed.launch import joined, left_at_once
from distributed.scenarios import held, sgd
from pacesetter import Client
from pacesetter.distributed import open_session
from pacesetter.torch import RemoteLR

EVERY = 20
"""Steps between two checkpoints."""


def train(url: str, folder: Path, steps: int) -> None:
    """Train until `steps` are done, whatever number of starts that takes."""
    rank = joined()
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    saved = folder / "checkpoint.pt"
    with Client(url, max_wait=60.0) as client:
        scheduler = RemoteLR(sgd(0.1), open_session(client, "elastic"))
        if saved.exists():
            scheduler.load_state_dict(torch.load(saved, weights_only=True))
        elif os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
            scheduler.restart(0)
        with (folder / f"rank-{rank}.jsonl").open("a", buffering=1) as record:
            while scheduler.last_epoch < steps:
                facts = [rank, scheduler.session.attempt, scheduler.last_epoch]
                record.write(json.dumps([*facts, held(scheduler.optimizer)[0]]) + "\n")
                distributed.all_reduce(torch.ones(1))  # as gradients keep ranks in step
                time.sleep(0.005)
                scheduler.step()
                if scheduler.last_epoch % EVERY == 0:
                    _save(scheduler, saved, rank)
    distributed.barrier()
    distributed.destroy_process_group()


def _save(scheduler: RemoteLR, path: Path, rank: int) -> None:
    distributed.barrier()
    if rank == 0:
        partial = path.with_suffix(".partial")
        torch.save(scheduler.state_dict(), partial)
        partial.replace(path)
    distributed.barrier()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        train(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
        left_at_once()
