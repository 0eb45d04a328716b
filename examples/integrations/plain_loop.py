"""A hand-written loop: the rate of each update from the service, its loss to the service.

Start a server first: `pacesetter serve`.
"""

# mypy: allow-untyped-calls
import torch

from pacesetter import Client
from pacesetter.torch import RemoteLR

STEPS = 200

torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
cosine = {"kind": "cosine", "total_steps": STEPS}
session = Client().session("plain-loop", base_lr=0.1, schedule=cosine)
scheduler = RemoteLR(optimizer, session, metric="loss")
for step in range(STEPS):
    inputs = torch.randn(32, 8)
    loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step(loss)  # reports the loss of this step, then advances
    if step % 50 == 0:
        print(f"step {step:3}  lr {scheduler.get_last_lr()[0]:.4f}  loss {loss.item():.1e}")
session.close()
