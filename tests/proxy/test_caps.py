"""Caps as a caller meets them: what is refused, what is clamped, and what it is told."""

import asyncio
import itertools
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from gateway.adapters.counting import CapCounting, Kept
from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.charges import Charges, Settled
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.redis.counters import Charged
from gateway.app.sources import new_request_id, now_ms
from gateway.core.guard.caps import UNLIMITED, Holder
from gateway.core.guard.windows import Windows, windows_at
from gateway.core.holds import Counted, Hold, Terms
from gateway.core.money import UCR_PER_CREDIT
from gateway.core.shards import SHARD_KEYS, shard_of
from gateway.sandbox.openai import SimulatedOpenAI
from tests.patience import PATIENCE_S
from tests.proxy.prices import CHAT
from tests.proxy.stack import Stack
from tests.proxy.wire import Received, ask, request

SIGNATURE = Signature("test", "test")


def body(**fields: Any) -> bytes:
    messages = [{"role": "user", "content": "Say hello."}]
    return json.dumps({"model": "gpt-4o-mini", "messages": messages, "max_tokens": 20} | fields).encode()


async def cap(stack: Stack, who: str = "", **change: Any) -> None:
    """Set caps of the main account, or of `who`; the gateway knows them when this returns."""
    found = await stack.stores.caps.find(who or stack.account.id)
    await stack.stores.caps.set(found, change, SIGNATURE)
    await stack.gateway.caps.directory.refresh_step()


async def call(stack: Stack, **fields: Any) -> Received:
    return await ask(stack.address, request(CHAT, stack.key, body(**fields)))


def error_of(got: Received) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(got.body)["error"]
    return error


def held(got: Received) -> int:
    return round(float(got.get(b"x-credits-held") or b"0") * UCR_PER_CREDIT)


async def test_a_days_cap_refuses_what_would_pass_it_and_says_when_it_resets(stack: Stack) -> None:
    await cap(stack, day=1)
    got = await call(stack)
    error = error_of(got)
    assert (got.status, error["code"], error["cap"], error["available"]) == (
        402,
        "cap_reached",
        "account_day",
        "0.000001",
    )
    assert error["resets_at"].endswith("T00:00:00+00:00")
    assert got.get(b"x-should-retry") == b"false"
    assert await stack.lines() == []
    await cap(stack, day=UNLIMITED)
    assert (await call(stack)).status == 200


async def test_what_a_call_cost_counts_when_it_has_ended(stack: Stack) -> None:
    await cap(stack, day=100 * UCR_PER_CREDIT, month=100 * UCR_PER_CREDIT)
    assert (await call(stack)).status == 200
    line = await stack.line()
    (standing,) = await stack.stores.caps.standing(await stack.stores.caps.find(stack.account.id))
    assert (standing.used.day, standing.used.month, standing.used.open_calls) == (line.cost, line.cost, 0)


async def test_what_was_used_before_a_cap_was_set_counts(stack: Stack) -> None:
    first = await call(stack)
    line = await stack.line()
    await cap(stack, day=line.cost + 7)
    refused = error_of(await call(stack))
    assert (refused["cap"], refused["available_ucr"]) == ("account_day", 7)
    await cap(stack, day=line.cost + held(first))
    assert (await call(stack)).status == 200


async def test_what_was_used_while_there_was_no_cap_counts_when_there_is_one_again(stack: Stack) -> None:
    await cap(stack, day=100 * UCR_PER_CREDIT)
    assert (await call(stack)).status == 200
    await cap(stack, day=None)
    async with stack.running_gateway():  # which has never seen the cap, and so lets its counter stand
        await stack.gateway.caps.directory.refresh_step()
        assert (await call(stack)).status == 200
        spent = sum(line.cost for line in await stack.lines())
        await cap(stack, day=spent + 7)
        refused = error_of(await call(stack))
        assert (refused["cap"], refused["available_ucr"]) == ("account_day", 7)


async def test_500_calls_at_once_over_two_gateways_do_not_pass_a_days_cap(stack: Stack) -> None:
    probe = held(await call(stack))
    allowed = 60 * probe
    await cap(stack, day=allowed)
    addresses = [stack.address]
    async with stack.running_gateway():
        addresses.append(stack.address)
        asks = [ask(addresses[index % 2], request(CHAT, stack.key, body())) for index in range(500)]
        answers = await asyncio.gather(*asks)
        assert {got.status for got in answers} == {200, 402}
        lines = await stack.lines()
        assert len(lines) == 1 + sum(got.status == 200 for got in answers)
        spent = sum(line.cost for line in lines)
        assert spent <= allowed
        (standing,) = await stack.stores.caps.standing(await stack.stores.caps.find(stack.account.id))
        assert (standing.used.day, standing.used.open_calls) == (spent, 0)


class SlowCharges(Charges):
    """Somebody is posted, and leaves the outbox, while it sums up for the first time."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack.stores.pool)
        self._stack = stack
        self.were_settled: list[bool] = []  # whether each sum was made on top of what is settled

    async def of(
        self, holder: Holder, windows: Windows, *, has_day: bool, has_month: bool, settled: Settled | None = None
    ) -> Charged:
        charged = await super().of(holder, windows, has_day=has_day, has_month=has_month, settled=settled)
        self.were_settled.append(settled is not None)
        if len(self.were_settled) == 1:
            assert (await call(self._stack)).status == 200
            await self._stack.lines()
        return charged


async def test_a_count_that_takes_longer_than_the_outbox_stands_still_is_right_and_stands(stack: Stack) -> None:
    await cap(stack, day=100 * UCR_PER_CREDIT, month=100 * UCR_PER_CREDIT)
    assert (await call(stack)).status == 200
    stores, charges, ticks = stack.stores, SlowCharges(stack), itertools.count(0, 10)
    counting = CapCounting(
        charges, stores.credits, stores.counters, batch_max=1, clock=lambda: next(ticks), now_ms=now_ms
    )
    counting.settle(Holder(stack.account.id, "account", stack.account.id), Kept("UTC", True, True))
    assert [await counting.step() for _ in range(2)] == [1, 0]
    assert charges.were_settled == [False, True]
    (standing,) = await stores.caps.standing(await stores.caps.find(stack.account.id))
    spent = sum(line.cost for line in await stack.lines())
    assert (standing.used.day, standing.used.month) == (spent, spent)


class ChangingCharges(Charges):
    """The caps change while it sums up for the first time."""

    change: Callable[[], None] | None = None

    async def of(
        self, holder: Holder, windows: Windows, *, has_day: bool, has_month: bool, settled: Settled | None = None
    ) -> Charged:
        change, self.change = self.change, None
        if change is not None:
            change()
        return await super().of(holder, windows, has_day=has_day, has_month=has_month, settled=settled)


async def test_caps_that_change_while_they_are_counted_are_counted_once_more(stack: Stack) -> None:
    stores, charges, ticks = stack.stores, ChangingCharges(stack.stores.pool), itertools.count(0, 10)
    counting = CapCounting(
        charges, stores.credits, stores.counters, batch_max=1, clock=lambda: next(ticks), now_ms=now_ms
    )
    who = Holder(stack.account.id, "account", stack.account.id)
    charges.change = partial(counting.first_seen, who, Kept("UTC", True, True))
    counting.settle(who, Kept("UTC", True, False))
    assert [await counting.step() for _ in range(3)] == [1, 1, 0]
    used = await stores.counters.used(who, windows_at(now_ms(), "UTC"))
    assert (used.day, used.month) == (0, 0)


class AwayCharges(Charges):
    """Postgres is away, until it is back."""

    is_away = True

    async def of(
        self, holder: Holder, windows: Windows, *, has_day: bool, has_month: bool, settled: Settled | None = None
    ) -> Charged:
        if self.is_away:
            raise LedgerUnavailable("away")
        return await super().of(holder, windows, has_day=has_day, has_month=has_month, settled=settled)


async def test_while_postgres_is_away_only_who_is_waited_for_is_counted(stack: Stack) -> None:
    await cap(stack, day=100 * UCR_PER_CREDIT, month=100 * UCR_PER_CREDIT)
    assert (await call(stack)).status == 200
    spent = (await stack.line()).cost
    stores, charges, ticks = stack.stores, AwayCharges(stack.stores.pool), itertools.count(0, 10)
    counting = CapCounting(
        charges, stores.credits, stores.counters, batch_max=1, clock=lambda: next(ticks), now_ms=now_ms
    )
    who = Holder(stack.account.id, "account", stack.account.id)
    counting.settle(who, Kept("UTC", True, True))
    with pytest.raises(LedgerUnavailable):
        await counting.step()

    key = SHARD_KEYS[shard_of(stack.account.id)].caps("account", stack.account.id)
    windows = windows_at(now_ms(), "UTC")
    await stores.link.command(b"HDEL", key, windows.day.name)  # as on a new day
    counted = (Counted("account", windows.day.name, windows.month.name),)
    terms = Terms(stack.account.id, "k", CHAT, "gpt-4o-mini", "card", now_ms(), counted=counted)
    await counting.count(Hold(new_request_id(), 1, "f", terms))
    used = await stores.counters.used(who, windows)
    assert (used.day, used.month) == (0, spent)

    charges.is_away = False
    assert [await counting.step() for _ in range(2)] == [1, 0]
    used = await stores.counters.used(who, windows)
    assert (used.day, used.month) == (spent, spent)


async def test_counters_that_redis_cannot_read_keep_no_others_from_being_counted_and_watched(stack: Stack) -> None:
    """They are those of one key here; the account's own are told of all the same."""
    key, key_id = await stack.stores.keys.issue(stack.account.id)
    await cap(stack, day=1000 * UCR_PER_CREDIT)
    assert (await ask(stack.address, request(CHAT, key, body()))).status == 200
    await cap(stack, day=(await stack.line()).cost)
    await cap(stack, key_id, day=1000 * UCR_PER_CREDIT)
    broken = Holder(stack.account.id, "key", key_id)
    await stack.stores.link.command(b"SET", SHARD_KEYS[shard_of(stack.account.id)].caps("key", key_id), b"no hash")
    stores, ticks = stack.stores, itertools.count(0, 10)
    counting = CapCounting(
        stores.charges, stores.credits, stores.counters, batch_max=2, clock=lambda: next(ticks), now_ms=now_ms
    )
    counting.settle(broken, Kept("UTC", True, False))
    counting.settle(Holder(stack.account.id, "account", stack.account.id), Kept("UTC", True, False))

    assert [await counting.step() for _ in range(2)] == [2, 1]
    await stack.post()
    assert await stack.workers.cap_watcher.step() == 1


async def test_an_account_of_no_known_time_zone_keeps_no_other_from_being_watched(stack: Stack) -> None:
    """Its zone is one that this version's list of them has no more."""
    other = await stack.new_account("elsewhere")
    for account in (stack.account, other):
        await cap(stack, account.id, day=1000 * UCR_PER_CREDIT)
        assert (await ask(stack.address, request(CHAT, account.key, body()))).status == 200
    cost = min(line.cost for line in await stack.lines())
    for account in (stack.account, other):
        await cap(stack, account.id, day=cost)
    update = "UPDATE account SET time_zone = 'Mars/Olympus', changed_at = now() WHERE id = $1::uuid"
    await stack.stores.pool.execute(update, min(stack.account.id, other.id))
    await stack.post()
    assert await stack.workers.cap_watcher.step() == 1


async def test_a_key_has_caps_of_its_own(stack: Stack) -> None:
    key, key_id = await stack.stores.keys.issue(stack.account.id)
    await cap(stack, key_id, concurrent=0)
    refused = await ask(stack.address, request(CHAT, key, body()))
    assert (refused.status, error_of(refused)["limit"], refused.get(b"retry-after")) == (429, "key_concurrent", b"1")
    assert (await call(stack)).status == 200


async def test_a_rate_is_told_beside_upstreams_own_and_refuses_with_a_time(stack: Stack) -> None:
    await cap(stack, requests_a_minute=2, tokens_a_minute=100_000)
    first, second, third = [await call(stack) for _ in range(3)]
    assert first.get(b"x-gateway-ratelimit-limit-requests") == b"2"
    assert [got.get(b"x-gateway-ratelimit-remaining-requests") for got in (first, second)] == [b"1", b"0"]
    assert first.get(b"x-gateway-ratelimit-reset-requests") == b"30000ms"
    assert 0 < int(first.get(b"x-gateway-ratelimit-remaining-tokens") or 0) < 100_000
    assert (third.status, error_of(third)["code"], error_of(third)["limit"]) == (
        429,
        "rate_limit_exceeded",
        "account_requests",
    )
    assert 28 <= int(third.get(b"retry-after") or 0) <= 30
    told = [third.get(b"x-gateway-ratelimit-%b-requests" % what) for what in (b"limit", b"remaining", b"reset")]
    assert told == [b"2", b"0", b"60000ms"]


async def test_a_call_of_more_tokens_than_a_minute_has_is_not_to_be_retried(stack: Stack) -> None:
    await cap(stack, tokens_a_minute=10)
    got = await call(stack)
    assert (got.status, got.get(b"x-should-retry"), got.get(b"retry-after")) == (429, b"false", None)


async def test_one_request_may_cost_so_much(stack: Stack) -> None:
    fits = held(await call(stack, max_tokens=1))
    await cap(stack, request=fits + 50)
    refused = error_of(await call(stack, max_tokens=4000))
    assert (refused["code"], refused["cap"], refused["resets_at"]) == ("cap_reached", "account_request", "")
    assert (await call(stack, max_tokens=refused["affordable_output_tokens"])).status == 200
    assert (await call(stack, max_tokens=refused["affordable_output_tokens"] + 1)).status == 402


async def test_too_much_output_is_clamped_and_said(stack: Stack, openai: SimulatedOpenAI) -> None:
    await cap(stack, output_tokens=50)
    got = await call(stack, max_tokens=500)
    assert (got.status, got.get(b"x-gateway-output-limit")) == (200, b"50; by=cap")
    assert (await call(stack, max_tokens=50)).get(b"x-gateway-output-limit") is None
    assert (await call(stack, max_tokens=30, n=2)).get(b"x-gateway-output-limit") == b"25; by=cap"
    assert (await call(stack, max_tokens=None)).get(b"x-gateway-output-limit") == b"50; by=cap"


async def test_too_much_output_is_refused_where_that_is_the_policy(stack: Stack, openai: SimulatedOpenAI) -> None:
    await cap(stack, output_tokens=50, on_output="refuse")
    got = await call(stack, max_tokens=51)
    assert (got.status, error_of(got)["code"], error_of(got)["param"]) == (
        400,
        "output_limit_too_high",
        "max_completion_tokens",
    )
    assert len(openai.log) == 0


async def test_a_call_that_is_not_affordable_is_cut_to_what_is(stack: Stack) -> None:
    small = await stack.new_account("small", ucr=2 * UCR_PER_CREDIT)
    refused = await ask(stack.address, request(CHAT, small.key, body(max_tokens=16_000)))
    affordable = error_of(refused)["affordable_output_tokens"]
    assert (refused.status, error_of(refused)["bound"]) == (402, "balance")
    await cap(stack, small.id, on_unaffordable="clamp")
    got = await ask(stack.address, request(CHAT, small.key, body(max_tokens=16_000)))
    assert (got.status, got.get(b"x-gateway-output-limit")) == (200, b"%d; by=balance" % affordable)
    assert held(got) <= 2 * UCR_PER_CREDIT


async def test_models_are_allowed_by_name(stack: Stack, openai: SimulatedOpenAI) -> None:
    await cap(stack, models_allowed=["gpt-4o-mini*", "o3*"], models_denied=["o3-pro"])
    assert (await call(stack)).status == 200
    refused = await call(stack, model="gpt-4o")
    assert (refused.status, error_of(refused)["code"]) == (403, "model_not_allowed")
    assert len(openai.log) == 1


async def test_after_redis_was_emptied_what_was_used_counts_still(stack: Stack) -> None:
    await cap(stack, day=100 * UCR_PER_CREDIT)
    await call(stack)
    line = await stack.line()
    await stack.stores.link.command(b"FLUSHDB")
    await stack.workers.rebuilder.step()
    await cap(stack, day=line.cost + 7)
    async with asyncio.timeout(PATIENCE_S):
        while (got := await call(stack)).status == 503:
            await asyncio.sleep(0.02)
    assert (got.status, error_of(got)["available_ucr"]) == (402, 7)


async def test_at_80_percent_of_a_cap_there_is_one_notice(stack: Stack) -> None:
    async def told() -> list[tuple[str, str | int]]:
        await stack.post()
        await stack.workers.cap_watcher.step()
        notices = await stack.stores.notices.listing(kind="soft_cap", state="", count=9)
        return [(str(each.fields["name"]), each.fields["percent"]) for each in notices]

    await cap(stack, day=1000 * UCR_PER_CREDIT)
    await call(stack)
    cost = (await stack.line()).cost
    assert await told() == []
    await cap(stack, day=cost * 5 // 2)  # 40 %, while a call holds more than the rest
    await cap(stack, on_unaffordable="clamp")
    assert await told() == []
    assert (await call(stack)).status == 200
    spent = sum(line.cost for line in await stack.lines())
    for _ in range(2):
        assert await told() == [("day of this account", spent * 100 // (cost * 5 // 2))]
