"""What is committed is answered: a failure of what only informs makes no answer an error."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacesetter_service.core.actions.level import Scale
from pacesetter_service.core.commands import Act
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime import operator
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.work import Create
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
