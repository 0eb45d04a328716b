"""Programs of users, which pass a strict type check; `make check` checks them with all sources."""

import asyncio
import contextlib
from typing import Any, assert_type

from torch.optim import Optimizer

from pacesetter import AsyncClient, Client, SessionInfo
from pacesetter.torch import RemoteLR


def train(client: Client, optimizer: Optimizer) -> None:
    """Train by rates that are floats, and close a feed."""
    scheduler = RemoteLR(optimizer, client.session("run", base_lr=0.1))
    assert_type(scheduler.base_lrs, list[float])
    assert_type(scheduler.get_last_lr(), list[float])
    with contextlib.closing(client.events("run", follow=True)) as events:
        assert_type(next(events), dict[str, Any])


async def operate(client: AsyncClient) -> None:
    """Make a task of a call, and close a feed."""
    task = asyncio.create_task(client.get("run"))
    assert_type(await task, SessionInfo)
    async with contextlib.aclosing(client.events("run", follow=True)) as events:
        async for event in events:
            assert_type(event, dict[str, Any])


def order(client: AsyncClient) -> None:
    """Run one call to its end."""
    asyncio.run(client.scale("run", 0.5, reason="the loss rises"))
