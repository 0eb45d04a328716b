"""A disk and a clock that fail on request: a test's interface to `shim.c`."""

import functools
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

from serving import Process, RunningService, spawned

SOURCE = Path(__file__).with_name("shim.c")

FIELDS = ("clock", "slow", "bad_flush", "full", "bad_write", "bad_mark", "bad_read", "fired")


@functools.cache
def built() -> Path:
    """Compile it, once in a process; skip the test where there is no compiler, except on CI."""
    compiler = shutil.which("gcc")
    if compiler is None or os.uname().sysname != "Linux":
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no gcc on Linux: install it")
    library = Path(tempfile.mkdtemp(prefix="shim")) / "shim.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


class Shim:
    """Orders for the disk and the clock of one service, which takes effect immediately."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "shim"
        self._path.write_bytes(bytes(8 * len(FIELDS)))
        self.log = folder / "writes"
        with self._path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def start(self, environment: dict[str, str]) -> Process:
        """Start a service with this disk and clock."""
        mine = {"LD_PRELOAD": str(built()), "SHIM_CONTROL": str(self._path)}
        return spawned({**environment, **mine})

    def start_logged(self, environment: dict[str, str]) -> Process:
        """Start a service whose writes are logged as well."""
        return self.start({**environment, "SHIM_LOG": str(self.log)})

    def order(self, **orders: int) -> None:
        """Let something fail, from now on."""
        for name, number in orders.items():
            struct.pack_into("<q", self._memory, 8 * FIELDS.index(name), number)

    @property
    def fired(self) -> int:
        """How often something has failed."""
        return int(struct.unpack_from("<q", self._memory, 8 * FIELDS.index("fired"))[0])

    def service(self, database: Path, *, logged: bool = False) -> RunningService:
        """Return a service on this disk, which is yet to be started."""
        return RunningService(database, self.start_logged if logged else self.start)

    def close(self) -> None:
        """Release the memory of the orders."""
        self._memory.close()
