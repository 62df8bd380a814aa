"""What reserve admits, refuses and remembers."""

import asyncio
from uuid import uuid4

import pytest

from gateway.adapters.redis.credits import (
    AccountUnloaded,
    CreditGap,
    Credits,
    HoldConflict,
    Refused,
    Reserved,
    ShardCold,
    ShardRebuilding,
)
from gateway.adapters.redis.link import RedisLink, RedisScriptError
from gateway.core.calls.usage import Usage
from gateway.core.holds import Balance, Hold, Outcome, Settlement, Terms
from gateway.core.money import AMOUNT_UCR_MAX
from gateway.core.shards import SHARD_KEYS, shard_of
from gateway.resources import shipped


def terms(account_id: str) -> Terms:
    return Terms(account_id, "key", "/v1/chat/completions", "gpt-4o-mini", "card", 1_700_000_000_000)


def hold(
    account_id: str, amount: int, *, request_id: str | None = None, fingerprint: str = "f", attempt: int = 1
) -> Hold:
    return Hold(request_id or str(uuid4()), amount, fingerprint, terms(account_id), attempt)


async def account_with(credits: Credits, balance: int) -> str:
    account_id = str(uuid4())
    await credits.load(account_id, balance, 0)
    return account_id


async def test_of_200_concurrent_reserves_a_balance_for_37_admits_exactly_37(credits: Credits) -> None:
    account_id = await account_with(credits, 37 * 1_000 + 999)
    replies = await asyncio.gather(*(credits.reserve(hold(account_id, 1_000)) for _ in range(200)))
    assert sum(isinstance(reply, Reserved) for reply in replies) == 37
    assert await credits.balance(account_id) == Balance(37_999, 37_000)


async def test_the_whole_balance_can_be_held_and_not_a_micro_credit_more(credits: Credits) -> None:
    account_id = await account_with(credits, AMOUNT_UCR_MAX)
    assert await credits.reserve(hold(account_id, AMOUNT_UCR_MAX)) == Reserved(
        AMOUNT_UCR_MAX, Balance(AMOUNT_UCR_MAX, AMOUNT_UCR_MAX)
    )
    assert await credits.reserve(hold(account_id, 1)) == Refused("balance", 1, 0)
    assert await credits.reserve(hold(account_id, 0)) == Reserved(0, Balance(AMOUNT_UCR_MAX, AMOUNT_UCR_MAX))


async def test_an_account_in_debt_admits_only_what_holds_nothing(credits: Credits) -> None:
    account_id = await account_with(credits, 1 - AMOUNT_UCR_MAX)
    assert await credits.reserve(hold(account_id, 1)) == Refused("balance", 1, 1 - AMOUNT_UCR_MAX)
    assert await credits.reserve(hold(account_id, 0)) == Reserved(0, Balance(1 - AMOUNT_UCR_MAX, 0))


async def test_a_repeated_reserve_holds_once(credits: Credits) -> None:
    account_id = await account_with(credits, 1_000)
    asked = hold(account_id, 400)
    assert await credits.reserve(asked) == await credits.reserve(asked) == Reserved(400, Balance(1_000, 400))


async def test_a_refusal_is_remembered_even_when_credit_arrives(credits: Credits) -> None:
    account_id = await account_with(credits, 10)
    asked = hold(account_id, 11)
    assert await credits.reserve(asked) == Refused("balance", 11, 10)
    await credits.grant(account_id, 1, 1_000)
    assert await credits.reserve(asked) == Refused("balance", 11, 10)


async def test_a_refusal_expires_and_the_hold_of_a_higher_attempt_does_not(credits: Credits, link: RedisLink) -> None:
    account_id = await account_with(credits, 10)
    asked = hold(account_id, 11)
    key = SHARD_KEYS[shard_of(account_id)].hold(asked.request_id)
    await credits.reserve(asked)
    assert 0 < await link.command(b"PTTL", key) <= 60_000
    second = hold(account_id, 9, request_id=asked.request_id, attempt=2)
    assert await credits.reserve(second) == Reserved(9, Balance(10, 9))
    assert await link.command(b"PTTL", key) == -1
    assert await credits.reserve(second) == Reserved(9, Balance(10, 9))
    assert await credits.reserve(asked) == Reserved(9, Balance(10, 9))
    assert (await link.command(b"GET", key)).startswith(f"1 open {account_id} 2 f 9 0 {{}} {{".encode())


async def test_one_id_never_stands_for_two_requests(credits: Credits) -> None:
    account_id = await account_with(credits, 100)
    asked = hold(account_id, 10)
    await credits.reserve(asked)
    with pytest.raises(HoldConflict):
        await credits.reserve(hold(account_id, 10, request_id=asked.request_id, fingerprint="g"))
    refused = hold(account_id, 1_000)
    await credits.reserve(refused)
    with pytest.raises(HoldConflict):
        await credits.reserve(hold(account_id, 1, request_id=refused.request_id, fingerprint="g", attempt=2))
    assert await credits.balance(account_id) == Balance(100, 10)


async def test_a_reserve_repeated_after_its_hold_ended_admits_nothing(credits: Credits) -> None:
    account_id = await account_with(credits, 100)
    asked = hold(account_id, 10)
    await credits.reserve(asked)
    await credits.capture(Settlement(asked.request_id, asked.terms, Outcome.EXACT, 10, 4, 1))
    with pytest.raises(HoldConflict, match="captured"):
        await credits.reserve(asked)
    assert await credits.balance(account_id) == Balance(96, 0)


async def test_an_account_that_is_not_loaded_is_named(credits: Credits) -> None:
    with pytest.raises(AccountUnloaded):
        await credits.reserve(hold(str(uuid4()), 1))


async def test_loading_a_loaded_account_changes_nothing(credits: Credits) -> None:
    account_id = await account_with(credits, 100)
    await credits.reserve(hold(account_id, 10))
    assert not await credits.load(account_id, 100_000, 7)
    assert await credits.balance(account_id) == Balance(100, 10)


async def test_reserves_wait_for_the_grace_of_a_rebuild_and_captures_do_not(credits: Credits) -> None:
    account_id = await account_with(credits, 100)
    asked = hold(account_id, 10)
    await credits.reserve(asked)
    await credits.rebuild(shard_of(account_id), 2, 0, 60_000)
    await credits.load(account_id, 100, 0)
    with pytest.raises(ShardRebuilding) as rebuilding:
        await credits.reserve(hold(account_id, 10))
    assert 0 < rebuilding.value.retry_after_ms <= 60_000
    assert await credits.restore(asked)
    assert await credits.reserve(asked) == Reserved(10, Balance(100, 10))
    settled = await credits.capture(Settlement(asked.request_id, asked.terms, Outcome.EXACT, 10, 4, 1))
    assert (settled.balance, settled.event_id) == (Balance(96, 0), (2, 1))


async def test_a_hold_of_an_earlier_epoch_lends_nothing_to_a_new_one(credits: Credits, link: RedisLink) -> None:
    account_id = await account_with(credits, 100)
    asked = hold(account_id, 10)
    await credits.reserve(asked)
    await credits.renew(asked.request_id, account_id, 5, Usage(output=1))
    await credits.rebuild(shard_of(account_id), 2, 0, 0)
    await credits.load(account_id, 100, 0)
    other = hold(account_id, 20, request_id=asked.request_id, fingerprint="g")
    assert await credits.reserve(other) == Reserved(20, Balance(100, 20))
    key = SHARD_KEYS[shard_of(account_id)].hold(asked.request_id)
    assert (await link.command(b"GET", key)).startswith(f"2 open {account_id} 1 g 20 0 {{}} {{".encode())


async def test_an_emptied_redis_admits_nothing_until_it_is_rebuilt(credits: Credits, link: RedisLink) -> None:
    account_id = await account_with(credits, 100)
    await link.command(b"FLUSHDB")
    with pytest.raises(ShardCold):
        await credits.reserve(hold(account_id, 1))
    await credits.rebuild(shard_of(account_id), 2, 0, 0)
    await credits.load(account_id, 100, 0)
    assert isinstance(await credits.reserve(hold(account_id, 1)), Reserved)


async def test_a_redis_with_an_older_epoch_than_known_admits_nothing(credits: Credits) -> None:
    account_id = await account_with(credits, 100)
    credits.adopt(shard_of(account_id), 2)
    with pytest.raises(ShardCold):
        await credits.reserve(hold(account_id, 1))


async def test_no_amount_beyond_two_to_the_53_is_taken(credits: Credits, link: RedisLink) -> None:
    account_id = await account_with(credits, AMOUNT_UCR_MAX)
    for amount in (AMOUNT_UCR_MAX + 1, AMOUNT_UCR_MAX + 2, 10**30, -1):
        with pytest.raises(RedisScriptError, match="TOLLGATE amount"):
            await credits.reserve(hold(account_id, amount))
    with pytest.raises(RedisScriptError, match="2\\^53"):
        await credits.grant(account_id, 1, 1)
    with pytest.raises(RedisScriptError, match="TOLLGATE balance"):
        await credits.load(str(uuid4()), AMOUNT_UCR_MAX + 1, 0)
    assert await credits.balance(account_id) == Balance(AMOUNT_UCR_MAX, 0)
    await link.command(b"HSET", SHARD_KEYS[shard_of(account_id)].account(account_id), b"balance", b"1e17")
    with pytest.raises(RedisScriptError, match="whole numbers"):
        await credits.reserve(hold(account_id, 1))


@pytest.mark.parametrize("amount", [b"1e3", b"1.5", b"0x10", b"", b" 1", b"01", b"-0", b"nan", b"1_0", b"\xd9\xa1"])
async def test_only_plain_decimal_numbers_are_amounts(credits: Credits, link: RedisLink, amount: bytes) -> None:
    account_id = await account_with(credits, 100)
    keys = SHARD_KEYS[shard_of(account_id)]
    four = (keys.shard, keys.account(account_id), keys.hold("r"), keys.leases)
    source = (credits_source("reserve"), 4, *four)
    with pytest.raises(RedisScriptError, match="TOLLGATE amount"):
        await link.command(b"EVAL", *source, 1, "r", account_id, amount, 1000, 1000, "f", 1, "{}")
    assert await link.command(b"EXISTS", keys.hold("r")) == 0


def credits_source(name: str) -> bytes:
    return (shipped("lua") / "prelude.lua").read_bytes() + (shipped("lua") / f"{name}.lua").read_bytes()


async def test_grants_apply_in_order_and_once(credits: Credits) -> None:
    account_id = await account_with(credits, 0)
    assert await credits.grant(account_id, 1, 500)
    assert not await credits.grant(account_id, 1, 500)
    with pytest.raises(CreditGap) as gap:
        await credits.grant(account_id, 3, 500)
    assert gap.value.credit_seq == 1
    assert await credits.grant(account_id, 2, -700)
    assert await credits.balance(account_id) == Balance(-200, 0)
    with pytest.raises(AccountUnloaded):
        await credits.grant(str(uuid4()), 1, 1)


@pytest.mark.parametrize(
    ("account", "fingerprint"), [("an account", "f"), ("account", "two words"), ("account", "f\n")]
)
async def test_a_word_with_a_space_is_refused(
    credits: Credits, link: RedisLink, account: str, fingerprint: str
) -> None:
    await credits.load(account, 100, 0)
    with pytest.raises(RedisScriptError, match="TOLLGATE a word of the hold has a space"):
        await credits.reserve(hold(account, 10, fingerprint=fingerprint))
    with pytest.raises(RedisScriptError, match="TOLLGATE a word of the hold has a space"):
        await credits.restore(hold(account, 10, fingerprint=fingerprint))
    assert await credits.balance(account) == Balance(100, 0)


async def test_terms_may_have_spaces_and_look_like_the_end_of_a_hold(credits: Credits, link: RedisLink) -> None:
    account_id = await account_with(credits, 100)
    asked = hold(account_id, 10)
    key = SHARD_KEYS[shard_of(account_id)].hold(asked.request_id)
    await credits.reserve(asked)
    await link.command(b"SET", key, f"1 open {account_id} 1 f 10 0 {{}} the terms 1-1")
    await credits.renew(asked.request_id, account_id, 5, Usage(output=1))
    assert await link.command(b"GET", key) == f'1 open {account_id} 1 f 10 5 {{"output":1}} the terms 1-1'.encode()
    await credits.ack(shard_of(account_id), (1, 1), [asked.request_id])
    assert await link.command(b"PTTL", key) == -1


@pytest.mark.parametrize("rest", ["", "5", "05 {} {}", "99999999999999999 {} {}", "-1 {} {}"])
async def test_a_progress_that_cannot_be_read_is_an_error(credits: Credits, link: RedisLink, rest: str) -> None:
    account_id = await account_with(credits, 100)
    asked = hold(account_id, 10)
    keys = SHARD_KEYS[shard_of(account_id)]
    await credits.reserve(asked)
    await link.command(b"SET", keys.hold(asked.request_id), f"1 open {account_id} 1 f 10 {rest}")
    await link.command(b"ZADD", keys.leases, 0, asked.request_id)
    with pytest.raises(RedisScriptError, match="TOLLGATE hold is unreadable"):
        await credits.renew(asked.request_id, account_id, 7, Usage())
    with pytest.raises(RedisScriptError, match="TOLLGATE hold is unreadable"):
        await credits.lapse(shard_of(account_id), asked.request_id, account_id)
    assert await link.command(b"ZSCORE", keys.leases, asked.request_id) == b"0"
    assert await credits.balance(account_id) == Balance(100, 10)


@pytest.mark.parametrize("line", ["", "nonsense", "1 open account 1 f much 0 {} {}", "1 open account 1 f 9e9 0 {} {}"])
async def test_a_hold_that_cannot_be_read_is_an_error_and_stays(credits: Credits, link: RedisLink, line: str) -> None:
    account_id = await account_with(credits, 100)
    asked = hold(account_id, 10)
    key = SHARD_KEYS[shard_of(account_id)].hold(asked.request_id)
    await link.command(b"SET", key, line)
    settlement = Settlement(asked.request_id, asked.terms, Outcome.EXACT, 10, 1, 1)
    for attempt in (
        credits.reserve(asked),
        credits.renew(asked.request_id, account_id, 1, Usage()),
        credits.capture(settlement),
        credits.lapse(shard_of(account_id), asked.request_id, account_id),
        credits.restore(asked),
    ):
        with pytest.raises(RedisScriptError, match="TOLLGATE hold is unreadable"):
            await attempt
    await credits.ack(shard_of(account_id), (1, 1), [asked.request_id])
    assert await link.command(b"GET", key) == line.encode()
    assert await credits.balance(account_id) == Balance(100, 0)


@pytest.mark.parametrize("count", [0, 1, 12_000])
async def test_any_number_of_holds_is_acknowledged(credits: Credits, count: int) -> None:
    await credits.ack(1, (1, 1), [f"{index}" for index in range(count)])
