"""The catalogue of controllers."""

from typing import Any

from fastapi import APIRouter

from pacesetter_service.catalogue import kinds as catalogue

router = APIRouter(prefix="/v1/controllers", tags=["controllers"])


@router.get("")
async def list_controllers() -> dict[str, Any]:
    """List every controller kind with its rule, parameters, source and an example."""
    return {
        "controllers": [catalogue.describe_controller(kind) for kind in catalogue.controllers()]
    }


@router.get("/{kind}")
async def read_controller(kind: str) -> dict[str, Any]:
    """Describe one controller kind."""
    return catalogue.describe_controller(kind)
