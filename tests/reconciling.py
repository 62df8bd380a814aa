"""A day to be reconciled, and what its owner alone could alter of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from gateway.sandbox.openai import SimulatedOpenAI
from tests.shop import Shop, open_shop, unaudited


@asynccontextmanager
async def sold_day(database_url: str, redis_url: str, spool: Path, openai: SimulatedOpenAI) -> AsyncIterator[Shop]:
    """A day on which credit was bought and calls were made; no rule is checked behind it."""
    async with open_shop(unaudited(database_url, redis_url, spool), openai) as shop:
        await shop.bought("starter", key="one")
        await shop.bought("professional", key="two")
        for _ in range(3):
            await call(shop)
        await shop.stack.lines()
        yield shop


async def call(shop: Shop, model: str = "gpt-4o") -> None:
    async with shop.stack.client() as client:
        await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hello there."}])


async def alter(database_url: str, sql: str, *arguments: str) -> None:
    """Only the owner of the tables can do it, and has to switch off what protects them."""
    owner = await asyncpg.connect(database_url)
    try:
        for table in ("call_usage", "shadow_entry"):
            await owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER keep_rows")
        await owner.execute(sql, *arguments)
    finally:
        await owner.close()
