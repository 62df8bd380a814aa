"""Following Postgres: which events are posted, and which shards were rebuilt under this gateway's live holds."""

from gateway.adapters.postgres.ledger import Ledger
from gateway.adapters.redis.credits import Credits
from gateway.core.shards import SHARDS
from gateway.proxy.leases import Leases
from gateway.proxy.settlements import Settlements


class ShardFollower:
    def __init__(self, ledger: Ledger, credits: Credits, leases: Leases, settlements: Settlements) -> None:
        self._ledger = ledger
        self._credits = credits
        self._leases = leases
        self._settlements = settlements
        self._epochs: list[int | None] = [None] * SHARDS  # up to which everything of ours is registered

    async def step(self) -> int:
        """Look once; returns how many shards had to be registered with again. Raises `LedgerUnavailable`."""
        registered = 0
        states = await self._ledger.shards()
        for shard, state in enumerate(states):
            self._credits.adopt(shard, state.epoch)
            if self._epochs[shard] is None:
                self._epochs[shard] = state.epoch
            elif self._epochs[shard] != state.epoch and await self._leases.restore_shard(shard):
                await self._settlements.resend_shard(shard)
                self._epochs[shard] = state.epoch
                registered += 1
        await self._settlements.confirm([state.position for state in states])
        return registered
