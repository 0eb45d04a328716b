"""A training started by torchrun that loads no checkpoint, and may die on the way once.

Each life writes down the rates that it trained with: `<folder>/<life>-<rank>.json`.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch
from torch import distributed

from distributed.launch import joined, left_at_once
from pacesetter import Client, ResumeError
from pacesetter.distributed import open_session
from pacesetter.torch import RemoteLR


def main() -> None:
    """Train for 20 steps; in the first life the last rank dies at the given step."""
    parser = argparse.ArgumentParser()
    for name in ("url", "name", "folder"):
        parser.add_argument(name)
    parser.add_argument("--dies-at", type=int, default=-1)
    options = parser.parse_args()
    life = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    rank, last = joined(), distributed.get_world_size() - 1
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    seen: list[float] = []
    failed = ""
    with Client(options.url, max_wait=60.0) as client:
        scheduler = RemoteLR(optimizer, open_session(client, options.name))
        try:
            for step in range(20):
                if life == 0 and step == options.dies_at:
                    distributed.barrier()
                    if rank == last:
                        sys.exit(1)
                seen.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                scheduler.step()
        except ResumeError as error:
            failed = type(error).__name__
        attempt = scheduler.session.attempt
    found = {"rates": seen, "attempt": attempt, "failed": failed}
    Path(options.folder, f"{life}-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
    left_at_once()
