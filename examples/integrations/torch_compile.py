"""torch.compile: a learning rate in a tensor changes at every step, and nothing is recompiled.

Start a server first: `pacesetter serve`. Compiling needs a C++ compiler.
"""

# mypy: allow-untyped-calls
import torch

from pacesetter import Client
from pacesetter.torch import RemoteLR

STEPS = 100

torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
# A tensor is an input of the compiled code; a float would be a constant in it. In float64, the
# tensor holds the rates to the bit.
rate = torch.tensor(0.01, dtype=torch.float64)
optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
cosine = {"kind": "cosine", "total_steps": STEPS}
session = Client().session("torch-compile", base_lr=0.01, schedule=cosine)
scheduler = RemoteLR(optimizer, session, metric="loss")


@torch.compile
def train(inputs: torch.Tensor) -> torch.Tensor:
    """Run forward, backward and update; the scheduler stays outside."""
    loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


for step in range(STEPS):
    loss = train(torch.randn(32, 8))
    scheduler.step(loss)
    if step % 25 == 0:
        print(f"step {step:3}  lr {scheduler.get_last_lr()[0]:.4f}  loss {loss.item():.1e}")
session.close()
