"""A day reconciled with real stores, the simulated Stripe and the simulated OpenAI: each planted lie is found, and by
the check that is there for it.

Days are not over in these tests: the day is today, and all of it happened a moment ago.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from stripe import StripeClient

from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.reconciliation import ReconciliationReads, Reports
from gateway.app.reconcile import ReconcileParts, open_reconciliation
from gateway.core.accounting.reconciliation import Check, Report, Verdict
from gateway.core.guard.flags import CHARGING, Scope
from gateway.core.shards import SHARD_KEYS, shard_of
from gateway.sandbox.openai import SimulatedOpenAI
from gateway.sandbox.stripe import SandboxStripeSettings
from gateway.web.ops.listener import listen
from tests.reconciling import alter, call, sold_day
from tests.shop import SIGNED, Shop, open_shop, unaudited

TODAY = datetime.now(UTC).date()
STRIPE = ["payments at Stripe", "received through Stripe", "fees through Stripe", "returned through Stripe"]
PAYOUTS = ["payouts in the books", "payouts made of booked payments"]
OWN = ["Stripe's own fees", "other movements at Stripe"]
LEDGER = ["outstanding = granted - debited", "Redis against Postgres", "sampled prices recomputed"]
MARGIN = "models that bring 400 % of their cost"
OPENAI = ["tokens at OpenAI", "cost at OpenAI"]
SHADOW = "shadow against real prices"


@pytest.fixture
async def shop(
    database_url: str, redis_url: str, tmp_path: Path, openai: SimulatedOpenAI, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shop]:
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin")
    async with sold_day(database_url, redis_url, tmp_path / "spool", openai) as shop:
        yield shop


async def report(shop: Shop, **settings: Any) -> Report:
    changed = shop.stack.config.reconcile.model_copy(update=settings)
    config = shop.stack.config.model_copy(update={"reconcile": changed})
    async with open_reconciliation(config, shop.stack.stores) as reconciliation:
        return await reconciliation.of(TODAY)


def found(report: Report, name: str) -> Check:
    (check,) = [check for check in report.checks if check.name == name]
    return check


def wrong(report: Report) -> list[str]:
    return [check.name for check in report.mismatches]


async def test_a_clean_day_agrees_with_everybody(shop: Shop) -> None:
    seen = await report(shop)
    assert wrong(seen) == []
    assert seen.outages == ()
    assert [check.name for check in seen.checks] == [*STRIPE, *PAYOUTS, *OWN, *LEDGER, MARGIN, SHADOW, *OPENAI]
    assert (found(seen, STRIPE[0]).expected, found(seen, STRIPE[1]).found) == (2, 5500)
    assert found(seen, LEDGER[2]).expected == 3
    assert found(seen, OPENAI[0]).expected > 0
    assert found(seen, OPENAI[1]).expected > 0
    assert found(seen, SHADOW).verdict is Verdict.NOT_CHECKED
    assert [each.model for each in seen.margins] == ["gpt-4o"]


async def test_what_stripe_tells_in_no_known_shape_is_not_checked_and_the_rest_of_the_day_is(shop: Shop) -> None:
    async def answer(_: web.Request) -> web.Response:
        strange = {"id": "txn_1", "object": "balance_transaction"}
        return web.json_response({"object": "list", "data": [strange], "has_more": False, "url": "/v1/anything"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner, url = await listen(app, "127.0.0.1", 0)
    config = shop.stack.config
    elsewhere = config.model_copy(update={"stripe": config.stripe.model_copy(update={"api_url": url})})
    async with open_reconciliation(elsewhere, shop.stack.stores) as reconciliation:
        seen = await reconciliation.of(TODAY)
    await runner.cleanup()

    assert [check.name for check in seen.outages] == [STRIPE[0]]
    assert found(seen, LEDGER[0]).verdict is Verdict.OK


async def test_refunds_disputes_and_payouts_of_the_day_agree_too(shop: Shop, client: StripeClient) -> None:
    third = await shop.bought("starter", key="three")
    made = await shop.parts.refunds.create(third, 1_000_000_000, key="r", signature=SIGNED)
    shop.simulated.order("charges/dispute", await shop.charge_of(await shop.bought("starter", key="four")))
    await shop.settle()
    shop.simulated.order("payouts/create", even_pending=True)
    await shop.settle()
    assert made.state == "made"
    seen = await report(shop)
    assert wrong(seen) == []
    assert found(seen, STRIPE[3]).expected > 100
    assert found(seen, PAYOUTS[0]).found == found(seen, PAYOUTS[1]).found > 0


async def test_a_balance_transaction_that_is_written_behind_midnight_is_the_payments_all_the_same(
    database_url: str, redis_url: str, tmp_path: Path, openai: SimulatedOpenAI
) -> None:
    day_s = 86_400.0
    slow = SandboxStripeSettings(seed=7, delivery_retries_s=(), balance_transaction_after_s=day_s)
    async with open_shop(unaudited(database_url, redis_url, tmp_path / "spool"), openai, settings=slow) as shop:
        intent = await shop.intent_of(await shop.bought())
        shop.simulated.advance(day_s)
        await shop.parts.payments.look(intent)  # its fee is known now
        seen = await report(shop)
    assert [name for name in wrong(seen) if name in STRIPE] == []
    assert (found(seen, STRIPE[0]).expected, found(seen, STRIPE[2]).found) == (1, 45)


async def test_a_payment_that_the_books_never_saw_is_found(shop: Shop) -> None:
    told = await shop.buy(key="lost")
    shop.pay(told)  # and no event is ever handled
    seen = await report(shop)
    assert wrong(seen) == [STRIPE[0]]
    assert (found(seen, STRIPE[0]).expected, found(seen, STRIPE[0]).found) == (3, 2)


async def test_a_refund_that_the_books_never_saw_is_found(shop: Shop, client: StripeClient) -> None:
    intent = await shop.intent_of(await shop.bought(key="three"))
    await client.v1.refunds.create_async({"payment_intent": intent, "amount": 200})  # and its event is never handled
    seen = await report(shop)
    assert wrong(seen) == [STRIPE[3]]
    assert found(seen, STRIPE[3]).notes == (f"{intent}: 200 at Stripe, 0 in the books",)


async def test_a_dispute_that_the_books_never_saw_is_found(shop: Shop) -> None:
    charge = await shop.charge_of(await shop.bought(key="three"))
    shop.simulated.order("charges/dispute", charge)  # and its event is never handled
    assert wrong(await report(shop)) == [STRIPE[2], STRIPE[3]]


async def test_a_payout_of_money_that_the_books_do_not_have_is_found(shop: Shop) -> None:
    shop.pay(await shop.buy(key="lost"))
    paid = shop.simulated.order("payouts/create", even_pending=True)
    await shop.stack.stores.pool.execute(
        "INSERT INTO payout (id, amount_cents, status, posted) VALUES ($1, $2, 'paid', $3)",
        paid["id"], paid["amount"], paid["amount"] * 10**7,
    )  # fmt: skip
    seen = await report(shop)
    assert wrong(seen) == [STRIPE[0], PAYOUTS[1]]
    assert found(seen, PAYOUTS[1]).notes[0].endswith(", charge of $4.55, is not in the books")


async def test_a_payout_that_was_not_booked_is_found(shop: Shop) -> None:
    shop.simulated.order("payouts/create", even_pending=True)  # and its event is never handled
    assert wrong(await report(shop)) == [PAYOUTS[0]]


async def test_a_payout_of_the_other_mode_is_not_looked_for(shop: Shop) -> None:
    """As on the day of going live, on which Stripe paid out in test mode, too."""
    pool = shop.stack.stores.pool
    await pool.execute(
        "INSERT INTO payout (id, amount_cents, status, posted) VALUES ('po_test', 700, 'paid', 7000000000)"
    )
    await pool.execute(
        "INSERT INTO stripe_event (id, type, object_id, is_live, created_at, source, body, headers)"
        " VALUES ('evt_test', 'payout.paid', 'po_test', true, now(), 'webhook', '', '{}')"
    )
    assert wrong(await report(shop)) == []


async def test_a_payout_that_stripe_never_made_is_found(shop: Shop) -> None:
    await shop.stack.stores.pool.execute(
        "INSERT INTO payout (id, amount_cents, status, posted) VALUES ('po_forged', 700, 'paid', 7000000000)"
    )
    seen = await report(shop)
    assert wrong(seen) == [PAYOUTS[0]]
    assert found(seen, PAYOUTS[0]).notes == ("po_forged: 0 at Stripe, 700 in the books",)


async def test_what_stripe_took_for_itself_is_missed_until_the_backfill_has_booked_it(shop: Shop) -> None:
    shop.simulated.order("balance/charge", amount=30)
    shop.simulated.order("payouts/create", even_pending=True)
    await shop.settle()
    assert wrong(await report(shop)) == [PAYOUTS[1], OWN[0]]
    for own_fees in (1, 0):
        assert (await shop.parts.backfill.run(0)).own_fees == own_fees
    assert wrong(await report(shop)) == []
    assert (await shop.system()).get("stripe_clearing", 0) == 0


async def test_money_at_stripe_that_nothing_books_is_found(shop: Shop) -> None:
    shop.simulated.order("balance/charge", amount=30, category="other_adjustment")
    seen = await report(shop)
    assert wrong(seen) == [OWN[1]]
    assert found(seen, OWN[1]).notes[0].endswith(", other_adjustment of -$0.30, is not in the books")


async def forge(shop: Shop) -> None:
    """A top-up whose payment Stripe never had."""
    told = await shop.buy(key="forged")
    bought = await shop.parts.purchases.find(told["id"])
    assert bought is not None
    paid = await shop.parts.stripe.payment(await shop.intent_of(await shop.bought(key="real")))
    forged = msgspec.structs.replace(paid, intent_id="pi_forged", purchase_id=bought.id)
    assert await shop.parts.purchases.post(bought, forged, await shop.parts.purchases.begin_reading(), tax_cents=0)
    await shop.stack.stores.crediter.step()


async def test_a_top_up_without_a_balance_transaction_is_found(shop: Shop) -> None:
    await forge(shop)
    seen = await report(shop)
    assert wrong(seen) == [STRIPE[0]]
    assert found(seen, STRIPE[0]).notes == ("pi_forged is in the books and not at Stripe",)


async def test_a_top_up_of_the_other_mode_is_not_looked_for(shop: Shop) -> None:
    """As on the day of going live, on which the last purchases in test mode were made."""
    await forge(shop)
    await shop.stack.stores.pool.execute(
        "UPDATE purchase SET is_live = NOT is_live WHERE payment_intent_id = 'pi_forged'"
    )
    assert wrong(await report(shop)) == []


@pytest.mark.parametrize(
    ("column", "name"),
    [("posted_tax", STRIPE[1]), ("posted_fees", STRIPE[2]), ("posted_refunded", STRIPE[3])],
)
async def test_wrong_cents_are_found_by_what_they_are(shop: Shop, column: str, name: str) -> None:
    await shop.stack.stores.pool.execute(
        f"UPDATE purchase SET {column} = {column} + 100000000 WHERE package = 'starter'"
    )
    seen = await report(shop)
    assert wrong(seen) == [name]
    assert abs(found(seen, name).difference) == 10


async def alter_redis(shop: Shop) -> None:
    account = shop.account.id
    key = SHARD_KEYS[shard_of(account)].account(account)
    await shop.stack.stores.link.command(b"HINCRBY", key, b"balance", 1)


async def test_a_doctored_balance_in_redis_is_found(shop: Shop) -> None:
    await alter_redis(shop)
    seen = await report(shop)
    assert wrong(seen) == ["Redis against Postgres"]
    assert shop.account.id in found(seen, "Redis against Postgres").notes[0]


async def test_an_altered_usage_line_is_found(shop: Shop, database_url: str) -> None:
    line = (await shop.stack.lines())[0]
    sql = "UPDATE call_usage SET cost = cost + 1 WHERE request_id = $1::text::uuid"
    await alter(database_url, sql, line.request_id)
    seen = await report(shop)
    assert wrong(seen) == ["sampled prices recomputed"]
    assert line.request_id in found(seen, "sampled prices recomputed").notes[0]


async def test_the_seed_alone_chooses_the_sample(shop: Shop, database_url: str) -> None:
    await alter(database_url, "UPDATE call_usage SET cost = cost + 1")  # so that each is named when it is looked at
    reads = ReconciliationReads(shop.stack.stores.pool)
    chosen = [(await reads.wrong_prices(TODAY, seed=str(seed), count=1))[1][0] for seed in range(20)]
    again = [(await reads.wrong_prices(TODAY, seed=str(seed), count=1))[1][0] for seed in range(20)]
    assert chosen == again
    assert len(set(chosen)) == 3


async def test_a_changed_balance_in_postgres_is_found(shop: Shop, database_url: str) -> None:
    sql = "UPDATE balance SET amount = amount + 7 WHERE bucket = 'paid' AND account_id = $1::text::uuid"
    await alter(database_url, sql, shop.account.id)
    seen = await report(shop)
    assert set(wrong(seen)) == {"outstanding = granted - debited", "Redis against Postgres"}
    assert found(seen, "outstanding = granted - debited").difference == 7


async def test_tokens_that_openai_counts_and_we_did_not_meter_are_found(shop: Shop, openai: SimulatedOpenAI) -> None:
    """Somebody used the upstream's key past the gateway."""
    headers = {"Authorization": f"Bearer {shop.stack.config.upstream_key}"}
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there."}]}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{openai.url}/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status == 200
    seen = await report(shop)
    assert wrong(seen) == OPENAI
    assert found(seen, OPENAI[0]).notes[0].startswith("gpt-4o: ")


async def test_a_margin_below_the_target_is_found(shop: Shop) -> None:
    for _ in range(20):
        await call(shop, "gpt-4o")
    await shop.stack.lines()
    seen = await report(shop, margin_percent_min=500)
    assert wrong(seen) == ["models that bring 500 % of their cost"]
    assert found(seen, "models that bring 500 % of their cost").notes[0].endswith("400 %")


async def bill_in_shadow(shop: Shop) -> None:
    """From now on nobody is charged."""
    await shop.stack.stores.flags.set(CHARGING, False, Scope(), Signature("ann", "go-live"))
    await shop.stack.gateway.controls.step()


async def test_shadow_billing_agrees_with_real_prices_and_costs_what_it_costs(shop: Shop) -> None:
    await bill_in_shadow(shop)
    for _ in range(2):
        await call(shop)
    await shop.stack.lines()
    seen = await report(shop)
    assert wrong(seen) == []
    assert (found(seen, SHADOW).verdict, found(seen, SHADOW).expected > 0) == (Verdict.OK, True)
    (margin,) = seen.margins
    assert (margin.calls, margin.shadow > 0, margin.margin_percent) == (5, True, 400)


async def test_shadow_entries_that_are_no_real_price_are_found(shop: Shop, database_url: str) -> None:
    await bill_in_shadow(shop)
    await call(shop)
    await shop.stack.lines()
    await alter(database_url, "UPDATE shadow_entry SET amount = amount * 2")
    assert wrong(await report(shop)) == [SHADOW]


async def test_what_the_newest_report_found_is_in_the_metrics_of_every_worker(shop: Shop) -> None:
    stores = shop.stack.stores
    await alter_redis(shop)
    found_today = await report(shop)
    config = shop.stack.config
    late = config.reconcile.model_copy(update={"after_hour_utc": 24})  # never: it only looks
    parts = ReconcileParts(config.model_copy(update={"reconcile": late}), stores)
    assert metrics(parts) == {"mismatches": 0, "unchecked": 0, "day": 0}
    await Reports(stores.pool).keep(found_today)
    await parts.reconciler.step()
    midnight = datetime.combine(TODAY, time(), UTC)
    assert metrics(parts) == {"mismatches": 1, "unchecked": 0, "day": midnight.timestamp()}


def metrics(parts: ReconcileParts) -> dict[str, float]:
    values = {sample.name: sample.value for metric in parts.metrics() for sample in metric.samples}
    return {
        "mismatches": values["tollgate_reconciliation_mismatches"],
        "unchecked": values["tollgate_reconciliation_unchecked"],
        "day": values["tollgate_reconciled_day_timestamp_seconds"],
    }
