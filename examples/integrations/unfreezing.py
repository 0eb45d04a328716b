"""Gradual unfreezing: a head trains alone, then the body joins with its own rate and law.

Start a server first: `pacesetter serve`.
"""

# mypy: allow-untyped-calls
import torch

from pacesetter import Client
from pacesetter.torch import RemoteLR

STEPS, JOINS = 200, 50

torch.manual_seed(0)
body, head = torch.nn.Linear(8, 8), torch.nn.Linear(8, 1)
body.requires_grad_(requires_grad=False)
# Nothing until it joins, then a warmup of 20 steps: lengths of a sequence's parts are steps.
warmed_up = {
    "kind": "sequence",
    "parts": [
        {"schedule": {"kind": "hold", "value": 0.0}, "steps": JOINS},
        {"schedule": {"kind": "warmup", "steps": 20, "schedule": "constant"}},
    ],
}
session = Client().session(
    "unfreezing",
    schedule={"kind": "cosine", "total_steps": STEPS},
    groups={"head": {"base_lr": 0.1}, "body": {"base_lr": 0.01, "schedule": warmed_up}},
)
optimizer = torch.optim.SGD([{"params": head.parameters(), "name": "head"}], lr=0.1)
scheduler = RemoteLR(optimizer, session, metric="loss")
for step in range(STEPS):
    if step == JOINS:
        body.requires_grad_(requires_grad=True)
        optimizer.add_param_group({"params": body.parameters(), "name": "body"})
    inputs = torch.randn(32, 8)
    loss = (head(body(inputs)) - inputs.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step(loss)
    if step % 25 == 0:
        rates = ", ".join(f"{rate:.4f}" for rate in scheduler.get_last_lr())
        print(f"step {step:3}  lr {rates}  loss {loss.item():.1e}")
session.close()
