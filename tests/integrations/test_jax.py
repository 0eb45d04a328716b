"""The example of JAX and optax trains with sealed rates, and compiles once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pacesetter import Client, ResumeError
from serving import PATIENCE

HERE = Path(__file__).parent

OBSERVED = """
import json
import jax, numpy, optax
from integrations import example

jit, compiled, passed = jax.jit, [], []

def observed(function):
    step = jit(function)
    compiled.append(step)

    def call(*args):
        passed.append(args[3])
        return step(*args)

    return call

jax.jit = observed
found = example.run("jax_loop")
(step,) = compiled
compilations = step._cache_size()

def replayed(rates):
    weights = jax.numpy.zeros(8)
    state = found["optimizer"].init(weights)
    for key, rate in zip(found["keys"], rates, strict=True):
        weights, state, _ = step(weights, state, jax.random.normal(key, (32, 8)), rate)
    return numpy.asarray(weights).tobytes().hex()

rates = [float(rate) for rate in passed]
nudged = rates[:20] + [rates[20] * 1.01] + rates[21:]
print(json.dumps({
    "types": sorted({type(rate).__name__ for rate in passed}),
    "passed": [rate.hex() for rate in rates],
    "compilations": compilations,
    "weights": numpy.asarray(found["weights"]).tobytes().hex(),
    "dtype": str(found["weights"].dtype),
    "replayed": replayed(rates),
    "nudged": replayed(nudged),
}))
"""


@pytest.fixture(name="client", scope="module")
def _client(server_url: str) -> Any:
    """Return a client of the service that all tests share."""
    with Client(server_url) as client:
        yield client


@pytest.fixture(name="found", scope="module")
def _found(client: Client) -> dict[str, Any]:
    """Run the example in a separate process, because of JAX's threads, and return its results."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OBSERVED],
        env={**os.environ, "PACESETTER_URL": client.url, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_each_update_is_passed_the_sealed_rate(found: dict[str, Any], client: Client):
    """The argument is a Python float with the sealed bits, at each step."""
    sealed = client.lr("jax", 0, count=200)
    assert sealed["sealed_until"] >= 200
    assert found["passed"] == [rate.hex() for rate in sealed["series"]["lr"]]
    assert found["types"] == ["float"]


def test_the_step_is_compiled_once(found: dict[str, Any]):
    """200 rates cause one compilation."""
    assert len(set(found["passed"])) == 200
    assert found["compilations"] == 1


def test_optax_uses_the_rate_that_is_passed(found: dict[str, Any]):
    """The same rates give the same weights, to the bit; one changed rate of 200 gives others."""
    assert found["dtype"] == "float32"
    assert found["weights"] == found["replayed"]
    assert found["weights"] != found["nudged"]


def test_the_loss_is_reported(found: dict[str, Any], client: Client):
    """Every tenth step has its loss in the record, and it falls."""
    assert found["passed"]
    losses = client.history("jax", end=200)["metrics"]["loss"]
    assert [step for step, loss in enumerate(losses) if loss is not None] == [*range(0, 200, 10)]
    assert losses[190] < losses[0] / 100


def test_the_loop_is_refused_again_and_goes_on_from_a_step(found: dict[str, Any], client: Client):
    """A rerun gets no rate; from a checkpoint's step it gets the session's, or a new plan's."""
    assert found["passed"]
    session = client.session("jax")
    with pytest.raises(ResumeError, match="resume='restart'"):
        session.lr(0)
    longer = {"kind": "cosine", "total_steps": 400}
    again = client.session("jax-longer", continues="jax", step=150, schedule=longer)
    new = client.preview(longer, base_lr=0.1, count=400)["series"]["lr"]
    assert [again.lr(step) for step in range(150, 400)] == new[150:]
    resumed = client.session("jax", step=150)
    assert (resumed.attempt, resumed.lr(150).hex()) == (2, found["passed"][150])
