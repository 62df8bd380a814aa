"""Every kind of movement there is, made as it is made in service, is in the books that an accountant gets."""

import csv
import io
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from stripe import StripeClient

from gateway.adapters.postgres.adjustments import Adjustments
from gateway.adapters.postgres.books import Books as Exports
from gateway.adapters.postgres.provider_costs import ProviderCosts
from gateway.adapters.redis.outbox import decode
from gateway.core.accounting.books import BOOK_ACCOUNTS, LAYOUTS, dollars
from gateway.core.accounting.ledger import Bucket, TransferKind
from gateway.core.calls.usage import Usage
from gateway.core.holds import Outcome, Phase
from gateway.core.pricing.rates import cost_exact
from gateway.core.shards import shard_of
from gateway.sandbox.openai import SimulatedOpenAI
from tests.books import Fields, end_fields, lapse_fields, now_ms, settlement
from tests.shop import SIGNED, Shop, open_shop, unaudited

TODAY = datetime.now(UTC).date()
LATER_MS = now_ms() + 2 * 86_400_000  # so that today is over
CREDIT = 1_000_000
# What customers paid ahead stands in their own buckets; and the shipped rate card rounds nothing up.
UNUSED = {Bucket.DEFERRED_REVENUE, Bucket.ROUNDING}


@pytest.fixture
async def shop(database_url: str, redis_url: str, tmp_path: Path, openai: SimulatedOpenAI) -> AsyncIterator[Shop]:
    async with open_shop(unaudited(database_url, redis_url, tmp_path / "spool"), openai, automatic_tax=True) as shop:
        await everything(shop)
        yield shop


async def everything(shop: Shop) -> None:
    stores = shop.stack.stores
    async with shop.stack.client() as client:
        for model in ("gpt-4o", "gpt-4o-mini"):
            await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hello there."}])
    await shop.stack.lines()
    await cut_off_and_corrected(shop)
    told = await shop.buy("professional", key="taxed")
    shop.pay(told, country="DE")
    await shop.settle()
    second = await shop.bought(key="disputed")
    await shop.parts.refunds.create(told["id"], 100 * CREDIT, key="one", signature=SIGNED)
    dispute = shop.simulated.order("charges/dispute", await shop.charge_of(second))
    await shop.settle()
    shop.simulated.order("disputes/lose", dispute["id"])
    await shop.settle()
    shop.simulated.order("payouts/create", even_pending=True)
    await shop.settle()
    adjustments = Adjustments(stores.pool, stores.ledger, now_ms=now_ms)
    debtor = await shop.stack.new_account("debtor", ucr=0)
    await adjustments.post(TransferKind.ADJUSTMENT, debtor.id, -5 * CREDIT, "=1+1")
    await adjustments.post(TransferKind.WRITE_OFF, debtor.id, 4 * CREDIT, "bankrupt")
    balance = await stores.accounts.balance(shop.account.id)
    await adjustments.post(TransferKind.EXPIRY, shop.account.id, balance.promo + CREDIT, "old")
    await stores.crediter.step()
    costs = ProviderCosts(stores.pool, stores.ledger, now_ms=lambda: LATER_MS)
    await costs.book(TODAY)
    await costs.correct(TODAY, TODAY, 123_456_789, "an invoice")


async def cut_off_and_corrected(shop: Shop) -> None:
    """A call whose gateway died, and what it told later, as the poster reads them."""
    stores, card = shop.stack.stores, shop.stack.card
    account = await shop.stack.new_account("cut off", ucr=0)  # Redis has not loaded it
    model, usage = "gpt-4o-mini", Usage(input=100, output=10)
    price = cost_exact(usage, card.rate(card.rows[model], None, usage.input_total))
    plain = settlement(account.id, price)
    terms = msgspec.structs.replace(plain.terms, model=model, rate_version=card.version)
    ended = msgspec.structs.replace(plain, terms=terms, usage=usage, rate_key=f"{model}/default")
    lapsed = msgspec.structs.replace(ended, cost=3, usage=Usage(), rate_key="", outcome=Outcome.LAPSED)
    fields: list[Fields] = [lapse_fields(lapsed), end_fields(ended, phase=Phase.CORRECTION, charged=price - 3)]
    shard = shard_of(account.id)
    async with stores.pool.acquire() as connection:
        for number, each in enumerate(fields, 1):
            await stores.ledger.post(connection, [decode(shard, b"1000-%d" % number, each)])


async def exported(shop: Shop, layout: str) -> str:
    pieces = Exports(shop.stack.stores.pool).export(LAYOUTS[layout](), TODAY - timedelta(days=1), TODAY)
    return "".join([piece async for piece in pieces])


async def balances(shop: Shop) -> dict[str, int]:
    rows = await shop.stack.stores.pool.fetch("SELECT bucket, sum(amount)::bigint AS amount FROM balance GROUP BY 1")
    return {row["bucket"]: row["amount"] for row in rows}


async def test_every_kind_of_movement_is_a_double_entry_that_bean_check_passes(shop: Shop, tmp_path: Path) -> None:
    text = await exported(shop, "beancount")
    kinds = {line.partition('"')[2].rstrip('"') for line in text.splitlines() if ' * "' in line}
    assert kinds == {kind.value for kind in TransferKind}
    path = tmp_path / "books.beancount"
    path.write_text(text)
    command = [sys.executable, "-m", "beancount.scripts.check", "--no-cache", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    asserted = {words[2]: Decimal(words[3]) for words in map(str.split, text.splitlines()) if words[1:2] == ["balance"]}
    expected = await balances(shop)
    assert asserted == {account.path: Decimal(dollars(-expected[bucket])) for bucket, account in BOOK_ACCOUNTS.items()}
    posted = {line.split()[0] for line in text.splitlines() if line.startswith("  ")}
    moved = {bucket for bucket, account in BOOK_ACCOUNTS.items() if account.path in posted}
    assert moved == set(Bucket) - UNUSED


async def test_stripes_clearing_account_ends_where_stripes_balance_does(shop: Shop, client: StripeClient) -> None:
    at_stripe = await client.v1.balance.retrieve_async()
    totals = at_stripe.to_dict()
    cents = sum(each["amount"] for each in [*totals["available"], *totals["pending"]])
    assert (await balances(shop))["stripe_clearing"] == -cents * 10_000_000


@pytest.mark.parametrize(
    ("layout", "journal", "amount"),
    [
        ("quickbooks", "JournalNo", lambda line: Decimal(line["Debits"] or 0) - Decimal(line["Credits"] or 0)),
        ("xero", "*Narration", lambda line: Decimal(line["*Amount"])),
    ],
)
async def test_each_journal_that_is_imported_balances_to_the_cent(
    shop: Shop, layout: str, journal: str, amount: Callable[[dict[str, str]], Decimal]
) -> None:
    sums: defaultdict[str, Decimal] = defaultdict(Decimal)
    for line in csv.DictReader(io.StringIO(await exported(shop, layout))):
        sums[line[journal]] += amount(line)
    assert len(sums) > 10
    assert set(sums.values()) == {Decimal(0)}
