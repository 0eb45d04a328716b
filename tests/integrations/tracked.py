"""Trains with a tracker as listener, and prints what the tracker has kept.

`python tracked.py TRACKER SESSION FOLDER`, in a separate process: trackers leave threads behind.
"""

import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pacesetter import Client, Session, trackers

STEPS = 30
COSINE = {"kind": "cosine", "total_steps": STEPS}


def train(session: Session) -> None:
    """Report a loss for each step, and go back once to train the second half again."""
    for step in (*range(STEPS), *range(STEPS // 2, STEPS)):
        if step == STEPS // 2 and session.horizon > step + 1:
            session.restart(step)
        session.lr(step)
        session.report(step, loss=1.0 / (step + 1))


def wandb(session: Session, folder: Path) -> list[list[Any]]:
    """Keep it in the file of an offline run, and read that."""
    import wandb

    run = wandb.init(mode="offline", dir=folder, project="tests")
    session.on_report(trackers.wandb(run, prefix="own/"))
    session.on_report(trackers.wandb(run, prefix="step/", step_metric="step"))
    train(session)
    run.finish()
    wandb.teardown()
    (file,) = folder.rglob("*.wandb")
    return list(_rows(file.read_bytes()))


def _rows(content: bytes) -> Iterator[list[Any]]:
    """Read W&B's log: the format of LevelDB's, of protobuf messages."""
    from wandb.proto import wandb_internal_pb2

    at, parts = len(b":W&B") + 3, []
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record.FromString(b"".join(parts))
            parts = []
            if record.WhichOneof("record_type") == "history":
                items = {
                    item.nested_key[0]: json.loads(item.value_json) for item in record.history.item
                }
                yield [record.history.step.num, items]


def mlflow(session: Session, folder: Path) -> list[list[Any]]:
    """Keep it in a database, and query that."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("tests", artifact_location=folder.as_uri())
    run_id = client.create_run(experiment).info.run_id
    session.on_report(trackers.mlflow(client, run_id))
    train(session)
    mlflow.flush_async_logging()
    return [
        [name, each.step, each.value]
        for name in ("loss", "lr")
        for each in client.get_metric_history(run_id, name)
    ]


def children() -> list[str]:
    """Return the processes that this one has left running."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [pid for each in tasks for pid in each.read_text().split()]


if __name__ == "__main__":
    name, session_name, target = sys.argv[1:]
    with Client() as client:
        opened = client.session(session_name, base_lr=0.1, schedule=COSINE, max_lookahead=10)
        kept = {"wandb": wandb, "mlflow": mlflow}[name](opened, Path(target))
    print(json.dumps({"kept": kept, "children": children()}))
