"""What survives a SIGKILL; the long form is `make soak`."""

from pathlib import Path
from typing import Any

import pytest

from crash import endure
from serving import RunningService, open_http


def _call(service: RunningService, method: str, path: str, body: Any = None) -> Any:
    """Call over a new connection, since the service may have been killed."""
    with open_http(service.url) as http:
        return http.request(method, path, json=body).raise_for_status().json()


def test_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    """However often the service is killed, acknowledged reports and sealed values are kept."""
    toll = endure(tmp_path, kills=5)
    assert toll.reports > 100, "the load was no load"
    assert (toll.lost, toll.changed) == (0, 0)


def test_controllers_go_on_where_they_were(service: RunningService) -> None:
    """A plateau's memory survives kills: the cut comes at the step it would have come at."""
    spec = {
        "name": "run",
        "base_lr": 0.1,
        "controllers": [{"kind": "plateau", "metric": "loss", "patience": 3}],
    }
    _call(service, "POST", "/v1/sessions", spec)
    rates = []
    for step in range(9):
        reports = [{"step": step - 1, "metrics": {"loss": 1.0}}] if step else []
        body = {"step": step, "reports": reports}
        rates.append(_call(service, "POST", "/v1/sessions/run/sync", body)["lr"])
        if step in (1, 3, 4, 6):
            service.kill()
            service.start()
    assert rates == pytest.approx([0.1] * 5 + [0.01] * 4)


def test_a_polite_stop_finishes_what_is_open(service: RunningService) -> None:
    """SIGTERM ends the process with code 0, and what it acknowledged is on the disk."""
    _call(service, "POST", "/v1/sessions", {"name": "run", "base_lr": 0.1})
    _call(service, "POST", "/v1/sessions/run/sync", {"step": 4})
    assert service.stop() == 0
    assert not service.database.with_name("pacesetter.db-wal").exists()
    service.start()
    assert _call(service, "GET", "/v1/sessions/run")["horizon"] == 5


def test_a_second_service_on_the_same_file_does_not_start(service: RunningService) -> None:
    """A second process on a database that is being served says so and exits."""
    with pytest.raises(RuntimeError, match="another process serves"):
        RunningService(service.database).start()
