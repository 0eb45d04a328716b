"""Faults under load break no promise; `make faults` does each a hundred times."""

from pathlib import Path

import pytest

from proof.faults import FAULTS, endure
from proof.power import cut_often, recorded
from serving import RunningService

SHORT = (
    "death after a commit",
    "a refused commit",
    "a connection half open",
    "a request overtaken",
    "an event stream dropped",
)
"""What the short form tries: a quick fault of each sort."""


@pytest.mark.parametrize("fault", SHORT)
def test_a_fault_under_load_breaks_no_promise(fault: str) -> None:
    """Nothing is lost or changed, no stale trainer is let in, and the load goes on."""
    verdict = endure(fault, 1, 60.0, lambda _: None)
    assert verdict.times == 1
    assert not verdict.violations


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_five_times_breaks_no_promise(fault: str) -> None:
    """So it is with every fault of the campaign."""
    verdict = endure(fault, 5, 300.0, lambda _: None)
    assert verdict.times == 5
    assert not verdict.violations


def test_a_cut_of_the_power_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Unflushed writes are dropped or torn, and the database is sound; a lying disk's is not.

    Where flushes are ignored, the same check finds what is missing.
    """
    writes, history = recorded(tmp_path, answers=120)
    losses = cut_often(writes, history, 40, tmp_path)
    assert losses.is_nothing, losses
    assert losses.reports > 100
    assert not cut_often(writes, history, 40, tmp_path, ignore_flushes=True).is_nothing


def test_a_service_fails_on_purpose_only_where_that_is_meant(tmp_path: Path) -> None:
    """Failpoints need a second setting, and an unknown point is refused with the known ones."""
    database = tmp_path / "pacesetter.db"
    with pytest.raises(RuntimeError, match="PACESETTER_ALLOW_FAILPOINTS=1"):
        RunningService(database, failpoints="commit.before=kill@1").start()
    wrong = RunningService(database, failpoints="commit.after=fail@1", allow_failpoints=1)
    with pytest.raises(RuntimeError, match=r"there are commit\.before: kill, pause, fail"):
        wrong.start()
