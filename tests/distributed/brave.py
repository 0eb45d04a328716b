"""One rank of a training in a storm, started by torchrun; it writes down what it has seen."""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from distributed.launch import left_at_once
from distributed.scenarios import brave
from serving import PATIENCE


def main(folder: Path, *options: str) -> None:
    """Train, and write the rates, the weights and the longest step into `rank-<n>.json`."""
    url, name, steps, max_wait, pause, way = options
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=timedelta(seconds=PATIENCE))
    rank = int(os.environ["RANK"])
    seen = brave(rank, folder, url, name, int(steps), float(max_wait), float(pause), way)
    (folder / f"rank-{rank}.json").write_text(json.dumps(seen))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
    left_at_once()
