"""The layouts: cents never add up to more than they are, every bucket has an account, and no cell is a formula."""

import csv
from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.accounting.books import BOOK_ACCOUNTS, DIFFERENCES, UCR_PER_CENT, Csv, QuickBooks, Xero, csv_line
from gateway.core.accounting.ledger import Bucket, TransferKind

DAY = date(2026, 11, 21)
AMOUNTS = st.integers(-(10**12), 10**12)


def test_every_bucket_has_an_account_of_its_own() -> None:
    assert set(BOOK_ACCOUNTS) == set(Bucket)
    accounts = [*BOOK_ACCOUNTS.values(), DIFFERENCES]
    for names in zip(*((each.path, each.title, each.code) for each in accounts), strict=True):
        assert len(set(names)) == len(accounts)


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


@given(st.lists(AMOUNTS, max_size=20), AMOUNTS)
def test_journals_in_cents_balance_and_their_rounding_never_adds_up(amounts: list[int], opening: int) -> None:
    layout = Xero()
    layout.head({Bucket.PAID: opening, Bucket.REVENUE: -opening}, DAY)
    booked = 0
    for amount in amounts:
        lines = rows(layout.journal(DAY, "capture", {Bucket.PAID: -amount, Bucket.REVENUE: amount}))
        assert sum(round(float(line[5]) * 100) for line in lines) == 0
        booked += sum(round(float(line[5]) * 100) for line in lines if line[3] == BOOK_ACCOUNTS[Bucket.REVENUE].code)
    assert abs(-booked * UCR_PER_CENT - sum(amounts)) <= UCR_PER_CENT


def test_two_exports_are_the_same_as_one_of_both_periods() -> None:
    moves = [{Bucket.PAID: -6_000_000, Bucket.REVENUE: 6_000_000}] * 4
    whole, first, second = QuickBooks(), QuickBooks(), QuickBooks()
    head = whole.head({}, DAY)
    together = "".join(whole.journal(DAY, "capture", each) for each in moves)
    first.head({}, DAY)
    apart = "".join(first.journal(DAY, "capture", each) for each in moves[:1])
    second.head(moves[0], DAY)
    apart += "".join(second.journal(DAY, "capture", each) for each in moves[1:])
    assert apart == together
    assert rows(head)[0][:2] == ["JournalNo", "JournalDate"]


def test_quickbooks_knows_a_day_and_kind_by_a_number_that_it_takes() -> None:
    layout = QuickBooks()
    layout.head({}, DAY)
    moved = {Bucket.PAID: -(10**9), Bucket.REVENUE: 10**9}
    numbers = {rows(layout.journal(DAY, kind, moved))[0][0] for kind in TransferKind}
    assert len(numbers) == len(TransferKind)
    assert max(map(len, numbers)) <= 21


def test_debits_are_what_the_ledger_has_below_zero() -> None:
    [paid, clearing] = rows(Csv().journal(DAY, "top_up", {Bucket.PAID: 10**9, Bucket.STRIPE_CLEARING: -(10**9)}))
    assert paid[4:] == ["", "1.000000000", "1000000000"]
    assert clearing[4:] == ["1.000000000", "", "-1000000000"]


def test_text_that_begins_like_a_formula_is_shown_and_not_run() -> None:
    for text in ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1"):
        assert next(csv.reader([csv_line([text])], strict=False))[0].startswith("'")
    assert rows(csv_line([-5, "-5", "-0.5", "plain"])) == [["-5", "-5", "-0.5", "plain"]]
