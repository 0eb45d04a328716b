"""The end of the process."""

import subprocess
import sys
import time

from pacesetter import Client
from serving import RunningService

_TRAIN = """
import sys
from pacesetter import Client
session = Client(sys.argv[1], max_wait=120).session(sys.argv[2], base_lr=0.1)
session.lr(0)
session.report(0, loss=0.25)
"""


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_script_that_just_ends_delivers_its_reports(service: RunningService):
    """Without a call of `close` the last metrics arrive, and the end is silent."""
    plateau = "controllers=[{'kind': 'plateau', 'metric': 'loss', 'patience': 0, 'factor': 0.5}], "
    code = _TRAIN.replace("base_lr", plateau + "max_lookahead=1, base_lr")
    done = _run(code, service.url, "run")
    assert (done.returncode, done.stderr) == (0, "")
    with Client(service.url) as client:
        session = client.session("run")
        assert session.lr(1) == 0.1
        session.report(1, loss=0.25)  # no better than what the script reported: it did arrive
        assert session.lr(2) == 0.05


def test_a_dead_server_does_not_hold_up_the_end(service: RunningService):
    """The last delivery is tried for two seconds at most, and its loss is logged."""
    code = _TRAIN + "import os, signal\nos.kill(int(sys.argv[3]), signal.SIGSTOP)\n"
    code += "import time\nprint(time.time())"
    done = _run(code, service.url, "run", str(service.process.pid))
    took = time.time() - float(done.stdout)
    service.kill()
    assert done.returncode == 0
    assert took < 30  # and not the two minutes that a training would wait
    assert "1 reports of session run were not delivered" in done.stderr
