"""Every benchmark runs against the service as it is: on next to nothing, its figures unread."""

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
    """A forked service, as the benchmarks handle it."""

    def poll(self) -> None:
        """Say nothing: one that did not start is waited for in vain."""

    def wait(self, timeout: float) -> int:
        """Return the exit code once it has ended; what it has said by then is not read."""
        code = super().wait(timeout)
        self.stderr.close()
        return code


def forked(module: str, options: Sequence[str]) -> servers.Process:
    """Fork our service, which is quick; start what else there is as a program."""
    if module != "pacesetter_service":
        return spawned(module, options)
    pairs = (option.removeprefix("--").split("=", 1) for option in options)
    settings = {f"PACESETTER_{name.upper().replace('-', '_')}": value for name, value in pairs}
    with pinned(set(CORES)):  # else all that are forked later would keep to one core, too
        return Forked({**os.environ, **settings})


# MLflow is no dependency of the tests.
@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "tracking"])
def test_each_benchmark_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives lines for its table, each with the ratio of two speeds or costs."""
    monkeypatch.setattr(servers, "started", forked)
    if name == "postgres":
        url = own_postgres.url_of("postgres", own_postgres.server())
        monkeypatch.setenv("PACESETTER_BENCH_POSTGRES_URL", url)
    results = list(BENCHMARKS[name](TINY))
    assert results
    assert all(result.ratio > 0 for result in results)


def test_own_trainings_are_planned_over_http(server_url: str) -> None:
    """A short form goes all ways; the decays end below the way without one."""
    task = planned.Task(planned.Network, 500, 250, 40, 3e-3)
    with Client(server_url) as client:
        found = planned.one(client, task, 0)
    assert set(found.ends) == {planned.CHOICE, *planned.ways(task)}
    undecayed = found.ends.pop("no decay")
    assert all(end < undecayed for end in found.ends.values())
