"""Sends webhooks: signed, several at a time, and again as the plan says. It is told when there is something new."""

import asyncio
import time
from typing import Self

import aiohttp

from gateway.sandbox.stripe.deliveries import Delivery, body_of, signature
from gateway.sandbox.stripe.objects import WebhookEndpoint
from gateway.sandbox.stripe.service import Stripe

_FORGED = "whsec_forged"


class Courier:
    """Delivers what `stripe` plans; an async context manager. Nothing is sent after it is left."""

    def __init__(self, stripe: Stripe) -> None:
        self._stripe = stripe
        self._woken = asyncio.Event()
        self._ended = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=self._stripe.settings.delivery_timeout_s)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        self._running = asyncio.create_task(self._run(), name="stripe courier")
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [self._running, *self._sending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    def wake(self) -> None:
        """Plan what has happened, and look at what is due."""
        self._stripe.plan_deliveries(time.monotonic())
        self._woken.set()

    async def idle(self) -> None:
        """Wait until every delivery has been acknowledged or given up."""
        while not self._stripe.deliveries.idle:
            self._ended.clear()
            await self._ended.wait()

    async def _run(self) -> None:
        deliveries = self._stripe.deliveries
        while True:
            self._woken.clear()
            free = self._stripe.settings.deliveries_at_once - len(self._sending)
            for delivery in deliveries.take_due(time.monotonic(), free):
                task = asyncio.create_task(self._deliver(delivery))
                self._sending.add(task)
                task.add_done_callback(self._sent)
            due_s = deliveries.next_due_s
            full = len(self._sending) >= self._stripe.settings.deliveries_at_once
            wait_s = None if due_s is None or full else max(0.0, due_s - time.monotonic())
            try:
                await asyncio.wait_for(self._woken.wait(), wait_s)
            except TimeoutError:
                continue

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled():
            task.result()
        self._woken.set()
        self._ended.set()

    async def _deliver(self, delivery: Delivery) -> None:
        started_s = time.monotonic()
        status = await self._post(delivery)
        now_s = time.monotonic()
        self._stripe.deliveries.answered(delivery, status, now_s, (now_s - started_s) * 1000)

    async def _post(self, delivery: Delivery) -> int | None:
        endpoint = self._stripe.world.find(delivery.endpoint_id)
        if not isinstance(endpoint, WebhookEndpoint):
            return None
        body = body_of(delivery.event, self._stripe.deliveries.pending(delivery.event.id))
        secrets = [_FORGED] if delivery.fate.forged else self._stripe.world.secrets[endpoint.id]
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(body, secrets, int(time.time())),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        try:
            async with self._session.post(endpoint.url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return None
