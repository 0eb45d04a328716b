"""The page that `live_control.py` writes: what was ordered, what came of it, and the proof."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from live_control_story import Given, Story

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

from wrapping import wrapped

HEAD = """\
# A training, steered while it ran

Can a learning rate be changed while the training runs, and is it still known afterwards what the
training was? Here a program trains a small network, and another one, the operator, steers it. The
operator has the service's address and the session's name, and nothing else. On the way the trainer
is killed.

![The realised learning rate with every order, above the loss](live_control/steered.png)

`python examples/live_control.py --out docs` trains, steers, draws and writes this page. All that is
said here comes from one run of it; the sentences in quotes are the service's own.
"""

ORDERS = """\
## What was ordered

Each row is one `POST /v1/sessions/{name}/actions`. The operator watches `GET /v1/sessions/{name}`
for how far the training is, and gives each order a while before its step. The answer names the
first step that it holds for.

| handed out to step | request | holds from step |
|---|---|---|"""

PROOF = """\
## The proof

`GET /v1/sessions/{name}/export?as=table&start=0&end={steps}` gives the realised learning rates of
the last attempt's lineage as the body of a new session: {steps} values, each the float64 that was
trained with. Two trainings followed them from the first step, with the first weights, batches and
dropout of the steered one, and without any kill:

- with torch alone, and no service: `LambdaLR(optimizer, lambda step: levels[step])` over a base of
  1;
- through the service, as a session of its own: `POST /v1/sessions` with the exported body.

| training | SHA-256 of weights and momentum |
|---|---|"""


def written(story: Story) -> str:
    """Return the whole page."""
    parts = (_orders, _death, _explained, _proof, _log)
    return wrapped("\n".join(chain([HEAD], *(part(story) for part in parts))))


def _orders(story: Story) -> Iterator[str]:
    yield ORDERS.format(name=story.spec["name"])
    for given in story.orders:
        until = f"{given.during - 1}{_aside(given)}"
        yield f"| {until} | `{_json(given.body)}` | {given.effective_step} |"
    spec = story.spec
    yield (
        f"\nThe session was created with `{_json(spec['schedule'])}` and a base learning rate of"
        f" {spec['base_lr']:g}. It hands out at most {spec['max_lookahead']} steps ahead"
        " (`max_lookahead`): so soon the trainer hears of an order. How many steps the job is to"
        f" train, here {story.steps}, is its launcher's affair.\n"
    )


def _aside(given: Given) -> str:
    return (
        ", while no trainer ran" * given.while_dead
        + ", too late for the step that was wanted" * given.late
    )


def _death(story: Story) -> Iterator[str]:
    dead = story.dead
    yield "## The death and the return\n"
    yield (
        "The trainer was killed with SIGKILL. The last step that it had reported was"
        f" {dead.last}, its last checkpoint that of step {dead.start}. Started again, it loaded"
        " weights, momentum and the states of its random generators from there, and"
        f" `RemoteLR.load_state_dict` opened attempt 2 at step {dead.start}. The service went back"
        " with it: schedule, scale and clock were as they had been when that step was first handed"
        " out."
    )
    again = [each for each in story.orders if dead.start <= each.effective_step <= dead.last]
    if again:
        steps = " and ".join(str(each.effective_step) for each in again)
        yield (
            f"The order for step {steps} had been carried out in the attempt that was lost. It"
            " waited again, and was carried out at the same step of the new one."
        )
    count = len(dead.lrs)
    same = dead.lrs == story.lrs[dead.start : dead.start + count]
    same_losses = dead.losses == story.losses[dead.start : dead.start + count]
    if count and same and same_losses:
        yield (
            f"So the {count} steps that were trained twice had the same learning rates and the same"
            " losses both times, to the bit."
        )
    yield ""


def _explained(story: Story) -> Iterator[str]:
    yield "## Why the rate was what it was\n"
    yield f"`GET /v1/sessions/{story.spec['name']}/explain?step=…` says of some steps:\n"
    for each in story.explained:
        lines = "\n> ".join(each.text.splitlines())
        yield f"> {lines}\n"


def _proof(story: Story) -> Iterator[str]:
    yield PROOF.format(name=story.spec["name"], steps=story.steps)
    for name, digest in story.proof.hashes.items():
        yield f"| {name} | `{digest}` |"
    verdict = "the same bits" if story.proof.same else "NOT the same"
    yield (
        f"\n{story.proof.tensors} tensors, {verdict} in all three. They are float64, so that even"
        " the last bit of a single learning rate would show: a test changes"
        " one, and the hash is another. Before each update the rate was read from the optimizer;"
        " these are the"
        f" {'exported values' if story.proof.rates_agree else 'WRONG values'}, one for one. The"
        " same versions on the same kind of CPU give these hashes again, as long as no order comes"
        " late.\n"
    )


def _log(story: Story) -> Iterator[str]:
    yield f"## The log\n\n`GET /v1/sessions/{story.spec['name']}/events` tells all of it:\n"
    for step, text in story.log:
        yield f"- step {step}: {text}"
    yield ""


def _json(value: object) -> str:
    return json.dumps(value)
