"""Settling: each hold is ended exactly once, and its settlement is kept in two places until Postgres has it.

Beside Redis' outbox, the settlement stays here: in memory while Redis answers, in the fsynced journal when it does not.
What a rebuilt or failed-over Redis no longer knows is sent again.
"""

import asyncio
from collections import deque
from typing import Protocol

import structlog

from gateway.adapters.credits import AccountUnloaded, Credits, HoldConflict, HoldMissing, Settled, ShardCold
from gateway.adapters.database import LedgerUnavailable
from gateway.adapters.journal import Journal
from gateway.adapters.redis_link import RedisUnavailable
from gateway.core.holds import Hold, Outcome, Settlement
from gateway.core.money import MicroCredits
from gateway.core.shards import SHARDS, shard_of
from gateway.proxy.leases import LoadAccount

log = structlog.get_logger(__name__)

ATTEMPTS_MAX = 4


class NotSettled(Exception):
    """Redis could not take the settlement now; it must be spooled."""


class AlreadyPosted(Exception):
    """Postgres has this settlement; there is nothing left to do."""


class Ledger(Protocol):
    """What settling asks of Postgres."""

    async def ended(self, request_ids: list[str]) -> set[str]:
        """Those whose end is posted and final. A lapse is not: its late settlement still corrects it."""
        ...

    async def lapses(self, request_ids: list[str]) -> dict[str, MicroCredits]:
        """Those whose end is a lapse that nothing has corrected yet, with what it charged."""
        ...


class Settlements:
    def __init__(
        self, credits: Credits, journal: Journal, ledger: Ledger, load_account: LoadAccount, *, retained_max: int
    ) -> None:
        self._credits = credits
        self._journal = journal
        self._ledger = ledger
        self._load_account = load_account
        self._retained_max = retained_max
        self._retained: list[deque[tuple[tuple[int, int], Settlement]]] = [deque() for _ in range(SHARDS)]
        self._retained_count = 0
        self._spooled: dict[str, Settlement] = {}

    @property
    def retained(self) -> int:
        return self._retained_count

    @property
    def spooled(self) -> int:
        return len(self._spooled)

    async def settle(self, settlement: Settlement) -> Settled | None:
        """End the hold. None when Redis could not be reached: the settlement is then durable in the journal."""
        try:
            return await self._end(settlement)
        except AlreadyPosted:
            return None
        except NotSettled:
            # In memory first, so that a full disk loses nothing while the process lives.
            self._spooled[settlement.request_id] = settlement
            await self._journal.append(settlement)
            return None

    async def _end(self, settlement: Settlement) -> Settled:
        """End the hold in Redis; raises `NotSettled`, `AlreadyPosted` or `HoldConflict`."""
        end = self._credits.void if settlement.outcome is Outcome.VOID else self._credits.capture
        for _ in range(ATTEMPTS_MAX):
            try:
                settled = await end(settlement)
            except AccountUnloaded:
                await self._load(settlement)
            except HoldMissing:
                # Rebuilt under us, or ended so long ago that Redis forgot: Postgres knows which.
                await self._restore(settlement)
            except (RedisUnavailable, ShardCold) as error:
                raise NotSettled from error
            else:
                self._retain(settled, settlement)
                return settled
        raise NotSettled

    async def _load(self, settlement: Settlement) -> None:
        try:
            await self._load_account(settlement.terms.account_id)
        except (LedgerUnavailable, RedisUnavailable, ShardCold) as error:
            raise NotSettled from error

    async def _restore(self, settlement: Settlement) -> None:
        try:
            if await self._ledger.ended([settlement.request_id]):
                raise AlreadyPosted
            lapsed = await self._ledger.lapses([settlement.request_id])
            await self._credits.restore(_hold_of(settlement), lapsed_cost=lapsed.get(settlement.request_id))
        except AccountUnloaded:
            await self._load(settlement)
        except (LedgerUnavailable, RedisUnavailable, ShardCold) as error:
            raise NotSettled from error

    def _retain(self, settled: Settled, settlement: Settlement) -> None:
        shard = self._retained[shard_of(settlement.terms.account_id)]
        shard.append((settled.event_id, settlement))
        self._retained_count += 1
        if self._retained_count > self._retained_max:
            # Postgres is far behind. Redis' outbox still has the event; only the second copy goes.
            longest = max(self._retained, key=len)
            longest.popleft()
            self._retained_count -= 1

    def posted(self, shard: int, position: tuple[int, int]) -> None:
        """Postgres has every event of `shard` up to `position` (epoch, seq): let their second copies go."""
        kept = self._retained[shard]
        while kept and kept[0][0] <= position:
            kept.popleft()
            self._retained_count -= 1

    async def resend_shard(self, shard: int) -> int:
        """After a rebuild of `shard`: send again what Postgres does not have; returns how many."""
        kept, self._retained[shard] = self._retained[shard], deque()
        self._retained_count -= len(kept)
        settlements = [settlement for _, settlement in kept]
        ended = await self._ledger.ended([settlement.request_id for settlement in settlements])
        unknown = [settlement for settlement in settlements if settlement.request_id not in ended]
        await asyncio.gather(*(self.settle(settlement) for settlement in unknown))
        return len(unknown)

    def adopt(self, spooled: list[Settlement]) -> None:
        """Take over what a journal held at start: this gateway's last life, or a dead one's."""
        self._spooled |= {settlement.request_id: settlement for settlement in spooled}

    async def replay_spooled(self) -> int:
        """Try to settle what is spooled; returns how many settlements Redis or Postgres now has."""
        if not self._spooled:
            return 0
        waiting = list(self._spooled.values())
        # Redis remembers an ended hold only until Postgres has it, so Postgres is asked first.
        done = await self._ledger.ended([settlement.request_id for settlement in waiting])
        for settlement in waiting:
            if settlement.request_id in done:
                continue
            try:
                await self._end(settlement)
            except NotSettled:
                break
            except AlreadyPosted:
                pass
            except HoldConflict:
                log.error("spooled settlement conflicts with what ended its hold", request_id=settlement.request_id)
            done.add(settlement.request_id)
        await self._journal.discard(done)
        for request_id in done:
            self._spooled.pop(request_id, None)
        return len(done)


def _hold_of(settlement: Settlement) -> Hold:
    """The hold a settlement ended, as far as restoring needs it. Its fingerprint guards reserves only."""
    return Hold(settlement.request_id, settlement.held, "", settlement.terms)
