"""What is committed is answered: no later failure makes an error of it, or says that it is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacesetter_service.core.actions.level import Scale
from pacesetter_service.core.commands import Act, Reading, Seal
from pacesetter_service.core.errors import (
    ConflictError,
    PacesetterError,
    StorageFullError,
    StorageUnavailableError,
)
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime import operator, trainer
from pacesetter_service.runtime.ranks import NEVER
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.tails import SealedTail
from pacesetter_service.runtime.work import Change, Create
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.sqlite import SqliteStore


@pytest.fixture(name="anyio_backend")
def _anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(name="service")
def _service(tmp_path: Path) -> Iterator[Service]:
    """Run the use cases on a real store."""
    store = SqliteStore(f"sqlite:///{tmp_path}/pacesetter.db")
    writer = Writer(store)
    writer.start()
    service = Service.over(store, writer)
    yield service
    service.close()
    writer.stop()
    store.close()


@pytest.mark.anyio
async def test_an_order_is_answered_though_nobody_knows_where_trainers_are(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The order counts, so its answer only leaves out how far away it is; the log says why."""

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    await service.writer.submit(Create(SessionSpec(name="run", base_lr=0.1)))
    monkeypatch.setattr(operator, "position", fails)
    answer = await operator.order(service, "run", Act(Scale(factor=0.5)))
    assert (answer.id, answer.revision) == (1, 1)
    assert (answer.steps_away, answer.seconds_away) == (None, None)
    assert caplog.text.count("distance_unknown") == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    "failure",
    [StorageUnavailableError("no disk"), StorageFullError("the disk"), ConflictError(["run"])],
    ids=lambda failure: type(failure).__name__,
)
async def test_reports_that_are_kept_are_not_said_to_be_lost(
    service: Service, monkeypatch: pytest.MonkeyPatch, failure: PacesetterError
) -> None:
    """If the window cannot be read afterwards, the answer says so, and the error has its type.

    Other callers, who may be given the same error, get it in its own words.
    """

    async def fails(*_: object) -> None:
        raise failure

    await service.writer.submit(Create(SessionSpec(name="run", base_lr=0.1)))
    await service.writer.submit(Change("run", (Seal(0, 4),)))
    monkeypatch.setattr(SealedTail, "holds", lambda *_: False)  # as after a restart
    monkeypatch.setattr(trainer, "sealed_window", fails)
    with pytest.raises(type(failure), match="nothing of this call was kept"):
        await trainer.sync(service, _call(Seal(0, 4), ()))
    with pytest.raises(type(failure), match="what this call reported was kept") as caught:
        await trainer.sync(service, _call(Seal(0, 4), (Reading(0, 3, "loss", 1.0),)))
    assert "nothing" not in str(caught.value)
    assert "nothing of this call was kept" in str(failure)
    session = (await service.writer.find("run")).stored
    assert service.store.newest_of({session.lineage: 0}, 8)[session.lineage].keys() == {"loss"}


def _call(wish: Seal, readings: tuple[Reading, ...]) -> trainer.SyncCall:
    """Return what a trainer of the first attempt says."""
    newest = max((each.step for each in readings), default=NEVER)
    return trainer.SyncCall(
        session="run",
        rank=0,
        attempt=1,
        trains=True,
        readings=readings,
        newest=newest,
        batch_size=None,
        applied=None,
        wish=wish,
        stands=0,
        pace=None,
        epoch=None,
        given=0,
        patience=0.0,
    )
