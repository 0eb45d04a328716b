"""Changes that tests write into a store, as the writer would."""

from pacesetter_service.store.port import Changes, Store

NOW = "2026-01-01T00:00:00.000+00:00"


def write(store: Store, *batch: Changes) -> None:
    """Write changes in one transaction."""
    with store.begin() as transaction:
        transaction.append(batch, NOW)
