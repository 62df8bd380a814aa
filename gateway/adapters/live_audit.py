"""Auditing Redis while calls go on: its accounts are compared with Postgres, some hundreds at a time.

Of each batch Postgres is read first, in one snapshot, then Redis, in one short transaction. What does not agree, since
it moved on in between or is being mended, is looked at again; only what never agrees is told.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from gateway.adapters.postgres.database import Pool, outages
from gateway.adapters.redis.link import RedisLink
from gateway.adapters.redis.shard_reader import LoadedAccount, ShardMoved, ShardReader
from gateway.core.accounting.posting import Position
from gateway.core.money import MicroCredits
from gateway.core.shards import SHARD_KEYS, SHARDS

ATTEMPTS_MAX = 10
PAUSE_S = 0.05
UNCOMPARED = "could not be compared"
REMEDY = "try again once Redis answers, or raise audit.redis_timeout_ms"

_SNAPSHOT = """
    SELECT shard.epoch, shard.position_epoch, shard.position_seq, account.id::text AS account_id, account.credit_seq,
           (SELECT sum(amount)::bigint FROM balance
            WHERE account_id = account.id AND balance.shard = shard.id) AS balance,
           (SELECT json_agg(json_build_array(credit_seq, amount))
            FROM credit_outbox WHERE account_id = account.id) AS pending
    FROM shard LEFT JOIN account ON account.id = ANY($2::uuid[])
    WHERE shard.id = $1 AND NOT shard.is_rebuilding
"""

Batch = tuple[int, Sequence[str]]  # a shard, and accounts of it


class _Account(msgspec.Struct, frozen=True):
    """What Postgres has of an account."""

    balance: MicroCredits
    credit_seq: int
    pending: list[tuple[int, MicroCredits]]


class _Doubts(msgspec.Struct, frozen=True):
    """What did not agree: which accounts must be looked at again, and what is told if they never do."""

    suspects: dict[int, dict[str, None]]  # by shard, in their order
    held: dict[str, None]
    balances: dict[str, None]

    def add(self, shard: int, account_ids: Iterable[str], *, held: str = "", balance: str = "") -> None:
        self.suspects.setdefault(shard, {}).update(dict.fromkeys(account_ids))
        self.held.update({held: None} if held else {})
        self.balances.update({balance: None} if balance else {})


async def check_redis(
    pool: Pool, link: RedisLink, *, at_once: int = 500, on_progress: Callable[[int], None] = lambda done: None
) -> tuple[list[str], list[str]]:
    """Return what is wrong with the held amounts, and with the balances. Raises the errors of either store.

    `at_once`: the most accounts of one transaction, which calls wait behind. `on_progress` hears how many are compared.
    """
    readers = [ShardReader(link, shard, at_once=at_once) for shard in range(SHARDS)]
    doubts = await _compare_all(pool, readers, _loaded_accounts(link, at_once), on_progress)
    for _ in range(ATTEMPTS_MAX - 1):
        if not doubts.suspects:
            break
        # What is on its way to be mended (a credit being delivered, a rebuild) is not there a moment later.
        await asyncio.sleep(PAUSE_S)
        doubts = await _compare_all(pool, readers, _again(doubts.suspects, at_once))
    return list(doubts.held), list(doubts.balances)


async def _loaded_accounts(link: RedisLink, at_once: int) -> AsyncIterator[Batch]:
    """The accounts Redis has, loaded in whatever epoch; and of every shard a last batch, be it empty."""
    found: dict[int, list[str]] = defaultdict(list)
    cursor = b"0"
    while True:
        cursor, keys = await link.command(b"SCAN", cursor, b"MATCH", b"tg:{s*}:account:*", b"COUNT", at_once)
        for key in keys:
            shard = int(key[5:7])
            found[shard].append(key.removeprefix(SHARD_KEYS[shard].account("")).decode())
            if len(found[shard]) == at_once:
                yield shard, found.pop(shard)
        if cursor == b"0":
            break
    for shard in range(SHARDS):
        yield shard, found[shard]


async def _again(suspects: dict[int, dict[str, None]], at_once: int) -> AsyncIterator[Batch]:
    for shard, account_ids in suspects.items():
        ids = list(account_ids)
        for start in range(0, max(1, len(ids)), at_once):
            yield shard, ids[start : start + at_once]


async def _compare_all(
    pool: Pool,
    readers: Sequence[ShardReader],
    batches: AsyncIterator[Batch],
    on_progress: Callable[[int], None] = lambda done: None,
) -> _Doubts:
    doubts, done = _Doubts({}, {}, {}), 0
    async for shard, account_ids in batches:
        try:
            await _compare(pool, readers[shard], shard, account_ids, doubts)
        except ShardMoved as error:
            doubts.add(shard, account_ids, balance=f"shard {shard} {UNCOMPARED}: {error}; try again")
        done += len(account_ids)
        on_progress(done)
    return doubts


async def _compare(pool: Pool, reader: ShardReader, shard: int, account_ids: Sequence[str], doubts: _Doubts) -> None:
    with outages():
        rows = await pool.fetch(_SNAPSHOT, shard, [each for each in account_ids if _is_id(each)], timeout=None)
    if not rows:
        if account_ids:
            raise ShardMoved("it is being rebuilt")
        return
    posted = Position(rows[0]["position_epoch"], rows[0]["position_seq"])
    truth = {row["account_id"]: _account(row) for row in rows if row["balance"] is not None}
    for account in await reader.read(account_ids, rows[0]["epoch"], posted):
        if not account.is_readable:
            told = f"account {account.id}: its amounts in Redis are no whole numbers"
            doubts.add(shard, [account.id], held=told, balance=told)
            continue
        if account.held != account.in_holds:
            told = f"account {account.id}: {account.held} held, open holds {account.in_holds}"
            doubts.add(shard, [account.id], held=told)
        if wrong := _wrong_balance(account, truth.get(account.id)):
            doubts.add(shard, [account.id], balance=wrong)


def _is_id(text: str) -> bool:
    """Whether it is an account's id as Postgres writes it: any other account can be in Redis only."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _account(row: Any) -> _Account:
    pending = [] if row["pending"] is None else msgspec.json.decode(row["pending"], type=list[tuple[int, int]])
    return _Account(row["balance"], row["credit_seq"], pending)


def _wrong_balance(account: LoadedAccount, truth: _Account | None) -> str:
    if truth is None:
        return f"account {account.id} is in Redis only"
    if account.credit_seq > truth.credit_seq:
        return f"account {account.id} {UNCOMPARED}: credit was delivered"
    undelivered = sum(amount for number, amount in truth.pending if number > account.credit_seq)
    expected = truth.balance - account.unposted - undelivered
    if account.balance == expected:
        return ""
    return f"account {account.id}: {account.balance} in Redis, {expected} by Postgres and the outbox"
