"""Ray Train: two workers that share a session, of which one asks the service.

Start a server first: `pacesetter serve`.
"""

# mypy: allow-untyped-calls
import os
from typing import Any

import ray
import torch
from ray import train
from ray.train.torch import TorchTrainer

from pacesetter import Client
from pacesetter.distributed import open_session
from pacesetter.torch import RemoteLR


def train_loop(config: dict[str, Any]) -> None:
    """Train on one worker: Ray has made the process group, so that this is plain DDP."""
    model = train.torch.prepare_model(torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    name = train.get_context().get_experiment_name()
    os.environ["PACESETTER_RUN"] = name  # workers that Ray starts again are of the same job
    client = Client(config["server"])  # the same address from every machine of the cluster
    cosine = {"kind": "cosine", "total_steps": config["steps"]}
    session = open_session(client, name, base_lr=0.1, schedule=cosine)
    scheduler = RemoteLR(optimizer, session, metric="loss", reports="mean")
    for _ in range(config["steps"]):
        inputs = torch.randn(32, 8)
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step(loss)
    scheduler.flush()
    session.close()
    train.report({"loss": loss.item(), "lr": scheduler.get_last_lr()[0]})


if __name__ == "__main__":
    ray.init(num_cpus=3, include_dashboard=False)  # a single machine: one CPU per worker
    server = os.environ.get("PACESETTER_URL", "http://127.0.0.1:7070")
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"server": server, "steps": 200},
        scaling_config=train.ScalingConfig(num_workers=2),
    )
    trainer.fit()
    ray.shutdown()
