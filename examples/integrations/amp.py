"""Mixed precision: an update that the gradient scaler skips uses up no step of the schedule.

Start a server first: `pacesetter serve`.
"""

# mypy: allow-untyped-calls
import torch

from pacesetter import Client
from pacesetter.torch import RemoteLR

UPDATES = 200

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = torch.nn.Linear(8, 1).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
# The first scale is so large that gradients overflow in float16: the first updates are skipped.
scaler = torch.amp.GradScaler(device, init_scale=2.0**24, growth_interval=50)
cosine = {"kind": "cosine", "total_steps": UPDATES}
session = Client().session("amp", base_lr=0.1, schedule=cosine)
scheduler = RemoteLR(optimizer, session, metric="loss")
skipped = 0
while scheduler.last_epoch < UPDATES:
    inputs = torch.randn(32, 8, device=device)
    with torch.autocast(device, dtype=torch.float16):
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scale = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    if scaler.get_scale() >= scale:
        scheduler.step(loss)
    else:  # the scale was lowered: there were infinities, and optimizer.step was not called
        skipped += 1
session.close()
print(f"{UPDATES} updates, {skipped} skipped, loss {loss.item():.1e}")
