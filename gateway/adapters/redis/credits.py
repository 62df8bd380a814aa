"""Credits: the accounts' balances and holds in Redis, through the scripts in lua/, one method each.

It knows the epoch of each shard and nothing else: no money is counted here. Every method may be repeated after
`RedisUnavailable`, whose outcome is unknown.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from gateway.adapters.redis.link import Argument, RedisLink, RedisScriptError
from gateway.adapters.redis.scripts import Scripts
from gateway.adapters.redis.stored_holds import owner_of, terms_of
from gateway.core.calls.usage import Usage
from gateway.core.holds import Balance, Counted, Hold, HoldState, Settlement, Terms
from gateway.core.money import MicroCredits
from gateway.core.shards import SHARD_KEYS, SHARDS, ShardKeys, shard_of

# A script unpacks its keys onto Lua's stack.
ACK_HOLDS_MAX = 5000

EventId = tuple[int, int]  # epoch, seq: the place of an event in its shard's outbox

_json = msgspec.json.Encoder().encode


class CreditsError(Exception):
    """Redis cannot do this to the account or the hold now."""

    def __init__(self, what: str = "") -> None:
        super().__init__(f"{(self.__doc__ or '').strip()} ({what})" if what else (self.__doc__ or "").strip())


class AccountUnloaded(CreditsError):
    """The account's balance must first be loaded into Redis."""


class CapsUncounted(CreditsError):
    """What a capped account, member or key has used must first be counted into Redis."""


class ShardCold(CreditsError):
    """The shard must be rebuilt: Redis has lost it, or has an older state of it."""


class ShardRebuilding(ShardCold):
    """The shard has just been rebuilt and waits for the gateways to register their live holds."""

    def __init__(self, what: str, retry_after_ms: int) -> None:
        super().__init__(what)
        self.retry_after_ms = retry_after_ms


class HoldMissing(CreditsError):
    """Redis knows no such hold: it was lost, or ended so long ago that it was forgotten."""


class HoldConflict(CreditsError):
    """The request id stands for another request, or its hold has ended in another way."""


class CreditGap(CreditsError):
    """An earlier credit movement of the account has not been applied yet."""

    def __init__(self, what: str, credit_seq: int) -> None:
        super().__init__(what)
        self.credit_seq = credit_seq  # the last that was applied


class Reserved(msgspec.Struct, frozen=True, gc=False):
    held: MicroCredits  # by this hold
    balance: Balance  # after it
    left: tuple[int, ...] = ()  # for each level with caps: requests and tokens of this minute; -1 for no limit


class Refused(msgspec.Struct, frozen=True, gc=False):
    bound: str
    needed: int  # µcr, or what the bound counts
    available: int
    wait_ms: int = 0  # until a rate has room for this call


class Settled(msgspec.Struct, frozen=True, gc=False):
    balance: Balance
    event_id: EventId


class Expired(NamedTuple):
    """A hold whose lease has run out."""

    shard: int
    request_id: str
    account_id: str  # "" if there is no such hold
    terms: Terms | None  # of an open one


class ShardState(msgspec.Struct, frozen=True):
    epoch: int
    seq: int  # of the last event of the outbox
    ready_at_ms: int  # of Redis' clock


class Credits:
    def __init__(
        self, link: RedisLink, scripts: Scripts, *, lease_ms: int, refusal_ttl_ms: int, tombstone_ttl_ms: int
    ) -> None:
        self._link = link
        self._scripts = scripts
        self._lease_ms = lease_ms
        self._refusal_ttl_ms = refusal_ttl_ms
        self._tombstone_ttl_ms = tombstone_ttl_ms
        self._epochs = [0] * SHARDS

    def adopt(self, shard: int, epoch: int) -> None:
        """Postgres says that `shard` is at `epoch`; an older one is not believed any more."""
        self._epochs[shard] = max(self._epochs[shard], epoch)

    async def reserve(self, hold: Hold) -> Reserved | Refused:
        """Set `hold.amount` aside. Raises AccountUnloaded, CapsUncounted, ShardCold, HoldConflict.

        A hold that has ended is a HoldConflict too: its request was served, and must not be served for the same money.
        """
        terms = hold.terms
        shard = shard_of(terms.account_id)
        keys = SHARD_KEYS[shard]
        caps: tuple[Argument, ...] = (hold.tokens, *hold.cap_lines) if hold.cap_keys else ()
        reply = await self._run(
            "reserve",
            shard,
            (keys.shard, keys.account(terms.account_id), keys.hold(hold.request_id), keys.leases, *hold.cap_keys),
            hold.request_id,
            terms.account_id,
            hold.amount,
            self._lease_ms,
            self._refusal_ttl_ms,
            hold.fingerprint,
            hold.attempt,
            _json(terms),
            *caps,
        )
        word = reply[0]
        if word == b"RESERVED":
            return Reserved(reply[1], Balance(reply[2], reply[3]), tuple(reply[4:]))
        if word == b"REFUSED":
            return Refused(reply[1].decode(), reply[2], reply[3], reply[4])
        raise _error(reply, hold.request_id)

    async def extend(self, hold: Hold) -> Refused | None:
        """Make an open hold as large as `hold.amount`; returns what refuses it, with what is needed and had in all.

        Raises AccountUnloaded, CapsUncounted, ShardCold, HoldMissing, and HoldConflict for a hold that has ended.
        """
        account_id = hold.terms.account_id
        shard = shard_of(account_id)
        keys = SHARD_KEYS[shard]
        place = (keys.shard, keys.account(account_id), keys.hold(hold.request_id), *hold.cap_keys)
        reply = await self._run("extend", shard, place, account_id, hold.amount, *hold.cap_lines)
        if reply[0] == b"EXTENDED":
            return None
        if reply[0] == b"REFUSED":
            return Refused(reply[1].decode(), reply[2], reply[3])
        raise _error(reply, hold.request_id)

    async def renew(
        self, request_id: str, account_id: str, progress: MicroCredits, usage: Usage, *, lease_ms: int | None = None
    ) -> HoldState:
        """Extend a hold's lease; returns OPEN, or how it has ended. Raises HoldMissing, ShardCold, HoldConflict."""
        shard = shard_of(account_id)
        keys = SHARD_KEYS[shard]
        reply = await self._run(
            "renew",
            shard,
            (keys.shard, keys.hold(request_id), keys.leases),
            request_id,
            account_id,
            lease_ms or self._lease_ms,
            progress,
            _json(usage),
        )
        if reply[0] == b"RENEWED":
            return HoldState.OPEN
        if reply[0] == b"ENDED":
            return HoldState(reply[1].decode())
        raise _error(reply, request_id)

    def capture(self, settlement: Settlement) -> Awaitable[Settled]:
        """Debit the cost, free the hold. Raises HoldMissing, HoldConflict, AccountUnloaded, ShardCold."""
        return self._settle("capture", b"CAPTURED", settlement, settlement.charged, _json(settlement))

    def void(self, settlement: Settlement) -> Awaitable[Settled]:
        """Free the hold for nothing. Raises as `capture` does."""
        return self._settle("void", b"VOIDED", settlement, _json(settlement))

    async def _settle(self, script: str, done: bytes, settlement: Settlement, *arguments: Argument) -> Settled:
        request_id, account_id = settlement.request_id, settlement.terms.account_id
        shard = shard_of(account_id)
        keys = _ending_keys(SHARD_KEYS[shard], account_id, request_id)
        if settlement.terms.counted:
            cap_keys, windows = _caps_of(settlement.terms)
            keys, arguments = keys + cap_keys, arguments + windows
        reply = await self._run(script, shard, keys, request_id, account_id, *arguments)
        if reply[0] != done:
            raise _error(reply, request_id)
        return Settled(Balance(reply[1], reply[2]), _event_id(reply[3]))

    async def lapse(
        self, shard: int, request_id: str, account_id: str, terms: Terms | None = None
    ) -> EventId | HoldState:
        """End a hold whose lease has run out: its event, or the state it is in (OPEN: its lease was renewed).

        Raises HoldMissing (its lease is then dropped), AccountUnloaded, ShardCold, HoldConflict.
        """
        keys = _ending_keys(SHARD_KEYS[shard], account_id, request_id)
        cap_keys, windows = _caps_of(terms) if terms is not None else ((), ())
        reply = await self._run("lapse", shard, keys + cap_keys, request_id, account_id, *windows)
        if reply[0] == b"LAPSED":
            return _event_id(reply[1])
        if reply[0] == b"LIVE":
            return HoldState.OPEN
        if reply[0] == b"ENDED":
            return HoldState(reply[1].decode())
        raise _error(reply, request_id)

    async def expired(self, limit: int) -> list[Expired]:
        """Holds whose lease has run out by Redis' clock.

        At most `limit` of each shard, the longest expired first.
        """
        seconds, microseconds = await self._link.command(b"TIME")
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        ranges = [
            self._link.command(b"ZRANGEBYSCORE", keys.leases, b"-inf", now_ms, b"LIMIT", 0, limit)
            for keys in SHARD_KEYS
        ]
        found: list[Expired] = []
        for shard, request_ids in enumerate(await asyncio.gather(*ranges)):
            found += await self._with_owners(shard, [request_id.decode() for request_id in request_ids])
        return found

    async def _with_owners(self, shard: int, request_ids: list[str]) -> list[Expired]:
        if not request_ids:
            return []
        lines = await self._link.command(b"MGET", *map(SHARD_KEYS[shard].hold, request_ids))
        return [
            Expired(shard, each, owner_of(line), terms_of(line)) for each, line in zip(request_ids, lines, strict=True)
        ]

    async def grant(self, account_id: str, credit_seq: int, amount: MicroCredits) -> bool:
        """Apply one credit movement; False if it was applied before. Raises CreditGap, AccountUnloaded, ShardCold."""
        shard = shard_of(account_id)
        keys = SHARD_KEYS[shard]
        reply = await self._run("grant", shard, (keys.shard, keys.account(account_id)), credit_seq, amount)
        if reply[0] in (b"GRANTED", b"ALREADY"):
            return bool(reply[0] == b"GRANTED")
        if reply[0] == b"GAP":
            raise CreditGap(account_id, reply[1])
        raise _error(reply, account_id)

    async def load(self, account_id: str, balance: MicroCredits, credit_seq: int, *, epoch: int | None = None) -> bool:
        """Set an account's balance as Postgres has it; False if it is loaded already. Raises ShardCold.

        `epoch`: the shard's when Postgres was read. If Redis is at another by now, the balance is not its: ShardCold.
        """
        shard = shard_of(account_id)
        keys = SHARD_KEYS[shard]
        place = (keys.shard, keys.account(account_id))
        if epoch is None:
            reply = await self._run("load", shard, place, balance, credit_seq)
        else:
            reply = await self._scripts.run(self._link, "load", place, epoch, balance, credit_seq)
            if reply[0] == b"EPOCH":
                raise ShardCold(f"shard {shard}")
        return bool(reply[0] == b"LOADED")

    async def restore(
        self, hold: Hold, *, lapsed_cost: MicroCredits | None = None, lease_ms: int | None = None
    ) -> bool:
        """Register again a hold that Redis lost; False if it is there. Raises AccountUnloaded, ShardCold, HoldConflict.

        `lapsed_cost`: Postgres has its lapse, which charged this much; the settlement that follows corrects it.
        """
        terms = hold.terms
        shard = shard_of(terms.account_id)
        keys = SHARD_KEYS[shard]
        cap_keys, windows = _caps_of(terms)
        reply = await self._run(
            "restore",
            shard,
            (keys.shard, keys.account(terms.account_id), keys.hold(hold.request_id), keys.leases, *cap_keys),
            hold.request_id,
            terms.account_id,
            hold.amount,
            lease_ms or self._lease_ms,
            hold.fingerprint,
            hold.attempt,
            _json(terms),
            b"" if lapsed_cost is None else lapsed_cost,
            *windows,
        )
        if reply[0] in (b"RESTORED", b"ALREADY"):
            return bool(reply[0] == b"RESTORED")
        raise _error(reply, hold.request_id)

    async def ack(self, shard: int, position: EventId, request_ids: Sequence[str]) -> None:
        """Postgres has the events of `shard` up to `position`; `request_ids` are those of the events just posted."""
        keys = SHARD_KEYS[shard]
        for start in range(0, max(1, len(request_ids)), ACK_HOLDS_MAX):
            holds = map(keys.hold, request_ids[start : start + ACK_HOLDS_MAX])
            await self._scripts.run(self._link, "ack", (keys.outbox, *holds), *position, self._tombstone_ttl_ms)

    async def rebuild(self, shard: int, epoch: int, seq: int, grace_ms: int) -> None:
        """Start `epoch` of `shard` after Postgres has raised it. Raises ShardCold if Redis is further than that."""
        reply = await self._scripts.run(self._link, "rebuild", (SHARD_KEYS[shard].shard,), epoch, seq, grace_ms)
        if reply[0] != b"REBUILT":
            raise ShardCold(f"shard {shard} is at epoch {int(reply[1])}, after {epoch}")
        self.adopt(shard, epoch)

    async def balance(self, account_id: str) -> Balance | None:
        """An account's money as admission sees it; None if it is not loaded."""
        keys = SHARD_KEYS[shard_of(account_id)]
        current, fields = await asyncio.gather(
            self._link.command(b"HGET", keys.shard, b"epoch"),
            self._link.command(b"HMGET", keys.account(account_id), b"epoch", b"balance", b"held"),
        )
        epoch, balance, held = fields
        return None if epoch is None or epoch != current else Balance(int(balance), int(held))

    async def shard_state(self, shard: int) -> ShardState | None:
        """What Redis has of a shard; None if it has nothing."""
        reply = await self._link.command(b"HMGET", SHARD_KEYS[shard].shard, b"epoch", b"seq", b"ready_at")
        return None if reply[0] is None else ShardState(*map(int, reply))

    async def shard_states(self) -> list[ShardState | None]:
        """The state of every shard, in one round trip."""
        return list(await asyncio.gather(*(self.shard_state(shard) for shard in range(SHARDS))))

    async def _run(self, script: str, shard: int, keys: Sequence[bytes], *arguments: Argument) -> list[Any]:
        """Run a script under the epoch this process knows, which Redis may teach it to raise once."""
        link, scripts = self._link, self._scripts
        for _ in range(2):
            epoch = self._epochs[shard]
            # As Scripts.run does, without its coroutine: this is the way of every call.
            try:
                reply: list[Any] = await link.command(
                    b"EVALSHA", scripts.sha1[script], len(keys), *keys, epoch, *arguments
                )
            except RedisScriptError as error:
                reply = await scripts.send_whole(error, link, script, keys, epoch, *arguments)
            if reply[0] != b"EPOCH":
                return reply
            if not reply[1] or int(reply[1]) < self._epochs[shard]:
                break
            self.adopt(shard, int(reply[1]))
        raise ShardCold(f"shard {shard}")


def _ending_keys(keys: ShardKeys, account_id: str, request_id: str) -> tuple[bytes, ...]:
    return keys.shard, keys.account(account_id), keys.hold(request_id), keys.leases, keys.outbox


def _caps_of(terms: Terms) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """The keys of the counters that a hold stands in, and for each the names of its day and its month there."""
    return _counters(terms.account_id, terms.member_id, terms.key_id, terms.counted)


@lru_cache(maxsize=4096)  # a caller's calls follow each other
def _counters(
    account_id: str, member_id: str, key_id: str, counted: tuple[Counted, ...]
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    keys, ids = SHARD_KEYS[shard_of(account_id)], {"account": account_id, "member": member_id, "key": key_id}
    return (
        tuple(keys.caps(each.level, ids[each.level]) for each in counted),
        tuple(name for each in counted for name in (each.day, each.month)),
    )


def _event_id(text: bytes) -> EventId:
    epoch, _, seq = text.partition(b"-")
    return int(epoch), int(seq)


def _error(reply: list[Any], what: str) -> CreditsError:
    word = reply[0]
    if word == b"REBUILDING":
        return ShardRebuilding(what, reply[1])
    if word == b"ENDED":
        return HoldConflict(f"{what} is {reply[1].decode()}")
    return _ERRORS[word](what)


_ERRORS: dict[bytes, type[CreditsError]] = {
    b"UNLOADED": AccountUnloaded,
    b"UNCOUNTED": CapsUncounted,
    b"MISSING": HoldMissing,
    b"CONFLICT": HoldConflict,
}
