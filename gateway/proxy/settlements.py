"""Settling: each hold is ended exactly once, and its settlement is kept in two places until Postgres has it.

Beside Redis' outbox, the settlement stays here: in memory while Redis answers, in the fsynced journal when it does not.
What a rebuilt or rolled-back Redis no longer knows is sent again. Nothing that fails here reaches a caller.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec
import structlog

from gateway.adapters.journal import Journal, JournalFull
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.redis.credits import (
    AccountUnloaded,
    Credits,
    EventId,
    HoldConflict,
    HoldMissing,
    Settled,
    ShardCold,
)
from gateway.adapters.redis.link import RedisScriptError, RedisUnavailable
from gateway.core.holds import Hold, Outcome, Settlement
from gateway.core.money import MicroCredits
from gateway.proxy.leases import LoadAccount
from gateway.proxy.retained import Copy, Retained

log = structlog.get_logger(__name__)

ATTEMPTS_MAX = 4
# How often a settlement is sent that Redis takes, or says that it has, and Postgres never sees.
SENT_AGAIN_MAX = 5
# What is sent to Redis, or asked of Postgres, at once.
BATCH = 1000


class NotSettled(Exception):
    """Redis could not take the settlement now; it must be spooled."""


class RedisAway(NotSettled):
    """Redis does not answer: other settlements need not be tried now."""


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

    async def quarantined(self, request_ids: list[str]) -> set[str]:
        """Those with an event that could not be posted, and is kept as a dead letter."""
        ...


class Settlements:
    def __init__(
        self, credits: Credits, journal: Journal, ledger: Ledger, load_account: LoadAccount, *, retained_max: int
    ) -> None:
        self._credits = credits
        self._journal = journal
        self._ledger = ledger
        self._load_account = load_account
        self._retained = Retained(retained_max)
        self._sent_again: dict[str, int] = {}  # how often, of what Postgres passed without posting it
        self.lost = 0  # of those, given up
        self._spooled: dict[str, Settlement] = {}
        self._undurable: set[str] = set()  # those of them that are not in the journal

    @property
    def retained(self) -> int:
        return len(self._retained)

    @property
    def spooled(self) -> int:
        return len(self._spooled)

    # --- one settlement ------------------------------------------------------------------------------------------

    async def settle(self, settlement: Settlement) -> Settled | None:
        """End the hold; raises nothing. None when Redis does not have it yet: it is then kept here until it does."""
        try:
            settled = await self._end(settlement)
        except AlreadyPosted:
            return None
        except HoldConflict as error:
            self._report_conflict(settlement, error)
            return None
        except NotSettled:
            await self._spool(settlement)
            return None
        except asyncio.CancelledError:  # the gateway exits; `close` writes it down
            self._keep_in_memory(settlement)
            raise
        self._retained.add(settled.event_id, settlement)
        return settled

    async def _end(self, settlement: Settlement) -> Settled:
        """End the hold in Redis; raises `NotSettled`, `AlreadyPosted` or `HoldConflict`."""
        end = self._credits.void if settlement.outcome is Outcome.VOID else self._credits.capture
        try:
            for _ in range(ATTEMPTS_MAX):
                try:
                    return await end(settlement)
                except AccountUnloaded:
                    await self._load_account(settlement.terms.account_id)
                except HoldMissing:
                    # Rebuilt under us, or ended so long ago that Redis forgot: Postgres knows which.
                    await self._restore(settlement)
        except RedisUnavailable as error:
            raise RedisAway from error
        except RedisScriptError as error:
            log.error("Redis refuses a settlement", request_id=settlement.request_id, error=str(error))
            raise NotSettled from error
        except (LedgerUnavailable, ShardCold, AccountUnloaded) as error:
            raise NotSettled from error
        raise NotSettled

    async def _restore(self, settlement: Settlement) -> None:
        if await self._ledger.ended([settlement.request_id]):
            raise AlreadyPosted
        lapsed = await self._ledger.lapses([settlement.request_id])
        try:
            await self._credits.restore(_hold_of(settlement), lapsed_cost=lapsed.get(settlement.request_id))
        except AccountUnloaded:
            await self._load_account(settlement.terms.account_id)

    def _report_conflict(self, settlement: Settlement, error: HoldConflict) -> None:
        """The hold has ended in another way, and that stands: what this settlement says is for a human to compare."""
        log.error(
            "settlement conflicts with what ended its hold",
            request_id=settlement.request_id,
            outcome=settlement.outcome,
            cost=settlement.cost,
            error=str(error),
        )

    # --- until Redis has it --------------------------------------------------------------------------------------

    def _keep_in_memory(self, settlement: Settlement) -> None:
        if settlement.request_id not in self._spooled:
            self._spooled[settlement.request_id] = settlement
            self._undurable.add(settlement.request_id)

    async def _spool(self, settlement: Settlement) -> None:
        """Write it to the journal. In memory first, so that a full disk loses nothing while the process lives."""
        self._keep_in_memory(settlement)
        await self._write_down([settlement])

    async def _write_down(self, settlements: Iterable[Settlement]) -> None:
        wanted = [each for each in settlements if each.request_id in self._undurable]
        await asyncio.gather(*map(self._append, wanted))

    async def _append(self, settlement: Settlement) -> None:
        try:
            await self._journal.append(settlement)
        except (JournalFull, OSError) as error:
            log.error("settlement is in memory only", request_id=settlement.request_id, error=repr(error))
        else:
            self._undurable.discard(settlement.request_id)

    def adopt(self, spooled: list[Settlement]) -> None:
        """Take over what a journal held at start: this gateway's last life, or a dead one's."""
        self._spooled |= {settlement.request_id: settlement for settlement in spooled}

    async def replay_spooled(self) -> int:
        """Try to settle what is spooled; returns how many settlements Redis or Postgres now has."""
        waiting = list(self._spooled.values())
        replayed = 0
        for start in range(0, len(waiting), BATCH):
            batch = waiting[start : start + BATCH]
            obstacles = await asyncio.gather(*map(self._replay, batch))
            done = {each.request_id for each, obstacle in zip(batch, obstacles, strict=True) if obstacle is None}
            await self._forget(done)
            replayed += len(done)
            if any(isinstance(obstacle, RedisAway) for obstacle in obstacles):
                break
        await self._write_down(self._spooled.values())
        return replayed

    async def _replay(self, settlement: Settlement) -> NotSettled | None:
        """Settle one; returns what is in the way."""
        try:
            settled = await self._end(settlement)
        except NotSettled as error:
            return error
        except AlreadyPosted:
            pass
        except HoldConflict as error:
            self._report_conflict(settlement, error)
        else:
            self._retained.add(settled.event_id, settlement)
        return None

    async def _forget(self, request_ids: set[str]) -> None:
        for request_id in request_ids:
            self._spooled.pop(request_id, None)
        self._undurable -= request_ids
        try:
            await self._journal.discard(request_ids)
        except OSError as error:
            # Read again at the next start, they are replayed then, which changes nothing.
            log.error("journal cannot be shortened", error=str(error))

    async def close(self) -> None:
        """Before the exit: what is in memory only gets into the journal."""
        await self._write_down(self._spooled.values())

    # --- until Postgres has it -----------------------------------------------------------------------------------

    async def confirm(self, positions: Sequence[EventId]) -> None:
        """Postgres stands at these positions, by shard: let go of the second copies that it has.

        A position alone proves nothing: a Redis that was rolled back gives the same numbers to other events. So
        Postgres is asked for the requests themselves, and what it lacks is sent again. Raises `LedgerUnavailable`.
        """
        lost: list[Copy] = []
        try:
            while passed := self._retained.take_passed(positions, BATCH):
                kept = await self._kept(passed)
                for request_id in kept:
                    self._sent_again.pop(request_id, None)
                lost += [copy for copy in passed if copy.settlement.request_id not in kept]
        finally:  # nobody else has what was found lost before Postgres went away
            await asyncio.gather(*map(self._send_again, lost))

    async def _ended(self, copies: list[Copy]) -> set[str]:
        try:
            return await self._ledger.ended([copy.settlement.request_id for copy in copies])
        except LedgerUnavailable:
            self._retained.give_back(copies)
            raise

    async def _kept(self, copies: list[Copy]) -> set[str]:
        """The requests that Postgres has: posted, or as dead letters, which are an operator's to decide on."""
        ended = await self._ended(copies)
        left = [copy.settlement.request_id for copy in copies if copy.settlement.request_id not in ended]
        if not left:
            return ended
        try:
            return ended | await self._ledger.quarantined(left)
        except LedgerUnavailable:
            self._retained.give_back(copies)
            raise

    async def _send_again(self, copy: Copy) -> None:
        """What Postgres passed without posting it: Redis lost it, and takes it now."""
        request_id = copy.settlement.request_id
        times = self._sent_again[request_id] = self._sent_again.get(request_id, 0) + 1
        if times > SENT_AGAIN_MAX:
            # Redis says that it has it, and it never comes: only a human can find out why. All that is known is told.
            del self._sent_again[request_id]
            self.lost += 1
            known = msgspec.json.encode(copy.settlement).decode()
            log.error("settlement is lost: it is in no outbox and no ledger", event_id=copy.event_id, settlement=known)
            return
        await self.settle(copy.settlement)

    async def resend_shard(self, shard: int) -> int:
        """After a rebuild of `shard`: send again what Postgres does not have; returns how many."""
        kept = self._retained.take_shard(shard)
        ended = await self._ended(kept)
        unknown = [copy.settlement for copy in kept if copy.settlement.request_id not in ended]
        await asyncio.gather(*map(self.settle, unknown))
        return len(unknown)


def _hold_of(settlement: Settlement) -> Hold:
    """The hold a settlement ended, as far as restoring needs it. Its fingerprint guards reserves only."""
    held = 0 if settlement.terms.is_shadow else settlement.held
    return Hold(settlement.request_id, held, "", settlement.terms)
