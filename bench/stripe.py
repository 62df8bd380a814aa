"""`python -m bench.stripe`: how fast a purchase begins, its credit can be spent, and a webhook is acknowledged.

A whole Tollgate sells through the simulated Stripe, over the official SDK; webhooks come on a fixed schedule, and a
latency counts from the scheduled instant.
"""

import asyncio
import itertools
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import msgspec
import stripe
import typer
from rich.console import Console

from bench.machine import commit, this_machine
from bench.processes import BenchError, Children
from bench.tollgate import READY_TIMEOUT_S, Ready, first_line
from gateway.adapters.postgres.stripe_inbox import StripeInbox
from gateway.app.stores import Stores, open_stores
from gateway.config import load
from gateway.logs import configure_logs
from gateway.supervisor import SANDBOX_STRIPE

BUYERS, AT_ONCE = 20, 4
WEBHOOKS_PER_S = 50
POLL_S = 0.005
SPENDABLE_S_MAX = 30.0
HANDLED_S_MAX = 120.0
OUT = Path(__file__).parent / "out" / "stripe"
ENVIRONMENT = {  # all buyers are at one address
    "TOLLGATE_PURCHASES__PER_ADDRESS_HOUR_MAX": "1000000",
    "TOLLGATE_EDGE__GUARDED_PER_MINUTE_MAX": "1000000",
}
SECRET = SANDBOX_STRIPE["STRIPE_WEBHOOK_SECRETS"]


class Buyer(NamedTuple):
    account_id: str
    key: str


class Bar(NamedTuple):
    label: str
    share: float
    bound_ms: float


class Shop:
    """What is measured of a Tollgate at `url`; every list holds seconds."""

    def __init__(self, url: str, stores: Stores, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._stores = stores
        self._session = session
        self.began_s: list[float] = []
        self.spendable_s: list[float] = []
        self.acknowledged_s: list[float] = []

    async def new_buyer(self, name: str) -> Buyer:
        account = await self._stores.accounts.create(name)
        key, _ = await self._stores.keys.issue(account.id)
        await self._stores.recovery.load_account(account.id)
        return Buyer(account.id, key)

    async def buy(self, buyer: Buyer, number: int) -> None:
        headers = {"Authorization": f"Bearer {buyer.key}", "Idempotency-Key": str(number)}
        began_at = time.monotonic()
        body = {"package": "starter"}
        async with self._session.post(f"{self._url}/api/purchases", json=body, headers=headers) as answer:
            told = await answer.json()
            self.began_s.append(time.monotonic() - began_at)
        if answer.status != 201:
            raise BenchError(f"a purchase was answered {answer.status}: {told}")
        before = await self._available(buyer)
        page = urlsplit(told["checkout_url"])
        order = f"{page.scheme}://{page.netloc}/_sandbox/checkout_sessions/{page.path.rpartition('/')[2]}/pay"
        paid_at = time.monotonic()
        async with self._session.post(order, json={}) as answer:
            answer.raise_for_status()
        while await self._available(buyer) == before:
            if time.monotonic() - paid_at > SPENDABLE_S_MAX:
                raise BenchError(f"a payment brought no credit within {SPENDABLE_S_MAX:.0f} s")
            await asyncio.sleep(POLL_S)
        self.spendable_s.append(time.monotonic() - paid_at)

    async def _available(self, buyer: Buyer) -> int:
        balance = await self._stores.credits.balance(buyer.account_id)
        if balance is None:
            raise BenchError("an account is not in Redis any more")
        return balance.available

    async def send_webhooks(self, payments: Sequence[str], count: int) -> None:
        """On schedule, whether the answers come or not; each makes the workers read a payment again."""
        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, payment in zip(range(count), itertools.cycle(payments), strict=False):
                due_at = start + number / WEBHOOKS_PER_S
                await asyncio.sleep(max(due_at - time.monotonic(), 0.0))
                group.create_task(self._send_webhook(f"evt_bench{number}", payment, due_at))

    async def _send_webhook(self, event_id: str, payment: str, due_at: float) -> None:
        about = {"id": f"ch_{event_id}", "object": "charge", "payment_intent": payment}
        event = {"id": event_id, "type": "charge.updated", "created": int(time.time()), "livemode": False}
        body = msgspec.json.encode(event | {"data": {"object": about}})
        signature: str = stripe.WebhookSignature.generate_signature_header(body.decode(), SECRET, int(time.time()))
        headers = {"Stripe-Signature": signature, "Content-Type": "application/json"}
        async with self._session.post(f"{self._url}/webhooks/stripe", data=body, headers=headers) as answer:
            await answer.read()
            self.acknowledged_s.append(time.monotonic() - due_at)
        if answer.status != 200:
            raise BenchError(f"a webhook was answered {answer.status}")

    async def payments(self) -> list[str]:
        rows = await self._stores.pool.fetch("SELECT payment_intent_id FROM purchase WHERE state = 'paid'")
        return [row["payment_intent_id"] for row in rows]

    async def all_handled(self) -> None:
        """Wait until every event is processed."""
        give_up_at = time.monotonic() + HANDLED_S_MAX
        inbox = StripeInbox(self._stores.pool)
        while left := (await inbox.counts())[0]:
            if "dead" in left:
                raise BenchError(f"{left['dead']} of Stripe's events were given up: tollgate stripe events list")
            if time.monotonic() > give_up_at:
                raise BenchError(f"Stripe's events are not all handled within {HANDLED_S_MAX:.0f} s: {left}")
            await asyncio.sleep(0.1)


async def measure(ready: Ready, purchases: int, webhooks: int) -> Shop:
    config = load(None, database_url=ready.database_url, redis_url=ready.redis_url)
    async with open_stores(config) as stores, aiohttp.ClientSession() as session:
        shop = Shop(ready.base_url.removesuffix("/v1"), stores, session)
        buyers = [await shop.new_buyer(f"buyer {number}") for number in range(BUYERS)]
        turns = [(buyers[number % BUYERS], number) for number in range(purchases)]
        await _each(turns, lambda turn: shop.buy(*turn))
        await shop.send_webhooks(await shop.payments(), webhooks)
        await shop.all_handled()
        return shop


async def _each(turns: Sequence[tuple[Buyer, int]], act: Callable[[tuple[Buyer, int]], Awaitable[None]]) -> None:
    """`AT_ONCE` of them; those of one buyer one after the other, as the turns are dealt."""

    async def serve(mine: Sequence[tuple[Buyer, int]]) -> None:
        for turn in mine:
            await act(turn)

    async with asyncio.TaskGroup() as group:
        for lane in range(AT_ONCE):
            group.create_task(serve(turns[lane::AT_ONCE]))


def quantile_ms(values_s: Sequence[float], share: float) -> float:
    return sorted(values_s)[min(int(len(values_s) * share), len(values_s) - 1)] * 1000


def main(
    purchases: Annotated[int, typer.Option(min=1, help="How many are bought and paid; 20 an hour and buyer.")] = 200,
    seconds: Annotated[int, typer.Option(min=1, help="How long webhooks are sent.")] = 20,
    strict: Annotated[bool, typer.Option(help="Exit 1 when a bar is not met.")] = False,
) -> None:
    """Measure purchases, credit and webhooks against the bars."""
    configure_logs("error", "console")
    shutil.rmtree(OUT, ignore_errors=True)
    with Children(OUT) as children:
        command = [sys.executable, "-m", "gateway", "up", "--json", "--data", str(OUT / "data")]
        command += ["--upstream", "sandbox", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"]
        child = children.start("tollgate", command, env=ENVIRONMENT, pipes=True)
        assert child.stdout is not None
        line = first_line(child.stdout, READY_TIMEOUT_S)
        if not line:
            raise BenchError(f"tollgate did not get ready: see {children.log_of('tollgate')}")
        shop = asyncio.run(measure(msgspec.json.decode(line, type=Ready), purchases, seconds * WEBHOOKS_PER_S))
    bars = [
        (shop.acknowledged_s, Bar(f"webhook acknowledged, {WEBHOOKS_PER_S} events/s, p95", 0.95, 100)),
        (shop.spendable_s, Bar("payment to spendable credit, median", 0.5, 2_000)),
        (shop.spendable_s, Bar("payment to spendable credit, p99", 0.99, 10_000)),
        (shop.began_s, Bar("purchase call over the SDK, p95", 0.95, 800)),
    ]
    console, are_met = Console(), True
    machine = this_machine()
    console.print(
        f"{machine.cpu}, {machine.cores} cores, {machine.busy_percent:.0f} % busy; {commit()}", highlight=False
    )
    for values_s, bar in bars:
        value_ms = quantile_ms(values_s, bar.share)
        is_met = value_ms < bar.bound_ms
        are_met = are_met and is_met
        verdict = "met" if is_met else "NOT MET"
        measured = f"{bar.label:42}{value_ms:8.1f} ms  < {bar.bound_ms:5.0f} ms  {verdict}"
        console.print(f"{measured:70} of {len(values_s)}", highlight=False)
    if strict and not are_met:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
