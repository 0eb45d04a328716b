"""Whether the service lives, is ready, and what it is."""

import platform
import sqlite3
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from pacesetter_service import __version__
from pacesetter_service.api.context import Service

router = APIRouter(tags=["health"])


@router.get("/livez")
async def is_alive() -> dict[str, str]:
    """Answer while the process can answer anything."""
    return {"status": "alive"}


@router.get("/readyz")
async def is_ready(service: Service) -> dict[str, str]:
    """Answer 200 when the database answers and the writer lives, 503 otherwise."""
    await run_in_threadpool(service.store.check)
    service.ledger.check()
    return {"status": "ready"}


@router.get("/version")
async def read_version() -> dict[str, Any]:
    """Name the versions of what is running."""
    return {
        "version": __version__,
        "api": "v1",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
