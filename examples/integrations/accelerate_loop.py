"""Accelerate: one step per update, whatever is accumulated and however many processes train.

Start a server first: `pacesetter serve`. In two processes:
`accelerate launch --cpu --num_processes 2 accelerate_loop.py`.
"""

# mypy: allow-untyped-calls
import tempfile

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from pacesetter import Client
from pacesetter.accelerate import AcceleratedRemoteLR
from pacesetter.distributed import open_session

UPDATES = 100
BATCHES_AN_UPDATE = 4

torch.manual_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=BATCHES_AN_UPDATE)
model = torch.nn.Linear(8, 1)
inputs = torch.randn(8 * UPDATES * BATCHES_AN_UPDATE * accelerator.num_processes, 8)
loader = torch.utils.data.DataLoader(inputs, batch_size=8)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

cosine = {"kind": "cosine", "total_steps": UPDATES}  # counted in updates
# The example may be run again; a training that must not begin again leaves `resume` out.
session = open_session(Client(), "accelerate", resume="restart", base_lr=0.1, schedule=cosine)
scheduler = AcceleratedRemoteLR(optimizer, session, metric="loss")
accelerator.register_for_checkpointing(scheduler)


def train(first: int) -> None:
    """Train from an update on, as a job that skips the batches it has seen does."""
    seen = first * BATCHES_AN_UPDATE
    for batch in accelerator.skip_first_batches(loader, seen):
        with accelerator.accumulate(model):
            loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step(loss)  # does nothing while gradients accumulate
            optimizer.zero_grad()
        if scheduler.last_epoch == UPDATES // 2 and first == 0:
            return
    rate = scheduler.get_last_lr()[0]
    accelerator.print(f"{scheduler.last_epoch} updates, lr {rate:.4f}, loss {loss.item():.1e}")


train(0)
(folder,) = broadcast_object_list([tempfile.mkdtemp()])
accelerator.save_state(folder)
accelerator.print(f"saved after {scheduler.last_epoch} updates")
train(UPDATES // 2)
accelerator.load_state(folder)
accelerator.print(f"back at step {scheduler.last_epoch}, in attempt {session.attempt}")
train(UPDATES // 2)
session.close()
accelerator.end_training()
