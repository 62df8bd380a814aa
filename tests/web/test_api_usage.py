"""What an account has used: every call once, in the day its caps count it in, and nobody else's."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from gateway.core.access.key_terms import KeyTerms
from gateway.core.access.roles import Role
from gateway.core.guard.windows import id_bound
from tests.proxy.stack import Stack
from tests.proxy.wire import ask, request

TODAY = datetime.now(UTC).date()


async def used(stack: Stack, query: str = "", status: int = 200) -> Any:
    answer = await ask(stack.address, request(f"/api/usage?{query}", stack.key, method="GET"))
    assert answer.status == status, answer.body
    return msgspec.json.decode(answer.body)


CALLED = """
    WITH posted AS (INSERT INTO idem VALUES ($1::text::uuid, 'end', 'void', 1, 1, '\\x00'))
    INSERT INTO call_usage (request_id, phase, account_id, key_id, endpoint, model, rate_version, rate_key, outcome,
        usage, held, cost, charged, rounding, flags, status, upstream_request_id, event_at)
    VALUES ($1::text::uuid, 'end', $2::text::uuid, 'key_1', '/v1/embeddings', $3, $4, '', 'void',
        '{}', 100, 0, 0, 0, '{}', 500, '', now())
"""


async def called(stack: Stack, opened: datetime, model: str = "m", *, account_id: str = "", number: int = 0) -> None:
    """One call that was opened then, and cost nothing."""
    request_id = id_bound(int(opened.timestamp() * 1000))[:-4] + f"{number:04x}"
    await stack.stores.pool.execute(CALLED, request_id, account_id or stack.account.id, model, stack.card.version)


async def test_a_real_call_is_summed_by_each_of_its_groups(stack: Stack) -> None:
    member = await stack.stores.members.create(stack.account.id, "ada@example.com", Role.MEMBER)
    secret, key_id = await stack.stores.keys.issue(stack.account.id, KeyTerms(member_id=member.id))
    async with stack.client(secret) as client:
        await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hello"}])
    line = await stack.line()
    groups = {"day": str(TODAY), "model": line.model, "member": member.id, "key": key_id}
    for grouping, group in groups.items():
        [got] = (await used(stack, f"groupBy={grouping}"))["data"]
        assert (got["group"], got["calls"], got["creditsUcr"]) == (group, 1, line.cost)
        assert (got["inputTokens"], got["outputTokens"]) == (line.usage.input_total, line.usage.output_total)


async def test_a_day_is_one_of_the_accounts_time_zone(stack: Stack) -> None:
    await stack.stores.pool.execute("UPDATE account SET time_zone = 'Asia/Tokyo', changed_at = clock_timestamp()")
    for number, hour in enumerate((14, 15)):  # before and after midnight in Tokyo
        await called(stack, datetime(2026, 11, 1, hour, 30, tzinfo=UTC), number=number)
    await stack.gateway.callers.refresh_step()
    days = (await used(stack, "from=2026-11-01&to=2026-11-02"))["data"]
    assert [(each["group"], each["calls"]) for each in days] == [("2026-11-02", 1), ("2026-11-01", 1)]
    assert [each["group"] for each in (await used(stack, "from=2026-11-01&to=2026-11-01"))["data"]] == ["2026-11-01"]


async def test_pages_show_every_group_once_and_sum_to_all_of_it(stack: Stack) -> None:
    for number in range(30):
        opened = datetime.now(UTC) - timedelta(days=number % 10)
        await called(stack, opened, f"model {number % 7}", number=number)
    for grouping, count in (("day", 10), ("model", 7), ("member", 1), ("key", 1)):
        seen: list[dict[str, Any]] = []
        query = f"groupBy={grouping}&limit=3"
        while query:
            page = await used(stack, query)
            seen += page["data"]
            query = f"groupBy={grouping}&limit=3&cursor={quote(page['nextCursor'])}" if page["nextCursor"] else ""
        assert len({each["group"] for each in seen}) == len(seen) == count
        assert sum(each["calls"] for each in seen) == 30


async def test_an_account_sees_its_own_use_only(stack: Stack) -> None:
    other = await stack.new_account("other")
    await called(stack, datetime.now(UTC), account_id=other.id)
    assert (await used(stack))["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("groupBy=hour", "groupBy"),
        ("from=yesterday", "from"),
        ("from=20261121", "from"),
        ("to=2026-11-31", "to"),
        ("to=9999-12-31", "to"),
        ("from=2026-11-22&to=2026-11-21", "from"),
        ("from=2024-01-01&to=2026-11-21", "from"),
        ("cursor=x", "cursor"),
        ("cursor=IlwAIg", "cursor"),
        ("limit=0", "limit"),
    ],
)
async def test_what_cannot_be_read_is_refused_by_name(stack: Stack, query: str, param: str) -> None:
    assert (await used(stack, query, 400))["error"]["param"] == param


@pytest.mark.parametrize("query", ["by=model", "groupBy=model&group_by=key", "=x", "from=2026-11-01&FROM=2026-11-02"])
async def test_a_parameter_that_is_not_there_is_refused_with_those_that_are(stack: Stack, query: str) -> None:
    message = (await used(stack, query, 400))["error"]["message"]
    assert "groupBy, from, to, limit, cursor" in message
