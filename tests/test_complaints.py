"""Log lines that any caller can cause."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pacesetter_service.complaints import Complaints


class Written:
    """The lines that were written, and a clock that is set by hand."""

    def __init__(self, most: int = 3, period: float = 60.0) -> None:
        self.now = 0.0
        self.lines: list[dict[str, Any]] = []
        self.complaints = Complaints(self._write, most=most, period=period, clock=lambda: self.now)

    def _write(self, **line: object) -> None:
        self.lines.append(line)


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from("ab")), max_size=60))
def test_no_complaint_is_lost_and_none_floods(told: list[tuple[float, str]]) -> None:
    """Every complaint is written or counted, and few of a kind are written."""
    written = Written()
    for pause, kind in told:
        written.now += pause
        written.complaints.tell(kind)
    written.complaints.settle()
    for kind in "ab":
        lines = [line for line in written.lines if line["kind"] == kind]
        counted = sum(line.get("suppressed", 1) for line in lines)
        assert counted == sum(each == kind for _, each in told)
        periods = sum(pause for pause, _ in told) // 60 + 1
        assert len(lines) <= 4 * periods


def test_each_kind_has_its_own_count() -> None:
    """A flood of one kind hides nothing of another."""
    written = Written()
    for _ in range(50):
        written.complaints.tell("flood")
    written.complaints.tell("rare", detail="all the same")
    assert written.lines[-1] == {"kind": "rare", "detail": "all the same"}
    assert len(written.lines) == 4


def test_the_count_is_told_when_the_period_is_over() -> None:
    """If nothing of the kind follows, the event loop still has the count logged."""

    async def flood() -> None:
        for _ in range(8):
            written.complaints.tell("flood")
        while "suppressed" not in written.lines[-1]:
            await asyncio.sleep(0)

    written = Written(period=0.01)
    asyncio.run(flood())
    assert written.lines[-1] == {"kind": "flood", "suppressed": 5}
