"""Statements name what an account bought: with the receipt's link, for ever, under the ledger's head."""

import csv
import io
from datetime import UTC, datetime, timedelta

from gateway.adapters.postgres.statements import Statements
from gateway.core.accounting.statements import Receipt, next_month
from gateway.web.statement_pdf import statement_pdf
from tests.proxy.wire import ask, request
from tests.shop import SIGNED, Shop

NOW = datetime.now(UTC)
MONTH = NOW.date().replace(day=1)


async def receipt_url(shop: Shop, purchase_id: str) -> str:
    bought = await shop.parts.purchases.find(purchase_id)
    assert bought is not None
    assert bought.receipt_url.startswith(shop.simulated.url)
    return bought.receipt_url


async def head(shop: Shop) -> str:
    """What `tollgate ledger verify` prints, once all is sealed."""
    while await shop.stack.workers.sealer.step():
        pass
    verdict = await shop.stack.stores.seals.verify()
    assert verdict.findings == ()
    return verdict.head


async def download(shop: Shop, suffix: str) -> bytes:
    path = f"/billing/statements/{MONTH:%Y-%m}.{suffix}"
    got = await ask(shop.stack.address, request(path, shop.account.key, method="GET"))
    assert got.status == 200
    return got.body


async def test_csv_and_pdf_link_to_the_receipt(shop: Shop) -> None:
    url = await receipt_url(shop, await shop.bought())
    rows = list(csv.DictReader(io.StringIO((await download(shop, "csv")).decode("utf-8-sig"))))
    assert [row["reference"] for row in rows if row["row"] == "receipt"] == [url]
    assert f"/URI ({url})".encode() in await download(shop, "pdf")


async def test_a_closed_month_keeps_its_receipts_and_carries_the_ledger_s_head(shop: Shop) -> None:
    purchase_id = await shop.bought()
    url, sealed = await receipt_url(shop, purchase_id), await head(shop)
    later = datetime.combine(next_month(MONTH), datetime.min.time(), UTC) + timedelta(days=1)
    statements = Statements(shop.stack.stores.pool, now=lambda: later)
    closed = await statements.tell(shop.account.id, MONTH)
    assert closed.statement.ledger_head == sealed
    (receipt,) = closed.statement.receipts
    assert (receipt.purchase_id, receipt.cents, receipt.url) == (purchase_id, 500, url)
    await shop.stack.stores.pool.execute("UPDATE purchase SET receipt_url = 'https://example.org/other'")
    assert await statements.tell(shop.account.id, MONTH) == closed
    pdf = statement_pdf(closed.statement, closed.hash)
    assert pdf == statement_pdf(closed.statement, closed.hash)
    assert f"/URI ({url})".encode() in pdf


async def test_a_refund_and_the_payment_s_fees_are_no_receipts(shop: Shop) -> None:
    purchase_id = await shop.bought()
    await shop.parts.refunds.create(purchase_id, 100_000_000, key="one", signature=SIGNED)
    await shop.settle()
    told = await Statements(shop.stack.stores.pool, now=lambda: datetime.now(UTC)).tell(shop.account.id, MONTH)
    kinds = {each.kind: each.count for each in told.statement.movements}
    assert (kinds["top_up"], kinds["refund"], "fees" in kinds) == (1, 1, False)
    assert [type(each) for each in told.statement.receipts] == [Receipt]
