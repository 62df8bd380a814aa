"""Tollgate's stores: what the load did to them (CPU of Redis, rows of Postgres, how late they were written), and how
accounts get there by the million.

The only file of the bench that knows table and key names.
"""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec
import psycopg
from redis import Redis

from bench.processes import BenchError
from gateway.core.access.keys import hash_key
from gateway.core.shards import SHARDS, shard_of

DRAIN_TIMEOUT_S = 60.0
REWRITE_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.02
STAYS_EMPTY_S = 0.1
LONG_AGO = "2026-01-01"
ROW_TABLES = ("transfer", "entry", "call_usage")

_LAG = """
    SELECT
        count(*),
        percentile_cont(0.5) WITHIN GROUP (ORDER BY lag_ms),
        percentile_cont(0.99) WITHIN GROUP (ORDER BY lag_ms)
    FROM (SELECT extract(epoch FROM recorded_at - event_at) * 1000 AS lag_ms FROM transfer WHERE event_at >= %s) AS late
"""

LINES_AT_ONCE = 50_000
_LINES = """
    WITH made AS (
        INSERT INTO transfer (id, kind, account_id, request_id, event_at, recorded_at)
        SELECT id, 'capture', account, id, moment, moment
        FROM (SELECT lpad(to_hex(n), 32, '0')::uuid AS id,
                     now() - interval '1 day' + interval '1 day' * (n / 500) / (1 + %s / 500) AS moment
              FROM generate_series(%s::bigint, %s) AS n) AS numbered, (SELECT %s::uuid AS account) AS one
        RETURNING id, account_id, recorded_at
    ), entries AS (
        INSERT INTO entry (transfer_id, line, shard, account_id, bucket, amount, recorded_at)
        SELECT id, line, 0, CASE line WHEN 0 THEN account_id ELSE '00000000-0000-0000-0000-000000000000' END,
               bucket, amount, recorded_at
        FROM made CROSS JOIN (VALUES (0, 'promo', -1030000), (1, 'promotions', 1030000)) AS sides (line, bucket, amount)
    )
    INSERT INTO call_usage (request_id, phase, account_id, key_id, endpoint, model, rate_version, rate_key, outcome,
                            usage, held, cost, charged, rounding, flags, status, upstream_request_id, event_at,
                            recorded_at)
    SELECT id, 'end', account_id, 'key_bench', '/v1/chat/completions', 'gpt-4o', 'bench', 'gpt-4o/default', 'exact',
           '{"input": 7, "output": 24}', 2000000, 1030000, 1030000, 0, '{}', 200, 'req_bench', recorded_at, recorded_at
    FROM made
"""


class Lag(msgspec.Struct, frozen=True):
    """From an event to the start of the SQL transaction that recorded it."""

    transfers: int
    p50_ms: float
    p99_ms: float


class Stores:
    """Connections of the bench's own to Tollgate's Redis and Postgres."""

    def __init__(self, redis_url: str, database_url: str) -> None:
        self._redis = Redis.from_url(redis_url)
        self._postgres = psycopg.connect(database_url, autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._redis.close()
        self._postgres.close()

    def redis_cpu_s(self) -> float:
        cpu = self._redis.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])

    def scripts_run(self) -> int:
        """How many Redis scripts were run until now."""
        stats = self._redis.info("commandstats")
        return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))

    def now(self) -> object:
        """The present, by Postgres' clock."""
        return self._one("SELECT clock_timestamp()")[0]

    def unposted(self) -> int:
        """Settlements that wait in the outboxes."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for shard in range(SHARDS):
                pipeline.xlen(f"tg:{{s{shard:02}}}:outbox")
            return sum(pipeline.execute())

    def drain(self) -> None:
        """Wait until every settlement is in Postgres, also those that a gateway was about to hand to Redis."""
        give_up_at = time.monotonic() + DRAIN_TIMEOUT_S
        empty_since: float | None = None
        while empty_since is None or time.monotonic() - empty_since < STAYS_EMPTY_S:
            left = self.unposted()
            empty_since = None if left else empty_since or time.monotonic()
            if time.monotonic() > give_up_at:
                raise BenchError(f"{left} settlements still wait in the outboxes after {DRAIN_TIMEOUT_S:.0f} s")
            time.sleep(POLL_INTERVAL_S)

    def rest(self) -> None:
        """Wait until Redis has written its log anew, as it does by itself after much was put into it."""
        give_up_at = time.monotonic() + REWRITE_TIMEOUT_S
        while True:
            state = self._redis.info("persistence")
            if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
                return
            if time.monotonic() > give_up_at:
                raise BenchError(f"Redis still rewrites its log after {REWRITE_TIMEOUT_S:.0f} s")
            time.sleep(POLL_INTERVAL_S)

    def rows(self) -> int:
        """How many rows the ledger's tables hold."""
        counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in ROW_TABLES)
        return sum(int(str(count)) for count in self._one(f"SELECT {counts}"))

    def accounts_of(self, keys: Sequence[str]) -> list[str]:
        """The accounts that `keys` belong to."""
        hashes = [hash_key(key.encode()) for key in keys]
        rows = self._postgres.execute("SELECT DISTINCT account_id::text FROM api_key WHERE hash = ANY(%s)", (hashes,))
        return [str(row[0]) for row in rows]

    def add_accounts(self, ids: Sequence[str]) -> None:
        """Put accounts with nothing in them into the books, all at once, and let Postgres tidy up before it is used.

        Unchanged for long, since gateways look again at every account that changed lately; yet opened today, so that
        no worker makes their statements of last month meanwhile.
        """
        with self._postgres.transaction(), self._postgres.cursor() as cursor:
            with cursor.copy(b"COPY account (id, name, changed_at) FROM STDIN") as rows:
                for each in ids:
                    rows.write(f"{each}\tbench {each}\t{LONG_AGO}\n")
            with cursor.copy(b"COPY balance (shard, account_id, bucket) FROM STDIN") as rows:
                for each in ids:
                    shard = shard_of(each)
                    rows.write("".join(f"{shard}\t{each}\t{bucket}\n" for bucket in ("promo", "paid", "debt")))
        self._postgres.execute(b"VACUUM (ANALYZE) account, balance")
        self._postgres.execute(b"CHECKPOINT")

    def add_lines(self, account_id: str, count: int) -> None:
        """Put so many captures of one account into the ledger, posted 500 at a time over the last day.

        Balances are left as they were, so the books are wrong hereafter.
        """
        for start in range(0, count, LINES_AT_ONCE):
            numbers = (start, min(start + LINES_AT_ONCE, count) - 1)
            self._postgres.execute(_LINES.encode(), (count, *numbers, account_id))
        self._postgres.execute(b"VACUUM (ANALYZE) transfer, entry, call_usage")

    def lag(self, since: object) -> Lag:
        """How long after the event the ledger had it, for events from `since` on."""
        transfers, p50_ms, p99_ms = self._one(_LAG, since)
        return Lag(int(str(transfers)), float(str(p50_ms or 0)), float(str(p99_ms or 0)))

    def _one(self, query: str, *arguments: object) -> tuple[object, ...]:
        row = self._postgres.execute(query.encode(), arguments or None).fetchone()
        assert row is not None
        return tuple(row)
