"""`lr_find` against the real service: what it finds, and that it leaves no trace."""

import copy
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from pacesetter import Client, InvalidAnswerError, InvalidRequestError, ServerUnavailableError
from pacesetter._range_test import RangeTest
from pacesetter.torch import RemoteLR, lr_find
from serving import PATIENCE, RunningService

STEPS = 30


class Replacing(nn.Module):
    """Counts its calls in a buffer that is replaced each time, and is in no state dict."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Replace the buffer's tensor."""
        self.calls = self.calls + 1
        return inputs


def network() -> nn.Module:
    """Return a network with a BatchNorm and a dropout, its parts in different modes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.3),
        Replacing(),
        nn.Linear(16, 3),
    )
    model[1].eval()
    return model


def data(count: int = 40) -> TensorDataset:
    """Return examples of three classes."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 6, generator=generator)
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


def batches(**options: Any) -> DataLoader[Any]:
    """Return five batches of eight, shuffled."""
    return DataLoader(data(), batch_size=8, shuffle=True, **options)


def sgd(model: nn.Module) -> Optimizer:
    """Return SGD with momentum, with two groups."""
    groups = [{"params": model[0].parameters()}, {"params": model[5].parameters(), "lr": 0.3}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)


def adamw(model: nn.Module) -> Optimizer:
    """Return AdamW with a learning rate in a tensor."""
    return torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-3), foreach=False)


def one_step(model: nn.Module, optimizer: Optimizer) -> None:
    """Train a step, so that there is state, and leave the gradients of a second one."""
    loss_fn = nn.CrossEntropyLoss()
    inputs, targets = data().tensors
    for _ in range(2):
        optimizer.zero_grad()
        loss_fn(model(inputs), targets).backward()
        if not optimizer.state:
            optimizer.step()


def bits(value: Any) -> Any:
    """Return a value that is equal only where all bits are."""
    if isinstance(value, Tensor):
        return (str(value.dtype), tuple(value.shape), value.detach().cpu().numpy().tobytes())
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return {str(key): bits(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [bits(each) for each in value]
    return repr(value)


def everything(model: nn.Module, optimizer: Optimizer, loader: Any) -> dict[str, Any]:
    """Record the bits of everything that `lr_find` touches."""
    return {
        "parameters": bits(dict(model.named_parameters())),
        "buffers": bits(dict(model.named_buffers())),
        "gradients": bits({name: each.grad for name, each in model.named_parameters()}),
        "modes": [module.training for module in model.modules()],
        "optimizer": bits(optimizer.state_dict()),
        "torch": bits(torch.get_rng_state()),
        "numpy": bits(np.random.get_state()),
        "python": random.getstate(),
        "loader": bits(loader.generator.get_state()) if loader.generator else None,
    }


def identities(model: nn.Module, optimizer: Optimizer) -> list[int]:
    """Return the identities of objects that other code may hold."""
    objects: list[Any] = [*model.parameters(), *model.buffers(), optimizer.state]
    objects += [each.grad for each in model.parameters()]
    objects += [optimizer.param_groups, *optimizer.param_groups]
    objects += [group["lr"] for group in optimizer.param_groups]
    objects += [tensor for state in optimizer.state.values() for tensor in state.values()]
    return [id(each) for each in objects]


OPTIMIZERS = [sgd, adamw]


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("fresh", [True, False])
def test_everything_is_put_back_to_the_bit(client: Client, make: Any, fresh: bool) -> None:
    """Model, optimizer, modes, gradients and generators are as before, and the same objects."""
    model = network()
    optimizer = make(model)
    if not fresh:
        one_step(model, optimizer)
    loader = batches(generator=torch.Generator().manual_seed(7))
    before = everything(model, optimizer, loader)
    objects = identities(model, optimizer)
    found = lr_find(model, optimizer, nn.CrossEntropyLoss(), loader, client=client, steps=STEPS)
    assert len(found.lr) > 5
    assert everything(model, optimizer, loader) == before
    assert identities(model, optimizer) == objects


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_everything_is_put_back_when_the_loss_raises(client: Client, make: Any) -> None:
    """A failure in the middle of the sweep leaves no trace either, and propagates unchanged."""
    model = network()
    optimizer = make(model)
    one_step(model, optimizer)
    loader = batches()
    before = everything(model, optimizer, loader)
    objects = identities(model, optimizer)
    calls = 0

    def failing(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise RuntimeError("out of memory")
        return nn.functional.cross_entropy(outputs, targets)

    with pytest.raises(RuntimeError, match="out of memory"):
        lr_find(model, optimizer, failing, loader, client=client, steps=STEPS)
    assert everything(model, optimizer, loader) == before
    assert identities(model, optimizer) == objects


def test_a_training_afterwards_is_the_one_without_it(client: Client) -> None:
    """Ten steps after `lr_find` give the bits of ten steps of a twin that never ran it."""

    def train(model: nn.Module, optimizer: Optimizer) -> Any:
        loader = batches()
        for _ in range(2):
            for inputs, targets in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
        return bits(model.state_dict())

    outcomes = []
    for search in (False, True):
        model = network()
        optimizer = sgd(model)
        model.train()
        torch.manual_seed(3)
        if search:
            lr_find(model, optimizer, nn.CrossEntropyLoss(), batches(), client=client, steps=STEPS)
        outcomes.append(train(model, optimizer))
    assert outcomes[0] == outcomes[1]


def test_parameters_of_a_loss_and_of_no_module_are_put_back(client: Client) -> None:
    """These are what the optimizer trains beside the model, and a loss with its own weights."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return nn.functional.cross_entropy(outputs * self.scale + loose[0], targets)

    loose = [nn.Parameter(torch.zeros(3))]
    model, loss_fn = network(), Scaled()
    loss_fn.eval()
    optimizer = torch.optim.SGD([*model.parameters(), *loss_fn.parameters(), *loose], lr=0.1)
    lr_find(model, optimizer, loss_fn, batches(), client=client, steps=STEPS)
    assert loss_fn.scale.item() == 1.0
    assert not loose[0].any()
    assert not loss_fn.training


def test_a_scheduler_on_the_optimizer_is_not_disturbed(client: Client) -> None:
    """Its count and what it keeps in the optimizer are as before, and there is no warning."""
    model = network()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    attributes = {name: id(value) for name, value in vars(optimizer).items()}
    counted = copy.deepcopy(scheduler.state_dict())
    lr_find(model, optimizer, nn.CrossEntropyLoss(), batches(), client=client, steps=STEPS)
    assert {name: id(value) for name, value in vars(optimizer).items()} == attributes
    assert scheduler.state_dict() == counted


def test_the_rates_are_the_servers_and_the_losses_those_of_the_training(client: Client) -> None:
    """A plain loop over the same batches at the same rates gives the same losses, to the bit."""
    model = network()
    fixed = [tuple(batch) for batch in DataLoader(data(), batch_size=8)]
    generator = torch.get_rng_state()
    seen: list[float] = []

    def watched(outputs: Tensor, targets: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(outputs, targets)
        seen.append(loss.item())
        return loss

    found = lr_find(model, sgd(model), watched, fixed, client=client, steps=STEPS)
    assert list(found.loss) == seen
    assert list(found.steps) == list(range(len(seen)))
    record = client.lr(found.session, 0, count=len(seen))
    assert list(found.lr) == record["series"]["lr"]

    torch.set_rng_state(generator)
    model.train()
    optimizer, losses = sgd(model), []
    for step, lr in enumerate(found.lr):
        inputs, targets = fixed[step % len(fixed)]
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == seen


def test_a_loader_that_is_exhausted_begins_again(client: Client) -> None:
    """Two batches are enough for any number of steps."""
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    two = [tuple(batch) for batch in DataLoader(data(16), batch_size=8)]
    found = lr_find(
        model, optimizer, nn.CrossEntropyLoss(), two, client=client, steps=STEPS, end_lr=0.1
    )
    assert len(found.lr) == STEPS
    assert found.ended is not None
    assert "is over" in found.ended
    assert found.lr[-1] == 0.1


def test_a_diverging_training_ends_early(client: Client) -> None:
    """The server ends the sweep when the loss has blown up, or is NaN."""
    model = nn.Linear(6, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = [(torch.ones(4, 6), torch.ones(4, 1))]
    found = lr_find(
        model, optimizer, nn.MSELoss(), loader, client=client, start_lr=1e-3, end_lr=1e9, steps=60
    )
    assert len(found.lr) < 60
    assert found.ended is not None
    assert "the range test has seen enough" in found.ended


def test_batches_may_be_nested(client: Client) -> None:
    """Inputs and targets are moved to the model's device, however deeply they are nested."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 1)

        def forward(self, inputs: dict[str, Any]) -> Tensor:
            return self.layer(inputs["a"][0]) + self.layer(inputs["a"][1])

    model = Pair()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = [({"a": (torch.ones(4, 6), torch.zeros(4, 6)), "name": "x"}, torch.ones(4, 1))]
    found = lr_find(model, optimizer, nn.MSELoss(), loader, client=client, steps=STEPS)
    assert found.lr


@pytest.mark.parametrize(
    ("loader", "error", "message"),
    [
        (iter([1]), TypeError, "can be gone through once"),
        ([], ValueError, "the loader is empty"),
        ([{"x": 1}], TypeError, r"not a pair \(x, y\)"),
        ([(1, 2, 3)], TypeError, r"not a pair \(x, y\)"),
    ],
)
def test_a_loader_that_can_not_be_used_is_refused(
    client: Client, loader: Any, error: type[Exception], message: str
) -> None:
    """The error says what to pass instead, and the model keeps its mode."""
    model = nn.Linear(6, 3).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(error, match=message):
        lr_find(model, optimizer, nn.CrossEntropyLoss(), loader, client=client)
    assert not model.training


def test_a_lazy_model_is_refused(client: Client) -> None:
    """A parameter without a shape cannot be restored."""
    model = nn.Sequential(nn.Linear(6, 3), nn.LazyLinear(3))
    gradient = torch.ones(3)
    model[0].bias.grad = gradient
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="run one batch first"):
        lr_find(model, optimizer, nn.CrossEntropyLoss(), batches(), client=client)
    assert model[0].bias.grad is gradient


def test_a_sweep_that_the_server_refuses_touches_nothing(client: Client) -> None:
    """The server's message is raised, before any step."""
    model = network()
    optimizer = sgd(model)
    before = everything(model, optimizer, batches())
    with pytest.raises(InvalidRequestError, match="must be below"):
        lr_find(model, optimizer, nn.CrossEntropyLoss(), batches(), client=client, start_lr=100.0)
    assert everything(model, optimizer, batches()) == before


def test_a_server_that_goes_away_leaves_no_trace(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is killed in the middle the error says so, and everything is restored."""
    monkeypatch.setattr("pacesetter._session.CLOSE_SECONDS", 0.5)
    model = network()
    optimizer = adamw(model)
    before = everything(model, optimizer, batches())
    calls = 0

    def killing(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            service.kill()
        return nn.functional.cross_entropy(outputs, targets)

    with (
        Client(service.url, retry_for=2.0, max_wait=2.0) as client,
        pytest.raises(ServerUnavailableError),
    ):
        lr_find(model, optimizer, killing, batches(), client=client)
    assert everything(model, optimizer, batches()) == before


def test_a_name_is_swept_once(client: Client, unique_name: str) -> None:
    """A second sweep under the name would return the losses of the first."""
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    arguments: Any = (model, optimizer, nn.CrossEntropyLoss(), batches())
    found = lr_find(*arguments, client=client, name=unique_name, steps=STEPS)
    assert found.session == unique_name
    assert client.range_test(unique_name) == found
    with pytest.raises(ValueError, match="has swept already"):
        lr_find(*arguments, client=client, name=unique_name, steps=STEPS)


def test_an_address_is_as_good_as_a_client(server_url: str) -> None:
    """A client is opened for the sweep."""
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = lr_find(
        model, optimizer, nn.CrossEntropyLoss(), batches(), client=server_url, steps=STEPS
    )
    assert found.metric == "loss"


def test_the_proposal_becomes_a_session(client: Client, unique_name: str) -> None:
    """On a learnable task there is a proposal, and it drives a training."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.AdamW(model.parameters())
    found = lr_find(model, optimizer, nn.CrossEntropyLoss(), batches(), client=client)
    assert found.proposal.lr is not None, found.proposal.reason
    assert 1e-5 < found.proposal.lr < 1
    one_cycle = {"kind": "one_cycle", "total_steps": 10}
    session = client.create_session(unique_name, base_lr=found.proposal.lr, schedule=one_cycle)
    RemoteLR(optimizer, session)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(found.proposal.lr / 25)


@pytest.fixture(name="found", scope="module")
def _found(server_url: str) -> RangeTest:
    """Return the outcome of a sweep."""
    model = network()
    loss_fn = nn.CrossEntropyLoss()
    return lr_find(model, sgd(model), loss_fn, batches(), client=server_url, steps=STEPS)


def test_the_picture_can_be_saved(found: RangeTest, tmp_path: Path) -> None:
    """It is SVG; another file extension is refused, because the format would not match."""
    found.save(tmp_path / "lr.svg")
    assert (tmp_path / "lr.svg").read_text().startswith("<svg")
    with pytest.raises(ValueError, match=r"something\.svg"):
        found.save(str(tmp_path / "lr.png"))


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"curve": None, "proposal": {}},
        {
            "session": "a",
            "metric": "loss",
            "ended": None,
            "curve": {"step": [0], "lr": [0.1], "loss": ["nan"], "smoothed": ["nan"]},
            "suggestions": {},
            "proposal": {"lr": -1.0, "agreeing": [], "reason": ""},
        },
    ],
)
def test_an_answer_that_is_no_range_test_is_refused(answer: dict[str, Any]) -> None:
    """Nothing of it is used."""
    with pytest.raises(InvalidAnswerError, match="no range test"):
        RangeTest.parse(answer, b"")


ROOT = Path(__file__).parents[2]


def test_the_example_finds_trains_and_keeps_the_best(tmp_path: Path) -> None:
    """The complete pipeline in its short form: finder, one cycle, checkpoint, log and picture."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "finder.py", "--epochs", "3", "--out", str(tmp_path)],
        cwd=ROOT / "examples",
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        "best.pt",
        "log.csv",
        "finder.svg",
        "training.png",
    }
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert header == "step,epoch,lr,train_loss,val_loss"
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    validated = [float(row.split(",")[4]) for row in rows if row.split(",")[4]]
    assert len(validated) == 3
    assert best["val_loss"] == min(validated)
