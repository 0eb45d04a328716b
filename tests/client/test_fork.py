"""Forked children: DataLoader workers, and the user's own processes."""

import os
import traceback
import warnings
from collections.abc import Callable

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pacesetter import Client, Session, _announcing, _attempts

COSINE = {"kind": "cosine", "total_steps": 1000}

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def _in_child(check: Callable[[], None]) -> int:
    """Run a function in a forked child, and return its exit status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is the point
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            check()
            status = 0
        except BaseException:  # nothing may leave a forked child
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_goes_on_with_a_connection_of_its_own(client: Client, unique_name: str):
    """Parent and child both get the right values, over separate connections."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    expected = client.forecast(unique_name, count=400, points=400)["series"]["lr"]
    for step in range(20):
        session.lr(step)

    def check() -> None:
        assert client._transport._inherited
        assert [session.lr(step) for step in range(400)] == expected
        client.version()
        session.close()

    assert _in_child(check) == 0
    assert [session.lr(step) for step in range(400)] == expected
    assert not client._transport._inherited


def test_a_child_does_not_send_the_parents_reports(client: Client, unique_name: str):
    """Reports that wait in the parent are delivered by the parent."""
    session = client.create_session(unique_name, base_lr=0.1)
    session.lr(9)
    with session._core.sync.lock:  # keeps the parent's thread from delivering before the fork
        session.report(1, loss=0.5)

        def check() -> None:
            assert len(session._core.sync.reports) == 0
            session.report(2, loss=0.5)
            session.flush()

        assert _in_child(check) == 0
    assert [step for step, _ in session._core.sync.reports.entries] == [1]
    session.flush()


def test_a_lock_held_by_the_parents_thread_does_not_stop_the_child(
    client: Client, unique_name: str
):
    """A fork in the middle of a background exchange leaves the child with a fresh lock."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    session.lr(0)
    with session._core.sync.lock:
        assert _in_child(lambda: session.lr(500) and None) == 0


def test_a_lock_of_the_whole_process_does_not_stop_the_child(client: Client, unique_name: str):
    """A fork while another thread opens a session, or says that one begins, leaves it free."""

    def check() -> None:
        for lock in (_attempts._lock, _announcing._lock):
            assert lock._lock.acquire(blocking=False)
            lock._lock.release()
        assert client.session(unique_name, base_lr=0.1).lr(0) == 0.1

    with _attempts._lock, _announcing._lock:
        assert _in_child(check) == 0


class _Follower(Dataset[torch.Tensor]):
    """A dataset that reads the learning rate, as a curriculum might."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(self.session.lr(index), dtype=torch.float64)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dataloader_workers_live_beside_a_training(client: Client, unique_name: str):
    """Workers fork after the client exists, use it, and end, while the trainer steps."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    expected = client.forecast(unique_name, count=64, points=64)["series"]["lr"]
    session.lr(0)
    session.report(0, loss=1.0)
    loader = DataLoader(
        _Follower(session), batch_size=8, num_workers=2, multiprocessing_context="fork"
    )
    seen = []
    for step, batch in enumerate(loader):
        assert session.lr(step) == expected[step]
        seen += batch.tolist()
    assert seen == expected
    session.flush()
