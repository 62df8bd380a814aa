"""What caps admit, refuse and remember: exact however many calls come at once, and however often each is repeated."""

import asyncio
from uuid import uuid4

import msgspec
import pytest

from gateway.adapters.redis.counters import Charged, OutboxAhead, Used
from gateway.adapters.redis.credits import CapsUncounted, Credits, Refused, Reserved
from gateway.adapters.redis.link import RedisLink, RedisScriptError
from gateway.core.accounting.posting import Position
from gateway.core.guard.caps import Caps, CapsByLevel
from gateway.core.holds import Hold
from gateway.core.shards import SHARD_KEYS
from tests.lua.capped import DAY_MS, Desk, desk_with


async def test_of_500_concurrent_calls_a_days_cap_for_37_admits_exactly_37(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=37_999))
    replies = await asyncio.gather(*(desk.reserve(1_000) for _ in range(500)))
    assert sum(isinstance(reply, Hold) for reply in replies) == 37
    assert {reply for reply in replies if isinstance(reply, Refused)} == {Refused("account_day", 1_000, 999)}
    assert await desk.used() == Used(37_000, 0, 37)


@pytest.mark.parametrize("level", ["account", "member", "key"])
@pytest.mark.parametrize("window", ["day", "month"])
async def test_each_level_has_its_own_count_of_each_window(
    credits: Credits, link: RedisLink, level: str, window: str
) -> None:
    desk = await desk_with(credits, link, **{level: Caps(day=100) if window == "day" else Caps(month=100)})
    await desk.reserved(60)
    assert await desk.reserve(41) == Refused(f"{level}_{window}", 41, 40)
    await desk.reserved(40)


async def test_what_a_call_cost_takes_the_place_of_what_it_held(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000), key=Caps(month=1_000, concurrent=9))
    held, cheap, free, dear, lost = [await desk.reserved(100) for _ in range(5)]
    await desk.capture(cheap, 30)
    await desk.void(free)
    await desk.capture(dear, 130)
    await desk.lapse(lost, progress=20)
    assert await desk.day() == held.amount + 30 + 0 + 130 + 20
    assert await desk.used("key") == Used(0, 280, 1)
    assert await desk.used("member") == Used(0, 0, 0)


async def test_the_late_settlement_of_a_lapse_corrects_the_count_once(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000, concurrent=5))
    hold = await desk.reserved(100)
    await desk.lapse(hold, progress=20)
    for _ in range(2):
        await desk.capture(hold, 70)
    assert await desk.used() == Used(70, 0, 0)


async def test_repeating_anything_counts_it_once(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000, requests_a_minute=10, concurrent=5))
    hold = desk.hold(100)
    first, again = [await credits.reserve(hold) for _ in range(2)]
    assert isinstance(first, Reserved)
    assert first.left == (9, -1)
    assert isinstance(again, Reserved)
    assert await desk.used() == Used(100, 0, 1)
    for _ in range(2):
        await desk.capture(hold, 40)
    assert await desk.used() == Used(40, 0, 0)
    other = await credits.reserve(desk.hold(1))
    assert isinstance(other, Reserved)
    assert other.left == (8, -1)


@pytest.mark.parametrize(
    "key", [Caps(day=99), Caps(month=99), Caps(concurrent=0), Caps(requests_a_minute=0), Caps(tokens_a_minute=4)]
)
async def test_what_one_level_refuses_takes_nothing_of_the_others(credits: Credits, link: RedisLink, key: Caps) -> None:
    account = Caps(day=1_000, month=1_000, concurrent=3, requests_a_minute=9, tokens_a_minute=90)
    desk = await desk_with(credits, link, account=account, key=key)
    before = await link.command(b"HGETALL", desk.hold(1).cap_keys[0])
    assert isinstance(await desk.reserve(100, tokens=5), Refused)
    assert await link.command(b"HGETALL", desk.hold(1).cap_keys[0]) == before
    assert await credits.balance(desk.caller.account_id) == (await credits.balance(desk.caller.account_id))


async def test_a_refusal_is_remembered_and_decided_anew_for_a_higher_attempt(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=100))
    dear = desk.hold(101)
    assert await credits.reserve(dear) == Refused("account_day", 101, 100)
    cheaper = desk.hold(100, request_id=dear.request_id)
    assert await credits.reserve(cheaper) == Refused("account_day", 101, 100)
    assert isinstance(await credits.reserve(msgspec.structs.replace(cheaper, attempt=2)), Reserved)


async def test_the_balance_is_named_before_a_cap(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=100))
    assert await desk.reserve(10**12 + 1) == Refused("balance", 10**12 + 1, 10**12)


async def test_so_many_calls_run_at_once_and_one_more_when_one_has_ended(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, key=Caps(concurrent=3))
    replies = await asyncio.gather(*(desk.reserve() for _ in range(50)))
    running = [reply for reply in replies if isinstance(reply, Hold)]
    assert len(running) == 3
    assert await desk.reserve() == Refused("key_concurrent", 1, 0)
    await desk.capture(running[0], 1)
    await desk.void(running[1])
    await desk.lapse(running[2])
    assert [isinstance(await desk.reserve(), Hold) for _ in range(4)] == [True, True, True, False]


async def test_a_minute_has_room_for_its_requests_and_no_more(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(requests_a_minute=7))
    replies = await asyncio.gather(*(desk.reserve() for _ in range(30)))
    assert sum(isinstance(reply, Hold) for reply in replies) == 7
    refused = await desk.reserve()
    assert isinstance(refused, Refused)
    assert (refused.bound, refused.needed, refused.available) == ("account_requests", 1, 0)
    assert 60_000 / 7 - 2_000 < refused.wait_ms <= 60_000 / 7 + 1


async def test_a_rate_flows_off_with_redis_time(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(tokens_a_minute=6_000))
    assert isinstance(await desk.reserve(tokens=6_000), Hold)
    key = desk.hold(1).cap_keys[0]
    await link.command(b"HINCRBY", key, b"tokens", -30_000_000)  # as if half a minute had gone
    assert isinstance(await desk.reserve(tokens=2_999), Hold)
    refused = await desk.reserve(tokens=1_000)
    assert isinstance(refused, Refused)
    assert refused.bound == "account_tokens"
    assert 8_000 < refused.wait_ms <= 10_000
    await link.command(b"HINCRBY", key, b"tokens", -3_600_000_000)  # an hour is no more than a minute
    assert isinstance(await desk.reserve(tokens=6_000), Hold)
    assert isinstance(await desk.reserve(tokens=1_000), Refused)


async def test_a_redis_whose_clock_is_behind_makes_nobody_wait_beyond_a_minute(
    credits: Credits, link: RedisLink
) -> None:
    desk = await desk_with(credits, link, account=Caps(requests_a_minute=60))
    await desk.reserved()
    await link.command(b"HINCRBY", desk.hold(1).cap_keys[0], b"requests", 3_600_000_000)  # written by one an hour ahead
    refused = await desk.reserve()
    assert isinstance(refused, Refused)
    assert refused.wait_ms <= 1_000


async def test_a_call_beyond_a_whole_minute_is_told_what_fits(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(tokens_a_minute=100))
    assert await desk.reserve(tokens=101) == Refused("account_tokens", 101, 100)


async def test_rates_alone_need_no_counting(credits: Credits, link: RedisLink) -> None:
    account_id = str(uuid4())
    await credits.load(account_id, 100, 0)
    desk = Desk(credits, link, account_id, CapsByLevel(Caps(requests_a_minute=5, tokens_a_minute=50)))
    reply = await credits.reserve(desk.hold(1, tokens=10))
    assert isinstance(reply, Reserved)
    assert reply.left == (4, 40)


# --- counting anew --------------------------------------------------------------------------------------------------


async def test_what_is_not_counted_is_not_admitted(credits: Credits, link: RedisLink) -> None:
    account_id = str(uuid4())
    await credits.load(account_id, 100, 0)
    desk = Desk(credits, link, account_id, CapsByLevel(Caps(day=50)))
    with pytest.raises(CapsUncounted):
        await desk.reserve(10)
    await desk.count(day=45)
    assert await desk.reserve(10) == Refused("account_day", 10, 5)


async def test_a_new_day_and_a_new_month_are_counted_anew(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=100, month=150))
    desk.now_ms = desk.windows.month.end_ms - 1
    await desk.count()
    late = await desk.reserved(100)
    desk.now_ms += 1
    with pytest.raises(CapsUncounted):
        await desk.reserve(100)
    await desk.count()
    await desk.reserved(100)
    await desk.capture(late, 30)  # over midnight: it is counted where it was opened
    assert await desk.used() == Used(100, 100, 1)
    desk.now_ms = late.terms.opened_at_ms
    assert await desk.used() == Used(30, 30, 1)


async def test_counting_finds_what_counters_that_saw_everything_say(credits: Credits, link: RedisLink) -> None:
    caps = Caps(day=10**6, month=10**6, concurrent=100)
    desk = await desk_with(credits, link, account=caps, member=caps, key=caps)
    holds = [await desk.reserved(100) for _ in range(6)]
    await desk.capture(holds[0], 30)
    await desk.capture(holds[1], 130)
    await desk.void(holds[2])
    await desk.lapse(holds[3], progress=20)
    await desk.lapse(holds[4], progress=50)
    await desk.capture(holds[4], 10)
    for level in ("account", "member", "key"):
        seen = await desk.used(level)
        assert seen == Used(30 + 130 + 20 + 10 + 100, 290, 1)
        assert await desk.count(level) == 0
        assert await desk.used(level) == seen


async def test_counting_tells_apart_levels_and_windows(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link)
    await desk.capture(await desk.reserved(50), 7)
    desk.caller = msgspec.structs.replace(desk.caller)
    other = desk.hold(20)
    other = msgspec.structs.replace(other, terms=msgspec.structs.replace(other.terms, key_id="k2", member_id="m2"))
    await credits.reserve(other)
    desk.now_ms -= DAY_MS
    yesterday = await desk.reserved(1_000)
    desk.now_ms += DAY_MS
    is_same_month = desk.windows.month.start_ms <= yesterday.terms.opened_at_ms
    for level in ("account", "member", "key"):
        await desk.count(level, day=100, month=200)
    month = 200 + 7 + (1_000 if is_same_month else 0)
    assert await desk.used("account") == Used(100 + 7 + 20, month + 20, 2)
    assert await desk.used("member") == Used(100 + 7, month, 1)
    assert await desk.used("key") == Used(100 + 7, month, 1)


async def test_open_calls_whose_end_will_not_be_told_are_said(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link)
    before = await desk.reserved(100)
    desk.caps = CapsByLevel(Caps(day=1_000))
    await desk.reserved(10)
    assert await desk.count(month=None) == 1
    await desk.capture(before, 1)
    assert await desk.day() == 110  # too high, until it is counted anew
    assert await desk.count(month=None) == 0
    assert await desk.day() == 11


async def test_events_that_postgres_had_are_not_counted_twice(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000))
    for cost in (1, 20, 300):
        await desk.capture(await desk.reserved(500), cost)
    await desk.counters.count(desk.holder(), desk.windows, Charged(1, Position(1, 2), 21, None))
    assert await desk.used() == Used(321, None, 0)


async def test_an_outbox_that_has_moved_on_is_not_counted(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000))
    holds = [await desk.reserved(500) for _ in range(2)]
    for hold in holds:
        await desk.capture(hold, 1)
    await credits.ack(desk.shard, (1, 1), [])
    stale = Charged(1, Position(0, 0), 0, None)
    with pytest.raises(OutboxAhead):
        await desk.counters.count(desk.holder(), desk.windows, stale)
    await credits.ack(desk.shard, (1, 2), [])
    with pytest.raises(OutboxAhead):
        await desk.counters.count(desk.holder(), desk.windows, stale)
    assert await desk.day() == 2
    await desk.counters.count(desk.holder(), desk.windows, Charged(1, Position(1, 2), 2, None))
    assert await desk.day() == 2


async def test_what_is_counted_unchecked_never_lowers_what_was_counted(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000, month=1_000))
    await desk.count(day=400, month=900)
    await desk.reserved(10)
    unchecked = Charged(1, Position(0, 0), 0, 0)
    await desk.counters.count(desk.holder(), desk.windows, unchecked, is_checked=False)
    assert await desk.used() == Used(410, 910, 1)

    await credits.rebuild(desk.shard, 2, 0, 0)
    await desk.counters.count(desk.holder(), desk.windows, unchecked._replace(epoch=2), is_checked=False)
    assert await desk.used() == Used(0, 0, 0)  # what an earlier epoch counted is no truth of this one


async def test_a_window_without_a_cap_is_forgotten(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000, month=1_000))
    await desk.reserved(10)
    await desk.counters.count(desk.holder(), desk.windows, Charged(1, Position(0, 0), None, 0))
    assert await desk.used() == Used(None, 10, 1)


async def test_after_a_rebuild_counts_are_made_anew_and_restored_holds_are_in_them(
    credits: Credits, link: RedisLink
) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000, concurrent=5))
    early, late = await desk.reserved(100), await desk.reserved(200)
    await credits.rebuild(desk.shard, 2, 0, 0)
    await credits.load(desk.caller.account_id, 10**6, 0)
    await credits.restore(early)
    with pytest.raises(CapsUncounted):
        await desk.reserve(1)
    await desk.counters.count(desk.holder(), desk.windows, Charged(2, Position(0, 0), 7, None))
    assert await desk.used() == Used(107, None, 1)
    for _ in range(2):
        await credits.restore(late)
    assert await desk.used() == Used(307, None, 2)
    await desk.capture(early, 1)
    await desk.void(late)
    assert await desk.used() == Used(8, None, 0)


@pytest.mark.parametrize("line", [b"nothing that a script wrote", b"1 open nobody 1 f many 0 {} {}"])
async def test_what_nobody_can_read_keeps_no_account_of_its_shard_from_being_counted(
    credits: Credits, link: RedisLink, line: bytes
) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000))
    keys, lost = SHARD_KEYS[desk.shard], str(uuid4())
    await link.command(b"SET", keys.hold(lost), line)
    await link.command(b"ZADD", keys.leases, 1, lost)
    await desk.capture(await desk.reserved(100), 70)
    (event,) = await link.command(b"XRANGE", keys.outbox, b"-", b"+")
    broken = [b"{" if name == b"data" else value for name, value in zip([b"", *event[1]], event[1], strict=False)]
    await link.command(b"XADD", keys.outbox, b"1-2", *broken)
    await link.command(b"HINCRBY", keys.shard, b"seq", 1)

    await desk.count()

    assert await desk.day() == 140


async def test_a_counter_is_let_go_some_days_after_its_window(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000, month=1_000))
    key, fields = SHARD_KEYS[desk.shard].caps("account", desk.caller.account_id), set()
    for _ in range(70):
        await desk.count()
        fields = {each for each in await link.command(b"HKEYS", key) if b"@" in each}
        desk.now_ms += DAY_MS
    assert len(fields) in (3 + 1, 3 + 2)


async def test_words_that_are_not_as_they_must_are_refused_before_anything_is_taken(
    credits: Credits, link: RedisLink
) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000))
    hold = desk.hold(1)
    (line,) = hold.cap_lines
    for wrong in ((), (line, line), (line + b" -",), (line.rpartition(b" ")[0],), (b"",)):
        with pytest.raises(RedisScriptError, match="caps are untold"):
            await credits.reserve(msgspec.structs.replace(hold, cap_lines=wrong))
    assert await desk.used() == Used(0, 0, 0)
