"""The Trainer: a session reacts to its evaluations, and the training resumes from a checkpoint.

Start a server first: `pacesetter serve`.
"""

# mypy: allow-untyped-calls
import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from pacesetter import Client
from pacesetter.transformers import PacesetterCallback, PacesetterTrainer


def examples(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Make sequences of 16 tokens: is 7 among the first four? Every fifth label is wrong."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 16, (count, 16), generator=generator)
    wrong = torch.rand(count, generator=generator) < 0.2
    labels = (tokens[:, :4] == 7).any(1) ^ wrong
    return [
        {"input_ids": row, "labels": label.long()}
        for row, label in zip(tokens, labels, strict=True)
    ]


def trainer_in(folder: str) -> PacesetterTrainer:
    """Make a trainer, as each start of the job does."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=16,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    args = TrainingArguments(
        folder,
        use_cpu=True,
        max_steps=100,
        learning_rate=5e-3,
        warmup_steps=10,
        lr_scheduler_type="cosine",
        logging_steps=10,
        eval_strategy="steps",
        eval_steps=10,
        save_steps=40,
        per_device_train_batch_size=16,
        report_to=[],
        disable_tqdm=True,
    )
    plateau = {"kind": "plateau", "metric": "eval_loss", "factor": 0.5, "patience": 0}
    # The example may be run again; a training that must not begin again leaves `resume` out.
    callback = PacesetterCallback("huggingface-trainer", resume="restart", controllers=[plateau])
    return PacesetterTrainer(
        BertForSequenceClassification(config),
        args,
        train_dataset=examples(800, seed=1),
        eval_dataset=examples(200, seed=2),
        callbacks=[callback],
    )


torch.set_num_threads(1)  # the model is small
with tempfile.TemporaryDirectory() as folder:
    trainer_in(folder).train()
    trainer = trainer_in(folder)
    trainer.train(resume_from_checkpoint=f"{folder}/checkpoint-40")
print(f"from step 40 on in attempt {trainer.lr_scheduler.session.attempt}")
with Client() as client:
    for event in client.events("huggingface-trainer"):
        if event["kind"] == "decided":
            print(event["text"])
