"""The systemd unit and the SLURM scripts are well-formed, and name existing options."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deployment.manifests import DEPLOY, unknown_settings
from pacesetter_service.__main__ import LAST_SECONDS
from pacesetter_service.settings import Settings

UNIT = DEPLOY / "systemd/pacesetter.service"
DROP_IN = DEPLOY / "systemd/postgresql.conf"
SCRIPTS = sorted((DEPLOY / "slurm").glob("*.sbatch"))


def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    """`systemd-analyze verify` reports nothing, with the drop-in for PostgreSQL too."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / UNIT.name
    # The program is looked up, and it is not installed where tests run.
    unit.write_text(UNIT.read_text().replace("/opt/pacesetter/bin/pacesetter", sys.executable))
    folder = tmp_path / f"{UNIT.name}.d"
    folder.mkdir()
    shutil.copy(DROP_IN, folder)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if UNIT.name in line or DROP_IN.name in line]
    assert (done.returncode, said) == (0, [])


def test_the_unit_lets_requests_finish() -> None:
    """It is killed only after it would have ended by itself."""
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert int(seconds) > Settings.model_fields["shutdown_timeout"].default + LAST_SECONDS


def test_the_unit_is_confined() -> None:
    """It runs as the service's own user, which may write to its state alone."""
    lines = UNIT.read_text().splitlines()
    for line in (
        "DynamicUser=yes",
        "StateDirectory=pacesetter",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "Restart=on-failure",
        "LoadCredential=admin_token:/etc/pacesetter/admin_token",
    ):
        assert line in lines


@pytest.mark.parametrize("path", [UNIT, DROP_IN, *SCRIPTS], ids=lambda path: path.name)
def test_settings_are_known(path: Path) -> None:
    """The service reads every variable that is named as ours."""
    assert not unknown_settings(path.read_text())


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_one_that_bash_and_slurm_take(path: Path) -> None:
    """It parses, and SLURM sees every option: those after the first command are ignored."""
    subprocess.run(["bash", "-n", path], check=True)
    head, _, rest = path.read_text().partition("set -euo pipefail")
    assert "#SBATCH --requeue" in head
    assert "#SBATCH" not in rest
    assert re.search(r"export PACESETTER_RUN=slurm-\S*\$SLURM_JOB_ID", rest)
    assert "export PACESETTER_RESTART=${SLURM_RESTART_COUNT:-0}" in rest
