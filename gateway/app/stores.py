"""The clients of both databases, opened together, and what every process builds on top of them."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import structlog
from redis.asyncio import Redis

from gateway.adapters.postgres import schema
from gateway.adapters.postgres.account_desk import AccountDesk
from gateway.adapters.postgres.accounts import Accounts
from gateway.adapters.postgres.adjustments import Adjustments
from gateway.adapters.postgres.alerts import Alerts
from gateway.adapters.postgres.audit_log import AuditLog
from gateway.adapters.postgres.brownouts import BrownoutDesk
from gateway.adapters.postgres.cap_desk import CapDesk
from gateway.adapters.postgres.charges import Charges
from gateway.adapters.postgres.corrections import Corrections
from gateway.adapters.postgres.credit_outbox import CreditOutbox
from gateway.adapters.postgres.database import LedgerUnavailable, Pool, open_pool
from gateway.adapters.postgres.dead_letters import DeadLetters
from gateway.adapters.postgres.flags import FlagDesk
from gateway.adapters.postgres.keys import Keys
from gateway.adapters.postgres.ledger import Ledger
from gateway.adapters.postgres.members import Members
from gateway.adapters.postgres.notice_targets import NoticeTargets
from gateway.adapters.postgres.notices import Notices
from gateway.adapters.postgres.ops_keys import OpsKeys
from gateway.adapters.postgres.provider_costs import ProviderCosts
from gateway.adapters.postgres.reviews import Reviews
from gateway.adapters.postgres.seals import Seals
from gateway.adapters.postgres.statements import Statements
from gateway.adapters.recovery import Recovery
from gateway.adapters.redis.counters import Counters
from gateway.adapters.redis.credits import Credits
from gateway.adapters.redis.link import RedisLink, RedisUnavailable
from gateway.adapters.redis.outbox import Outbox
from gateway.adapters.redis.scripts import Scripts
from gateway.adapters.redis.settings import weaknesses
from gateway.app.notices import load_words
from gateway.app.plans import load_policies
from gateway.app.sources import new_request_id, now, now_ms
from gateway.config import Config, ConfigError
from gateway.core.guard.alerts import Wishes
from gateway.core.holds import Balance
from gateway.core.money import UCR_PER_CREDIT
from gateway.resources import shipped
from gateway.workers.crediter import Crediter

log = structlog.get_logger(__name__)

POOL_CLOSE_S_MAX = 5.0
READING_CONNECTIONS_MAX = 2


class Stores:
    """Both databases, opened together; what commands, workers and gateways all build on."""

    def __init__(self, config: Config, pool: Pool, link: RedisLink, redis: Redis) -> None:
        self.pool = pool
        self.link = link
        self.scripts = Scripts(shipped("lua"))
        self.credits = Credits(
            link,
            self.scripts,
            lease_ms=config.holds.lease_ms,
            refusal_ttl_ms=config.holds.refusal_memory_ms,
            tombstone_ttl_ms=config.holds.tombstone_ms,
        )
        self.ledger = Ledger(pool, new_id=new_request_id)
        self.audit_log = AuditLog(pool)
        self.accounts = Accounts(pool, self.ledger, self.audit_log, new_id=new_request_id, now_ms=now_ms)
        self.keys = Keys(pool, self.audit_log, new_id=new_request_id, random_bytes=os.urandom, now=now)
        self.members = Members(pool, self.audit_log, new_id=new_request_id)
        self.seals = Seals(pool)
        self.statements = Statements(pool, now=now)
        self.adjustments = Adjustments(pool, self.ledger, now_ms=now_ms)
        self.provider_costs = ProviderCosts(pool, self.ledger, now_ms=now_ms)
        self.corrections = Corrections(
            pool,
            self.adjustments,
            self.audit_log,
            alone_ucr_max=config.operators.alone_credits_per_day_max * UCR_PER_CREDIT,
            new_id=new_request_id,
        )
        self.plans = load_policies(config)
        self.account_desk = AccountDesk(pool, self.audit_log, self.plans)
        self.ops_keys = OpsKeys(pool, self.audit_log, new_id=new_request_id, random_bytes=os.urandom)
        self.flags = FlagDesk(pool, self.audit_log, now_ms=now_ms)
        self.counters = Counters(link, self.scripts)
        self.charges = Charges(pool)
        self.caps = CapDesk(pool, self.plans, self.counters, self.charges, self.audit_log, now_ms=now_ms)
        self.notices = Notices(pool, load_words(config))
        self.notice_targets = NoticeTargets(pool, self.audit_log)
        self.brownouts = BrownoutDesk(pool, self.audit_log, self.notices, now_ms=now_ms)
        self.dead_letters = DeadLetters(pool, self.ledger, self.audit_log)
        alerts = Wishes(config.alerts.below_credits * UCR_PER_CREDIT, config.alerts.days)
        self.alerts = Alerts(pool, self.notices, self.audit_log, alerts)
        self.reviews = Reviews(pool, self.notices, self.audit_log)
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


@asynccontextmanager
async def open_reading(config: Config) -> AsyncIterator[Pool]:
    """Connect to Postgres for long reads: to the replica, if there is one; raises `ConfigError`."""
    is_replica = bool(config.replica_url)
    try:
        pool = await open_pool(
            config.replica_url or config.database_url,
            connections_max=READING_CONNECTIONS_MAX,
            connect_timeout_s=config.database.connect_timeout_ms / 1000,
            command_timeout_s=config.database.command_timeout_ms / 1000,
            idle_in_transaction_s=0,  # an export goes as fast as it is read
        )
    except (LedgerUnavailable, asyncpg.PostgresError, ValueError) as error:
        raise ConfigError(f"{'replica_url' if is_replica else 'database_url'}: cannot connect: {error}") from error
    try:
        async with pool.acquire() as connection:
            await schema.check(connection)
        yield pool
    finally:
        await _close(pool)


@asynccontextmanager
async def open_audit_link(config: Config) -> AsyncIterator[RedisLink]:
    """Connect to Redis for a long look at it: no caller waits for it, so its commands have more time."""
    link = RedisLink(config.redis_url, command_timeout_ms=config.audit.redis_timeout_ms)
    try:
        await link.open()
        yield link
    finally:
        await link.close()


async def check_redis(config: Config, link: RedisLink) -> None:
    """Warn of settings that can lose money; raises `ConfigError` instead where the configuration says so."""
    try:
        found = await weaknesses(link)
    except RedisUnavailable:
        return  # told already
    for weakness in found:
        if config.redis.require_durable:
            raise ConfigError(f"redis_url: {weakness}; or set redis.require_durable to false")
        log.warning("Redis may lose money", why=weakness)


async def _close(pool: Pool) -> None:
    try:
        async with asyncio.timeout(POOL_CLOSE_S_MAX):
            await pool.close()
    except TimeoutError:
        pool.terminate()
