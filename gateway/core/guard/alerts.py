"""Warnings of a balance that comes to its end: below an amount, or below some days of usual use. Pure."""

import msgspec

from gateway.core.guard.notices import Fields, Kind
from gateway.core.money import MicroCredits, format_credits


class Wishes(msgspec.Struct, frozen=True):
    """When an account wants to be warned; 0: never."""

    below: MicroCredits
    days: int


class Standing(msgspec.Struct, frozen=True):
    """What an account has, and what it spent on the days of the week before on which it spent anything."""

    available: MicroCredits
    days_sum: MicroCredits = 0
    days_known: int = 0


def warnings(wishes: Wishes, standing: Standing) -> list[tuple[Kind, Fields]]:
    """What is to be told now. Whoever used nothing on any day before has no usual use, and gets no warning of days.

    >>> warnings(Wishes(below=5_000_000, days=0), Standing(available=1_000_000))
    [(<Kind.LOW_BALANCE: 'low_balance'>, {'available': '1', 'below': '5'})]
    """
    told: list[tuple[Kind, Fields]] = []
    available = format_credits(standing.available)
    if wishes.below and standing.available < wishes.below:
        told.append((Kind.LOW_BALANCE, {"available": available, "below": format_credits(wishes.below)}))
    per_day = standing.days_sum // max(standing.days_known, 1)
    if wishes.days and per_day > 0 and standing.available < wishes.days * per_day:
        days = max(standing.available, 0) // per_day
        fields: Fields = {
            "available": available,
            "days": days,
            "below": wishes.days,
            "per_day": format_credits(per_day),
        }
        told.append((Kind.DAYS_LEFT, fields))
    return told
