"""Running steps for ever: a dumb loop around each `step() -> int`, which waits out the outages it can name."""

import asyncio
from collections.abc import Awaitable, Callable

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
