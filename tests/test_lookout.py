"""The thread that watches families: whatever happens to it, the writer goes on."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pacesetter_service.runtime import lookout
from pacesetter_service.runtime.lookout import Lookout


class Refused:
    """A thread that the system does not start, as at the limit of its processes."""

    def __init__(self, **_: object) -> None:
        """Accept any arguments."""

    def start(self) -> None:
        """Raise as the system does."""
        raise RuntimeError("can't start new thread")


def committed(step: int) -> Any:
    """Return as much of a change as a lookout reads: one reading of a session of a template."""
    spec = SimpleNamespace(name="run", origin="house@1", start_step=0, total_steps=100)
    session = SimpleNamespace(spec=spec, attempt=SimpleNamespace(number=1))
    stored = SimpleNamespace(id=1, session=session)
    return SimpleNamespace(stored=stored, readings=[(0, SimpleNamespace(step=step))])


def test_a_thread_that_is_refused_fails_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed stands: nothing is raised, then or at the end of the service."""
    watching = Lookout(cast("Any", None), cast("Any", None))
    monkeypatch.setattr(lookout, "threading", SimpleNamespace(Thread=Refused))
    watching.listen([committed(10)])
    watching.listen([committed(20)])
    watching.listen(cast("Any", [object()]))
    watching.stop()
