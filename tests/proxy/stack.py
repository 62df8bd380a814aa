"""The data plane and its workers in this process, on real stores: what `up` runs, with its parts at hand.

The gateway's loops run as they do in service; the workers are stepped, so that a test says when something is posted.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from openai import AsyncOpenAI

from gateway.adapters.journal import Journal
from gateway.adapters.postgres.audit import run_audit
from gateway.app.cards import load_cards
from gateway.app.gateway import Gateway
from gateway.app.sources import new_request_id, now_ms
from gateway.app.stores import Stores, open_stores
from gateway.app.workers import Workers
from gateway.config import Config, load
from gateway.core.calls.usage import Usage
from gateway.core.holds import Balance
from gateway.core.money import UCR_PER_CREDIT
from gateway.core.pricing.schedule import Schedule
from gateway.core.shards import SHARD_KEYS
from gateway.loops import end
from tests.patience import PATIENCE_S
from tests.sdk import without_tls

UPSTREAM_KEY = "sk-upstream-0123456789abcdefghijklmnopqrstuvwxyz"
CREDITS = 100_000


class Line(NamedTuple):
    """One line of `call_usage`."""

    request_id: str
    phase: str
    outcome: str
    flags: str  # joined by commas
    usage: Usage
    held: int
    cost: int
    charged: int
    model: str
    rate_key: str
    status: int


class Account(NamedTuple):
    id: str
    key: str


class Stack:
    def __init__(self, config: Config, stores: Stores, cards: Schedule) -> None:
        self.config = config
        self.stores = stores
        self.cards = cards
        self.card = cards.at(now_ms())
        self.workers = Workers(config, stores)
        self.address = ("", 0)
        self.account = Account("", "")
        self._gateway: Gateway | None = None

    @property
    def gateway(self) -> Gateway:
        assert self._gateway is not None, "no gateway is running"
        return self._gateway

    @property
    def key(self) -> str:
        return self.account.key

    def client(self, key: str = "") -> AsyncOpenAI:
        """The official SDK, which retries nothing here."""
        base_url = f"http://{self.address[0]}:{self.address[1]}/v1"
        return AsyncOpenAI(
            base_url=base_url, api_key=key or self.key, max_retries=0, timeout=PATIENCE_S, http_client=without_tls()
        )

    @asynccontextmanager
    async def running_gateway(self, *, with_loops: bool = True) -> AsyncIterator[Gateway]:
        """A gateway that lives as long as the block, on the journals that are there; then stopped as by SIGTERM.

        One without loops is as good as dead to whoever waits for its leases, though its calls go on.
        """
        folder = Path(self.config.spool_dir)
        folder.mkdir(exist_ok=True)
        journal = Journal(folder / f"{new_request_id()}.journal", bytes_max=self.config.settlement.journal_bytes_max)
        gateway = self._gateway = Gateway(self.config, self.stores, self.cards, journal, journal.adopt_all())
        host, _, port = (await gateway.start("127.0.0.1", 0)).rpartition(":")
        self.address = (host, int(port))
        loops = [asyncio.create_task(loop) for loop in (gateway.loops() if with_loops else ())]
        try:
            yield gateway
        finally:
            await gateway.stop()
            await end(loops)
            await journal.close()
            assert [loop for loop in loops if not loop.cancelled()] == []

    # --- accounts ------------------------------------------------------------------------------------------------

    async def new_account(self, name: str, credits: int | None = None, *, ucr: int | None = None) -> Account:
        """An account with credit that Redis knows of, and a key."""
        accounts = self.stores.accounts
        account = await accounts.create(name)
        amount = ucr if ucr is not None else (CREDITS if credits is None else credits) * UCR_PER_CREDIT
        if amount:
            await accounts.grant(account.id, amount, "test")
        await self.stores.crediter.step()
        secret, _ = await self.stores.keys.issue(account.id)
        return Account(account.id, secret)

    async def set_policy(self, account: Account, on_disconnect: str) -> None:
        await self.stores.pool.execute(
            "UPDATE account SET on_disconnect = $2 WHERE id = $1::text::uuid", account.id, on_disconnect
        )

    async def balance(self, account: Account | None = None) -> Balance:
        """What admission sees."""
        found = await self.stores.credits.balance((account or self.account).id)
        assert found is not None, "the account is not loaded"
        return found

    # --- settling ------------------------------------------------------------------------------------------------

    async def quiet(self) -> None:
        """Wait until no call runs any more."""
        await until(lambda: self.gateway.server.running == 0)

    async def post(self) -> None:
        """Post all that is in the outbox; the poster itself waits out an outage."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.workers.poster.step() or await self._unposted():
                pass

    async def _unposted(self) -> int:
        link = self.stores.link
        return sum(await asyncio.gather(*(link.command(b"XLEN", keys.outbox) for keys in SHARD_KEYS)))

    async def lines(self) -> list[Line]:
        """Every ledger line of a call, once nothing runs and all is posted; in the order of the calls."""
        await self.quiet()
        await self.post()
        rows = await self.stores.pool.fetch(
            "SELECT request_id::text AS request_id, phase, outcome, flags, usage, held, cost, charged, model, rate_key,"
            " status FROM call_usage ORDER BY request_id, recorded_at"
        )
        decode = msgspec.json.Decoder(Usage).decode
        return [Line(**(dict(row) | {"usage": decode(row["usage"]), "flags": ",".join(row["flags"])})) for row in rows]

    async def line(self) -> Line:
        (only,) = await self.lines()
        return only

    async def complaints(self) -> list[str]:
        """What the audit finds wrong, once nothing runs and all is posted."""
        await self.quiet()
        await self.stores.crediter.step()
        await self.post()
        findings = await run_audit(self.stores.pool, self.stores.link)
        return [f"{finding.name}: {finding.examples}" for finding in findings if not finding.holds]

    async def held(self) -> int:
        """What all accounts hold in Redis."""
        total = 0
        for row in await self.stores.pool.fetch("SELECT id::text FROM account"):
            balance = await self.stores.credits.balance(row["id"])
            total += balance.held if balance is not None else 0
        return total


async def until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait for what no event tells of."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.002)


SECTIONS: dict[str, dict[str, Any]] = {
    # Long enough for a busy machine; tests of an absent Redis say their own.
    "redis": {"command_timeout_ms": 3000, "reconnect_backoff_ms_max": 50},
    "holds": {"rebuild_grace_ms": 100},
    # No cap but those that a test sets.
    "caps": {"policies": "none", "poll_ms": 100},
    "edge": {
        "failed_keys_per_minute_max": 100_000,
        "guarded_per_minute_max": 100_000,
        "drain_s": 1,
        "head_timeout_ms": 5000,
        "body_idle_timeout_ms": 5000,
    },
    "upstream": {"connect_timeout_ms": 5000, "head_timeout_ms": 5000, "body_idle_timeout_ms": 5000},
    "disconnect": {"drain_s": 5},
    "settlement": {"position_poll_ms": 50, "replay_ms": 50},
    "poster": {"batch_ms": 0, "ack_ms": 0, "block_ms": 5},
}


Running = Callable[..., AbstractAsyncContextManager[Stack]]


@asynccontextmanager
async def open_stack(
    database_url: str, redis_url: str, upstream_url: str, spool: Path, **sections: Any
) -> AsyncIterator[Stack]:
    """Stores, workers and one account; a gateway is started by `running_gateway`."""
    merged = sections | {name: given | sections.get(name, {}) for name, given in SECTIONS.items()}
    config = load(
        None,
        database_url=database_url,
        redis_url=redis_url,
        upstream_url=upstream_url,
        OPENAI_API_KEY=UPSTREAM_KEY,
        spool_dir=str(spool),
        **merged,
    )
    cards = load_cards(config, now_ms())
    async with open_stores(config) as stores:
        for card, text in cards.files:
            await stores.accounts.record_card(card, text)
        stack = Stack(config, stores, cards.schedule)
        await stack.workers.rebuilder.step()
        stack.account = await stack.new_account("main")
        try:
            yield stack
        finally:
            await stack.workers.poster.close()
            await stack.workers.close()
