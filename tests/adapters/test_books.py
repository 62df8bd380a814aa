"""Exports of the books: Beancount finds them sound, and their balances are the database's."""

import csv
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.adapters.postgres.adjustments import Adjustments
from gateway.adapters.postgres.books import Books as Exports
from gateway.core.accounting.books import BOOK_ACCOUNTS, LAYOUTS, Beancount, dollars
from gateway.core.accounting.ledger import TransferKind
from tests.books import Books, end_fields, now_ms, settlement

TODAY = datetime.now(UTC).date()


async def some_of_everything(books: Books) -> None:
    adjustments = Adjustments(books.pool, books.ledger, now_ms=now_ms)
    for number in range(3):
        account = await books.account(grant=10_000)
        for cost in (1, 7_000 + number, 5_000):
            await books.post(books.event(end_fields(settlement(account.id, cost, rounding=1))))
        await adjustments.post(TransferKind.ADJUSTMENT, account.id, 3_000, '=cmd|"x" "quoted"')
        await adjustments.post(TransferKind.EXPIRY, account.id, 500, "old")


async def text_of(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


async def balances(books: Books) -> dict[str, int]:
    rows = await books.pool.fetch("SELECT bucket, sum(amount)::bigint AS amount FROM balance GROUP BY 1")
    return {row["bucket"]: row["amount"] for row in rows}


async def test_bean_check_passes_and_the_balances_are_the_database_s(books: Books, tmp_path: Path) -> None:
    await some_of_everything(books)
    path = tmp_path / "books.beancount"
    path.write_text(await text_of(Exports(books.pool).export(Beancount(), TODAY - timedelta(days=2), TODAY)))
    checked = subprocess.run(
        [sys.executable, "-m", "beancount.scripts.check", "--no-cache", str(path)], capture_output=True, text=True
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    asserted = {
        words[2]: Decimal(words[3])
        for words in map(str.split, path.read_text().splitlines())
        if words[1:2] == ["balance"]
    }
    expected = await balances(books)
    assert asserted == {account.path: Decimal(dollars(-expected[bucket])) for bucket, account in BOOK_ACCOUNTS.items()}
    assert any(asserted.values())


async def test_a_wrong_balance_does_not_pass(books: Books, tmp_path: Path) -> None:
    await some_of_everything(books)
    text = await text_of(Exports(books.pool).export(Beancount(), TODAY, TODAY))
    path = tmp_path / "books.beancount"
    path.write_text(
        text.replace("balance Income:Usage 0.", "balance Income:Usage 1.").replace(
            "Income:Usage -0.", "Income:Usage -1.", 1
        )
    )
    command = [sys.executable, "-m", "beancount.scripts.check", "--no-cache", str(path)]
    assert subprocess.run(command, capture_output=True).returncode == 1


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
async def test_what_was_before_the_first_day_opens_the_books(books: Books, layout: str) -> None:
    await some_of_everything(books)
    tomorrow = TODAY + timedelta(days=1)
    text = await text_of(Exports(books.pool).export(LAYOUTS[layout](), tomorrow, tomorrow))
    assert ("opening balances" in text) == (layout in ("csv", "beancount"))
    assert "capture" not in text


async def test_every_line_of_the_ledger_is_exported_once_and_reasons_run_nothing(books: Books) -> None:
    await some_of_everything(books)
    text = await text_of(Exports(books.pool).lines(TODAY - timedelta(days=1), TODAY))
    lines = list(csv.DictReader(text.splitlines()))
    assert len(lines) == await books.count("entry")
    assert sum(int(line["amount_ucr"]) for line in lines) == 0
    assert {line["reason"][:2] for line in lines if line["kind"] == "adjustment"} == {"'="}


async def test_progress_is_told_by_the_day(books: Books) -> None:
    told: list[int] = []
    await text_of(Exports(books.pool).export(Beancount(), TODAY - timedelta(days=2), TODAY, on_day=told.append))
    assert told == [1, 2, 3]
