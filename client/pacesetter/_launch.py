"""Which job this process belongs to, and which start of it, as far as its launcher says.

A launcher that starts a job again after a fault gives all its starts one name. By that name a
process distinguishes what an earlier start has left behind from what belongs to another training.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

_LONGEST = 48
_DIGITS = 32
_PROCESS = uuid.uuid4().hex

# SLURM steps with such numbers are an interactive shell, not a started job.
_FIRST_SPECIAL_STEP = 0xFFFFFFF0

_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")


@dataclass(frozen=True)
class Launch:
    """A start of a job by its launcher: the first one, or a restart after a fault.

    Attributes:
        run: What all starts of the job share and no other job has; empty if nothing says.
        start: What all processes of this start share and no other start has.
        sure: Whether that is certain. The same command, given again by hand on several nodes, may
            look the same.
    """

    run: str = ""
    start: str = ""
    sure: bool = True

    def key(self, number: int | str) -> str:
        """Return the key of an attempt of this start; without a launcher, a random key."""
        return f"{self.run}/{self.start}/{number}" if self.run else drawn_key()

    def has_opened(self, key: str) -> bool:
        """Return whether a process of this start has opened the attempt of that key."""
        return bool(self.run) and key.startswith(f"{self.run}/{self.start}/")

    def opened_before(self, key: str) -> bool:
        """Return whether a process of an earlier start of this job has opened that attempt."""
        return bool(self.run) and key.startswith(f"{self.run}/") and not self.has_opened(key)


def launched(environ: Mapping[str, str] = os.environ) -> Launch:
    """Return the start of the job that this process belongs to.

    `PACESETTER_RUN` names the run where no launcher does, and `PACESETTER_RESTART` the start.
    Without the latter, each process is its own start, unless a launcher knows better.
    """
    launcher = None if _is_typed() else _torchelastic(environ) or _slurm(environ)
    run = environ.get("PACESETTER_RUN", "")
    if not run:
        return launcher or Launch()
    starts = [quoted] if (quoted := _quoted(environ.get("PACESETTER_RESTART", ""))) else []
    if launcher is not None:
        starts += [launcher.run, launcher.start]
    return Launch(_quoted(run), "/".join(starts) or _PROCESS, launcher is None or launcher.sure)


def leads(rank: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether this is the first rank of its training, as far as the environment says."""
    return rank == 0 and next((environ[each] for each in _RANKS if each in environ), "0") == "0"


def drawn_key() -> str:
    """Return a key that no other process draws."""
    return uuid.uuid4().hex


def _is_typed() -> bool:
    """Return whether this is interactive: a notebook was not launched, though its kernel was."""
    return hasattr(sys, "ps1") or "ipykernel" in sys.modules


def _torchelastic(environ: Mapping[str, str]) -> Launch | None:
    """Return what torchrun says, or a launcher that starts workers as it does.

    torchrun counts no restart when nodes come and go, nor on the nodes where no worker failed. So
    the size of the job is part of the start's name.
    """
    if "TORCHELASTIC_RUN_ID" not in environ:
        return None
    run = environ["TORCHELASTIC_RUN_ID"]
    start = f"{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{environ.get('WORLD_SIZE', '1')}"
    slurm = _slurm(environ)
    if slurm is not None:
        return Launch(f"{slurm.run}-{_quoted(run)}", f"{slurm.start}/{start}")
    if environ.get("GROUP_WORLD_SIZE", "1") == "1":
        return Launch(f"{_quoted(run)}-{_start_of_launcher(environ)}", start)
    # Several nodes share only the name that they were given; "none" is no name.
    return None if run in {"", "none"} else Launch(_quoted(run), start, sure=False)


def _start_of_launcher(environ: Mapping[str, str]) -> str:
    """Return what distinguishes starts of torchrun on this node: a folder or a process."""
    error_file = environ.get("TORCHELASTIC_ERROR_FILE", "")  # <folder>/attempt_0/<rank>/error.json
    folders = Path(error_file).parents
    return _quoted(folders[2].name) if len(folders) > 3 else _parent()


def _parent() -> str:
    parent = os.getppid()
    try:
        started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):  # not Linux: the number alone must do
        started = ""
    return _quoted(f"{socket.gethostname()}-{parent}-{started}")


def _slurm(environ: Mapping[str, str]) -> Launch | None:
    """Return what `srun` says of a job step; None for an interactive shell."""
    job, step = environ.get("SLURM_JOB_ID", ""), environ.get("SLURM_STEP_ID", "")
    if not job or not step.isdecimal() or int(step) >= _FIRST_SPECIAL_STEP:
        return None
    if any(name.startswith("SLURM_PTY_") for name in environ):
        return None
    return Launch(_quoted(f"slurm-{job}.{step}"), environ.get("SLURM_RESTART_COUNT", "0"))


def _quoted(text: str) -> str:
    """Return a part of a key: printable, without a slash, and of a bounded length."""
    quoted = quote(text, safe="")
    if len(quoted) <= _LONGEST:
        return quoted
    return f"{quoted[: _LONGEST - _DIGITS]}{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"
