"""Actions: changing a running session."""

from typing import Annotated

from fastapi import APIRouter, Body
from pydantic import BaseModel

from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.core.actions import AnyAction
from pacesetter_service.core.commands import Act
from pacesetter_service.ledger import Change

router = APIRouter(prefix="/v1/sessions/{name}/actions", tags=["actions"])


class ActionAnswer(BaseModel):
    """From which step on an action holds, and the revision that it made."""

    effective_step: int
    revision: int


@router.post("", status_code=201)
async def take_action(
    name: SessionName, action: Annotated[AnyAction, Body()], service: Service
) -> ActionAnswer:
    """Change the learning rate of a running session.

    It holds from the first step that has not been handed out yet; the answer names it. Repeating
    the call repeats the action.
    """
    outcome = await service.ledger.submit(Change(name, (Act(action),)))
    session = outcome.entry.stored.session
    return ActionAnswer(effective_step=session.horizon, revision=session.revision)
