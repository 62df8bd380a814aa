"""The audit: silent on books that are right, while calls go on too; and each broken invariant is named."""

import asyncio

import msgspec
import psycopg
import pytest

from gateway.adapters.postgres.audit import Finding, recompute, run_audit
from gateway.core.calls.usage import Usage
from gateway.core.holds import Flag, HoldState, Outcome, Settlement
from gateway.core.pricing.rate_card import load_card
from gateway.core.pricing.rates import RateCard, price
from gateway.core.shards import SHARD_KEYS, shard_of
from gateway.resources import shipped
from tests.books import settlement
from tests.books_redis import Desk

MODEL = "gpt-4o-mini"


@pytest.fixture(scope="module")
def card_text() -> str:
    return max((shipped("config") / "rates").glob("*.toml")).read_text()


@pytest.fixture(scope="module")
def card(card_text: str) -> RateCard:
    return load_card(card_text, "test-card")


def priced(account_id: str, card: RateCard, usage: Usage) -> Settlement:
    """A call of MODEL, priced as the gateway prices it."""
    row = card.rows[MODEL]
    cost = price(usage, card.rate(row, None, usage.input_total), card.rounding)
    plain = settlement(account_id, cost.cost, rounding=cost.rounding)
    return msgspec.structs.replace(
        plain,
        usage=usage,
        rate_key=card.rate_key(row, None, usage.input_total),
        terms=msgspec.structs.replace(plain.terms, rate_version=card.version),
    )


async def work(desk: Desk, card: RateCard, card_text: str) -> str:
    """Some of everything; returns the id of an account that took part."""
    await desk.books.accounts.record_card(card, card_text)
    account = await desk.books.account(grant=10**9)
    for tokens in range(1, 6):
        await desk.serve(priced(account.id, card, Usage(input=tokens * 100, input_cached=3, output=tokens)))
    await desk.serve(settlement(account.id, 0))
    unreadable = settlement(account.id, 500)
    await desk.serve(
        msgspec.structs.replace(
            unreadable, outcome=Outcome.ESTIMATED, rate_key="", usage=Usage(), flags=(Flag.USAGE_ABSURD,)
        )
    )
    late = priced(account.id, card, Usage(input=1000, output=10))
    await desk.open_hold(late)
    await desk.credits.renew(late.request_id, account.id, 10, Usage(input=1), lease_ms=1)
    while await desk.credits.lapse(shard_of(account.id), late.request_id, account.id) is HoldState.OPEN:
        await asyncio.sleep(0.001)
    await desk.credits.capture(late)
    poster = desk.poster()
    await desk.post_all(poster)
    await poster.close()
    await desk.serve(priced(account.id, card, Usage(input=7)))  # not posted yet
    await desk.open_hold(settlement(account.id, 10))
    await desk.books.accounts.grant(account.id, 5, "not delivered yet")
    return account.id


async def violated(desk: Desk) -> dict[str, Finding]:
    return {found.name: found for found in await run_audit(desk.books.pool, desk.link) if not found.holds}


async def test_books_that_are_right_pass_and_every_invariant_is_announced(
    desk: Desk, card: RateCard, card_text: str
) -> None:
    await work(desk, card, card_text)
    announced: list[str] = []
    findings = await run_audit(desk.books.pool, desk.link, on_progress=announced.append)
    assert [found for found in findings if not found.holds] == []
    assert {found.name[:2] for found in findings} == {
        "1.",
        "2.",
        "3.",
        "4.",
        "5.",
        "6.",
        "7.",
        "8.",
        "9.",
        "10",
        "12",
        "13",
        "14",
        "15",
    }
    assert len(announced) >= len(findings) - 1


async def test_calls_that_go_on_meanwhile_do_not_disturb_it(desk: Desk, card: RateCard, card_text: str) -> None:
    account_id = await work(desk, card, card_text)
    poster = desk.poster()
    is_over = asyncio.Event()

    async def traffic() -> None:
        while not is_over.is_set():
            await desk.serve(priced(account_id, card, Usage(input=5, output=1)))
            await desk.books.accounts.grant(account_id, 3, "meanwhile")
            await poster.step()
            await desk.crediter.step()
            await asyncio.sleep(0.005)

    running = asyncio.create_task(traffic())
    try:
        for _ in range(3):
            assert await violated(desk) == {}
    finally:
        is_over.set()
        await running
        await poster.close()


DAMAGE = {
    "1. the entries of a transfer sum to zero": "UPDATE entry SET amount = amount + 1 WHERE bucket = 'promo'",
    "1. every transfer has entries, and every entry a transfer": "DELETE FROM transfer WHERE kind = 'grant'",
    "2. a balance is the sum of its entries": "UPDATE balance SET amount = amount + 1 WHERE bucket = 'promo'",
    "2. what is owed is debt, and nothing else is below zero": "UPDATE balance SET amount = -1 WHERE bucket = 'paid'",
    "2. every account has its buckets": "DELETE FROM balance WHERE bucket = 'debt'",
    "4. a hold ends once": "INSERT INTO call_usage SELECT request_id, phase, account_id, key_id, endpoint, model,"
    " rate_version, rate_key, outcome, usage, held, cost, charged, rounding, flags, status, upstream_request_id,"
    " event_at, now() FROM call_usage",
    "5. a request is captured at most once": "INSERT INTO transfer SELECT gen_random_uuid(), kind, account_id,"
    " request_id, reason, event_at, now() FROM transfer WHERE kind = 'capture'",
    "5. posted requests and usage lines are one to one": "DELETE FROM idem WHERE kind = 'void'",
    "5. what a usage line charged is what its transfer took": "UPDATE call_usage SET charged = charged + 1",
    "5. a correction follows a lapse, and together they charge the cost": "DELETE FROM call_usage"
    " WHERE outcome = 'lapsed'",
    "6. an answer that upstream began is captured, or says why not": "UPDATE call_usage SET status = 200"
    " WHERE outcome = 'void'",
    "6. every event is posted: no open dead letters": "INSERT INTO dead_letter (shard, epoch, seq, reason, payload,"
    " fingerprint) VALUES (1, 1, 1, 'gap', '{}', '')",
    "9. repeating an event changes nothing: what is posted is claimed, and a claim is made once": "DELETE FROM idem"
    " WHERE kind = 'capture'",
    "5. an end charges what it cost, unless it is only shadow-billed": "UPDATE call_usage SET charged = 0",
    "12. a shadow-billed call moves no balance, and its shadow entries are its cost": "INSERT INTO shadow_entry"
    " SELECT request_id, phase, line, account_id, bucket, line * cost FROM call_usage"
    " CROSS JOIN (VALUES (-1, 'shadow_due'), (1, 'shadow_revenue')) AS given (line, bucket) WHERE charged > 0",
    "15. a suspended account admits nothing": "UPDATE account SET status = 'suspended',"
    " changed_at = now() - interval '1 minute'",
    "13. ledger rows never change or vanish: they are as they were sealed": "INSERT INTO seal"
    " SELECT 1, ordinal, ARRAY[id], sha256(''), sha256(sha256('')) FROM transfer ORDER BY ordinal LIMIT 1",
    "13. ledger rows never change or vanish: the triggers stand": "ALTER TABLE idem DISABLE TRIGGER keep_table",
    "13. ledger rows never change or vanish: the service may only add to them, and owns nothing": "GRANT DELETE ON"
    " entry TO tollgate_service",
    "10. every capture can be recomputed from its usage and rate card": "UPDATE call_usage"
    " SET usage = '{\"input\": 1}'",
    "7. Redis and the unposted events equal Postgres": "UPDATE balance SET amount = amount + 1 WHERE bucket = 'promo'",
}


@pytest.mark.parametrize("name", DAMAGE)
async def test_each_broken_invariant_is_named(
    desk: Desk, owner: psycopg.Connection, card: RateCard, card_text: str, name: str
) -> None:
    await work(desk, card, card_text)
    for table in ("entry", "transfer", "call_usage", "idem"):
        owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER keep_rows".encode())
    owner.execute(DAMAGE[name].encode())
    for table in ("entry", "transfer", "call_usage", "idem"):
        owner.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER keep_rows".encode())
    found = await violated(desk)
    assert name in found
    assert 0 < len(found[name].examples) <= 5 <= max(5, found[name].violations)


async def test_entries_that_were_added_to_a_transfer_later_are_a_violation(
    desk: Desk, card: RateCard, card_text: str
) -> None:
    """The service may add to the ledger, and each of these statements balances."""
    await work(desk, card, card_text)
    given = "transfer_id = (SELECT id FROM transfer WHERE kind = 'grant' ORDER BY ordinal LIMIT 1)"
    await desk.books.pool.execute(
        "UPDATE balance SET amount = balance.amount + entry.amount FROM entry"
        " WHERE balance.account_id = entry.account_id AND balance.bucket = entry.bucket"
        f" AND balance.shard = entry.shard AND {given}"
    )
    await desk.books.pool.execute(
        "INSERT INTO entry (transfer_id, line, shard, account_id, bucket, amount)"
        f" SELECT transfer_id, line, shard, account_id, bucket, amount FROM entry WHERE {given}"
    )
    found = {each.name for each in await run_audit(desk.books.pool, None) if not each.holds}
    assert found == {
        "1. every transfer has entries, and every entry a transfer",
        "13. ledger rows never change or vanish: they are as they were sealed",
    }


async def test_a_price_whose_card_is_not_known_is_a_violation(desk: Desk, card: RateCard) -> None:
    account = await desk.books.account(grant=10**9)
    await desk.serve(priced(account.id, card, Usage(input=7)))
    poster = desk.poster()
    await desk.post_all(poster)
    await poster.close()
    assert list(await violated(desk)) == ["10. every capture can be recomputed from its usage and rate card"]
    findings = await run_audit(desk.books.pool, None, cards={card.version: card})
    assert all(found.holds for found in findings)


async def test_held_credit_without_a_hold_is_a_violation(desk: Desk, card: RateCard, card_text: str) -> None:
    account_id = await work(desk, card, card_text)
    await desk.books.redis.hincrby(SHARD_KEYS[shard_of(account_id)].account(account_id), "held", 1)
    assert list(await violated(desk)) == ["3. what is held is the sum of the open holds"]


async def test_a_balance_that_was_changed_in_redis_is_a_violation(desk: Desk, card: RateCard, card_text: str) -> None:
    account_id = await work(desk, card, card_text)
    await desk.books.redis.hincrby(SHARD_KEYS[shard_of(account_id)].account(account_id), "balance", 1)
    assert list(await violated(desk)) == ["7. Redis and the unposted events equal Postgres"]


async def test_a_redis_that_is_away_is_no_proof_and_the_remedy_is_named(desk: Desk) -> None:
    await desk.link.close()
    found = await violated(desk)
    assert len(found) == 2
    assert all("raise audit.redis_timeout_ms" in each.examples[0] for each in found.values())


def test_a_rate_key_is_read_whatever_the_model_is_called(card: RateCard) -> None:
    usage = Usage(input=100, output=10)
    for row in card.rows.values():
        for tier in row.tiers:
            key = card.rate_key(row, tier, usage.input_total)
            assert recompute(card, key, usage) == price(usage, card.rate(row, tier, 100), card.rounding)
    assert recompute(card, "no-such-model/default", usage) is None
    assert recompute(card, MODEL, usage) is None
