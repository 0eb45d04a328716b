"""A server whose database has lost what it handed out: the training stops, and can go on."""

import pickle
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pacesetter import Client, HistoryLostError, Session
from pacesetter.torch import RemoteLR
from serving import RunningService, open_http

LAW = {"kind": "exponential", "gamma": 0.9}


class Backup:
    """A copy of a service's database as it is now, with its mark or without."""

    def __init__(self, service: RunningService, *, with_mark: bool = False) -> None:
        self._service = service
        self._files = {service.database: service.database.with_name("copy")}
        source, copy = (sqlite3.connect(path) for path in next(iter(self._files.items())))
        source.backup(copy)
        for connection in (source, copy):
            connection.close()
        if with_mark:
            mark = Path(f"{service.database}-mark")
            self._files[mark] = Path(shutil.copy(mark, mark.with_name("mark")))

    def restore(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Restore the copy while the service is stopped."""
        self._service.stop()
        meanwhile()
        for place, copy in self._files.items():
            shutil.copy(copy, place)
        self._service.start()


def horizon(service: RunningService) -> int:
    """Return how many steps the server has sealed."""
    with open_http(service.url) as http:
        return int(http.get("/v1/sessions/run").json()["horizon"])


def walked(session: Session, start: int, stop: int) -> list[str]:
    """Use the values of some steps, and return their bits."""
    return [session.lr(step).hex() for step in range(start, stop)]


@pytest.mark.parametrize(
    ("with_mark", "code"), [(False, "another_epoch"), (True, "horizon_receded")]
)
def test_an_older_copy_is_refused_until_the_training_goes_back(
    service: RunningService, with_mark: bool, code: str
) -> None:
    """Nothing is sealed in place of lost steps; from a step that is there the training goes on."""
    with Client(service.url) as client:
        # One step at a time, so that no more is sealed than was walked.
        session = client.session("run", base_lr=0.1, schedule=LAW, max_lookahead=1)
        first = walked(session, 0, 4)
        backup = Backup(service, with_mark=with_mark)
        first += walked(session, 4, 9)
        backup.restore()
        for _ in range(2):  # however often it is tried
            with pytest.raises(HistoryLostError, match="a checkpoint of step 4") as raised:
                session.lr(9)
        assert raised.value.code == code
        assert horizon(service) == 4
        assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
        session.restart(3)
        assert walked(session, 3, 12) == first[3:] + walked(session, 9, 12)
        assert horizon(service) == 12


def test_what_was_measured_before_waits_for_the_way_out(service: RunningService) -> None:
    """Going back drops reports of steps that are trained again; the others are delivered."""
    with Client(service.url) as client:
        session = client.session("run", base_lr=0.1, schedule=LAW, max_lookahead=1)
        walked(session, 0, 4)
        backup = Backup(service)
        walked(session, 4, 6)
        backup.restore(lambda: [session.report(step, loss=float(step)) for step in (2, 5)])
        with pytest.raises(HistoryLostError):
            session.lr(6)
        session.restart(3)
        session.flush()
        with open_http(service.url) as http:
            found = http.get("/v1/sessions/run/history", params={"metrics": "loss"}).text
    assert "2.0" in found
    assert "5.0" not in found


def test_a_checkpoint_is_the_way_out(service: RunningService) -> None:
    """`RemoteLR.load_state_dict` takes the training back as after any crash."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    with Client(service.url) as client:
        session = client.session("run", base_lr=0.1, schedule=LAW, max_lookahead=1)
        scheduler = RemoteLR(optimizer, session)

        def train(steps: int) -> list[str]:
            used = []
            for _ in range(steps):
                used.append(optimizer.param_groups[0]["lr"].hex())
                optimizer.step()
                scheduler.step()
            return used

        train(3)
        checkpoint = scheduler.state_dict(), optimizer.state_dict()
        backup = Backup(service)
        lost = train(4)
        backup.restore()
        with pytest.raises(HistoryLostError):
            train(1)
        optimizer.load_state_dict(checkpoint[1])
        scheduler.load_state_dict(checkpoint[0])
        assert train(4) == lost


# Faults that no real server has -------------------------------------------------------------------


def spoilt(**fields: Any) -> Callable[[dict[str, Any], bytes], Any]:
    """Return a function that changes some fields of an answer."""
    return lambda header, block: ({**header, **fields}, block)


@pytest.mark.parametrize("epoch", ["two", "two\n\x1b[2J"])
def test_a_changed_epoch_is_refused(fake: Any, fake_client: Client, epoch: str) -> None:
    """Though the server itself does not object, nothing of its answer is used."""
    session = fake_client.session("fake")
    fake.spoil = spoilt(epoch="one")
    session.lr(0)
    fake.spoil = spoilt(epoch=epoch)
    with pytest.raises(HistoryLostError, match="another epoch") as raised:
        session.lr(1_000)
    assert str(raised.value).isprintable()
    fake.spoil = spoilt(epoch="one")
    assert session.lr(1_000) == 0.5


def test_a_horizon_that_recedes_below_what_came_here_is_refused(
    fake: Any, fake_client: Client
) -> None:
    """Steps that were handed out here are sealed for ever."""
    session = fake_client.session("fake")
    held = session._core.window(0).stop
    fake.spoil = spoilt(horizon=held - 1)
    with pytest.raises(HistoryLostError, match=f"had handed out {held} to this training"):
        session.lr(1_000)


def test_a_horizon_that_was_only_heard_of_may_recede(fake: Any, fake_client: Client) -> None:
    """What was sealed for another caller, and taken back, was never trained here."""
    session = fake_client.session("fake")
    fake.horizon = 5_000
    assert session.lr(0) == 0.5
    held = session._core.window(0).stop
    fake.spoil = spoilt(horizon=held)
    session.report(0, loss=1.0)
    session.flush()
    assert not session._core.sync.reports


def test_a_server_that_tells_no_epoch_is_asked_without(fake: Any, fake_client: Client) -> None:
    """It would refuse fields that it does not know."""
    fake_client.session("fake").lr(0)
    assert not {"epoch", "held"} & set(fake.bodies[0])
