"""Whether the service is alive and ready, and which versions it runs."""

import platform
import sqlite3
from typing import Any

from fastapi import APIRouter

from pacesetter_service import __version__
from pacesetter_service.api.context import Service
from pacesetter_service.runtime.queries.health import check_ready

router = APIRouter(tags=["health"])


@router.get("/livez")
async def is_alive() -> dict[str, str]:
    """Answer while the process can answer anything."""
    return {"status": "alive"}


@router.get("/readyz")
async def is_ready(service: Service) -> dict[str, str]:
    """Answer 200 if the database answers and the writer makes progress, 503 otherwise."""
    await check_ready(service)
    return {"status": "ready"}


@router.get("/version")
async def read_version() -> dict[str, Any]:
    """Return the versions of the running software."""
    return {
        "version": __version__,
        "api": "v1",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
