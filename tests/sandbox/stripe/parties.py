"""Who deals with Stripe in these tests: a seller with the SDK, and a webhook endpoint."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import stripe
from aiohttp import web

from tests.patience import PATIENCE_S

KEY = "sk_test_0123456789abcdef"
SECRET = "whsec_of_the_tests"


@asynccontextmanager
async def connected(url: str, key: str = KEY, retries: int = 0) -> AsyncIterator[stripe.StripeClient]:
    """The official SDK, connected to the simulated Stripe at `url`."""
    http = stripe.AIOHTTPClient()
    yield stripe.StripeClient(key, base_addresses={"api": url}, http_client=http, max_network_retries=retries)
    await http.close_async()


async def sell(client: stripe.StripeClient, amount: int = 500, **more: Any) -> stripe.checkout.Session:
    """A Checkout Session for one thing."""
    price: Any = {"currency": "usd", "unit_amount": amount, "product_data": {"name": "Starter"}}
    params: Any = {
        "mode": "payment",
        "success_url": "https://tollgate.example/done?session={CHECKOUT_SESSION_ID}",
        "line_items": [{"quantity": 1, "price_data": price}],
    }
    params.update(more)
    return await client.v1.checkout.sessions.create_async(params)


async def charge(client: stripe.StripeClient, alias: str, amount: int = 500, **more: Any) -> stripe.PaymentIntent:
    """Charge a test card at once."""
    params: Any = {"amount": amount, "currency": "usd", "payment_method": f"pm_{alias}", "confirm": True}
    params.update(more)
    return await client.v1.payment_intents.create_async(params)


async def types_of(client: stripe.StripeClient) -> list[str]:
    """The events so far, oldest first."""
    listed = await client.v1.events.list_async({"limit": 100})
    return [event.type for event in reversed(listed.data)]


class Receiver:
    """A webhook endpoint that verifies every delivery with the SDK; an async context manager.

    `answers` are the next statuses; then 200. `events` holds what was genuine, `forged` counts what was not.
    """

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.events: list[stripe.Event] = []
        self.secret = SECRET
        self.forged = 0
        self.url = ""
        self._arrived = asyncio.Condition()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/webhooks/stripe", self._receive)
        self._runner = web.AppRunner(app, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/webhooks/stripe"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        body, signature = await request.read(), request.headers["Stripe-Signature"]
        try:
            event = stripe.Webhook.construct_event(body, signature, self.secret)
        except stripe.SignatureVerificationError:
            self.forged += 1
            return web.Response(status=400)
        async with self._arrived:
            self.events.append(event)
            self._arrived.notify_all()
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    async def until(self, count: int) -> list[stripe.Event]:
        """Wait for that many genuine deliveries."""
        async with asyncio.timeout(PATIENCE_S), self._arrived:
            await self._arrived.wait_for(lambda: len(self.events) >= count)
        return self.events
