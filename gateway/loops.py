"""Running steps for ever, in a dumb loop around each `step() -> int` that waits out outages it can name; and ending."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import structlog

from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.redis.credits import CreditsError
from gateway.adapters.redis.link import RedisUnavailable
from gateway.adapters.redis.outbox import OutboxUnavailable

log = structlog.get_logger(__name__)

# What time mends. Anything else is a bug or a broken store, and ends the process: its supervisor starts it again.
OUTAGES = (RedisUnavailable, LedgerUnavailable, OutboxUnavailable, CreditsError)


async def every(interval_s: float, name: str, step: Callable[[], Awaitable[int]]) -> None:
    """Run `step` until cancelled, `interval_s` apart; at once again while it finds work. An outage is logged once."""
    was_away = False
    while True:
        try:
            did = await step()
        except OUTAGES as error:
            did = 0
            if not was_away:
                log.warning("step waits for a store", step=name, error=str(error))
            was_away = True
        else:
            was_away = False
        if not did:
            await asyncio.sleep(interval_s)


async def end(loops: Collection[asyncio.Task[Any]], *, again_s: float = 1.0) -> None:
    """Cancel these tasks until they have ended; what they raised is left to the caller.

    Once is not enough: `asyncio.wait_for` of Python 3.11, through which redis-py sends, loses a cancellation that comes
    in the very tick in which what it waits for is done. https://github.com/python/cpython/issues/86296
    """
    while running := [task for task in loops if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=again_s)
