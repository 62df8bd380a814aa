"""The ledger as a customer reads it: every line once, its own only, and in a spreadsheet nothing runs."""

import asyncio
import csv
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from gateway.adapters.postgres.database import load_queries
from gateway.core.shards import shard_of
from tests.proxy.stack import Stack
from tests.proxy.wire import Client, ask, request

TODAY = datetime.now(UTC).date()

# Each moves a micro-credit from promotional to paid credit, so the account's balance stays as it is.
MANY = """
    WITH made AS (
        SELECT gen_random_uuid() AS id, now() - interval '1 hour' + n / 3 * interval '1 microsecond' AS at
        FROM generate_series(1, $2::integer) AS n
    ), transfers AS (
        INSERT INTO transfer (id, kind, account_id, reason, event_at, recorded_at)
        SELECT id, 'grant', $1::text::uuid, '=1+1', at, at FROM made
    ), balances AS (
        UPDATE balance SET amount = amount + CASE bucket WHEN 'promo' THEN -$2::integer ELSE $2::integer END
        WHERE account_id = $1::text::uuid AND bucket IN ('promo', 'paid')
    )
    INSERT INTO entry (transfer_id, line, shard, account_id, bucket, amount, recorded_at)
    SELECT id, line, $3, $1::text::uuid, (ARRAY['promo', 'paid'])[line], (ARRAY[-1, 1])[line], at
    FROM made, generate_series(1, 2) AS line
"""


async def got(stack: Stack, path: str, key: str | None = None, status: int = 200) -> dict[str, Any]:
    answer = await ask(stack.address, request(path, stack.key if key is None else key, method="GET"))
    assert answer.status == status, answer.body
    body: dict[str, Any] = msgspec.json.decode(answer.body)
    return body


async def many_lines(stack: Stack, count: int) -> None:
    """`count` lines, of which some share their time, beside the account's grant."""
    await stack.stores.pool.execute(MANY, stack.account.id, count, shard_of(stack.account.id))


async def test_a_call_is_a_line_with_its_request_and_rate_card(stack: Stack) -> None:
    client = stack.client()
    async with client:
        reply = await client.chat.completions.with_raw_response.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "hello"}]
        )
    await stack.quiet()
    await stack.post()
    [call, grant] = (await got(stack, "/api/ledger"))["data"]
    assert call["correlationId"] == reply.headers["x-gateway-request-id"]
    assert (call["kind"], call["rateVersion"], call["model"]) == ("capture", stack.card.version, "gpt-4o-mini")
    assert call["amountUcr"] < 0
    assert (grant["kind"], grant["amount"], grant["correlationId"], grant["rateVersion"]) == (
        "grant", "100000", None, None,
    )  # fmt: skip
    assert (await got(stack, "/api/ledger?kind=capture"))["data"] == [call]


async def test_pages_show_every_line_once_also_where_times_are_the_same(stack: Stack) -> None:
    await many_lines(stack, 100)
    seen: list[str] = []
    path = "/api/ledger?limit=7"
    while True:
        page = await got(stack, path)
        seen += [line["id"] for line in page["data"]]
        if page["nextCursor"] is None:
            break
        path = f"/api/ledger?limit=7&cursor={quote(page['nextCursor'])}"
    assert len(seen) == len(set(seen)) == 101


async def test_an_account_reads_its_own_lines_only(stack: Stack) -> None:
    other = await stack.new_account("other", 5)
    page = await got(stack, "/api/ledger", other.key)
    assert [line["amount"] for line in page["data"]] == ["5"]


async def test_days_are_taken_whole(stack: Stack) -> None:
    assert len((await got(stack, f"/api/ledger?from={TODAY}&to={TODAY}"))["data"]) == 1
    yesterday = TODAY - timedelta(days=1)
    assert (await got(stack, f"/api/ledger?to={yesterday}"))["data"] == []
    assert (await got(stack, f"/api/ledger?from={TODAY}T00:00:00Z&to={TODAY}T00:00:00.000001Z"))["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("cursor=nonsense", "cursor"),
        ("cursor=%00", "cursor"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=0001000000", "limit"),
        ("limit=000001" + "0" * 5000, "limit"),
        ("from=yesterday", "from"),
        ("to=2026-11-21T00:00:00", "to"),
        ("to=9999-12-31", "to"),
        ("kind=a';--", "kind"),
    ],
)
async def test_what_cannot_be_read_is_refused_by_name(stack: Stack, query: str, param: str) -> None:
    error = (await got(stack, f"/api/ledger?{query}", status=400))["error"]
    assert (error["code"], error["param"]) == ("invalid_request", param)


@pytest.mark.parametrize("path", ["/api/ledger", "/billing/ledger/export.csv"])
async def test_without_a_key_nothing_is_shown(stack: Stack, path: str) -> None:
    assert (await got(stack, path, "sk-tg-wrong", status=401))["error"]["code"] == "invalid_api_key"


async def test_an_export_holds_every_line_and_no_formula(stack: Stack) -> None:
    await many_lines(stack, 2500)
    answer = await ask(stack.address, request("/billing/ledger/export.csv", stack.key, method="GET"))
    assert answer.get(b"content-type") == b"text/csv; charset=utf-8"
    lines = list(csv.DictReader(answer.body.decode("utf-8-sig").splitlines()))
    assert len({line["id"] for line in lines}) == len(lines) == 2501
    assert {line["reason"] for line in lines} == {"'=1+1", "test"}
    assert sum(int(line["amount_ucr"]) for line in lines) == 100_000 * 10**6


async def test_an_export_is_streamed_and_its_connection_goes_on(stack: Stack) -> None:
    await many_lines(stack, 2500)
    async with Client.connect(stack.address) as client:
        head = await client.begin(request("/billing/ledger/export.csv", stack.key, method="GET"))
        assert head.get(b"transfer-encoding") == b"chunked"
        await client.read_until(b"\r\n0\r\n\r\n")
        assert (await client.ask(request("/api/ledger", stack.key, method="GET"))).status == 200


async def test_many_may_export_at_once(stack: Stack) -> None:
    await many_lines(stack, 1500)
    asked = request("/billing/ledger/export.csv", stack.key, method="GET")
    answers = await asyncio.gather(*(ask(stack.address, asked) for _ in range(20)))
    assert len({answer.body for answer in answers}) == 1


@pytest.mark.parametrize("query", ["back", "forth"])
async def test_a_page_is_found_by_the_index_however_far_behind_it_is(stack: Stack, query: str) -> None:
    """As Postgres plans it for the thousandth page, when it no longer looks at what is asked."""
    moment, nobody = "2026-11-21T00:00:00Z", "00000000-0000-0000-0000-000000000000"
    async with stack.stores.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off")
        types = "uuid, timestamptz, timestamptz, text, uuid, int"
        await connection.execute(f"PREPARE page ({types}) AS {load_queries('ledger_pages')[query]}")
        asked = f"'{nobody}', '{moment}', '{moment}', '', '{nobody}', 10"
        plan = await connection.fetch(f"EXPLAIN EXECUTE page ({asked})")
        await connection.execute("DEALLOCATE page")
    conditions = [row[0] for row in plan if "Index Cond" in row[0] and "account_id" in row[0]]
    assert conditions
    assert all("ROW(recorded_at, id)" in condition for condition in conditions)
