"""The smallest training that follows a session. Start a server first: `pacesetter serve`."""

# mypy: allow-untyped-calls
import torch

from pacesetter import Client
from pacesetter.torch import RemoteLR

model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
cosine = {"kind": "cosine", "total_steps": 1000}
session = Client().session("minimal", base_lr=0.1, schedule=cosine)
scheduler = RemoteLR(optimizer, session)
for step in range(1000):
    inputs = torch.randn(32, 8)
    loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    if step % 100 == 0:
        print(f"step {step:3}  lr {scheduler.get_last_lr()[0]:.4f}  loss {loss.item():.1e}")
