"""Micro-credits: the one unit of money inside Tollgate, and its reading and printing.

1 credit = 1,000,000 µcr = $0.001. Whole numbers only: no float ever holds money.
"""

from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TypeAlias

MicroCredits: TypeAlias = int

UCR_PER_CREDIT = 1_000_000
UCR_PER_DOLLAR = 1_000_000_000

# Lua compares doubles, so every amount that a script compares stays below 2**53 (about $9.0 million).
AMOUNT_UCR_MAX = 2**53 - 1
AMOUNT_DIGITS_MAX = 30  # before or behind the point, of a text that is looked at more closely


class InvalidAmount(ValueError):
    """The text is not an amount of credits with at most six decimals."""


def format_credits(amount: MicroCredits) -> str:
    """Print µcr as credits, exactly, with no more decimals than it has.

    >>> format_credits(5_000_000_000), format_credits(-1), format_credits(1_500_000)
    ('5000', '-0.000001', '1.5')
    """
    if amount < 0:
        return "-" + format_credits(-amount)
    whole, rest = divmod(amount, UCR_PER_CREDIT)
    return f"{whole}.{rest:06d}".rstrip("0") if rest else str(whole)


def parse_credits(text: str) -> MicroCredits:
    """Read a decimal number of credits as µcr, or raise `InvalidAmount`; nothing is rounded.

    >>> parse_credits("5000"), parse_credits("0.000001")
    (5000000000, 1)
    """
    try:
        if not text.isascii() or "_" in text:  # other scripts' digits, and 1_00, are slips that Decimal would read
            raise ValueError(text)
        decimal = Decimal(text)  # exact; arithmetic on it would round beyond 28 digits
        is_tiny_or_huge = decimal.is_finite() and abs(decimal.adjusted()) > AMOUNT_DIGITS_MAX
        scaled = Fraction(0 if is_tiny_or_huge else decimal) * UCR_PER_CREDIT
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise InvalidAmount(f"{text!r} is not a number of credits") from error
    if is_tiny_or_huge and decimal:
        raise InvalidAmount(f"{text!r} is beyond what an amount of credits can be")
    amount = scaled.numerator // scaled.denominator
    if amount != scaled:
        raise InvalidAmount(f"{text!r} has more than six decimals; one credit is 1,000,000 micro-credits")
    if abs(amount) > AMOUNT_UCR_MAX:
        raise InvalidAmount(f"{text!r} is beyond the largest amount, {format_credits(AMOUNT_UCR_MAX)} credits")
    return amount


def divide_half_up(numerator: int, denominator: int) -> int:
    """Divide non-negative `numerator` by positive `denominator`, a half rounding up.

    >>> divide_half_up(5, 10), divide_half_up(4, 10), divide_half_up(15, 10)
    (1, 0, 2)
    """
    return (2 * numerator + denominator) // (2 * denominator)


def format_dollars(cents: int) -> str:
    """Cents as people read them.

    >>> format_dollars(123456), format_dollars(-5)
    ('$1,234.56', '-$0.05')
    """
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}${whole:,}.{rest:02d}"
