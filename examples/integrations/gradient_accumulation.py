"""Gradient accumulation: the schedule advances once per update, not once per batch.

Start a server first: `pacesetter serve`.
"""

# mypy: allow-untyped-calls
import torch

from pacesetter import Client
from pacesetter.torch import RemoteLR

UPDATES = 100
BATCHES_AN_UPDATE = 4

torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
cosine = {"kind": "cosine", "total_steps": UPDATES}  # counted in updates, too
session = Client().session("gradient-accumulation", base_lr=0.1, schedule=cosine)
scheduler = RemoteLR(optimizer, session, metric="loss")
total = torch.zeros(())
for batch in range(UPDATES * BATCHES_AN_UPDATE):
    inputs = torch.randn(8, 8)
    loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean() / BATCHES_AN_UPDATE
    loss.backward()
    total += loss.detach()
    if (batch + 1) % BATCHES_AN_UPDATE == 0:
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step(total)
        total = torch.zeros(())
session.close()
print(f"{scheduler.last_epoch} updates, lr {scheduler.get_last_lr()[0]:.4f}")
