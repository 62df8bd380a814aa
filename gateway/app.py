"""The composition root: a `Config` in, running services out. The only file that builds clients.

Time, randomness and ids enter the program here.
"""

import asyncio
import gc
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import structlog
import uvloop
from prometheus_client.core import Metric
from redis.asyncio import Redis

from gateway.adapters import schema
from gateway.adapters.accounts import Accounts
from gateway.adapters.callers import CallerDirectory
from gateway.adapters.credit_outbox import CreditOutbox
from gateway.adapters.credits import Credits
from gateway.adapters.database import LedgerUnavailable, Pool, open_pool
from gateway.adapters.journal import Journal, JournalFull
from gateway.adapters.ledger import Ledger
from gateway.adapters.outbox import Outbox
from gateway.adapters.recovery import Recovery
from gateway.adapters.redis_link import RedisLink
from gateway.adapters.scripts import Scripts
from gateway.adapters.tokens import Tokenizer
from gateway.config import Config, ConfigError, parse_listen, why
from gateway.core.errors import GatewayError
from gateway.core.holds import Balance, Settlement
from gateway.core.ids import uuid7
from gateway.core.rate_card import RateCardError, load_card
from gateway.core.rates import RateCard
from gateway.loops import every
from gateway.proxy.exchange import Exchange
from gateway.proxy.follow import ShardFollower
from gateway.proxy.http1.client import Pool as UpstreamPool
from gateway.proxy.http1.limits import Limits, Timeouts
from gateway.proxy.http1.server import Server
from gateway.proxy.leases import Leases
from gateway.proxy.relay import Disconnect, Relay
from gateway.proxy.settlements import Settlements
from gateway.proxy.tally import Tally
from gateway.resources import shipped
from gateway.web.metrics import counters, gauges, registry, tally_metrics
from gateway.web.ops import exposition, listen, ops_app
from gateway.workers.crediter import Crediter
from gateway.workers.poster import Poster
from gateway.workers.rebuilder import Rebuilder
from gateway.workers.sweeper import Sweeper

log = structlog.get_logger(__name__)

Announce = Callable[[dict[str, str]], None]

# How long a stopping worker may still post; the rest waits in the outbox for the next start.
FINAL_POST_S_MAX = 10.0
POOL_CLOSE_S_MAX = 5.0

# Container allocations, less deallocations, before the youngest generation is collected.
GC_ALLOCATIONS = 50_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class RequestIds:
    """Makes request ids; asks the system for randomness by the block, since each asking is a system call."""

    _BLOCK_IDS, _ID_BYTES = 400, 10

    def __init__(self) -> None:
        self._block = b""
        self._used = 0

    def __call__(self) -> str:
        if self._used == len(self._block):
            self._block = os.urandom(self._BLOCK_IDS * self._ID_BYTES)
            self._used = 0
        start = self._used
        self._used += self._ID_BYTES
        return uuid7(now_ms(), self._block[start : self._used])


def new_request_id() -> str:
    return uuid7(now_ms(), os.urandom(10))


def load_rate_card(config: Config) -> tuple[RateCard, str]:
    """The configured rate card and its text; raises `ConfigError`."""
    folder = shipped("config") / "rates"
    if config.rate_card == "latest":
        path = max(folder.glob("*.toml"), default=None)
        if path is None:
            raise ConfigError(f"rate_card: there is none in {folder}; make one with `tollgate rates build`")
    else:
        named = Path(config.rate_card)
        path = named if named.suffix == ".toml" and named.exists() else folder / f"{config.rate_card}.toml"
    try:
        text = path.read_text(encoding="utf-8")
        return load_card(text, path.stem), text
    except OSError as error:
        raise ConfigError(f"rate_card: {path}: {error.strerror}; name a file of config/rates or a path") from error
    except (RateCardError, UnicodeDecodeError) as error:
        raise ConfigError(f"rate_card: {error}") from error


class Stores:
    """Both databases, opened together; what commands, workers and gateways all build on."""

    def __init__(self, config: Config, pool: Pool, link: RedisLink, redis: Redis) -> None:
        self.pool = pool
        self.link = link
        self.credits = Credits(
            link,
            Scripts(shipped("lua")),
            lease_ms=config.holds.lease_ms,
            refusal_ttl_ms=config.holds.refusal_memory_ms,
            tombstone_ttl_ms=config.holds.tombstone_ms,
        )
        self.ledger = Ledger(pool, new_id=new_request_id)
        self.accounts = Accounts(pool, self.ledger, new_id=new_request_id, random_bytes=os.urandom, now_ms=now_ms)
        self.outbox = Outbox(redis)
        self.recovery = Recovery(
            pool, self.ledger, self.credits, self.outbox, link, grace_ms=config.holds.rebuild_grace_ms
        )
        self.crediter = Crediter(CreditOutbox(pool), self.credits, self.recovery)

    async def live_balance(self, account_id: str) -> Balance:
        """What the account has now: as admission sees it, or as the ledger does while Redis has not loaded it."""
        balance = await self.credits.balance(account_id) if self.link.available else None
        if balance is None:
            balance = Balance((await self.accounts.balance(account_id)).total, 0)
        return balance


@asynccontextmanager
async def open_stores(config: Config) -> AsyncIterator[Stores]:
    """Connect to Postgres and Redis; raises `ConfigError` when one cannot be reached or has an old schema."""
    async with AsyncExitStack() as stack:
        database = config.database
        try:
            pool = await open_pool(
                config.database_url,
                connections_max=database.pool_connections_max,
                connect_timeout_s=database.connect_timeout_ms / 1000,
                command_timeout_s=database.command_timeout_ms / 1000,
            )
        except (LedgerUnavailable, asyncpg.PostgresError, ValueError) as error:
            raise ConfigError(
                f"database_url: cannot connect: {error}; is it right, and `tollgate migrate` run?"
            ) from error
        stack.push_async_callback(_close, pool)
        async with pool.acquire() as connection:
            await schema.check(connection)
        try:
            link = RedisLink(
                config.redis_url,
                command_timeout_ms=config.redis.command_timeout_ms,
                pending_commands_max=config.redis.pending_commands_max,
                reconnect_backoff_ms_max=config.redis.reconnect_backoff_ms_max,
            )
        except (ValueError, OSError) as error:  # OSError: a certificate that the URL names
            raise ConfigError(f"redis_url: cannot be used: {error}") from error
        stack.push_async_callback(link.close)
        if not await link.open():
            log.warning("redis is not there yet; calls get 503 until it is")
        # The outbox is read by blocking commands, which must not hold up the link that all calls share.
        redis = Redis.from_url(config.redis_url)
        stack.push_async_callback(redis.aclose)
        yield Stores(config, pool, link, redis)


async def _close(pool: Pool) -> None:
    try:
        async with asyncio.timeout(POOL_CLOSE_S_MAX):
            await pool.close()
    except TimeoutError:
        pool.terminate()


class Gateway:
    """One data-plane process: the public listener, its operations listener, and the loops beside the calls."""

    def __init__(
        self, config: Config, stores: Stores, card: RateCard, journal: Journal, spooled: list[Settlement]
    ) -> None:
        self._config = config
        self._stores = stores
        self.tally = Tally()
        self.tokenizer = Tokenizer(counted_bytes_max=config.tokenizer.counted_bytes_max)
        self.callers = CallerDirectory(
            stores.pool,
            cached_keys_max=config.callers.cached_keys_max,
            unknown_key_ttl_s=config.callers.unknown_key_ttl_ms / 1000,
            stale_s_max=config.callers.stale_s_max,
            poll_s=config.callers.poll_ms / 1000,
            clock=time.monotonic,
        )
        self.leases = Leases(
            stores.credits,
            stores.recovery.load_account,
            renew_s=config.holds.renew_ms / 1000,
            clock=time.monotonic,
        )
        self.settlements = Settlements(
            stores.credits,
            journal,
            stores.ledger,
            stores.recovery.load_account,
            retained_max=config.settlement.retained_max,
        )
        self.settlements.adopt(spooled)
        self.pool = _upstream_pool(config)
        self.relay = Relay(
            self.pool,
            upstream_key=config.upstream_key,
            disconnect=_disconnect(config),
            answer_buffer_bytes_max=config.upstream.answer_buffer_bytes_max,
            tally=self.tally,
        )
        self.exchange = Exchange(
            callers=self.callers,
            card=card,
            leases=self.leases,
            settlements=self.settlements,
            relay=self.relay,
            tokenizer=self.tokenizer,
            tally=self.tally,
            body_bytes_max=config.edge.body_bytes_max,
            bodies_bytes_max=config.edge.bodies_bytes_max,
            auto_tier=config.estimate.auto_service_tier,
            new_id=RequestIds(),
            now_ms=now_ms,
            is_ready=lambda: stores.link.available,
        )
        self.server = Server(self.exchange, _edge_limits(config), on_refused=self._edge_refused)
        self._follower = ShardFollower(stores.ledger, stores.credits, self.leases, self.settlements)

    def _edge_refused(self, error: GatewayError) -> list[tuple[bytes, bytes]]:
        self.tally.refused(error.code)
        return [(b"x-gateway-request-id", new_request_id().encode())]

    def loops(self) -> list[Coroutine[None, None, None]]:
        settlement = self._config.settlement
        return [
            self.callers.run(),
            # Looked at often enough that a renewal, due at half the lease, is never too late.
            every(min(1.0, self._config.holds.renew_ms / 4000), "renew", self.leases.renew_due),
            every(settlement.position_poll_ms / 1000, "follow", self._follower.step),
            every(settlement.replay_ms / 1000, "replay", self.settlements.replay_spooled),
        ]

    async def readiness(self) -> str:
        return "" if self._stores.link.available else "Redis cannot be reached: calls get 503"

    def metrics(self) -> Iterator[Metric]:
        yield from tally_metrics(self.tally)
        yield from gauges(
            {
                "tollgate_open_holds": ("Holds this gateway has open.", lambda: len(self.leases)),
                "tollgate_retained": ("Settlements kept until Postgres has them.", lambda: self.settlements.retained),
                "tollgate_spooled": ("Settlements in the journal, for Redis.", lambda: self.settlements.spooled),
                "tollgate_redis_available": ("1 when Redis answers.", lambda: float(self._stores.link.available)),
                "tollgate_draining": ("Answers read to their end, caller gone.", lambda: self.relay.draining),
                "tollgate_connections": ("Open client connections.", lambda: self.server.connections),
            }
        )

    async def stop(self) -> None:
        """Take no new calls, let the running ones finish within their time, end the rest; all are then settled."""
        self.exchange.is_stopping = True
        drain_s = self._config.edge.drain_s
        # Just before the server cuts the callers that are left, so that their upstreams are not drained for minutes.
        cutting = asyncio.get_running_loop().call_later(drain_s, self.relay.stop_draining)
        await self.server.stop_accepting()
        await self.server.drain(drain_s)
        cutting.cancel()
        await self.settlements.close()
        await self.pool.close()
        self.tokenizer.close()


class Workers:
    """The process beside the gateways: posts, sweeps, credits and rebuilds."""

    def __init__(self, config: Config, stores: Stores) -> None:
        self._config = config
        self._stores = stores
        self.poster = Poster(
            stores.pool,
            stores.ledger,
            stores.outbox,
            stores.credits,
            batch_events_max=config.poster.batch_events_max,
            batch_ms=config.poster.batch_ms,
            block_ms=config.poster.block_ms,
            now_ms=now_ms,
        )
        self.sweeper = Sweeper(stores.credits, stores.recovery.load_account, batch_max=config.workers.sweep_batch_max)
        self.rebuilder = Rebuilder(stores.recovery)
        self._is_stopping = False
        self._has_posted = asyncio.Event()

    def loops(self) -> list[Coroutine[None, None, None]]:
        workers = self._config.workers
        return [
            every(workers.rebuild_check_ms / 1000, "rebuild", self.rebuilder.step),
            self._post(),
            every(workers.sweep_ms / 1000, "sweep", self.sweeper.step),
            every(workers.credit_ms / 1000, "credit", self._stores.crediter.step),
        ]

    async def readiness(self) -> str:
        if not self._stores.link.available:
            return "Redis cannot be reached: nothing is posted"
        since = self.poster.waiting_since
        waited_s = asyncio.get_running_loop().time() - since if since is not None else 0.0
        behind_s = max(self.poster.lag_s, waited_s)
        is_behind = behind_s > self._config.workers.ready_lag_s_max
        return f"posting is {behind_s:.0f} s behind: is PostgreSQL there?" if is_behind else ""

    def metrics(self) -> Iterator[Metric]:
        poster, rebuilder = self.poster, self.rebuilder
        yield from gauges(
            {
                "tollgate_posting_lag_seconds": ("Age of the last posted event.", lambda: poster.lag_s),
                "tollgate_posting_shards": ("Shards this process posts.", lambda: poster.owned_shards),
                "tollgate_credits_pending": ("Movements Redis must learn of.", lambda: self._stores.crediter.pending),
            }
        )
        yield from counters(
            {
                "tollgate_posted": ("Events posted.", lambda: poster.posted_total),
                "tollgate_posted_again": ("Repeated events, which moved nothing.", lambda: poster.repeated_total),
                "tollgate_dead_letters": ("Events that could not be posted.", lambda: poster.dead_total),
                "tollgate_outbox_gaps": (
                    "Events missing from the outbox: money may be lost.",
                    lambda: poster.gaps_total,
                ),
                "tollgate_rebuilt_shards": ("Shards rebuilt.", lambda: rebuilder.rebuilt_total),
            }
        )

    async def _post(self) -> None:
        """Post until there is nothing left and no more is wanted. One loop does it all: its steps never overlap."""
        try:
            while await self.poster.step() or not self._is_stopping:
                pass
        finally:
            await self.poster.close()
            self._has_posted.set()

    async def stop(self) -> None:
        """Let what the gateways left be posted, within a bound, and the shards be let go of."""
        self._is_stopping = True
        try:
            async with asyncio.timeout(FINAL_POST_S_MAX):
                await self._has_posted.wait()
        except TimeoutError:
            log.warning("stopped with events unposted; the next start posts them")


def _upstream_pool(config: Config) -> UpstreamPool:
    upstream = config.upstream
    return UpstreamPool(
        config.upstream_url,
        timeouts=Timeouts(
            connect_s=upstream.connect_timeout_ms / 1000,
            head_s=upstream.head_timeout_ms / 1000,
            body_idle_s=upstream.body_idle_timeout_ms / 1000,
            idle_s=upstream.connection_idle_ms / 1000,
            age_s_max=upstream.connection_age_ms / 1000,
        ),
        connections_max=upstream.connections_max,
        ssl=ssl.create_default_context() if config.upstream_url.startswith("https://") else None,
    )


def _disconnect(config: Config) -> Disconnect:
    policy = config.disconnect
    return Disconnect(0.0, 0) if policy.policy == "cancel" else Disconnect(policy.drain_s, policy.drains_max)


def _edge_limits(config: Config) -> Limits:
    edge = config.edge
    return Limits(
        connections_max=edge.connections_max,
        head_bytes_max=edge.head_bytes_max,
        header_count_max=edge.header_count_max,
        head_timeout_s=edge.head_timeout_ms / 1000,
        body_idle_timeout_s=edge.body_idle_timeout_ms / 1000,
        keepalive_timeout_s=edge.keepalive_timeout_ms / 1000,
        write_high_water_bytes=edge.write_high_water_bytes,
    )


def _open_journal(config: Config) -> tuple[Journal, list[Settlement]]:
    """This process' journal, and what it and those of dead processes hold."""
    folder = Path(config.spool_dir or ".tollgate/spool")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        journal = Journal(folder / f"gateway-{new_request_id()}.journal", bytes_max=config.settlement.journal_bytes_max)
        return journal, journal.adopt_all()
    except OSError as error:
        raise ConfigError(f"spool_dir: {folder}: {error.strerror}; name a writable directory") from error
    except JournalFull as error:
        raise ConfigError(f"spool_dir: {folder}: {error}; raise settlement.journal_bytes_max") from error


async def serve_gateway(config: Config, listener: socket.socket | None, announce: Announce) -> None:
    """Run one gateway until SIGINT or SIGTERM; raises `ConfigError` or `SchemaError` when it cannot start."""
    card, text = load_rate_card(config)
    async with open_stores(config) as stores:
        await stores.accounts.record_card(card, text)
        journal, spooled = _open_journal(config)
        gateway = Gateway(config, stores, card, journal, spooled)
        try:
            base_url = await _listen_public(gateway.server, config, listener)
            await _run(gateway.loops, gateway.readiness, gateway.metrics, gateway.stop, config, announce, base_url)
        finally:
            await journal.close()


async def _listen_public(server: Server, config: Config, listener: socket.socket | None) -> str:
    host, port = parse_listen(config.listen)
    try:
        address = await server.start(host, port, sock=listener)
    except OSError as error:
        raise ConfigError(f"listen: {config.listen}: {why(error)}; choose another with --listen") from error
    return f"http://{address}/v1"


async def run_workers(config: Config, announce: Announce) -> None:
    """Run the workers until SIGINT or SIGTERM; raises `ConfigError` or `SchemaError` when they cannot start."""
    async with open_stores(config) as stores:
        workers = Workers(config, stores)
        await workers.rebuilder.step()  # a fresh or emptied Redis can take calls before anybody is told to make some
        await _run(workers.loops, workers.readiness, workers.metrics, workers.stop, config, announce, "")


async def _run(
    loops: Callable[[], list[Coroutine[None, None, None]]],
    readiness: Callable[[], Awaitable[str]],
    metrics: Callable[[], Iterator[Metric]],
    stop: Callable[[], Awaitable[None]],
    config: Config,
    announce: Announce,
    base_url: str,
) -> None:
    """The life of a process: loops and operations listener up, ready, a signal, the parts' own stop, loops down.

    A loop that fails ends the process as a signal would: what runs is settled first, then the failure is raised.
    """
    stopping = asyncio.Event()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(wanted, stopping.set)
    ops_host, ops_port = parse_listen(config.ops_listen)
    try:
        runner, ops_url = await listen(ops_app(readiness, exposition(registry(metrics))), ops_host, ops_port)
    except OSError as error:
        raise ConfigError(f"ops_listen: {config.ops_listen}: {why(error)}; choose another with --ops-listen") from error
    tasks = [asyncio.create_task(loop) for loop in loops()]
    for task in tasks:
        task.add_done_callback(lambda _: stopping.set())
    announce({"base_url": base_url, "ops_url": ops_url} if base_url else {"ops_url": ops_url})
    await stopping.wait()
    log.info("stopping")
    failed = [task for task in tasks if task.done()]
    await stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await runner.cleanup()
    for task in failed:
        await task


def _collect_rarely() -> None:
    """What was imported stays for ever, and a call leaves no cycles behind: a full collection every few thousand calls
    would walk both for nothing. Measured: a third of a plain call's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 100)


def serve(config: Config, *, listen_fd: int | None, on_ready: Announce) -> None:
    listener = socket.socket(fileno=listen_fd) if listen_fd is not None else None
    _collect_rarely()
    uvloop.run(serve_gateway(config, listener, on_ready))


def work(config: Config, *, on_ready: Announce) -> None:
    uvloop.run(run_workers(config, on_ready))
