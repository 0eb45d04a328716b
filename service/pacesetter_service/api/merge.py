"""Which checkpoints to merge instead of a decay, and with which weights."""

from typing import Annotated

from fastapi import APIRouter, Query

from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.insight.merging import Shape
from pacesetter_service.runtime.queries.merge import MergeAnswer
from pacesetter_service.runtime.queries.merge import read_merge as read

router = APIRouter(prefix="/v1/sessions/{name}", tags=["values"])

Step = Annotated[int, Query(ge=0, le=MAX_STEP)]


@router.get("/merge")
async def read_merge(
    name: SessionName,
    service: Service,
    checkpoint: Annotated[
        list[Step],
        Query(
            min_length=2,
            max_length=1000,
            description="the step of a checkpoint, of the weights before that step's update;"
            " repeated",
        ),
    ],
    shape: Annotated[Shape, Query(description="the shape of the decay")] = "1-sqrt",
    floor: Annotated[
        float, Query(ge=0, lt=1, description="what it comes down to, as a part of the rate")
    ] = 0.0,
    over: Annotated[
        int | None,
        Query(ge=1, le=MAX_STEP, description="the steps of the decay; all that are constant"),
    ] = None,
) -> MergeAnswer:
    """Return which checkpoints of a constant rate to average instead of a decay, and the weights.

    Nothing has to be trained for this, and the training goes on as it is. The merge is the sum of
    the updates between the checkpoints, each times its `share`: as if the rate had decayed in that
    `shape` over the same steps, provided that the gradients had been the same. Checkpoints from
    before the rate was constant, or from more than `over` steps before the last, are left out.

    `stands_for` is the order that the merge replaces: with it the decay can be trained instead.
    """
    return await read(service, name, checkpoint, shape, floor, over)
