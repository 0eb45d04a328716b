"""The example of Tinker, with the real SDK: the service is a stand-in that speaks its protocol."""

import os
import subprocess
import sys

import pytest

from integrations.example import EXAMPLES
from integrations.tinker_server import Model, Tinker, tinker_server
from pacesetter import Client
from serving import PATIENCE, open_http

CRASHES_AT, SAVED_AT, HALVED_AT, STEPS = 25, 20, 30, 40

SPEC = {
    "name": "tinker",
    "base_lr": 2e-4,
    "total_steps": STEPS,
    "schedule": {"kind": "warmup_cosine", "warmup_steps": 5, "total_steps": STEPS},
}
"""The example's description, so that it finds what the test has created."""


# One process runs it twice, because the SDK takes seconds to import. What the SDK does not close at
# the end is not the example's to close.
TWICE = """
import runpy, sys
import tinker
try:
    runpy.run_path(sys.argv[1])
    sys.exit("it was to fail")
except tinker.PermissionDeniedError as error:
    print(error)
runpy.run_path(sys.argv[1])
"""


@pytest.fixture(name="trained", scope="module")
def _trained(tmp_path_factory: pytest.TempPathFactory, server_url: str) -> Tinker:
    """Halve the end of the plan by an order; train until the job fails; run it again to its end."""
    with tinker_server(fails_once_after=CRASHES_AT) as service, open_http(server_url) as http:
        http.post("/v1/sessions", json=SPEC).raise_for_status()
        order = {"kind": "scale", "factor": 0.5, "at": HALVED_AT, "reason": "the loss is unstable"}
        http.post("/v1/sessions/tinker/actions", json=order).raise_for_status()
        warnings = ["-W", "error", "-W", "ignore::ResourceWarning"]
        done = subprocess.run(
            [sys.executable, *warnings, "-c", TWICE, str(EXAMPLES / "tinker_loop.py")],
            cwd=tmp_path_factory.mktemp("tinker"),
            env={
                **os.environ,
                "PACESETTER_URL": server_url,
                "TINKER_BASE_URL": service.url,
                "TINKER_API_KEY": "tml-of-nobody",
                "TINKER_TELEMETRY": "0",
            },
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "this job has lost its machine" in done.stdout
    return service


@pytest.fixture(name="client", scope="module")
def _client(server_url: str):
    """Return a client of the service that all tests share."""
    with Client(server_url) as client:
        yield client


def _history(client: Client, attempt: int) -> dict[str, list[float]]:
    found = client.history("tinker", attempt=attempt, points=1000)
    return {**found["series"], **found["metrics"]}


def test_each_update_is_passed_the_sealed_rate(trained: Tinker, client: Client):
    """The SDK sends the sealed bits, of the attempt that failed and of the next one."""
    first, second = trained.rates.values()
    assert (len(first), len(second)) == (CRASHES_AT, STEPS - SAVED_AT)
    assert first == _history(client, 1)["lr"][:CRASHES_AT]
    assert second == _history(client, 2)["lr"][SAVED_AT:STEPS]
    assert first[SAVED_AT:] == second[: CRASHES_AT - SAVED_AT]


def test_an_order_arrives_at_its_step(trained: Tinker, client: Client):
    """From the ordered step on the argument is half of the plan's, to the bit."""
    _, second = trained.rates.values()
    plan = client.preview(SPEC["schedule"], base_lr=SPEC["base_lr"], count=STEPS)["series"]["lr"]
    assert second[: HALVED_AT - SAVED_AT] == plan[SAVED_AT:HALVED_AT]
    assert second[HALVED_AT - SAVED_AT :] == [rate * 0.5 for rate in plan[HALVED_AT:]]


def test_it_goes_on_from_the_checkpoint_with_the_same_weights(trained: Tinker):
    """They are as if nothing had failed, to the bit; with one changed rate of 40 they differ."""
    (first, second), rates = trained.batches.values(), [*trained.rates.values()]
    batches = [*first[:SAVED_AT], *second]
    wanted = [*rates[0][:SAVED_AT], *rates[1]]

    def weights(rates: list[float]) -> bytes:
        model = Model.new()
        for batch, rate in zip(batches, rates, strict=True):
            model.learn(batch)
            adam = {"learning_rate": rate, "beta1": 0.9, "beta2": 0.95, "eps": 1e-12}
            model.update(adam)
        return model.logits.tobytes()

    _, model = trained.models.values()
    assert weights(wanted) == model.logits.tobytes()
    assert weights([*wanted[:10], wanted[10] * 1.01, *wanted[11:]]) != model.logits.tobytes()


def test_the_loss_is_reported(trained: Tinker, client: Client):
    """Each step has its loss in the record, and it falls; the session ends with its plan."""
    assert trained.rates
    losses = _history(client, 2)["loss"]
    assert None not in losses[:STEPS]
    assert losses[STEPS - 1] < losses[0]
    assert client.session("tinker", resume="continue").info.state == "finished"
