"""Tinker: the learning rate of each update is an argument of `optim_step`.

Start a server first: `pacesetter serve`, and set TINKER_API_KEY. Run again after a crash, it goes
on from the last checkpoint that it saved.
"""

import json
from pathlib import Path

import tinker
from tinker import types

from pacesetter import Client, Session

STEPS = 40
SAVED_EVERY = 10
CHECKPOINT = Path("tinker_checkpoint.json")


def batch(step: int) -> list[types.Datum]:
    """Return rows of numbers, each of which must be predicted from the one before."""
    rows = [[(step + each + place) % 16 for place in range(9)] for each in range(4)]
    return [
        types.Datum(
            model_input=types.ModelInput.from_ints(row[:-1]),
            loss_fn_inputs={"target_tokens": row[1:], "weights": [1.0] * 8},
        )
        for row in rows
    ]


def opened(
    service: tinker.ServiceClient, client: Client
) -> tuple[tinker.TrainingClient, Session, int]:
    """Return the model, its session and the first step: new, or as they were at the checkpoint."""
    if CHECKPOINT.exists():
        path, step = json.loads(CHECKPOINT.read_text())
        model = service.create_training_client_from_state_with_optimizer(path).result()
        return model, client.session("tinker", step=step), step
    model = service.create_lora_training_client(base_model="Qwen/Qwen3-8B", rank=16).result()
    schedule = {"kind": "warmup_cosine", "warmup_steps": 5, "total_steps": STEPS}
    return model, client.session("tinker", base_lr=2e-4, total_steps=STEPS, schedule=schedule), 0


with Client() as client, tinker.ServiceClient() as service:
    model, session, first = opened(service, client)
    for step in range(first, STEPS):
        computed = model.forward_backward(batch(step), "cross_entropy")
        updated = model.optim_step(types.AdamParams(learning_rate=session.lr(step)))
        loss = computed.result().metrics["loss:sum"]
        updated.result()
        session.report(step, loss=loss)
        if (step + 1) % SAVED_EVERY == 0:
            path = model.save_state(f"step-{step + 1}").result().path
            CHECKPOINT.write_text(json.dumps([path, step + 1]))
