"""The open holds of this gateway: opened once, renewed at half their lease with the progress so far, and registered
again when Redis was rebuilt under them. A hold that is forgotten here is not leaked: its lease lapses.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from gateway.adapters.credits import AccountUnloaded, Credits, HoldConflict, HoldMissing, Refused, Reserved, ShardCold
from gateway.adapters.database import LedgerUnavailable
from gateway.adapters.redis_link import RedisUnavailable
from gateway.core.errors import BillingUnavailable
from gateway.core.holds import Balance, Hold
from gateway.core.money import MicroCredits
from gateway.core.shards import shard_of
from gateway.core.usage import Usage

log = structlog.get_logger(__name__)

Progress = tuple[MicroCredits, Usage]
LoadAccount = Callable[[str], Awaitable[None]]

# A reserve may find its account not loaded, and once more after a rebuild; a third time is a fault.
ATTEMPTS_MAX = 3


def no_progress() -> Progress:
    return 0, Usage()


class OpenHold:
    """One open hold, owned by the call that opened it until it is settled."""

    __slots__ = ("balance", "ended", "hold", "progress", "renew_at")

    def __init__(self, hold: Hold, balance: Balance, renew_at: float) -> None:
        self.hold = hold
        self.balance = balance  # just after the reserve
        self.renew_at = renew_at
        self.ended = False
        self.progress: Callable[[], Progress] = no_progress


class Leases:
    def __init__(
        self, credits: Credits, load_account: LoadAccount, *, renew_s: float, clock: Callable[[], float]
    ) -> None:
        self._credits = credits
        self._load_account = load_account
        self._renew_s = renew_s
        self._clock = clock
        self._open: dict[str, OpenHold] = {}
        self._due: deque[OpenHold] = deque()  # every lease is as long, so the order of opening is the order of renewal

    def __len__(self) -> int:
        return len(self._open)

    async def open(self, hold: Hold) -> OpenHold | Refused:
        """Reserve; raises `BillingUnavailable` when credits cannot be checked."""
        try:
            reply = await self._reserve(hold)
        except (RedisUnavailable, LedgerUnavailable, ShardCold, AccountUnloaded) as error:
            raise BillingUnavailable(retry_after_s=1) from error
        if isinstance(reply, Refused):
            return reply
        opened = OpenHold(hold, reply.balance, self._clock() + self._renew_s)
        self._open[hold.request_id] = opened
        self._due.append(opened)
        return opened

    async def _reserve(self, hold: Hold) -> Reserved | Refused:
        for _ in range(ATTEMPTS_MAX - 1):
            try:
                return await self._credits.reserve(hold)
            except AccountUnloaded:
                await self._load_account(hold.terms.account_id)
        return await self._credits.reserve(hold)

    def close(self, opened: OpenHold) -> None:
        """The hold has ended, or is left to lapse: it is renewed no more."""
        opened.ended = True
        self._open.pop(opened.hold.request_id, None)

    async def renew_due(self) -> int:
        """Renew every hold that is due; returns how many. What Redis does not answer is due again next time."""
        now = self._clock()
        due: list[OpenHold] = []
        while self._due and self._due[0].renew_at <= now:
            opened = self._due.popleft()
            if not opened.ended:
                opened.renew_at = now + self._renew_s
                self._due.append(opened)
                due.append(opened)
        await asyncio.gather(*(self._renew(opened) for opened in due))
        return len(due)

    async def _renew(self, opened: OpenHold) -> None:
        hold = opened.hold
        cost, usage = opened.progress()
        try:
            await self._credits.renew(hold.request_id, hold.terms.account_id, min(cost, hold.amount), usage)
        except HoldMissing:
            await self.restore(hold)
        except (RedisUnavailable, ShardCold):
            log.warning("hold not renewed", request_id=hold.request_id)

    async def restore(self, hold: Hold) -> bool:
        """Register a live hold again, unchecked: Redis lost it, or its shard was rebuilt. False: to be tried again."""
        for _ in range(ATTEMPTS_MAX):
            try:
                await self._credits.restore(hold)
            except AccountUnloaded:
                await self._load_account(hold.terms.account_id)
            except HoldConflict as error:
                log.error("hold not restored", request_id=hold.request_id, error=str(error))
                return True
            except (RedisUnavailable, ShardCold):
                return False
            else:
                return True
        return False

    async def restore_shard(self, shard: int) -> bool:
        """After a rebuild of `shard`: register this gateway's live holds in it again; whether all are."""
        live = [opened for opened in self._open.values() if shard_of(opened.hold.terms.account_id) == shard]
        return all(await asyncio.gather(*(self.restore(opened.hold) for opened in live)))
