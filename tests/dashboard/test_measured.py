"""The benchmark of the dashboard runs, with next to no load and its figures ignored."""

import os
import shutil

import pytest
from benchmarks import dashboard


def test_the_dashboard_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """It reports the size and time of pages, and the memory held while a training goes on."""
    if shutil.which("chromium") is None:
        missing = "no browser: install the package chromium"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    dashboard.main(["--sessions=5", "--points=200", "--rounds=1", "--minutes=0.03", "--every=1"])
    said = capsys.readouterr().out.splitlines()
    assert sum("weighs" in line for line in said) == 2
    assert sum(line.startswith("first curve") for line in said) == 3
    assert sum("MB of scripts" in line for line in said) >= 2
    assert said[-1] == "complaints of the browsers: [[], []]"
