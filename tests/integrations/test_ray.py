"""The example of Ray Train: two workers of a local cluster train with what is sealed."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacesetter import Client
from serving import PATIENCE

HERE = Path(__file__).parent
STEPS = 50

JOB = """
import json, os, runpy, sys
from pathlib import Path

import ray
from ray import train
from ray.train.torch import TorchTrainer

from integrations import example

found = runpy.run_path(str(example.EXAMPLES / "ray_train.py"), run_name="ray_example")
train_loop, folder = found["train_loop"], Path(sys.argv[1])

def recorded(config):
    with example.recorded_updates() as updates:
        train_loop(config)
    rank = train.get_context().get_world_rank()
    (folder / f"rank-{rank}.json").write_text(json.dumps(updates))

ray.init(num_cpus=3, include_dashboard=False)
TorchTrainer(
    recorded,
    train_loop_config={"server": sys.argv[2], "steps": int(sys.argv[3])},
    scaling_config=train.ScalingConfig(num_workers=2),
    run_config=train.RunConfig(storage_path=str(folder / "results")),
).fit()
ray.shutdown()
"""


@pytest.fixture(name="home")
def _home() -> Iterator[Path]:
    """Give a folder for all that Ray writes; its path is short, for the sake of Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_the_workers_of_ray_apply_the_same_bits(server_url: str, home: Path, tmp_path: Path):
    """Both workers use what is sealed at each step, their mean loss is recorded, Ray is gone."""
    environment = {
        "HOME": str(home),
        "RAY_TMPDIR": str(home),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(HERE.parent),
    }
    with (tmp_path / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-c", JOB, tmp_path, server_url, str(STEPS)],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            timeout=3 * PATIENCE,
            check=False,
        )
    assert done.returncode == 0, (tmp_path / "log").read_text()[-12000:]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    with Client(server_url) as client:
        answer = client.lr("ray", 0, count=STEPS)
        history = client.history("ray", end=STEPS)
    assert answer["sealed_until"] >= STEPS
    assert first == second == [rate.hex() for rate in answer["series"]["lr"]]
    assert len(history["metrics"]["loss"]) == STEPS
    assert None not in history["metrics"]["loss"]
    assert _running_in(home) == []


def _running_in(folder: Path) -> list[str]:
    """Give the commands of the processes that were started for a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it ended meanwhile
            continue
        if str(folder) in command:
            found.append(command)
    return found
