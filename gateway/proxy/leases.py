"""The open holds of this gateway: opened once, renewed at half their lease with the progress so far, and registered
again when Redis was rebuilt under them. A hold that is forgotten here is not leaked: its lease lapses.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.redis.credits import (
    AccountUnloaded,
    CapsUncounted,
    Credits,
    CreditsError,
    HoldConflict,
    HoldMissing,
    Refused,
    Reserved,
)
from gateway.adapters.redis.link import RedisScriptError, RedisUnavailable
from gateway.core.calls.usage import Usage
from gateway.core.errors import BillingUnavailable
from gateway.core.holds import Hold
from gateway.core.money import MicroCredits
from gateway.core.shards import shard_of

log = structlog.get_logger(__name__)

Progress = tuple[MicroCredits, Usage]
LoadAccount = Callable[[str], Awaitable[None]]
CountCaps = Callable[[Hold], Awaitable[None]]
IsUnsure = Callable[[Hold], bool]  # whether the counters of a hold's caps may be of another time

# A reserve may find its account not loaded and its caps not counted, and both once more after a rebuild.
ATTEMPTS_MAX = 5


def no_progress() -> Progress:
    return 0, Usage()


class OpenHold:
    """One open hold, owned by the call that opened it until it is settled."""

    __slots__ = ("hold", "progress", "renew_at", "reserved")

    def __init__(self, hold: Hold, reserved: Reserved, renew_at: float) -> None:
        self.hold = hold
        self.reserved = reserved
        self.renew_at = renew_at
        self.progress: Callable[[], Progress] = no_progress


class Leases:
    def __init__(
        self,
        credits: Credits,
        load_account: LoadAccount,
        count_caps: CountCaps,
        is_unsure: IsUnsure,
        *,
        renew_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._credits = credits
        self._load_account = load_account
        self._count_caps = count_caps
        self._is_unsure = is_unsure
        self._renew_s = renew_s
        self._clock = clock
        # Every lease is as long, so the order of opening or renewal is the order in which they are due.
        self._open: dict[str, OpenHold] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def open(self, hold: Hold) -> OpenHold | Refused:
        """Reserve; raises `BillingUnavailable` when credits cannot be checked."""
        try:
            if hold.cap_keys and self._is_unsure(hold):
                await self._count_caps(hold)
            try:
                reply = await self._credits.reserve(hold)
            except (AccountUnloaded, CapsUncounted) as missing:
                reply = await self._reserve_prepared(hold, missing)
        except (RedisScriptError, HoldConflict) as error:
            log.error("Redis refuses a hold", request_id=hold.request_id, error=str(error))
            raise BillingUnavailable(retry_after_s=1) from error
        except (RedisUnavailable, LedgerUnavailable, CreditsError) as error:
            raise BillingUnavailable(retry_after_s=1) from error
        if isinstance(reply, Refused):
            return reply
        opened = OpenHold(hold, reply, self._clock() + self._renew_s)
        self._open[hold.request_id] = opened
        return opened

    async def _reserve_prepared(self, hold: Hold, missing: AccountUnloaded | CapsUncounted) -> Reserved | Refused:
        for _ in range(ATTEMPTS_MAX - 2):
            await self._prepare(hold, missing)
            try:
                return await self._credits.reserve(hold)
            except (AccountUnloaded, CapsUncounted) as still:
                missing = still
        await self._prepare(hold, missing)
        return await self._credits.reserve(hold)

    async def _prepare(self, hold: Hold, missing: AccountUnloaded | CapsUncounted) -> None:
        if isinstance(missing, AccountUnloaded):
            await self._load_account(hold.terms.account_id)
        else:
            await self._count_caps(hold)

    async def extend(self, opened: OpenHold, amount: MicroCredits) -> Refused | None:
        """Make a hold as large as `amount`; returns what refuses it. Raises `BillingUnavailable`: nobody can say now.

        A hold that has ended, as one does that could not be renewed, is refused all that it does not have.
        """
        hold = msgspec.structs.replace(opened.hold, amount=amount)
        try:
            for _ in range(ATTEMPTS_MAX):
                try:
                    refused = await self._credits.extend(hold)
                except (AccountUnloaded, CapsUncounted) as missing:
                    await self._prepare(hold, missing)
                except HoldMissing:
                    await self._restore_open(opened)
                else:
                    if refused is None:
                        opened.hold = hold
                    return refused
        except HoldConflict:
            return Refused("hold", amount, opened.hold.amount)
        except (RedisUnavailable, RedisScriptError, LedgerUnavailable, CreditsError) as error:
            raise BillingUnavailable(retry_after_s=1) from error
        raise BillingUnavailable(retry_after_s=1)

    def close(self, opened: OpenHold) -> None:
        """The hold has ended, or is left to lapse: it is renewed no more."""
        self._open.pop(opened.hold.request_id, None)

    async def renew_due(self) -> int:
        """Renew every hold that is due; returns how many. What Redis does not answer is due again next time."""
        now = self._clock()
        due: list[OpenHold] = []
        for opened in self._open.values():
            if opened.renew_at > now:
                break
            due.append(opened)
        for opened in due:
            opened.renew_at = now + self._renew_s
            self._open[opened.hold.request_id] = self._open.pop(opened.hold.request_id)
        await asyncio.gather(*(self._renew(opened) for opened in due))
        return len(due)

    async def _renew(self, opened: OpenHold) -> None:
        hold = opened.hold
        cost, usage = opened.progress()
        try:
            await self._credits.renew(hold.request_id, hold.terms.account_id, min(cost, hold.amount), usage)
        except HoldMissing:
            await self._restore_open(opened)
        except (RedisUnavailable, RedisScriptError, CreditsError) as error:
            log.warning("hold not renewed", request_id=hold.request_id, error=str(error))

    async def _restore_open(self, opened: OpenHold) -> bool:
        """Register a hold again, unless its call has ended meanwhile: then its settlement has seen to it."""
        return opened.hold.request_id not in self._open or await self.restore(opened.hold)

    async def restore(self, hold: Hold) -> bool:
        """Register a live hold again, unchecked: Redis lost it, or its shard was rebuilt. False: to be tried again."""
        try:
            for _ in range(ATTEMPTS_MAX):
                try:
                    await self._credits.restore(hold)
                except AccountUnloaded:
                    await self._load_account(hold.terms.account_id)
                else:
                    return True
        except (HoldConflict, RedisScriptError) as error:
            log.error("hold not restored", request_id=hold.request_id, error=str(error))
            return True
        except (RedisUnavailable, LedgerUnavailable, CreditsError):
            return False
        return False

    async def restore_shard(self, shard: int) -> bool:
        """After a rebuild of `shard`: register this gateway's live holds in it again; whether all are."""
        live = [opened for opened in self._open.values() if shard_of(opened.hold.terms.account_id) == shard]
        return all(await asyncio.gather(*map(self._restore_open, live)))
