"""The sweeper: ends the holds of gateways that died. It proposes, by the leases that Redis shows as run out; the lapse
script decides, under Redis' clock, so any number of sweepers may run.
"""

from collections.abc import Awaitable, Callable

import structlog

from gateway.adapters.redis.credits import AccountUnloaded, Credits, Expired, HoldConflict, HoldMissing, ShardCold
from gateway.adapters.redis.link import RedisScriptError
from gateway.core.holds import HoldState

log = structlog.get_logger(__name__)


class Sweeper:
    def __init__(self, credits: Credits, load_account: Callable[[str], Awaitable[None]], *, batch_max: int) -> None:
        """`load_account` loads an account into Redis from Postgres; `batch_max` bounds a step, for each shard."""
        self._credits = credits
        self._load_account = load_account
        self._batch_max = batch_max

    async def step(self) -> int:
        """Lapse what has run out; returns how many holds were ended. Raises `RedisUnavailable`: nothing to undo."""
        cold: set[int] = set()
        ended = 0
        for hold in await self._credits.expired(self._batch_max):
            if hold.shard in cold:
                continue
            try:
                ended += await self._lapse(hold)
            except ShardCold:
                cold.add(hold.shard)  # until it is rebuilt; its leases wait
            except (AccountUnloaded, HoldConflict, RedisScriptError) as error:
                # One hold that cannot be ended must not keep the others.
                log.error("hold not lapsed", request_id=hold.request_id, account_id=hold.account_id, error=str(error))
        return ended

    async def _lapse(self, hold: Expired) -> bool:
        try:
            state = await self._credits.lapse(*hold)
        except HoldMissing:
            return False
        except AccountUnloaded:
            await self._load_account(hold.account_id)
            state = await self._credits.lapse(*hold)
        if isinstance(state, HoldState):
            return False
        log.warning("hold lapsed", request_id=hold.request_id, account_id=hold.account_id, event_id=state)
        return True
