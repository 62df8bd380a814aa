"""A customer whose card may be charged, and what tests of the automatic recharge do with it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from stripe import StripeClient

from gateway.app.stripe import StripeParts
from gateway.core.money import UCR_PER_CREDIT
from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.stack import Running
from tests.shop import Shop, open_shop

THRESHOLD_CREDITS = 6_000  # a starter package is below it
ON = {"on": True, "thresholdCredits": THRESHOLD_CREDITS, "amountCents": 1000, "monthCentsMax": 3000}


@asynccontextmanager
async def buyer(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Shop]:
    """A shop whose only customer has bought a package, and had the card saved."""
    async with open_shop(running, openai) as shop:
        shop.account = await shop.stack.new_account("buyer", ucr=0)
        told = await buy(shop, save_card=True)
        assert await shop.available() == 5_000 * UCR_PER_CREDIT
        assert told["state"] == "open"
        yield shop


async def buy(shop: Shop, *, save_card: bool) -> Any:
    status, told = await shop.ask(
        "POST", "/api/purchases", {"package": "starter", "saveCard": save_card}, Idempotency_Key="first"
    )
    assert (status, told["saveCard"]) == (201, save_card)
    shop.pay(told)
    await shop.settle()
    return told


async def agree(shop: Shop, **changed: Any) -> None:
    status, told = await shop.ask("PUT", "/api/recharge", ON | changed)
    assert (status, told["on"]) == (200, True), told


async def use_card(shop: Shop, client: StripeClient, alias: str) -> None:
    """Have the customer's only card be this one."""
    customer = (await client.v1.customers.list_async()).data[0].id
    for method in (await client.v1.payment_methods.list_async({"customer": customer})).data:
        await client.v1.payment_methods.detach_async(method.id)
    await client.v1.payment_methods.attach_async(alias, {"customer": customer})
    await shop.settle()


async def recharge(shop: Shop, parts: StripeParts | None = None) -> None:
    recharger = (parts or shop.parts).recharger
    await recharger.step()
    await recharger.idle()
    await shop.settle()


async def charges(client: StripeClient) -> list[tuple[int, str]]:
    """What was charged beside the first purchase: cents and status, oldest first."""
    listed = (await client.v1.payment_intents.list_async({"limit": 100})).data
    return [(each.amount, each.status) for each in reversed(listed) if each.amount != 500]


async def age(shop: Shop) -> None:
    """Time passes for attempts whose outcome is unknown."""
    await shop.stack.stores.pool.execute("UPDATE recharge_attempt SET looked_at = now() - interval '5 minutes'")


async def shown(shop: Shop) -> Any:
    return (await shop.ask("GET", "/api/recharge"))[1]


async def remedies(shop: Shop) -> list[str]:
    """What accounts were told to do about a pause."""
    rows = await shop.stack.stores.pool.fetch("SELECT fields FROM notice WHERE kind = 'recharge_paused'")
    return [msgspec.json.decode(row["fields"])["remedy"] for row in rows]
