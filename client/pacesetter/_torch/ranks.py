"""What a process group does for this client: agree on numbers, pass on bytes, fail together.

If one rank raised alone, the others would hang in their next collective until a watchdog kills
them. So whatever can fail is done between two collectives, and its failure is raised on all ranks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import distributed

from pacesetter._errors import APIError, PacesetterError, RankFailedError

ABSENT = 2**63 - 1
"""What a rank that has no number to compare says."""


class Ranks:
    """The ranks of a process group, of which the first one talks to the server.

    Attributes:
        group: The process group; None is the default one.
        rank: This process's rank in it.
        size: The number of ranks.
    """

    def __init__(self, group: distributed.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank = distributed.get_rank(group)
        self.size = distributed.get_world_size(group)
        self._device = _device(group)

    @property
    def leads(self) -> bool:
        """Whether this is the rank that talks to the server."""
        return self.rank == 0

    def extremes(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """Return the least and the greatest of each number over all ranks, without `ABSENT`.

        This is one collective of fixed size, however many ranks there are. All ranks pass equally
        many numbers.

        Returns:
            A pair for each number; `(ABSENT, ~ABSENT)` where no rank has it.
        """
        both = [*numbers, *(ABSENT if each == ABSENT else ~each for each in numbers)]
        tensor = torch.tensor(both, dtype=torch.int64, device=self._device)
        distributed.all_reduce(tensor, op=distributed.ReduceOp.MIN, group=self.group)
        least = tensor.tolist()
        half = len(numbers)
        return [(low, ~other) for low, other in zip(least[:half], least[half:], strict=True)]

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return the mean of each value over all ranks, which all pass equally many."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        distributed.all_reduce(tensor, group=self.group)
        return [float(each) for each in (tensor / self.size).tolist()]

    def raise_of(self, rank: int, error: Exception | None) -> None:
        """Raise the error of a rank on all ranks; without a rank (`ABSENT`), raise nothing."""

        def fail() -> bytes:
            assert error is not None  # noqa: S101 - it is the one of that rank
            raise error

        if rank != ABSENT:
            self._from(rank, fail)

    def from_first(self, work: Callable[[], bytes]) -> bytes:
        """Do something on the first rank; on all, return what it returned, or raise its error."""
        return self._from(0, work)

    def _from(self, rank: int, work: Callable[[], bytes]) -> bytes:
        """Do something on one rank; on all ranks, return what it returned, or raise its error."""
        content, error = b"", None
        if self.rank == rank:
            try:
                content = work()
            except Exception as failure:  # all ranks raise it below
                error = failure
                content = dumped(failure, rank)
        content, failed = self._share(content, rank, failed=error is not None)
        if error is not None:
            raise error
        if failed:
            raise restored(content)
        return content

    def _share(self, content: bytes, rank: int, *, failed: bool) -> tuple[bytes, bool]:
        """Return what one rank sends to all; what the others pass is ignored."""
        source = rank if self.group is None else distributed.get_global_rank(self.group, rank)
        head = torch.tensor([len(content), failed], dtype=torch.int64, device=self._device)
        distributed.broadcast(head, source, group=self.group)
        length, is_failure = head.tolist()
        received = bytearray(content if self.rank == rank else length)
        if length:
            block = torch.frombuffer(received, dtype=torch.uint8)
            body = block.to(self._device)  # the block itself where that is the CPU
            distributed.broadcast(body, source, group=self.group)
            block.copy_(body)
        return bytes(received), bool(is_failure)


def are_many(group: distributed.ProcessGroup | None) -> bool:
    """Return whether this process trains together with others.

    Raises:
        ValueError: The process is not in that group.
    """
    if not is_grouped():
        return False
    size = distributed.get_world_size(group)
    if size < 1:
        raise ValueError("this process is not in the group: pass a group that it belongs to")
    return size > 1


def is_grouped() -> bool:
    """Return whether there are process groups at all."""
    return distributed.is_available() and distributed.is_initialized()


def timeout_of(group: distributed.ProcessGroup | None) -> float | None:
    """Return a group's timeout in seconds; None where torch does not say.

    torch has no public way to ask, so a backend or a version may lack what is read here.
    """
    try:
        backend = _whole(group)._get_backend(torch.device(_kind(group)))  # noqa: SLF001 - see above
        return float(backend.options._timeout.total_seconds())  # noqa: SLF001 - see above
    except (AttributeError, RuntimeError):
        return None


def device_kind(backends: str) -> str:
    """Return the kind of device whose tensors a group takes: the CPU if possible.

    Args:
        backends: What `get_backend_config` says, for instance `cpu:gloo,cuda:nccl`.
    """
    kinds = [pair.partition(":")[0] for pair in backends.lower().split(",")]
    return "cpu" if "cpu" in kinds else kinds[0]


def _kind(group: distributed.ProcessGroup | None) -> str:
    return device_kind(str(distributed.get_backend_config(group)))


def _device(group: distributed.ProcessGroup | None) -> torch.device:
    """Return the device from which a group's collectives take their tensors."""
    kind = _kind(group)
    if kind == "cpu":
        return torch.device(kind)
    # A group whose init_process_group got a device_id takes no other device's tensors.
    bound = getattr(_whole(group), "bound_device_id", None)
    return bound or torch.device(kind, torch.get_device_module(kind).current_device())


def _whole(group: distributed.ProcessGroup | None) -> distributed.ProcessGroup:
    found = distributed.group.WORLD if group is None else group
    assert found is not None  # noqa: S101 - who asks is in a group
    return found


# -- errors that travel ----------------------------------------------------------------------------


def dumped(error: Exception, rank: int) -> bytes:
    """Return an error as bytes."""
    said: dict[str, Any] = {"kind": type(error).__name__, "message": str(error), "rank": rank}
    if isinstance(error, APIError):
        said["problem"] = {"detail": error.detail, **error.facts}
    return json.dumps(said, default=str).encode()


def restored(content: bytes) -> Exception:
    """Return the error that another rank has dumped, of the same class if that is one of ours."""
    said = json.loads(content)
    kind = _kinds(PacesetterError).get(said["kind"])
    if kind is None:
        return RankFailedError(f"rank {said['rank']} raised {said['kind']}: {said['message']}")
    if issubclass(kind, APIError):
        return kind(**said["problem"])
    return kind(said["message"])


def _kinds(root: type[PacesetterError]) -> dict[str, type[PacesetterError]]:
    found = {root.__name__: root}
    for kind in root.__subclasses__():
        if kind.__module__ == root.__module__:
            found |= _kinds(kind)
    return found
