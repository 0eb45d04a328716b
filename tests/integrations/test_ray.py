"""Ray: two workers train with sealed rates, and a Trainer's trials are kept apart.

The short form is Ray's local mode, which trains in the processes of a launcher. The long ones
start a cluster: a dozen processes, which take half a minute of two cores.
"""

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
server, name, steps = sys.argv[2:5]

def recorded(config):
    with example.recorded_updates() as updates:
        train_loop(config)
    rank = train.get_context().get_world_rank()
    (folder / f"rank-{rank}.json").write_text(json.dumps(updates))

def fit(workers):
    TorchTrainer(
        recorded,
        train_loop_config={"server": server, "steps": int(steps)},
        scaling_config=train.ScalingConfig(num_workers=workers),
        run_config=train.RunConfig(name=name, storage_path=str(folder / "results")),
    ).fit()
"""

ON_A_CLUSTER = """
ray.init(num_cpus=3, include_dashboard=False)
fit(workers=2)
ray.shutdown()
"""

IN_LOCAL_MODE = """
import socket

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
# What a launcher does, but for importing all that twice.
other = os.fork()
os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if other else "1"
fit(workers=0)
if other:
    code = os.waitstatus_to_exitcode(os.waitpid(other, 0)[1])
    assert code == 0, code
"""

SEARCH = """
import sys
from pathlib import Path

import ray
from ray import tune

from integrations.hf_training import Net, arguments, examples
from pacesetter import Client
from pacesetter.transformers import PacesetterCallback, PacesetterTrainer

ray.init(num_cpus=2, include_dashboard=False)
PacesetterTrainer(
    model_init=Net,
    args=arguments(Path(sys.argv[1]), max_steps=4),
    train_dataset=examples(24),
    eval_dataset=examples(8),
    callbacks=[PacesetterCallback(sys.argv[3] + "-{run}", client=Client(sys.argv[2]))],
).hyperparameter_search(
    backend="ray",
    hp_space=lambda _: {"learning_rate": tune.grid_search([0.01, 0.02])},
    n_trials=1,
)
ray.shutdown()
"""


@pytest.fixture(name="home")
def _home() -> Iterator[Path]:
    """Return a folder for all that Ray writes; its path is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_the_workers_of_ray_apply_the_same_bits(
    server_url: str, unique_name: str, home: Path, tmp_path: Path
):
    """Both workers use the sealed rate of each step, and their mean loss is recorded."""
    _train(JOB + IN_LOCAL_MODE, home, tmp_path, server_url, unique_name)


@pytest.mark.slow
def test_the_workers_of_a_cluster_apply_the_same_bits(
    server_url: str, unique_name: str, home: Path, tmp_path: Path
):
    """So do those that a cluster starts, in threads of its processes; later, Ray is gone."""
    _train(JOB + ON_A_CLUSTER, home, tmp_path, server_url, unique_name)
    assert _running_in(home) == []


def _train(job: str, home: Path, folder: Path, server: str, name: str) -> None:
    """Run the example's training on two workers; both must have used the sealed bits."""
    _run(job, home, folder, server, name, str(STEPS))
    first, second = (json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    with Client(server) as client:
        answer = client.lr(name, 0, count=STEPS)
        history = client.history(name, end=STEPS)
    assert answer["sealed_until"] >= STEPS
    assert first == second == [rate.hex() for rate in answer["series"]["lr"]]
    assert len(history["metrics"]["loss"]) == STEPS
    assert None not in history["metrics"]["loss"]


@pytest.mark.slow
def test_each_trial_of_a_trainers_search_has_a_session(
    server_url: str, unique_name: str, home: Path, tmp_path: Path
):
    """Ray's own search trains each trial in a process: the template has Ray's name of it."""
    _run(SEARCH, home, tmp_path, server_url, unique_name)
    with Client(server_url) as client:
        found = [each for each in client.sessions() if each.name.startswith(unique_name)]
    assert sorted(each.base_lr(None) or 0.0 for each in found) == [0.01, 0.02]
    assert all(each.attempt == 1 and each.horizon >= 4 for each in found)
    endings = {each.name.removeprefix(f"{unique_name}-run-").rpartition("_")[2] for each in found}
    assert endings == {"00000", "00001"}


def _run(job: str, home: Path, folder: Path, *given: str) -> None:
    """Run a program that uses Ray, with a folder as its first argument; it must succeed."""
    environment = {
        "HOME": str(home),
        "RAY_TMPDIR": str(home),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Each of these would be one more process, or a poll that is waited for.
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(HERE.parent),
    }
    with (folder / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-c", job, folder, *given],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            timeout=3 * PATIENCE,
            check=False,
        )
    assert done.returncode == 0, (folder / "log").read_text()[-12000:]


def _running_in(folder: Path) -> list[str]:
    """Return the commands of the processes that were started for a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it ended meanwhile
            continue
        if str(folder) in command:
            found.append(command)
    return found
