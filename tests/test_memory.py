"""The memory of the process: threads reuse what others have freed."""

import platform
import subprocess
import sys

import pytest

from pacesetter_service.memory import ARENAS

USED = """
import re, sys, threading
from pacesetter_service.memory import share_arenas

if sys.argv[1] == "shared":
    share_arenas()
waiting, ended = threading.Barrier(9), threading.Event()

def use():
    kept = [bytearray(50_000) for _ in range(20)]
    waiting.wait()
    ended.wait()

threads = [threading.Thread(target=use) for _ in range(8)]
for each in threads:
    each.start()
waiting.wait()
# Each place of a thread's own begins at a multiple of 64 MiB.
with open("/proc/self/maps") as maps:
    starts = [int(line.partition("-")[0], 16) for line in maps if re.search(r" rw-p .* 0 *$", line)]
print(sum(start % 2**26 == 0 for start in starts))
ended.set()
"""


def arenas(how: str) -> int:
    """Return how many arenas eight threads use."""
    done = subprocess.run(
        [sys.executable, "-c", USED, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no arenas")
def test_threads_share_a_few_places_in_memory() -> None:
    """So a service with many threads takes no more memory than one with a few."""
    assert arenas("shared") < ARENAS < arenas("apart")
