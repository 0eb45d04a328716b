"""What the writer has done since it started; counted on its thread, readable from any."""

from collections import Counter
from collections.abc import Iterable

from pacesetter_service.core.events import Logged
from pacesetter_service.runtime.histogram import Histogram
from pacesetter_service.store.port import Changes

COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_JOBS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Tally:
    """Commits, and why some failed.

    Attributes:
        commit_seconds: How long successful transactions took.
        batch_jobs: How many jobs were decided together.
        conflicts: How often another writer came first.
        retries: How often a batch was decided again because of that.
        failures: How many transactions the database did not accept.
        refused: How many jobs found the queue full.
        alarms: What became of the alarms for the webhook.
        events: How many events were logged, by kind.
    """

    def __init__(self) -> None:
        self.commit_seconds = Histogram(COMMIT_SECONDS)
        self.batch_jobs = Histogram(BATCH_JOBS)
        self.conflicts = 0
        self.retries = 0
        self.failures = 0
        self.refused = 0
        self.alarms = {"delivered": 0, "failed": 0, "dropped": 0}
        self.events: Counter[str] = Counter(dict.fromkeys(Logged.kinds, 0))

    def log(self, batch: Iterable[Changes]) -> None:
        """Count the events of committed changes."""
        for changes in batch:
            for event in changes.log:
                self.events[event.kind] += 1
