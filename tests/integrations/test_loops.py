"""The examples of hand-written loops train with sealed rates, to the bit."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integrations import example
from pacesetter import Client, ConflictError, ResumeError
from serving import PATIENCE, RunningService

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


@pytest.fixture(name="client", scope="module")
def _client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Return a client of a service where no example has run before: their names are fixed."""
    with (
        RunningService(tmp_path_factory.mktemp("service") / "pacesetter.db") as service,
        Client(service.url) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def _told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the service's address in the environment of the examples."""
    monkeypatch.setenv("PACESETTER_URL", client.url)


def sealed(client: Client, name: str, count: int) -> list[str]:
    """Return the sealed rates of a session's first steps, to the bit."""
    answer = client.lr(name, 0, count=count)
    assert answer["sealed_until"] >= count
    return [rate.hex() for rate in answer["series"]["lr"]]


def losses(client: Client, name: str, count: int) -> list[Any]:
    """Return the losses of a session's first steps."""
    found: list[Any] = client.history(name, end=count)["metrics"]["loss"]
    assert len(found) == count
    return found


def program(*arguments: object) -> str:
    """Run a Python program in another process, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_plain_loop_applies_what_is_sealed(client: Client):
    """Each update used the sealed bits of its step, and each step's loss was recorded."""
    with example.recorded_updates() as updates:
        example.run("plain_loop")
    assert updates == sealed(client, "plain-loop", 200)
    assert len(set(updates)) == 200
    assert None not in losses(client, "plain-loop", 200)


def test_a_plain_loop_is_refused_again_and_can_be_trained_for_longer(client: Client):
    """A rerun raises at its first step; `continues` takes the state, and has the new plan."""
    from torch.nn import Linear
    from torch.optim import SGD

    from pacesetter.torch import RemoteLR

    name, longer = "loop-again", {"kind": "cosine", "total_steps": 60}

    def train(steps: int, state: Any = None, **session: Any) -> tuple[list[float], Any]:
        optimizer = SGD(Linear(2, 1).parameters(), lr=0.1)
        scheduler = RemoteLR(optimizer, client.session(**session))
        if state is not None:
            scheduler.load_state_dict(state)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return rates, scheduler.state_dict()

    spec: Any = {"base_lr": 0.1, "schedule": {"kind": "cosine", "total_steps": 20}}
    _, state = train(15, name=name, **spec)
    with pytest.raises(ResumeError):
        train(15, name=name, **spec)
    with pytest.raises(ConflictError, match=f"continues='{name}'"):
        client.session(name, base_lr=0.1, schedule=longer)
    rates, _ = train(45, state, name=f"{name}-longer", continues=name, schedule=longer)
    new = client.preview(longer, base_lr=0.1, count=60)["series"]["lr"]
    assert rates == new[15:]


def test_a_body_joins_its_head(client: Client, capsys: pytest.CaptureFixture[str]):
    """The example has the sealed rates of both groups, from the body's first update on."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    seen: list[list[float]] = []
    hook = register_optimizer_step_post_hook(
        lambda optimizer, *_: seen.append([group["lr"] for group in optimizer.param_groups])
    )
    try:
        example.run("unfreezing")
    finally:
        hook.remove()
    series = client.lr("unfreezing", 0, count=200)["series"]
    head, body = series["head.lr"], series["body.lr"]
    assert [rates[0] for rates in seen] == head
    assert [rates[1] for rates in seen[50:]] == body[50:]
    assert [len(rates) for rates in seen] == [1] * 50 + [2] * 150
    assert len(set(body[50:71])) > 15
    assert "step 175  lr " in capsys.readouterr().out


def test_all_ranks_of_torchrun_apply_the_same_bits(client: Client, tmp_path: Path):
    """Two processes of torchrun use the sealed rate of each step; their mean loss is recorded."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program(*torchrun, HERE / "example.py", "ddp_torchrun", tmp_path)
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second == sealed(client, "ddp", 200)
    assert None not in losses(client, "ddp", 200)


def test_a_skipped_update_uses_up_no_step(client: Client):
    """The gradient scaler skipped updates, and those that were made used each rate once."""
    with example.recorded_updates() as updates:
        found = example.run("amp")
    assert found["skipped"] > 0
    assert updates == sealed(client, "amp", 200)
    assert None not in losses(client, "amp", 200)


def test_accumulated_batches_share_a_step(client: Client):
    """The schedule advances once an update: 400 batches, 100 updates, 100 rates."""
    with example.recorded_updates() as updates:
        found = example.run("gradient_accumulation")
    assert found["batch"] == 399
    assert updates == sealed(client, "gradient-accumulation", 100)
    assert None not in losses(client, "gradient-accumulation", 100)


COMPILED = """
import functools, json, sys
import torch, torch._dynamo
from integrations import example

torch._dynamo.config.error_on_recompile = True
torch.compile = functools.partial(torch.compile, backend=sys.argv[1])
found = example.run("torch_compile")
inputs = torch.randn(32, 8)
optimizer, rate, model = found["optimizer"], found["rate"], found["model"]
assert optimizer.param_groups[0]["lr"] is rate
weights = [p.detach().flatten().tolist() for p in model.parameters()]
optimizer.param_groups[0]["lr"] = 0.5  # a float is another program
try:
    found["train"](inputs)
except torch._dynamo.exc.RecompileError:
    print(json.dumps({"rate": float(rate).hex(), "weights": sum(weights, [])}))
"""


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_step_is_compiled_once(backend: str, client: Client):
    """Any recompilation is an error, yet every step has its rate: the eager weights are equal."""
    import torch

    found = json.loads(program("-c", COMPILED, backend).splitlines()[-1])
    rates = [float.fromhex(rate) for rate in sealed(client, "torch-compile", 101)]
    assert found["rate"] == rates[100].hex()
    compiled = torch.tensor(found["weights"])
    torch.testing.assert_close(compiled, _eager(rates[:100]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(compiled, _eager([rates[0]] * 100), rtol=1e-2)


def _eager(rates: list[float]) -> Any:
    """Return the weights of the example's training without a compiler, with some rates."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        inputs = torch.randn(32, 8)
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.cat([each.detach().flatten() for each in model.parameters()])


PAGES = [ROOT / f"docs/integrations/{name}.md" for name in ("loops", "ray", "jax", "trackers")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pages_show_the_examples(page: Path):
    """Each line of code of a page is a line of the example that is linked above it."""
    parts = re.split(r"\]\((\.\./\.\./examples/integrations/\w+\.py)\)", page.read_text())
    assert len(parts) > 1
    for link, text in zip(parts[1::2], parts[2::2], strict=True):
        lines = {line.strip() for line in (page.parent / link).read_text().splitlines()}
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            assert {line.strip() for line in block.splitlines()} <= lines | {"", "..."}
