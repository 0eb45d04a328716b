"""DistributedDataParallel: one rank asks the service, all apply the same bits at each step.

Start a server first: `pacesetter serve`. Then, on one machine with two processes:
`torchrun --standalone --nproc-per-node=2 ddp_torchrun.py`.
"""

# mypy: allow-untyped-calls
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from pacesetter import Client
from pacesetter.distributed import open_session
from pacesetter.torch import RemoteLR

STEPS = 200

distributed.init_process_group("gloo")
rank = distributed.get_rank()
torch.manual_seed(rank)  # each rank has its own data
model = DistributedDataParallel(torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
cosine = {"kind": "cosine", "total_steps": STEPS}
session = open_session(Client(), "ddp", base_lr=0.1, schedule=cosine)
scheduler = RemoteLR(optimizer, session, metric="loss", reports="mean")
for step in range(STEPS):
    inputs = torch.randn(32, 8)
    loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step(loss)  # on every rank; the service gets the mean of the losses
    if rank == 0 and step % 50 == 0:
        print(f"step {step:3}  lr {scheduler.get_last_lr()[0]:.4f}  loss {loss.item():.1e}")
scheduler.flush()  # on every rank: the last means are made of all losses
session.close()
distributed.destroy_process_group()
