"""An account with a member and a key that have caps, and everything that may happen to its holds."""

import asyncio
import os
import time
from uuid import uuid4

from gateway.adapters.redis.counters import Charged, Counters, Used
from gateway.adapters.redis.credits import Credits, Refused, Reserved
from gateway.adapters.redis.link import RedisLink
from gateway.adapters.redis.scripts import Scripts
from gateway.core.access.callers import Caller
from gateway.core.accounting.posting import Position
from gateway.core.calls.usage import Usage
from gateway.core.guard.caps import Caps, CapsByLevel, Holder, bounds_of
from gateway.core.guard.windows import Windows, windows_at
from gateway.core.holds import Hold, HoldState, Outcome, Settlement, Terms
from gateway.core.ids import uuid7
from gateway.core.shards import shard_of
from gateway.resources import shipped

DAY_MS = 86_400_000
NONE = Caps()


class Desk:
    """One account with a member and a key, and the caps of each."""

    def __init__(self, credits: Credits, link: RedisLink, account_id: str, caps: CapsByLevel) -> None:
        self.credits = credits
        self.link = link
        self.counters = Counters(link, Scripts(shipped("lua")))
        self.caller = Caller(account_id, "k1", member_id="m1")
        self.caps = caps
        self.shard = shard_of(account_id)
        # Noon, so that no test crosses a midnight by itself.
        self.now_ms = windows_at(time.time_ns() // 1_000_000, "UTC").day.start_ms + DAY_MS // 2

    @property
    def windows(self) -> Windows:
        return windows_at(self.now_ms, "UTC")

    def hold(self, amount: int, *, tokens: int = 0, request_id: str = "", attempt: int = 1) -> Hold:
        request_id = request_id or uuid7(self.now_ms, os.urandom(10))
        bounds = bounds_of(self.caller, self.caps, self.now_ms)
        terms = Terms(
            self.caller.account_id,
            "k1",
            "/v1/chat/completions",
            "gpt-4o-mini",
            "card",
            self.now_ms,
            member_id="m1",
            counted=bounds.counted,
        )
        return Hold(request_id, amount, "f", terms, attempt, tokens, bounds.keys, bounds.lines)

    async def reserve(self, amount: int = 1, *, tokens: int = 0) -> Hold | Refused:
        hold = self.hold(amount, tokens=tokens)
        reply = await self.credits.reserve(hold)
        return hold if isinstance(reply, Reserved) else reply

    async def reserved(self, amount: int = 1) -> Hold:
        hold = await self.reserve(amount)
        assert isinstance(hold, Hold)
        return hold

    async def capture(self, hold: Hold, cost: int) -> None:
        await self.credits.capture(Settlement(hold.request_id, hold.terms, Outcome.EXACT, hold.amount, cost, 1))

    async def void(self, hold: Hold) -> None:
        await self.credits.void(Settlement(hold.request_id, hold.terms, Outcome.VOID, hold.amount, 0, 1))

    async def lapse(self, hold: Hold, progress: int = 0) -> None:
        await self.credits.renew(hold.request_id, self.caller.account_id, progress, Usage(), lease_ms=1)
        while (
            await self.credits.lapse(self.shard, hold.request_id, self.caller.account_id, hold.terms) is HoldState.OPEN
        ):
            await asyncio.sleep(0)

    def holder(self, level: str = "account") -> Holder:
        return Holder(self.caller.account_id, level, {"account": self.caller.account_id, "key": "k1"}.get(level, "m1"))

    async def count(self, level: str = "account", day: int | None = 0, month: int | None = 0) -> int:
        """Count anew, after Postgres has charged `day` and `month` and posted nothing of this shard's outbox."""
        charged = Charged(1, Position(0, 0), day, month)
        return await self.counters.count(self.holder(level), self.windows, charged)

    async def used(self, level: str = "account") -> Used:
        return await self.counters.used(self.holder(level), self.windows)

    async def day(self, level: str = "account") -> int | None:
        return (await self.used(level)).day


async def desk_with(
    credits: Credits, link: RedisLink, *, account: Caps = NONE, member: Caps = NONE, key: Caps = NONE
) -> Desk:
    account_id = str(uuid4())
    await credits.load(account_id, 10**12, 0)
    desk = Desk(credits, link, account_id, CapsByLevel(account, member, key))
    for level in ("account", "member", "key"):
        await desk.count(level)
    return desk
