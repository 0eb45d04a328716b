"""Memory of the process: garbage is collected rarely, and threads share free memory."""

import ctypes
import gc

SELDOM = (5_000, 10, 10)
"""Thresholds of the garbage collector's generations; the first counts new containers.

Each call makes a few hundred containers and leaves hardly any cycles. With Python's own limit of
700, or 2,000, the collector runs every few calls, and takes a tenth of the service's time.
"""

ARENAS = 2
"""How many arenas `malloc` has: pools from which threads allocate memory.

By default the GNU C library makes up to eight for each core, one for each new thread. Threads
cannot use what is free in another arena, so a dozen threads that answer now and then keep forty
megabytes. Python runs one thread at a time, and hardly needs more than one arena.
"""

_M_ARENA_MAX = -8
"""The number of that option in `malloc.h`."""


def share_arenas() -> None:
    """Limit the arenas of `malloc` to `ARENAS`; must be called before any thread starts.

    Other C libraries than GNU's have no such option: nothing is done.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_ARENA_MAX, ARENAS)


def collect_seldom() -> None:
    """Exempt all objects made so far from garbage collection, and collect rarely.

    A full collection walks the whole heap of the frameworks while all callers wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)
