"""Every benchmark runs against the current service, with next to no load, its figures ignored."""

import os
from collections.abc import Sequence

import pytest
from benchmarks import planned, servers
from benchmarks.__main__ import BENCHMARKS, TINY
from benchmarks.harness import CORES, pinned

import postgres as own_postgres
from forked import ForkedService
from pacesetter import Client

spawned = servers.started


class Forked(ForkedService):
    """A forked service, with the interface that the benchmarks use."""

    def poll(self) -> None:
        """Return None: the wait for one that did not start times out."""

    def wait(self, timeout: float) -> int:
        """Return the exit code once it has ended; its remaining output is not read."""
        code = super().wait(timeout)
        self.stderr.close()
        return code


def forked(module: str, options: Sequence[str]) -> servers.Process:
    """Fork our service, which is quick; start anything else as a program."""
    if module != "pacesetter_service":
        return spawned(module, options)
    pairs = (option.removeprefix("--").split("=", 1) for option in options)
    settings = {f"PACESETTER_{name.upper().replace('-', '_')}": value for name, value in pairs}
    with pinned(set(CORES)):  # otherwise all later forks would keep to one core, too
        return Forked({**os.environ, **settings})


# MLflow is no dependency of the tests.
@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "tracking"])
def test_each_benchmark_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It returns lines for its table, each with the ratio of two speeds or costs."""
    monkeypatch.setattr(servers, "started", forked)
    if name == "postgres":
        url = own_postgres.url_of("postgres", own_postgres.server())
        monkeypatch.setenv("PACESETTER_BENCH_POSTGRES_URL", url)
    results = list(BENCHMARKS[name](TINY))
    assert results
    assert all(result.ratio > 0 for result in results)


def test_own_trainings_are_planned_over_http(server_url: str) -> None:
    """A short form compares all ways; the decays end below the way without one."""
    task = planned.Task(planned.Network, 500, 250, 40, 3e-3)
    with Client(server_url) as client:
        found = planned.one(client, task, 0)
    assert set(found.ends) == {planned.CHOICE, *planned.ways(task)}
    undecayed = found.ends.pop("no decay")
    assert all(end < undecayed for end in found.ends.values())
