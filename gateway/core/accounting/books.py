"""The books as an accountant reads them: which account a bucket is, and the layouts a daily journal is written in.

A ledger amount is credit-positive, a booked one debit-positive: the sign turns here and nowhere else. Layouts get one
journal (a day and a kind) after the other and keep no more than a balance a bucket, so their memory is bounded.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Protocol

import msgspec

from gateway.core.accounting.ledger import Bucket
from gateway.core.money import UCR_PER_DOLLAR, MicroCredits

UCR_PER_CENT = UCR_PER_DOLLAR // 100


class BookAccount(msgspec.Struct, frozen=True):
    """`path` is Beancount's name, `title` that of QuickBooks, `code` that of Xero."""

    path: str
    title: str
    code: str


BOOK_ACCOUNTS = {
    Bucket.STRIPE_CLEARING: BookAccount("Assets:Stripe:Clearing", "Stripe clearing", "1100"),
    Bucket.BANK: BookAccount("Assets:Bank", "Bank", "1000"),
    Bucket.DEBT: BookAccount("Assets:Receivable:Customers", "Customer debt", "1200"),
    Bucket.PAID: BookAccount("Liabilities:DeferredRevenue:Paid", "Deferred revenue", "2100"),
    Bucket.DEFERRED_REVENUE: BookAccount("Liabilities:DeferredRevenue:Other", "Deferred revenue, other", "2110"),
    Bucket.PROMO: BookAccount("Liabilities:Promotional:Credit", "Promotional credit", "2200"),
    # The contra of promotional credit: together they are nothing, since nobody paid for it.
    Bucket.PROMOTIONS: BookAccount("Liabilities:Promotional:Contra", "Promotional credit, contra", "2210"),
    Bucket.TAX_PAYABLE: BookAccount("Liabilities:Tax", "Tax payable", "2300"),
    Bucket.OPENAI_PAYABLE: BookAccount("Liabilities:Payable:OpenAI", "Accrued OpenAI usage", "2400"),
    Bucket.REVENUE: BookAccount("Income:Usage", "Usage revenue", "4000"),
    Bucket.ROUNDING: BookAccount("Income:Rounding", "Rounding of prices", "4010"),
    Bucket.BREAKAGE: BookAccount("Income:Breakage", "Breakage", "4020"),
    Bucket.COGS_OPENAI: BookAccount("Expenses:COGS:OpenAI", "Cost of OpenAI usage", "5000"),
    Bucket.STRIPE_FEES: BookAccount("Expenses:StripeFees", "Stripe fees", "6000"),
    Bucket.WRITE_OFF: BookAccount("Expenses:WriteOff", "Write-offs", "6100"),
}
# Where books in cents put what the cents of one journal miss; a few cents for ever, as its balances are rounded.
DIFFERENCES = BookAccount("Expenses:CentDifferences", "Cent differences", "6900")

Amounts = Mapping[Bucket, MicroCredits]


class Layout(Protocol):
    """Writes an export: what stands before it, each journal, what stands behind it."""

    def head(self, opening: Amounts, first: date) -> str: ...

    def journal(self, day: date, kind: str, amounts: Amounts) -> str: ...

    def tail(self, closing: Amounts, after: date) -> str:
        """`after` is the day behind the last one."""
        ...


def dollars(amount: MicroCredits) -> str:
    """Print µcr as dollars, exactly.

    >>> dollars(-1_500_000_001), dollars(5)
    ('-1.500000001', '0.000000005')
    """
    whole, rest = divmod(abs(amount), UCR_PER_DOLLAR)
    return f"{'-' if amount < 0 else ''}{whole}.{rest:09d}"


def cents(amount: MicroCredits) -> int:
    """The nearest cent, a half rounding up."""
    return (amount + UCR_PER_CENT // 2) // UCR_PER_CENT


class Beancount:
    """Plain-text accounting, in dollars of nine decimals; it opens with the balances before and ends by asserting."""

    def head(self, opening: Amounts, first: date) -> str:
        lines = ['option "title" "Tollgate"', 'option "operating_currency" "USD"', ""]
        lines += [f"{first} open {account.path} USD" for account in BOOK_ACCOUNTS.values()]
        return "\n".join(lines) + "\n" + (self._transaction(first, "opening balances", opening))

    def journal(self, day: date, kind: str, amounts: Amounts) -> str:
        return self._transaction(day, kind, amounts)

    def tail(self, closing: Amounts, after: date) -> str:
        lines = [
            f"{after} balance {account.path} {dollars(-closing.get(bucket, 0))} USD"
            for bucket, account in BOOK_ACCOUNTS.items()
        ]
        return "\n" + "\n".join(lines) + "\n"

    def _transaction(self, day: date, kind: str, amounts: Amounts) -> str:
        if not any(amounts.values()):
            return ""
        lines = [f"  {BOOK_ACCOUNTS[bucket].path}  {dollars(-amount)} USD" for bucket, amount in amounts.items()]
        return f'\n{day} * "{kind}"\n' + "\n".join(lines) + "\n"


class Csv:
    """One line a day, kind and account, with debits and credits in dollars and the exact amount in µcr."""

    def head(self, opening: Amounts, first: date) -> str:
        head = csv_line(["date", "kind", "account", "bucket", "debit_usd", "credit_usd", "amount_ucr"])
        return head + (self.journal(first, "opening balances", opening) if any(opening.values()) else "")

    def journal(self, day: date, kind: str, amounts: Amounts) -> str:
        return "".join(
            csv_line(
                [
                    day,
                    kind,
                    BOOK_ACCOUNTS[bucket].path,
                    bucket.value,
                    dollars(-amount) if amount < 0 else "",
                    dollars(amount) if amount > 0 else "",
                    amount,
                ]
            )
            for bucket, amount in amounts.items()
            if amount
        )

    def tail(self, closing: Amounts, after: date) -> str:
        return ""


class _InCents:
    """Books in cents: what a journal moves in an account is the difference of its rounded balances, so that rounding
    never adds up, and exports of two periods are the same as one of both.
    """

    def __init__(self) -> None:
        self._balances: dict[Bucket, MicroCredits] = {}

    def open(self, opening: Amounts) -> None:
        self._balances = dict(opening)

    def debits(self, amounts: Amounts) -> list[tuple[BookAccount, int]]:
        """By account, in cents, negative ones credits; they sum to zero."""
        moved: list[tuple[BookAccount, int]] = []
        for bucket, amount in amounts.items():
            before = self._balances.get(bucket, 0)
            self._balances[bucket] = before + amount
            moved.append((BOOK_ACCOUNTS[bucket], cents(before) - cents(before + amount)))
        missing = -sum(amount for _, amount in moved)
        return [line for line in (*moved, (DIFFERENCES, missing)) if line[1]]


class QuickBooks(_InCents):
    """The columns of QuickBooks Online's journal entry import; opening balances are there already, so they are not.

    It takes 1,000 lines a file.
    """

    NUMBER_CHARACTERS_MAX = 21  # QuickBooks' DocNumber
    COLUMNS = ("JournalNo", "JournalDate", "Currency", "Memo", "AccountName", "Debits", "Credits", "Description")

    def head(self, opening: Amounts, first: date) -> str:
        self.open(opening)
        return csv_line(self.COLUMNS)

    def journal(self, day: date, kind: str, amounts: Amounts) -> str:
        number, shown = f"TG{day:%Y%m%d}-{kind}"[: self.NUMBER_CHARACTERS_MAX], f"{day:%m/%d/%Y}"
        return "".join(
            csv_line(
                [
                    number,
                    shown,
                    "USD",
                    kind,
                    account.title,
                    _in_dollars(debit) if debit > 0 else "",
                    _in_dollars(-debit) if debit < 0 else "",
                    f"Tollgate {kind}",
                ]
            )
            for account, debit in self.debits(amounts)
        )

    def tail(self, closing: Amounts, after: date) -> str:
        return ""


class Xero(_InCents):
    """The columns of Xero's manual journal import: debits positive, credits negative; a narration is one journal.

    It takes 300 lines a file, and the tax rate by its name there.
    """

    COLUMNS = ("*Narration", "*Date", "Description", "*AccountCode", "*TaxRate", "*Amount")
    TAX_RATE = "Tax Exempt"

    def head(self, opening: Amounts, first: date) -> str:
        self.open(opening)
        return csv_line(self.COLUMNS)

    def journal(self, day: date, kind: str, amounts: Amounts) -> str:
        return "".join(
            csv_line(
                [
                    f"Tollgate {kind} {day}",
                    f"{day:%d/%m/%Y}",
                    account.title,
                    account.code,
                    self.TAX_RATE,
                    _in_dollars(debit),
                ]
            )
            for account, debit in self.debits(amounts)
        )

    def tail(self, closing: Amounts, after: date) -> str:
        return ""


LAYOUTS: dict[str, type[Layout]] = {"csv": Csv, "beancount": Beancount, "quickbooks": QuickBooks, "xero": Xero}


def csv_line(cells: Iterable[object]) -> str:
    """One line of CSV that a spreadsheet shows and never runs: text that begins like a formula is quoted with '.

    >>> csv_line(["=1+1", -5, "a,b"])
    '\\'=1+1,-5,"a,b"\\r\\n'
    """
    written = io.StringIO()
    csv.writer(written).writerow([_inert(cell) for cell in cells])
    return written.getvalue()


def _inert(cell: object) -> object:
    # Source: OWASP, "CSV Injection". Numbers are ours, and a negative one is no formula.
    is_text = isinstance(cell, str) and cell[:1] in set("=+-@\t\r\n＝＋－＠") and not _is_number(cell)
    return f"'{cell}" if is_text else cell


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").replace(".", "", 1).isdigit()


def _in_dollars(amount_cents: int) -> str:
    whole, rest = divmod(abs(amount_cents), 100)
    return f"{'-' if amount_cents < 0 else ''}{whole}.{rest:02d}"
