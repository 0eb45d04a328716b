"""The learning rate beside the loss in TensorBoard.

Start a server first: `pacesetter serve`. Look at it with `tensorboard --logdir out/tensorboard`.
"""

# mypy: allow-untyped-calls
import torch
from torch.utils.tensorboard import SummaryWriter

from pacesetter import Client, trackers
from pacesetter.torch import RemoteLR

STEPS = 200

torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
cosine = {"kind": "cosine", "total_steps": STEPS}
session = Client().session("tracked", base_lr=0.1, schedule=cosine)
writer = SummaryWriter("out/tensorboard")
session.on_report(trackers.tensorboard(writer, prefix="train/"), every=10)
scheduler = RemoteLR(optimizer, session, metric="loss")
for _ in range(STEPS):
    inputs = torch.randn(32, 8)
    loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step(loss)
session.close()
writer.close()
