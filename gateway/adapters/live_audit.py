"""Auditing Redis while calls go on: each shard is compared with Postgres at one position of its outbox.

Postgres is read first, in one snapshot; then Redis, in one MULTI, together with the events that Postgres did not have.
A shard that could not be read so, because it moved on in between, is read again.
"""

import asyncio
from collections import defaultdict
from typing import Any

import msgspec

from gateway.adapters.postgres.database import SYSTEM, Pool, outages
from gateway.adapters.redis.link import RedisLink
from gateway.adapters.redis.stored_holds import StoredHold, read_hold
from gateway.core.accounting.posting import Position
from gateway.core.money import MicroCredits
from gateway.core.shards import SHARD_KEYS, SHARDS

ATTEMPTS_MAX = 10
PAUSE_S = 0.05
SCAN_COUNT = 1000
UNCOMPARED = "could not be compared"

_SNAPSHOT = """
    SELECT shard.epoch, shard.position_epoch, shard.position_seq, account.id::text AS account_id, account.credit_seq,
           balances.balance, credits.pending
    FROM shard
    JOIN (SELECT shard, account_id, sum(amount)::bigint AS balance FROM balance
          WHERE account_id <> $2 GROUP BY 1, 2) AS balances ON balances.shard = shard.id
    JOIN account ON account.id = balances.account_id
    LEFT JOIN LATERAL (
        SELECT json_agg(json_build_array(credit_seq, amount)) AS pending
        FROM credit_outbox WHERE account_id = account.id
    ) AS credits ON true
    WHERE shard.id = $1 AND NOT shard.is_rebuilding
"""


class _Account(msgspec.Struct, frozen=True):
    """What Postgres has of an account."""

    balance: MicroCredits
    credit_seq: int
    pending: list[tuple[int, MicroCredits]]


class _Moved(Exception):
    """The shard moved on while it was read."""


Complaints = tuple[list[str], list[str]]


async def check_redis(pool: Pool, link: RedisLink) -> Complaints:
    """Return what is wrong with the held amounts, and with the balances. Raises the errors of either store."""
    accounts = await _accounts_by_shard(link)
    found = [await _check_shard(pool, link, shard, accounts[shard]) for shard in range(SHARDS)]
    return [text for held, _ in found for text in held], [text for _, balances in found for text in balances]


async def _accounts_by_shard(link: RedisLink) -> dict[int, list[str]]:
    """The accounts Redis has, loaded in whatever epoch."""
    found: dict[int, set[str]] = defaultdict(set)
    cursor = b"0"
    while True:
        cursor, keys = await link.command(b"SCAN", cursor, b"MATCH", b"tg:{s*}:account:*", b"COUNT", SCAN_COUNT)
        for key in keys:
            shard = int(key[5:7])
            found[shard].add(key.removeprefix(SHARD_KEYS[shard].account("")).decode())
        if cursor == b"0":
            return defaultdict(list, {shard: sorted(ids) for shard, ids in found.items()})


async def _check_shard(pool: Pool, link: RedisLink, shard: int, account_ids: list[str]) -> Complaints:
    complaints: Complaints = ([], [])
    for _ in range(ATTEMPTS_MAX):
        try:
            complaints = await _compare(pool, link, shard, account_ids)
        except _Moved as error:
            complaints = ([], [f"shard {shard} {UNCOMPARED}: {error}"])
        if complaints == ([], []):
            break
        # What is on its way to be mended (a credit being delivered, a rebuild) is not there a moment later.
        await asyncio.sleep(PAUSE_S)
    return complaints


async def _compare(pool: Pool, link: RedisLink, shard: int, account_ids: list[str]) -> Complaints:
    with outages():
        rows = await pool.fetch(_SNAPSHOT, shard, SYSTEM, timeout=None)
    if not rows:
        if account_ids:
            raise _Moved("it is being rebuilt")
        return [], []
    epoch, position = rows[0]["epoch"], Position(rows[0]["position_epoch"], rows[0]["position_seq"])
    truth = {row["account_id"]: _account(row) for row in rows}
    keys = SHARD_KEYS[shard]
    request_ids = [raw.decode() for raw in await link.command(b"ZRANGE", keys.leases, 0, -1)]
    reply = await _atomically(
        link,
        (b"HMGET", keys.shard, b"epoch", b"seq"),
        (b"ZRANGE", keys.leases, 0, -1),
        (b"XRANGE", keys.outbox, f"({position.epoch}-{position.seq}", b"+"),
        *((b"HMGET", keys.account(each), b"epoch", b"balance", b"held", b"credit_seq") for each in account_ids),
        *((b"GET", keys.hold(each)) for each in request_ids),
    )
    (redis_epoch, seq), leased, events = reply[:3]
    accounts = reply[3 : 3 + len(account_ids)]
    holds = [read_hold(line) for line in reply[3 + len(account_ids) :] if line is not None]
    if redis_epoch is None or int(redis_epoch) != epoch:
        raise _Moved(f"Redis is at epoch {redis_epoch}, Postgres at {epoch}")
    if [raw.decode() for raw in leased] != request_ids or int(seq) - position.seq != len(events):
        raise _Moved("calls went on")
    current = b"%d" % epoch
    loaded = {name: fields for name, fields in zip(account_ids, accounts, strict=True) if fields[0] == current}
    return _wrong_held(loaded, [hold for hold in holds if hold.epoch == epoch]), _wrong_balances(loaded, truth, events)


def _account(row: Any) -> _Account:
    pending = [] if row["pending"] is None else msgspec.json.decode(row["pending"], type=list[tuple[int, int]])
    return _Account(row["balance"], row["credit_seq"], pending)


async def _atomically(link: RedisLink, *commands: tuple[Any, ...]) -> list[Any]:
    """Run commands in one MULTI. They leave in one tick, so nothing else of this connection comes between."""
    replies = [link.command(b"MULTI"), *(link.command(*command) for command in commands), link.command(b"EXEC")]
    result: list[Any] = (await asyncio.gather(*replies))[-1]
    return result


def _wrong_held(loaded: dict[str, list[Any]], holds: list[StoredHold]) -> list[str]:
    open_holds: dict[str, int] = defaultdict(int)
    for hold in holds:
        open_holds[hold.account_id] += hold.amount
    return [
        f"account {account_id}: {int(fields[2])} held, open holds {open_holds[account_id]}"
        for account_id, fields in loaded.items()
        if int(fields[2]) != open_holds[account_id]
    ]


def _wrong_balances(loaded: dict[str, list[Any]], truth: dict[str, _Account], events: list[Any]) -> list[str]:
    unposted: dict[str, int] = defaultdict(int)
    for _, flat in events:
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        unposted[fields.get(b"account", b"").decode()] += int(fields.get(b"cost", 0))
    wrong = []
    for account_id, (_, balance, _, credit_seq) in loaded.items():
        account = truth.get(account_id)
        if account is None:
            wrong.append(f"account {account_id} is in Redis only")
            continue
        if int(credit_seq) > account.credit_seq:
            raise _Moved("credit was delivered")
        undelivered = sum(amount for number, amount in account.pending if number > int(credit_seq))
        expected = account.balance - unposted[account_id] - undelivered
        if int(balance) != expected:
            wrong.append(f"account {account_id}: {int(balance)} in Redis, {expected} by Postgres and the outbox")
    return wrong
