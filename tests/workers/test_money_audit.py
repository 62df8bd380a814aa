"""What Stripe moved, as the audit compares it with the ledger: each planted lie is found."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.adapters.postgres.audit import run_audit
from gateway.sandbox.openai import SimulatedOpenAI
from tests.reconciling import alter, sold_day
from tests.shop import Shop


@pytest.fixture
async def shop(database_url: str, redis_url: str, tmp_path: Path, openai: SimulatedOpenAI) -> AsyncIterator[Shop]:
    async with sold_day(database_url, redis_url, tmp_path / "spool", openai) as shop:
        yield shop


async def about_stripe(shop: Shop) -> list[str]:
    """What the audit finds wrong with the money that Stripe moved."""
    found = await run_audit(shop.stack.stores.pool, None)
    return [each.name for each in found if each.name.startswith("8.") and not each.holds]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE purchase SET posted_refund_reversed = posted_refund_reversed + 10 WHERE package = 'starter'",
        "INSERT INTO transfer SELECT gen_random_uuid(), 'top_up', account_id, NULL, 'free credit', event_at, now()"
        " FROM transfer WHERE kind = 'top_up'",
    ],
)
async def test_the_audit_finds_credit_that_no_purchase_accounts_for(shop: Shop, database_url: str, damage: str) -> None:
    await alter(database_url, damage)
    assert "8. a paid purchase is one top-up, and no more is taken back than was granted" in await about_stripe(shop)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE purchase SET posted_tax = posted_tax + 1 WHERE package = 'starter'",
        "UPDATE purchase SET posted_tax_returned = posted_tax_returned + 1 WHERE package = 'starter'",
        "UPDATE purchase SET posted_fees = 0 WHERE package = 'starter'",
        "UPDATE purchase SET posted_refunded = posted_refunded + 1 WHERE package = 'starter'",
        "UPDATE purchase SET posted_withdrawn = posted_withdrawn + 1 WHERE package = 'starter'",
    ],
)
async def test_the_audit_finds_money_that_a_purchases_transfers_do_not_account_for(
    shop: Shop, database_url: str, damage: str
) -> None:
    await alter(database_url, damage)
    assert await about_stripe(shop) == [
        "8. what a purchase moved at Stripe, in tax and in fees is what its transfers did"
    ]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE payout SET posted = posted - 10000000",
        "DELETE FROM payout",
        "DELETE FROM stripe_own_fee",
        "INSERT INTO stripe_own_fee (id, cents) VALUES ('txn_forged', 1)",
    ],
)
async def test_the_audit_finds_payouts_and_fees_that_the_ledger_has_otherwise(
    shop: Shop, database_url: str, damage: str
) -> None:
    shop.simulated.order("balance/charge", amount=30)
    shop.simulated.order("payouts/create", even_pending=True)
    await shop.settle()
    await shop.parts.backfill.run(0)
    assert await about_stripe(shop) == []
    await alter(database_url, damage)
    assert await about_stripe(shop) == ["8. what Stripe paid out, and took for itself, is what the ledger has of it"]
