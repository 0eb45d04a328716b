"""Starting threads that the system may refuse, as at the limit of its processes."""

import threading

import structlog

from pacesetter_service.complaints import Complaints

log = structlog.get_logger("pacesetter")

refusals = Complaints(lambda **details: log.error("no_thread", **details))
"""Complaints about threads that could not be started: any caller may need one."""

ADVICE = (
    "raise the limit of processes and threads of the service's user or container (ulimit -u,"
    " pids.max), or give the machine more memory"
)


def started(thread: threading.Thread) -> bool:
    """Start a thread, and return whether the system allowed it; log if it did not.

    Record a thread only after this: one that never ran can be neither waited for nor joined.
    """
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        refusals.tell("thread", name=thread.name, reason=str(error), advice=ADVICE)
        return False
    return True
