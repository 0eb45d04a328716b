"""Turns of threads: a sync must not wait for long answers that other threads compute."""

import sys

TURN = 0.001
"""Seconds for which a thread may compute while another one waits for its turn.

Python runs one thread at a time. A sync changes threads a dozen times: from the event loop to the
writer, to the database and back. While some thread computes a long answer, each change costs the
sync one turn, and Python's own turns are five times as long. `python -m benchmarks --only readers`
measures the difference. Still shorter turns would help readers' neighbours a little more, but cost
more of the processor with each report.
"""


def take_short_turns() -> None:
    """Let threads of this process take turns every `TURN` seconds."""
    sys.setswitchinterval(TURN)
