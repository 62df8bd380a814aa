"""Monthly statements: what one says, and how it is told as CSV. A month is UTC, of the time a movement was recorded.

What was recorded late stands in the month it was recorded in, so a closed month never changes.
"""

from datetime import UTC, date, datetime, time

import msgspec

from gateway.core.accounting.books import csv_line
from gateway.core.money import MicroCredits, format_credits

KIND_TITLES = {
    "capture": "Usage",
    "lapse": "Usage, cut off",
    "correction": "Usage, corrected",
    "grant": "Promotional credit",
    "top_up": "Credits bought",
    "refund": "Refund",
    "reversal": "Reversal",
    "adjustment": "Adjustment",
    "expiry": "Expired credit",
    "write_off": "Debt written off",
}


class Movement(msgspec.Struct, frozen=True):
    """All movements of one kind, and for usage of one model, in the month."""

    kind: str
    model: str
    count: int
    amount: MicroCredits

    @property
    def title(self) -> str:
        return KIND_TITLES.get(self.kind, self.kind.replace("_", " "))


class Receipt(msgspec.Struct, frozen=True):
    at: datetime
    purchase_id: str
    cents: int  # without tax
    currency: str
    url: str
    tax_cents: int = 0


class Statement(msgspec.Struct, frozen=True):
    account_id: str
    account_name: str
    month: str  # "2026-11"
    is_closed: bool
    opening: MicroCredits
    movements: tuple[Movement, ...]
    closing: MicroCredits
    receipts: tuple[Receipt, ...]
    ledger_head: str  # of the newest seal when it was made, in hex: `tollgate ledger verify --head`
    made_at: datetime
    tax_ids: str = ""  # of a business; statements that were stored before this was kept have none


class BadMonth(ValueError):
    """A month is written like 2026-11."""


def read_month(text: str) -> date:
    """The first day of the month; raises `BadMonth`."""
    try:
        if len(text) != len("2026-11") or not text.isascii():
            raise ValueError
        month = date.fromisoformat(f"{text}-01")
        next_month(month)  # the last one of all has none, and so no end
    except ValueError as error:
        raise BadMonth("A month is written like 2026-11.") from error
    return month


def next_month(month: date) -> date:
    """
    >>> next_month(date(2026, 12, 1))
    datetime.date(2027, 1, 1)
    """
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def month_bounds(month: date) -> tuple[datetime, datetime]:
    return datetime.combine(month, time(), UTC), datetime.combine(next_month(month), time(), UTC)


def statement_csv(statement: Statement, content_hash: str) -> str:
    """The statement as one table, whose first column says what a row is."""
    shown = statement
    rows: list[list[object]] = [
        ["row", "kind", "model", "count", "credits", "amount_ucr", "reference", "date", "amount", "tax"],
        ["account", "", "", "", "", "", f"{shown.account_name} ({shown.account_id})"],
        ["month", "", "", "", "", "", shown.month if shown.is_closed else f"{shown.month} (not closed yet)"],
        ["opening", "", "", "", format_credits(shown.opening), shown.opening, ""],
    ]
    if shown.tax_ids:
        rows.append(["tax ids", "", "", "", "", "", shown.tax_ids])
    rows += [
        ["movement", each.kind, each.model, each.count, format_credits(each.amount), each.amount, ""]
        for each in shown.movements
    ]
    rows.append(["closing", "", "", "", format_credits(shown.closing), shown.closing, ""])
    rows += [
        ["receipt", each.currency, "", 1, "", "", each.url or each.purchase_id, f"{each.at:%Y-%m-%d}"]
        + [f"{cents // 100}.{cents % 100:02d}" for cents in (each.cents, each.tax_cents)]
        for each in shown.receipts
    ]
    rows.append(["ledger head", "", "", "", "", "", shown.ledger_head])
    if content_hash:
        rows.append(["statement hash", "", "", "", "", "", content_hash])
    return "".join(csv_line([*row, *[""] * (len(rows[0]) - len(row))]) for row in rows)
