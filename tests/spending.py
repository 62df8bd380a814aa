"""Spending for tests: usage lines at a time in the past, as the poster would have written them then."""

from datetime import timedelta

from gateway.adapters.postgres.database import Connection, Pool
from tests.books import new_id

USAGE = """
    INSERT INTO call_usage (request_id, phase, account_id, key_id, endpoint, model, rate_version, rate_key, outcome,
        usage, held, cost, charged, rounding, flags, status, upstream_request_id, event_at, recorded_at)
    SELECT $1, 'end', $2, $3, '/v1/chat/completions', 'gpt-5.4', 'card@1', '', 'exact',
        '{}', $4, $4, $4, 0, '{}', 200, '', now() - $5::interval, now() - $5::interval"""


async def spend(
    connection: "Pool | Connection", account_id: str, key_id: str, amount: int, ago: timedelta = timedelta()
) -> None:
    await connection.execute(USAGE, new_id(), account_id, key_id, amount, ago)


async def spend_hourly(pool: Pool, account_id: str, key_id: str, amount: int, hours: range) -> None:
    """`amount` in each of these hours before now."""
    for hour in hours:
        await spend(pool, account_id, key_id, amount, timedelta(hours=hour))
