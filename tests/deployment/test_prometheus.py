"""Prometheus itself loads the rules, and scrapes a service, as the files in deploy/ say."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import yaml
from benchmarks.servers import free_port

from deployment.manifests import DEPLOY
from deployment.test_monitoring import ALERTS, expressions
from serving import PATIENCE, RunningService

FOLDER = DEPLOY / "prometheus"
CASES: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text())
TOKEN = "a-token-that-is-long-enough-for-anyone"


@pytest.fixture(name="_installed", scope="module", autouse=True)
def _must_be_installed() -> None:
    if shutil.which("promtool") is None:
        assert not os.environ.get("CI"), "CI has Prometheus"
        pytest.skip("Prometheus is not installed")


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should_and_not_before(tmp_path: Path) -> None:
    """`promtool test rules` plays each case of alerts.yaml, and finds the expected alerts."""
    rules = {"rule_files": [str(FOLDER / "rules.yaml")]}
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(rules | CASES))
    promtool("test", "rules", tmp_path / "cases.yaml")


def test_each_alert_has_a_case_in_which_it_fires() -> None:
    """An alert that no case expects might never fire."""
    expected = yaml.safe_dump([case["promql_expr_test"] for case in CASES["tests"]])
    assert [each["alert"] for each in ALERTS if f'"{each["alert"]}"' not in expected] == []


class Prometheus:
    """A Prometheus that scrapes one service with the file of the profile `scale`.

    Args:
        folder: for its file and its data.
        service: the address of the service.
    """

    def __init__(self, folder: Path, service: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self._file = folder / "prometheus.yml"
        told: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        told["global"] = {"scrape_interval": "250ms", "evaluation_interval": "250ms"}
        told["rule_files"] = [str(FOLDER / "rules.yaml")]
        ours = told["scrape_configs"][0]
        ours["authorization"]["credentials_file"] = str(folder / "token")
        ours["static_configs"] = [{"targets": [service.removeprefix("http://")]}]
        told["scrape_configs"] = [ours]
        (folder / "token").write_text(TOKEN)
        self._file.write_text(yaml.safe_dump(told))

    def __enter__(self) -> Self:
        promtool("check", "config", self._file)
        options = {
            "config.file": self._file,
            "storage.tsdb.path": self._folder / "data",
            "web.listen-address": self.url.removeprefix("http://"),
            "log.level": "warn",
        }
        self._process = subprocess.Popen(
            ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)

    def ask(self, path: str, **query: str) -> Any:
        """Return the answer of its API, once it listens."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = httpx.get(f"{self.url}/api/v1/{path}", params=query)
                if answer.status_code != 503:  # it reads its data first
                    assert answer.status_code == 200, answer.text
                    return answer.json()["data"]
            except httpx.TransportError:
                assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture(name="prometheus", scope="module")
def _prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        RunningService(folder / "pacesetter.db", token=TOKEN) as service,
        Prometheus(folder, service.url) as prometheus,
    ):
        deadline = time.monotonic() + PATIENCE
        while not prometheus.ask("query", query='up{job="pacesetter"} == 1')["result"]:
            assert time.monotonic() < deadline, prometheus.ask("targets")
            time.sleep(0.1)
        yield prometheus


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_prometheus_understands_every_expression(
    where: str, expression: str, prometheus: Prometheus
) -> None:
    """The expressions of alerts and panels are evaluated over a service scraped with a token."""
    filled = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
    assert prometheus.ask("query", query=filled)["resultType"] in ("vector", "scalar"), where


def test_its_rules_are_evaluated(prometheus: Prometheus) -> None:
    """All are healthy, and none fires over a service that has just started."""
    deadline = time.monotonic() + PATIENCE
    while True:
        rules = [each for group in prometheus.ask("rules")["groups"] for each in group["rules"]]
        if all(each["health"] == "ok" for each in rules):
            break
        assert time.monotonic() < deadline, rules
        time.sleep(0.1)
    assert {each["name"] for each in rules} == {each["alert"] for each in ALERTS}
    assert [each["name"] for each in rules if each["state"] == "firing"] == []
