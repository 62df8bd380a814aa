"""The crediter: tells Redis of credit movements that started in Postgres, in their order.

They are grants, top-ups, refunds and corrections; each is numbered by account and applied by its number, so telling
twice changes nothing.
"""

import structlog

from gateway.adapters.postgres.credit_outbox import CreditOutbox, Movement
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.recovery import Recovery
from gateway.adapters.redis.credits import AccountUnloaded, CreditGap, Credits, ShardCold
from gateway.adapters.redis.link import RedisScriptError, RedisUnavailable
from gateway.core.shards import shard_of

log = structlog.get_logger(__name__)

MOVEMENTS_MAX = 1000


class Crediter:
    def __init__(self, outbox: CreditOutbox, credits: Credits, recovery: Recovery) -> None:
        self._outbox = outbox
        self._credits = credits
        self._recovery = recovery
        self._refused: frozenset[str] = frozenset()  # accounts of which it was said
        self.delivered_total = 0
        self.pending = 0

    async def step(self) -> int:
        """Deliver what is queued; returns how many movements. During an outage they wait."""
        delivered, refused = 0, set[str]()
        try:
            queued = await self._outbox.pending(MOVEMENTS_MAX)
            self.pending = sum(map(len, queued.values()))
            for account_id, movements in queued.items():
                try:
                    delivered += await self._deliver(account_id, movements)
                except ShardCold as error:
                    log.warning("credit waits for its shard", account_id=account_id, error=str(error))
                except RedisScriptError as error:  # it will be refused again, and nobody else's waits behind it
                    refused.add(account_id)
                    if account_id not in self._refused:
                        log.error("credit is refused by Redis", account_id=account_id, error=str(error))
            self._refused = frozenset(refused)
        except (LedgerUnavailable, RedisUnavailable) as error:
            log.warning("crediting waits", error=str(error))
        self.delivered_total += delivered
        self.pending -= delivered
        return delivered

    async def _deliver(self, account_id: str, movements: list[Movement]) -> int:
        try:
            for movement in movements:
                await self._grant(account_id, movement)
        except CreditGap as gap:
            movements = await self._outbox.of_account(account_id)
            if not movements or movements[0].credit_seq > gap.credit_seq + 1:
                # Redis had it and has lost it again: only its whole state, set anew, mends that.
                log.error("Redis has forgotten a credit movement; its shard is rebuilt", account_id=account_id)
                await self._recovery.mark_for_rebuild([shard_of(account_id)])
                return 0
            for movement in movements:
                await self._grant(account_id, movement)
        await self._outbox.delivered(account_id, movements[-1].credit_seq)
        return len(movements)

    async def _grant(self, account_id: str, movement: Movement) -> None:
        """Apply one movement. An account that is not in Redis is loaded first: a load under way may not know of it."""
        try:
            await self._credits.grant(account_id, movement.credit_seq, movement.amount)
        except AccountUnloaded:
            await self._recovery.load_account(account_id)
            await self._credits.grant(account_id, movement.credit_seq, movement.amount)
