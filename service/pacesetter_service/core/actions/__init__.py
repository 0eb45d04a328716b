"""Actions: the changes that an operator can order to a running session."""

from pacesetter_service.core.actions.base import Action, AnyAction, Order, Plan
from pacesetter_service.core.actions.clock import Hold, Release, Retime
from pacesetter_service.core.actions.level import Cooldown, Rewarm, Scale, Set
from pacesetter_service.core.actions.limit import Limit
from pacesetter_service.core.actions.plan import Replace, Revert
from pacesetter_service.core.actions.stage import Switch

__all__ = [
    "Action",
    "AnyAction",
    "Cooldown",
    "Hold",
    "Limit",
    "Order",
    "Plan",
    "Release",
    "Replace",
    "Retime",
    "Revert",
    "Rewarm",
    "Scale",
    "Set",
    "Switch",
]
