"""A shop for tests: the stack before a simulated Stripe that sends its webhooks to it, and customers who pay or not."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from gateway.adapters.postgres.audit_log import Signature
from gateway.app.stripe import StripeParts
from gateway.sandbox.openai import SimulatedOpenAI
from gateway.sandbox.stripe import SandboxStripeSettings, SimulatedStripe
from tests.patience import PATIENCE_S
from tests.proxy.stack import Account, Running, Stack, open_stack
from tests.sandbox.stripe.parties import KEY, SECRET

SIGNED = Signature("ann", "asked for")


class Shop:
    def __init__(self, stack: Stack, simulated: SimulatedStripe, browser: aiohttp.ClientSession) -> None:
        self.stack = stack
        self.simulated = simulated
        self.browser = browser
        self.url = f"http://{stack.address[0]}:{stack.address[1]}"
        self.parts = StripeParts(stack.config, stack.stores)
        self.account = stack.account

    async def ask(
        self, method: str, path: str, body: Any = None, *, account: Account | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON of the control plane's answer; `_` stands for "-" in a header's name."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Authorization"] = f"Bearer {(account or self.account).key}"
        async with self.browser.request(method, f"{self.url}{path}", json=body, headers=named) as answer:
            return answer.status, await answer.json()

    async def buy(self, package: str = "starter", *, key: str = "one", account: Account | None = None) -> Any:
        """Begin a purchase, as its customer is told of it."""
        status, told = await self.ask(
            "POST", "/api/purchases", {"package": package}, account=account, Idempotency_Key=key
        )
        assert status == 201, told
        return told

    async def bought(self, package: str = "starter", *, key: str = "one", account: Account | None = None) -> str:
        """A purchase that is paid and in the books; returns its id."""
        told = await self.buy(package, key=key, account=account)
        self.pay(told)
        await self.settle()
        return str(told["id"])

    def pay(self, told: Any, **how: Any) -> None:
        self.simulated.order("checkout_sessions/pay", told["checkoutUrl"].rpartition("/")[2], **how)

    async def settle(self) -> None:
        """Let every webhook arrive, be handled, and the credit reach Redis."""
        self.simulated.deliver_now()
        async with asyncio.timeout(PATIENCE_S):
            await self.simulated.idle()
        await self.handle()

    async def handle(self) -> None:
        while await self.parts.events.step():
            pass
        await self.stack.stores.crediter.step()

    async def charge_of(self, purchase_id: str) -> str:
        async with self.browser.get(
            f"{self.simulated.url}/v1/payment_intents/{await self.intent_of(purchase_id)}",
            headers={"Authorization": f"Bearer {KEY}"},
        ) as answer:
            return str((await answer.json())["latest_charge"])

    async def intent_of(self, purchase_id: str) -> str:
        bought = await self.parts.purchases.find(purchase_id)
        assert bought is not None
        return bought.payment_intent_id

    async def available(self, account: Account | None = None) -> int:
        """Credits that can be spent now, in µcr."""
        return (await self.stack.balance(account or self.account)).available

    async def kinds(self, account: Account | None = None) -> list[str]:
        """The kinds of an account's ledger lines, oldest first."""
        lines = await self.stack.stores.accounts.lines((account or self.account).id, 100)
        return [line.kind for line in reversed(lines)]

    async def system(self) -> dict[str, int]:
        """What the system's buckets hold."""
        rows = await self.stack.stores.pool.fetch(
            "SELECT bucket, sum(amount)::bigint AS amount FROM balance"
            " WHERE account_id = '00000000-0000-0000-0000-000000000000' GROUP BY 1 HAVING sum(amount) <> 0"
        )
        return {row["bucket"]: row["amount"] for row in rows}

    async def states(self) -> dict[str, int]:
        rows = await self.stack.stores.pool.fetch("SELECT state, count(*) FROM stripe_event GROUP BY 1")
        return {row["state"]: row["count"] for row in rows}


def unaudited(database_url: str, redis_url: str, spool: Path) -> Running:
    """As the fixture `running`, for tests that make the books wrong."""

    @asynccontextmanager
    async def running(upstream_url: str, **sections: Any) -> AsyncIterator[Stack]:
        opened = open_stack(database_url, redis_url, upstream_url, spool, **sections)
        async with opened as stack, stack.running_gateway():
            yield stack

    return running


@asynccontextmanager
async def open_shop(
    running: Running,
    openai: SimulatedOpenAI,
    *,
    settings: SandboxStripeSettings | None = None,
    listens_to: Sequence[str] = ("*",),
    secrets: str = SECRET,
    **stripe: Any,
) -> AsyncIterator[Shop]:
    """`stripe` overrides its section of the configuration."""
    keys = {"STRIPE_SECRET_KEY": KEY, "STRIPE_WEBHOOK_SECRETS": secrets}
    chosen = settings or SandboxStripeSettings(seed=7, later_s=3600.0, delivery_retries_s=(0.02, 0.02))
    async with (
        SimulatedStripe(chosen) as simulated,
        running(openai.url, stripe={"api_url": simulated.url} | stripe, **keys) as stack,
        aiohttp.ClientSession() as browser,
    ):
        shop = Shop(stack, simulated, browser)
        url = f"{shop.url}/webhooks/stripe"
        simulated.order("webhook_endpoints/create", url=url, secret=SECRET, enabled_events=list(listens_to))
        try:
            yield shop
        finally:
            await shop.parts.close()
