"""Posting into a real Postgres: once, whatever is repeated, reordered or broken off, and nothing is dropped."""

import asyncio
import random

import msgspec
import pytest

from gateway.core.accounting.posting import DeadLetter, Event, Position
from gateway.core.holds import Outcome, Phase
from gateway.core.shards import shard_of
from tests.books import Books, end_fields, lapse_fields, new_id, settlement


async def test_a_capture_writes_a_usage_line_a_transfer_and_its_entries(books: Books) -> None:
    account = await books.account(grant=1000)
    ended = settlement(account.id, 300, rounding=50)
    posted = await books.post(books.event(end_fields(ended)))
    assert (posted.events, posted.rows) == (1, 4)
    assert await books.balance(account) == 700
    assert await books.system("promotions") == -700
    usage = await books.pool.fetchrow("SELECT * FROM call_usage")
    assert usage is not None
    assert (usage["cost"], usage["charged"], usage["rounding"], usage["outcome"]) == (300, 300, 50, "exact")
    assert msgspec.json.decode(usage["usage"]) == {"input": 1, "output": 2}
    assert usage["event_at"].timestamp() == ended.event_at_ms / 1000
    await books.require_sound()


async def test_what_passes_the_balance_becomes_debt_and_revenue(books: Books) -> None:
    account = await books.account(grant=100)
    await books.post(books.event(end_fields(settlement(account.id, 300, rounding=50))))
    buckets = await books.accounts.balance(account.id)
    assert (buckets.promo, buckets.debt) == (0, -200)
    assert (await books.system("revenue"), await books.system("rounding")) == (150, 50)
    await books.accounts.grant(account.id, 250, "goodwill")
    buckets = await books.accounts.balance(account.id)
    assert (buckets.promo, buckets.debt) == (50, 0)
    assert await books.system("write_off") == -200
    await books.require_sound()


async def test_a_void_writes_a_usage_line_and_moves_nothing(books: Books) -> None:
    account = await books.account(grant=100)
    posted = await books.post(books.event(end_fields(settlement(account.id, 0))))
    assert (posted.events, posted.rows) == (1, 1)
    assert await books.balance(account) == 100
    assert await books.count("transfer") == 1  # the grant's


async def test_a_lapse_is_charged_and_its_late_settlement_corrects_it_either_way(books: Books) -> None:
    account = await books.account(grant=1000)
    for cost, expected in ((100, 1000 - 100), (10, 900 - 10)):
        late = settlement(account.id, cost)
        lapsed = msgspec.structs.replace(late, cost=40, held=200)
        await books.post(books.event(lapse_fields(lapsed)))
        assert await books.ledger.ended([late.request_id]) == set()
        assert await books.ledger.lapses([late.request_id]) == {late.request_id: 40}
        # The second time the lapse is in an earlier transaction than its correction, so its entries are looked up.
        await books.post(books.event(end_fields(late, phase=Phase.CORRECTION, charged=cost - 40)))
        assert await books.balance(account) == expected
        assert await books.ledger.ended([late.request_id]) == {late.request_id}
        assert await books.ledger.lapses([late.request_id]) == {}
    await books.require_sound()


async def test_giving_back_restores_the_debt_that_a_lapse_made(books: Books) -> None:
    account = await books.account(grant=10)
    late = settlement(account.id, 5)
    await books.post(books.event(lapse_fields(msgspec.structs.replace(late, cost=40, held=40))))
    await books.post(books.event(end_fields(late, phase=Phase.CORRECTION, charged=-35)))
    buckets = await books.accounts.balance(account.id)
    assert (buckets.promo, buckets.paid, buckets.debt) == (5, 0, 0)
    assert await books.system("revenue") == 0
    await books.require_sound()


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_with_any_duplicates_gives_the_same_balances(books: Books, seed: int) -> None:
    dice = random.Random(seed)
    accounts = [await books.account(grant=500) for _ in range(3)]
    events = [books.event(end_fields(settlement(dice.choice(accounts).id, dice.randint(0, 60)))) for _ in range(40)]
    spent = dict.fromkeys((account.id for account in accounts), 0)
    for event in events:
        assert isinstance(event, Event)
        spent[event.account_id] += event.charged
    again = events + dice.choices(events, k=60)
    dice.shuffle(again)
    while again:
        size = dice.randint(1, 15)
        await books.post(*again[:size])
        again = again[size:]
    for account in accounts:
        assert await books.balance(account) == 500 - spent[account.id]
    assert (await books.count("idem"), await books.count("call_usage"), await books.count("dead_letter")) == (40, 40, 0)
    assert await books.count("credit_outbox") == 3
    await books.require_sound()


async def test_poison_becomes_a_dead_letter_with_its_reason_and_blocks_nothing(books: Books) -> None:
    account = await books.account(grant=1000)
    shard = shard_of(account.id)
    good, twice = settlement(account.id, 10), settlement(account.id, 20)
    stranger = settlement("0197a3c2-0000-7000-8000-00000000beef", 5)
    fields = end_fields(good)
    posted = await books.post(
        books.event({b"nonsense": b"\xff\x00"}, shard=shard),
        books.event(end_fields(twice)),
        books.event(end_fields(msgspec.structs.replace(twice, cost=21, held=30))),
        books.event(end_fields(stranger)),
        books.event(fields | {b"cost": b"11"}),
        books.event(fields | {b"cost": b"ten"}),
        books.event(fields | {b"data": b"{"}),
        books.event(fields | {b"request_id": b"1"}),
        books.event(fields | {b"kind": b"void"}),
        books.event(fields, shard=(shard + 1) % 64),
        books.event(fields),
    )
    assert posted.events == 2
    assert len(posted.dead) == 9
    assert [r for r in posted.dead if not r.startswith("unreadable")] == ["conflict", "account_unknown"]
    assert await books.balance(account) == 970
    assert await books.count("dead_letter") == 9
    await books.require_sound()


async def test_what_postgres_itself_refuses_is_a_dead_letter_and_the_rest_is_posted(books: Books) -> None:
    account = await books.account(grant=1000)
    events: list[Event | DeadLetter] = []
    for number in range(5):
        ended = settlement(account.id, 10)
        if number == 2:
            ended = msgspec.structs.replace(ended, upstream_request_id="\ud800")
            good = books.event(end_fields(settlement(account.id, 10)))
            assert isinstance(good, Event)
            events.append(msgspec.structs.replace(good, request_id=ended.request_id, settlement=ended))
        else:
            events.append(books.event(end_fields(ended)))
    posted = await books.post(*events)
    assert posted.events == 4
    assert len(posted.dead) == 1
    assert posted.dead[0].startswith("refused: ")
    assert await books.balance(account) == 960


async def test_a_dead_letter_that_comes_again_is_kept_once(books: Books) -> None:
    poison = books.event({b"nonsense": b"1"}, shard=3)
    await books.post(poison)
    posted = await books.post(poison)
    assert posted.dead == []
    assert await books.count("dead_letter") == 1


async def test_a_shard_that_moved_on_is_left_to_its_other_writer(books: Books) -> None:
    account = await books.account(grant=1000)
    shard = shard_of(account.id)
    first, second = (books.event(end_fields(settlement(account.id, 10))) for _ in range(2))
    start = {shard: Position(0, 0)}
    async with books.pool.acquire() as connection:
        posted = await books.ledger.post(connection, [first], after=start)
        assert posted.positions == {shard: Position(0, 1)}
        posted = await books.ledger.post(connection, [first, second], after=start)
        assert (posted.stale, posted.events, posted.positions) == ({shard}, 0, {})
        posted = await books.ledger.post(connection, [second], after={shard: Position(0, 1)})
        assert posted.events == 1
    assert await books.balance(account) == 980


async def test_writers_of_one_batch_at_the_same_moment_post_it_once(books: Books) -> None:
    accounts = [await books.account(grant=1000) for _ in range(4)]
    events = [books.event(end_fields(settlement(account.id, 7))) for account in accounts for _ in range(10)]
    posted = await asyncio.gather(*(books.post(*events) for _ in range(4)))
    assert sum(each.events for each in posted) == 40
    assert sum(each.repeated for each in posted) == 120
    assert [await books.balance(account) for account in accounts] == [930] * 4
    await books.require_sound()


async def test_grants_and_captures_of_one_account_do_not_lose_each_other(books: Books) -> None:
    account = await books.account(grant=1000)
    events = [books.event(end_fields(settlement(account.id, 3))) for _ in range(20)]
    grants = [books.accounts.grant(account.id, 5, "more") for _ in range(20)]
    await asyncio.gather(*(books.post(event) for event in events), *grants)
    assert await books.balance(account) == 1000 - 60 + 100
    await books.require_sound()


async def test_a_late_end_after_a_rebuild_is_a_correction_and_is_repaid_in_redis(books: Books) -> None:
    account = await books.account(grant=1000)
    late = settlement(account.id, 100)
    lapsed = msgspec.structs.replace(late, cost=40, held=200, outcome=Outcome.LAPSED)
    await books.post(books.event(lapse_fields(lapsed)))
    posted = await books.post(books.event(end_fields(late)))
    assert posted.credited == {account.id}
    assert await books.balance(account) == 900
    queued = await books.pool.fetch("SELECT credit_seq, amount FROM credit_outbox ORDER BY credit_seq")
    assert [tuple(row) for row in queued] == [(1, 1000), (2, 40)]


async def test_unknown_requests_have_not_ended(books: Books) -> None:
    assert await books.ledger.ended([]) == set()
    assert await books.ledger.ended([new_id()]) == set()
