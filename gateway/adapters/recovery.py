"""Recovery: tells Redis anew what Postgres knows, one account or whole shards, by absolute values under an epoch.

A rebuild raises the epoch in Postgres first, so nothing of an older one counts any more; drains what the old epoch left
in the outbox; registers the holds that are still open; and only then lets accounts be loaded and calls in.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog

from gateway.adapters.postgres.database import Connection, LedgerUnavailable, Pool, load_queries, outages
from gateway.adapters.postgres.ledger import Ledger
from gateway.adapters.redis.credits import AccountUnloaded, Credits, ShardCold, ShardState
from gateway.adapters.redis.link import RedisLink, RedisScriptError
from gateway.adapters.redis.outbox import Outbox
from gateway.adapters.redis.stored_holds import StoredHold, read_hold
from gateway.core.accounting.posting import Event, Position
from gateway.core.holds import Hold, HoldState
from gateway.core.ids import uuid_of
from gateway.core.shards import SHARD_KEYS, ShardKeys, shard_of

log = structlog.get_logger(__name__)

REBUILD_LOCK = 7_077_003
# Reserves are refused until the rebuild is over; it sets the real moment itself.
UNTIL_REBUILT_MS = 3_600_000
DRAIN_COUNT = 200
RESTORE_COUNT = 200
LOAD_ATTEMPTS_MAX = 3


class BalanceUnknown(ShardCold):
    """Postgres cannot say now what the account has."""


class Recovery:
    def __init__(
        self, pool: Pool, ledger: Ledger, credits: Credits, outbox: Outbox, link: RedisLink, *, grace_ms: int
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._credits = credits
        self._outbox = outbox
        self._link = link
        self._grace_ms = grace_ms
        self._sql = load_queries("recovery")
        self._loading: dict[str, asyncio.Task[None]] = {}
        self.rebuilt_total = 0

    # --- one account -------------------------------------------------------------------------------------------------

    async def load_account(self, account_id: str) -> None:
        """Load an account's balance into Redis, once however many ask. Raises ShardCold or RedisUnavailable.

        The balance in Postgres lacks what is in the outbox still. Yet it is right: events of this epoch stem from an
        account that was loaded in it, and such an account is never loaded again; those of earlier epochs were drained
        before the shard's rebuild was over, and until then nothing is loaded.
        """
        loading = self._loading.get(account_id)
        if loading is None:
            loading = asyncio.create_task(self._load(account_id))
            self._loading[account_id] = loading
            loading.add_done_callback(lambda task: self._loaded(account_id, task))
        await asyncio.shield(loading)

    def _loaded(self, account_id: str, task: asyncio.Task[None]) -> None:
        self._loading.pop(account_id, None)
        if not task.cancelled():
            task.exception()  # seen, also when everybody who waited has left

    async def _load(self, account_id: str) -> None:
        for _ in range(LOAD_ATTEMPTS_MAX - 1):
            try:
                await self._load_now(account_id)
            except BalanceUnknown:
                raise
            except ShardCold:
                continue  # rebuilt between the two reads: read both again
            return
        await self._load_now(account_id)

    async def _load_now(self, account_id: str, *, is_rebuilder: bool = False) -> None:
        shard = shard_of(account_id)
        if uuid_of(account_id) is None:  # Postgres would refuse the question
            raise AccountUnloaded(f"there is no account {account_id}")
        try:
            with outages():
                row = await self._pool.fetchrow(self._sql["snapshot"], account_id, shard)
        except LedgerUnavailable as error:
            raise BalanceUnknown(account_id) from error
        if row is None:
            raise AccountUnloaded(f"there is no account {account_id}")
        if row["is_rebuilding"] and not is_rebuilder:
            raise BalanceUnknown(f"shard {shard} is being rebuilt")
        self._credits.adopt(shard, row["epoch"])
        await self._credits.load(account_id, row["balance"], row["credit_seq"], epoch=row["epoch"])

    # --- whole shards ------------------------------------------------------------------------------------------------

    async def mark_for_rebuild(self, shards: Sequence[int]) -> None:
        """Have these shards rebuilt by whoever rebuilds; until then their calls are refused."""
        with outages():
            await self._pool.execute(self._sql["mark_for_rebuild"], shards)

    async def rebuild_where_needed(self) -> list[int]:
        """Rebuild every shard that Redis lacks, or has in another epoch or an older state than Postgres.

        Returns those that were rebuilt; none, if another process is at it. Raises `LedgerUnavailable`,
        `OutboxUnavailable` or `RedisUnavailable`; a rebuild that was broken off is then done again.
        """
        if not (await self._unsound())[0]:
            return []
        async with self._alone() as connection:
            if connection is None:
                return []
            shards, states = await self._unsound()
            await self._rebuild(connection, shards, states)
        return shards

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator["Connection | None"]:
        """A connection that no other rebuilder has one beside; None if another rebuilds now."""
        with outages():
            connection = await self._pool.acquire()
        try:
            with outages():
                is_alone = await connection.fetchval(self._sql["lock"], REBUILD_LOCK)
            yield connection if is_alone else None
        finally:
            with outages():
                await self._pool.release(connection)  # its reset lets go of the lock

    async def _unsound(self) -> tuple[list[int], list[ShardState | None]]:
        """The shards to rebuild, and what Redis has of each. Postgres is read first: Redis may only be further."""
        truth = await self._ledger.shards()
        states = await self._credits.shard_states()
        wanted = []
        for shard, (truly, state) in enumerate(zip(truth, states, strict=True)):
            is_sound = (
                state is not None
                and state.epoch == truly.epoch
                and state.seq >= truly.position.seq
                and not truly.is_rebuilding
            )
            if not is_sound:
                wanted.append(shard)
        return wanted, states

    async def _rebuild(
        self, connection: Connection, shards: Sequence[int], states: Sequence[ShardState | None]
    ) -> None:
        if not shards:
            return
        known_epochs = [state.epoch if (state := states[shard]) is not None else 0 for shard in shards]
        with outages():
            rows = await connection.fetch(self._sql["raise_epochs"], shards, known_epochs)
        epochs = {row["id"]: row["epoch"] for row in rows}
        await asyncio.gather(
            *(self._credits.rebuild(row["id"], row["epoch"], row["position_seq"], UNTIL_REBUILT_MS) for row in rows)
        )
        await self._drain(connection, shards)
        for shard in shards:
            await self._restore_holds(shard, epochs[shard])
        await self._let_in(epochs)
        with outages():
            await connection.execute(self._sql["rebuilt"], list(epochs), list(epochs.values()))
        self.rebuilt_total += len(shards)

    async def _drain(self, connection: Connection, shards: Sequence[int]) -> None:
        """Post whatever the outboxes hold, from their very start. No script adds to them while this runs."""
        read_to = dict.fromkeys(shards, Position(0, 0))
        while events := await self._outbox.read(read_to, count=DRAIN_COUNT):
            posted = await self._ledger.post(connection, events)
            requests: dict[int, list[str]] = {event.shard: [] for event in events}
            for event in events:
                read_to[event.shard] = event.position
                if isinstance(event, Event):
                    requests[event.shard].append(event.request_id)
            await asyncio.gather(
                *(self._credits.ack(shard, posted.positions[shard], ids) for shard, ids in requests.items())
            )

    async def _restore_holds(self, shard: int, epoch: int) -> None:
        """Carry the open holds that Redis still has into the new epoch; forget those that have ended in Postgres."""
        keys = SHARD_KEYS[shard]
        request_ids = [raw.decode() for raw in await self._link.command(b"ZRANGE", keys.leases, 0, -1)]
        for start in range(0, len(request_ids), RESTORE_COUNT):
            await self._restore_some(keys, request_ids[start : start + RESTORE_COUNT], epoch)

    async def _restore_some(self, keys: ShardKeys, request_ids: list[str], epoch: int) -> None:
        lines = await self._link.command(b"MGET", *map(keys.hold, request_ids))
        known = [each for each in request_ids if uuid_of(each) is not None]
        over = await self._ledger.ended(known) | (await self._ledger.lapses(known)).keys()
        holds = {request_id: _carried(request_id, line) for request_id, line in zip(request_ids, lines, strict=True)}
        still_open = {
            request_id: hold
            for request_id, hold in holds.items()
            if hold is not None and request_id not in over and hold.state is HoldState.OPEN
        }
        # Of this epoch is what a gateway registered meanwhile, and may have ended: that it did is not forgotten.
        ours = [each for each, hold in holds.items() if hold is None or hold.epoch != epoch]
        await self._forget(keys, [each for each in ours if each not in still_open])
        accounts = {hold.account_id for hold in still_open.values()}
        unknown = {each for each in accounts if not await self._is_loaded_anew(each)}
        await self._forget(keys, [each for each, hold in still_open.items() if hold.account_id in unknown])
        await asyncio.gather(
            *(self._restore(each, hold) for each, hold in still_open.items() if hold.account_id not in unknown)
        )

    async def _forget(self, keys: ShardKeys, request_ids: list[str]) -> None:
        if request_ids:
            await asyncio.gather(
                self._link.command(b"ZREM", keys.leases, *request_ids),
                self._link.command(b"DEL", *map(keys.hold, request_ids)),
            )

    async def _is_loaded_anew(self, account_id: str) -> bool:
        """Load it; False if there is no such account, or Redis cannot take it.

        A Postgres restored from a backup may lack the newest ones.
        """
        try:
            await self._load_now(account_id, is_rebuilder=True)
        except (AccountUnloaded, RedisScriptError) as error:
            log.error("open holds of an account are forgotten", account_id=account_id, error=str(error))
            return False
        return True

    async def _restore(self, request_id: str, stored: StoredHold) -> None:
        progress, usage, terms = stored.opened()
        await self._credits.restore(Hold(request_id, stored.amount, stored.fingerprint, terms, stored.attempt))
        if progress:
            await self._credits.renew(request_id, stored.account_id, progress, usage)

    async def _let_in(self, epochs: Mapping[int, int]) -> None:
        """Take reserves again: after a grace, in which gateways register live holds. A new shard can have none."""
        seconds, microseconds = await self._link.command(b"TIME")
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        await asyncio.gather(
            *(
                self._link.command(
                    b"HSET", SHARD_KEYS[shard].shard, b"ready_at", now_ms + (self._grace_ms if epoch > 1 else 0)
                )
                for shard, epoch in epochs.items()
            )
        )


def _carried(request_id: str, line: bytes | None) -> StoredHold | None:
    """The hold that can be carried over; None if there is none, or nobody can read it: it must not keep the others."""
    try:
        hold = None if line is None else read_hold(line)
        if hold is not None and hold.state is HoldState.OPEN:
            hold.opened()
    except ValueError as error:
        log.error("hold is unreadable, and forgotten", request_id=request_id, error=str(error))
        return None
    return hold
