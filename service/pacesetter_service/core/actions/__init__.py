"""Actions: what an operator orders of a running session."""

from pacesetter_service.core.actions import clock, level, limit, plan
from pacesetter_service.core.actions.base import Action, AnyAction, Order, Plan

__all__ = ["Action", "AnyAction", "Order", "Plan", "clock", "level", "limit", "plan"]
