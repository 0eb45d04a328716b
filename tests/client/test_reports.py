"""Reports: captured, bounded, encoded."""

import itertools
import logging
import math
from typing import Any

import pytest
import torch

from pacesetter._reports import KEPT_AT_MOST, VALUES_PER_BATCH, Deferred, Reports, capture


def test_a_batch_is_the_form_of_the_wire():
    """Non-finite values are sent as the three words that JSON can carry."""
    reports = Reports()
    reports.entries += [
        (4, {"loss": 0.5, "acc": math.nan}),
        (5, {"a": math.inf, "b": -math.inf}),
    ]
    number, wire = reports.batch()
    assert number == 2
    assert wire == [
        {"step": 4, "metrics": {"loss": 0.5, "acc": "nan"}},
        {"step": 5, "metrics": {"a": "inf", "b": "-inf"}},
    ]


def test_reports_stay_until_they_are_dropped():
    """A batch that was not acknowledged is sent again."""
    reports = Reports()
    reports.entries += [(step, {"loss": 1.0}) for step in range(5)]
    assert reports.batch() == reports.batch()
    reports.drop(3)
    assert [report["step"] for report in reports.batch()[1]] == [3, 4]


def test_a_batch_stays_below_the_servers_limit():
    """Many reports are split into several calls; a single large one is still sent."""
    reports = Reports()
    reports.entries += [(step, {"a": 1.0, "b": 1.0, "c": 1.0}) for step in range(3000)]
    assert reports.batch()[0] == VALUES_PER_BATCH // 3
    reports = Reports()
    reports.entries += [(0, {str(n): 1.0 for n in range(VALUES_PER_BATCH + 1)}), (1, {"a": 1.0})]
    assert reports.batch()[0] == 1


def test_memory_is_bounded_by_thinning_the_older_half(caplog: pytest.LogCaptureFixture):
    """The curve stays, its past loses resolution; the log says so once, and how much at the end."""
    reports = Reports()
    for step in range(3 * KEPT_AT_MOST):
        reports.entries.append((step, {"loss": 1.0}))
        if step % 1000 == 0:
            reports.thin()
    reports.thin()
    steps = [step for step, _ in reports.entries]
    assert len(steps) <= KEPT_AT_MOST
    assert steps == sorted(set(steps))
    assert steps[-5000:] == list(range(3 * KEPT_AT_MOST - 5000, 3 * KEPT_AT_MOST))
    assert steps[0] == 0
    assert max(b - a for a, b in itertools.pairwise(steps)) < 1000
    lost = 3 * KEPT_AT_MOST - len(steps)
    reports.drop(len(steps))
    reports.delivered()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert f"{lost} were given up" in caplog.text


def test_only_what_the_server_points_at_is_dropped():
    """One bad report does not cost those around it."""
    reports = Reports()
    reports.entries += [(step, {"loss": 1.0}) for step in range(5)]
    errors = [{"pointer": "/reports/1/metrics"}, {"pointer": "/reports/3/step"}, {"pointer": 3}]
    assert not reports.drop_pointed_at(4, errors)
    assert [step for step, _ in reports.entries] == [0, 2, 4]
    assert reports.refused == 2


def test_a_refused_value_costs_no_other(caplog: pytest.LogCaptureFixture):
    """The refused value of a report is dropped, and with a refused name all later values of it."""
    reports = Reports()
    reports.entries += [(step, {"a/~b": 1.0, "loss": 2.0}) for step in range(3)]
    errors = [
        {"pointer": "/reports/0/metrics/a~1~0b/[key]", "detail": "No name."},
        {"pointer": "/reports/1/metrics/loss", "detail": "No number."},
    ]
    assert reports.drop_pointed_at(3, errors)
    assert reports.refused == 2
    reports.entries.append((3, {"a/~b": 1.0}))
    assert reports.batch() == (
        2,
        [{"step": 0, "metrics": {"loss": 2.0}}, {"step": 2, "metrics": {"loss": 2.0}}],
    )
    assert len(reports) == 2
    assert reports.drop_pointed_at(2, [{"pointer": "/reports/0/metrics/loss"}])
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 2
    assert "'a/~b' (No name.)" in told[0]
    assert "'loss' (No number.)" in told[1]


def test_a_refusal_that_points_at_nothing_there_drops_the_batch():
    """A server that refuses a metric which was not sent does not get the batch for ever."""
    reports = Reports()
    reports.entries += [(step, {"loss": 1.0}) for step in range(5)]
    assert not reports.drop_pointed_at(4, [{"pointer": "/reports/0/metrics/x"}])
    assert [step for step, _ in reports.entries] == [4]


def test_a_refusal_without_pointers_drops_the_batch():
    """A batch that is refused for no stated reason is not sent for ever."""
    reports = Reports()
    reports.entries += [(step, {"loss": 1.0}) for step in range(5)]
    reports.drop_pointed_at(4, [{"pointer": "/attempt"}])
    assert [step for step, _ in reports.entries] == [4]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0),
        (True, 1.0),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([[0.5]]), 0.5),
        (torch.tensor(2, dtype=torch.int64), 2.0),
        (torch.tensor(1.5, requires_grad=True), 1.5),
    ],
)
def test_numbers_and_tensors_of_one_element_are_captured(value: Any, number: float):
    """A metric is read as it is now; the tensor may change afterwards."""
    captured = capture(value)
    assert type(captured) is float
    assert captured == number


@pytest.mark.parametrize("value", ["0.5", b"1", None, [1], torch.tensor([1.0, 2.0]), {}])
def test_what_is_no_number_is_refused(value: Any):
    """The error is raised at the call, not in a thread."""
    with pytest.raises(TypeError):
        capture(value)


class _Accelerated:
    """Stands in for a tensor on a device, and records reads and copies."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.device = torch.device("meta")

    def numel(self) -> int:
        return 1

    def is_complex(self) -> bool:
        return False

    def detach(self) -> "_Accelerated":
        self.log.append("detach")
        return self

    def clone(self) -> "_Accelerated":
        self.log.append("clone")
        return self

    def __float__(self) -> float:
        self.log.append("read")
        return 0.25


def test_a_tensor_on_an_accelerator_is_copied_now_and_read_later(monkeypatch: pytest.MonkeyPatch):
    """The step path never waits for a device."""
    log: list[str] = []

    class Event:
        def __init__(self, device: torch.device) -> None:
            pass

        def record(self) -> None:
            log.append("record")

        def synchronize(self) -> None:
            log.append("synchronize")

    monkeypatch.setattr(torch, "Event", Event)
    captured = capture(_Accelerated(log))
    assert isinstance(captured, Deferred)
    assert log == ["detach", "clone", "record"]
    assert float(captured) == 0.25
    assert log[3:] == ["synchronize", "read"]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("value", [torch.ones(2), torch.ones(0), torch.tensor(1j)])
def test_a_tensor_that_is_no_number_is_refused_where_it_is_reported(
    value: torch.Tensor, device: str, monkeypatch: pytest.MonkeyPatch
):
    """On an accelerator too, where it would be found out later and take all reports with it."""
    monkeypatch.setattr(torch, "Event", None)
    with pytest.raises(TypeError, match=r"not a tensor of torch.*: report its mean"):
        capture(value.to(device))
