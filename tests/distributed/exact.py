"""A training whose weights reveal each rate that was ever used, however it is sharded.

Inputs are small whole numbers and the loss is linear, so gradients are whole numbers over a power
of two: exact, in whichever order the ranks' are added, if the number of ranks is a power of two
itself. So the weights are the same to the bit, whether each rank has all of them, a shard, or a
part of a DTensor. Nothing pulls them together again: a rate that was wrong once, on one shard,
shows in the end.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

WAYS = ("plain", "fsdp", "dtensor")
"""All of the model on each rank; sharded by FSDP2; its parameters DTensors, by tensor parallelism.

In the last one all ranks train on the same inputs, as they do in tensor parallelism.
"""

IN, OUT, BATCH = 64, 16, 4


class Training:
    """One rank's part of a training.

    Args:
        way: one of `WAYS`.
        rank: of this process.
        size: how many ranks there are, a power of two.
    """

    def __init__(self, way: str, rank: int, size: int) -> None:
        assert size & (size - 1) == 0, f"{size} ranks are no power of two: gradients are not exact"
        self._way, self._size = way, size
        self._mesh = None if way == "plain" else init_device_mesh("cpu", (size,))
        self._model = _model()
        if way == "fsdp":
            fully_shard(self._model, mesh=self._mesh)
        elif way == "dtensor":
            self._distribute()
        self._inputs = _inputs(rank if way != "dtensor" else 0)
        self.optimizer = _optimizer(self._model)

    def _distribute(self) -> None:
        assert self._mesh is not None
        for name, place in (("weight", Shard(0)), ("bias", Replicate())):
            whole = getattr(self._model, name).detach()
            part = distribute_tensor(whole, self._mesh, [place])
            setattr(self._model, name, torch.nn.Parameter(part))

    def backward(self) -> Tensor:
        """Compute the gradients of the next inputs, the mean over all ranks; return the loss."""
        self.optimizer.zero_grad()
        inputs = next(self._inputs)
        if self._way == "dtensor":
            assert self._mesh is not None
            inputs = DTensor.from_local(inputs, self._mesh, [Replicate()], run_check=False)
        loss = _loss(self._model, inputs)
        if isinstance(loss, DTensor):
            loss = loss.full_tensor()
        loss.backward()
        if self._way == "plain":
            for gradient in self._gradients():
                distributed.all_reduce(gradient)
                gradient.div_(self._size)
        return loss.detach()

    def _gradients(self) -> Iterator[Tensor]:
        for parameter in self._model.parameters():
            assert parameter.grad is not None
            yield parameter.grad

    def weights(self) -> list[str]:
        """Return all weights to the bit, those of other ranks too; all ranks must call it."""
        return [
            _bits(each.full_tensor() if isinstance(each, DTensor) else each)
            for each in self._model.parameters()
        ]


def weights_by(rates: Sequence[float], way: str, size: int) -> list[str]:
    """Return the weights, to the bit, that these rates lead to, computed in one process."""
    model = _model()
    optimizer = _optimizer(model)
    inputs = [_inputs(rank) for rank in range(size if way != "dtensor" else 1)]
    for rate in rates:
        optimizer.zero_grad()
        _loss(model, torch.cat([next(each) for each in inputs])).div(len(inputs)).backward()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return [_bits(each) for each in model.parameters()]


def _model() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(IN, OUT)


def _optimizer(model: torch.nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def _inputs(seed: int) -> Iterator[Tensor]:
    dice = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(-4, 5, (BATCH, IN), generator=dice).float()


def _loss(model: torch.nn.Module, inputs: Tensor) -> Tensor:
    outputs: Tensor = model(inputs)
    return outputs.sum() / 64


def _bits(weights: Tensor) -> str:
    return weights.detach().numpy().tobytes().hex()
