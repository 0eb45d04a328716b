"""A training that is steered while it runs, killed and resumed, and then replayed to the bit.

A program trains a small network. Another one, the operator, knows only the service's address: it
halves the learning rate, holds it, lets it go on, makes the run longer, kills the trainer, gives an
order while no trainer runs, and starts the trainer again from its checkpoint. Then the realised
learning rates are exported as a table, and two trainings from the first step follow them: one with
torch alone, one through the service. Both must reach the weights of the steered training, bit for
bit; if they do not, this program ends with exit code 1.

It writes `live_control.md`, its picture and its numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import live_control_page as page
import live_control_picture as picture
import torch
from demo_digits import Digits
from demo_service import ServiceProcess
from live_control_operator import Job, Operator
from live_control_story import Dead, Explained, Proof, Story
from live_control_trainer import Trainer, Training, replay
from torch import Tensor

from pacesetter import Client

NAME = "steered"
LOOKAHEAD = 8
"""The most steps that are handed out ahead: within this many, an order reaches the trainer."""


@dataclass(frozen=True)
class Plan:
    """How long everything takes; the story is told in units.

    Attributes:
        unit: its length in steps; a validation comes after each unit, a checkpoint at every other
            one.
        pace: the extra seconds of a step, as with a larger network.
    """

    unit: int
    pace: float

    def at(self, units: float) -> int:
        """Return the step after this many units."""
        return round(units * self.unit)

    @property
    def spec(self) -> dict[str, Any]:
        """The planned session: a warmup, and a cosine that ends after 20 units."""
        total = self.at(20)
        law = {"kind": "warmup_cosine", "warmup_steps": self.at(2), "total_steps": total}
        return {
            "name": NAME,
            "base_lr": 0.2,
            "schedule": law,
            "total_steps": total,
            "max_lookahead": LOOKAHEAD,
        }

    @property
    def steps(self) -> int:
        """How long the training will really be."""
        return self.at(28)


FULL = Plan(unit=20, pace=0.012)
SHORT = Plan(unit=12, pace=0.02)


def steer(plan: Plan, operator: Operator, job: Job) -> None:
    """Act as the operator of a running training; each order is given a while before its step."""
    at = plan.at
    operator.wait_for(at(4), job)
    operator.order(kind="scale", factor=0.5, at=at(5), reason="the loss is noisy")
    operator.wait_for(at(7), job)
    operator.order(kind="hold", at=at(8), reason="see what validation says")
    operator.wait_for(at(10), job)
    operator.order(kind="release", at=at(11), reason="it still improves")
    operator.wait_for(at(12), job)
    operator.order(
        kind="retime", total_steps=at(36), at=at(13), reason="there is more time than planned"
    )
    operator.wait_for(at(14.5), job)
    operator.order(kind="scale", factor=1.5, at=at(16.5), reason="half was too careful")
    operator.wait_for(at(17.3), job)
    job.kill()
    operator.order(
        kind="cooldown",
        until=at(28),
        at=at(22),
        while_dead=True,
        reason="the machine is needed soon",
    )
    job.restart("restart-1")
    job.wait()


def live(plan: Plan, service: ServiceProcess, folder: Path, http: httpx.Client) -> Story:
    """Train and steer; then prove it, and return the story."""
    operator = Operator(http, NAME)
    operator.create(plan.spec)
    planned = operator.read("/forecast", start=0, count=plan.steps, points=10_000)
    job = Job(
        folder,
        f"--url={service.url}",
        f"--session={NAME}",
        f"--steps={plan.steps}",
        f"--every={plan.unit}",
        f"--pace={plan.pace}",
    )
    job.start()
    try:
        steer(plan, operator, job)
    finally:
        job.kill()
    lived = torch.load(job.final, weights_only=True)
    exported = operator.read("/export", **{"as": "table", "start": 0, "end": plan.steps})
    proof = prove(plan, service.url, http, lived, exported)
    return tell(plan, operator, proof, planned["series"]["lr"])


def prove(
    plan: Plan,
    url: str,
    http: httpx.Client,
    lived: Mapping[str, Any],
    exported: dict[str, Any],
) -> Proof:
    """Train again with the exported rates, from the first step and without any accident."""
    digits, levels = Digits.load(), exported["schedule"]["levels"]
    http.post("/v1/sessions", json=exported).raise_for_status()
    training = Training(digits)
    with Client(url, max_wait=300.0) as client, client.session(exported["name"]) as session:
        Trainer(training, session, steps=plan.steps, every=plan.unit).train()
    weights: dict[str, dict[str, Tensor]] = {
        "steered, killed and resumed": lived["weights"],
        "the table, with torch alone": replay(digits, levels),
        "the table, through the service": training.weights(),
    }
    hashes = {name: fingerprint(each) for name, each in weights.items()}
    return Proof(hashes, lived["lrs"] == levels, len(lived["weights"]))


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of all weights, over their names and bits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def tell(plan: Plan, operator: Operator, proof: Proof, planned: list[float]) -> Story:
    """Ask the service what happened."""
    history = operator.read("/history", start=0, end=plan.steps, points=10_000)
    losses, validated = (history["metrics"][name] for name in ("loss", "val_loss"))
    last = operator.read("/attempts")["attempts"][-1]
    log = operator.read("/events", limit=1000)["events"]
    return Story(
        spec=plan.spec,
        steps=plan.steps,
        planned=planned,
        lrs=history["series"]["lr"],
        losses=losses,
        val_losses=[(step, loss) for step, loss in enumerate(validated) if loss is not None],
        orders=operator.orders,
        dead=_dead(operator, last["start"]),
        log=[(each["at"], each["text"]) for each in log],
        explained=[
            _explained(operator, step)
            for step in (
                plan.at(1),
                *(
                    given.effective_step
                    for given in operator.orders
                    if given.kind in ("hold", "retime", "cooldown")
                ),
            )
        ],
        proof=proof,
    )


def _dead(operator: Operator, start: int) -> Dead:
    """Read the attempt that was killed, as far as it was reported."""
    ended = operator.read("/history", attempt=1, start=start, points=10_000)
    losses = ended["metrics"]["loss"]
    reported = [step for step, loss in enumerate(losses) if loss is not None]
    count = reported[-1] + 1 if reported else 0
    return Dead(start, ended["series"]["lr"][:count], losses[:count])


def _explained(operator: Operator, step: int) -> Explained:
    return Explained(step, operator.read("/explain", step=step)["text"].strip())


def with_service(use: Callable[[ServiceProcess, Path, httpx.Client], Story]) -> Story:
    """Start a service, and pass it on with a folder and a connection."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ServiceProcess(Path(folder)) as service,
        httpx.Client(base_url=service.url, timeout=120.0, trust_env=False) as http,
    ):
        return use(service, Path(folder), http)


def main() -> None:
    """Run the story, then write it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a shorter training")
    parser.add_argument("--rewrite", action="store_true", help="only the page, from its numbers")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the page goes")
    chosen = parser.parse_args()
    folder: Path = chosen.out / "live_control"
    folder.mkdir(parents=True, exist_ok=True)
    if not chosen.rewrite:
        plan = SHORT if chosen.quick else FULL
        lived = with_service(lambda service, data, http: live(plan, service, data, http))
        lived.save(folder / "story.json")
    story = Story.load(folder / "story.json")
    picture.draw(story, folder / "steered.png")
    (chosen.out / "live_control.md").write_text(page.written(story))
    for name, digest in story.proof.hashes.items():
        print(f"{digest[:16]}  {name}")
    if not story.proof.same:
        sys.exit("MISMATCH  the replays have not come to the weights of the steered training")
    print(f"The same weights, bit for bit. {chosen.out / 'live_control.md'} tells how.")


if __name__ == "__main__":
    main()
