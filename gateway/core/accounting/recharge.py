"""Automatic recharge: whether an account's card is to be charged now, and what follows from a refusal."""

from datetime import timedelta
from enum import StrEnum

import msgspec

from gateway.core.money import MicroCredits

# After one decline, after two, after three; the fourth pauses it: banks take many attempts amiss.
BACKOFFS = (timedelta(hours=1), timedelta(hours=6), timedelta(hours=24))
# However often it is turned on anew: else an account's key could try a card without end.
DECLINES_A_DAY_MAX = 8

AUTHENTICATION_REQUIRED = "authentication_required"  # Stripe's code


class Pause(StrEnum):
    AUTHENTICATION_REQUIRED = "authentication_required"  # only the customer can pay, on a page
    DECLINED = "declined"  # too often


class Reason(StrEnum):
    """Why nothing is charged now."""

    ENOUGH = "the balance is not below the threshold"
    COMING = "with what is on its way, the balance is not below the threshold"
    MONTH_MAX = "it would pass the monthly maximum"
    NOT_AGREED = "the account has not agreed to this charge any more, or is out of service"
    CLOSED = "nothing is sold now"


class Terms(msgspec.Struct, frozen=True):
    """What the account agreed to."""

    threshold: MicroCredits
    amount_cents: int
    month_cents_max: int


class Situation(msgspec.Struct, frozen=True):
    """How an account stands. `coming` is money on its way into the balance; `month_cents` was charged this month."""

    available: MicroCredits
    coming: MicroCredits = 0
    month_cents: int = 0


def obstacle(terms: Terms, situation: Situation) -> Reason | None:
    """What is in the way of a charge; None: charge now.

    >>> terms = Terms(threshold=1_000_000_000, amount_cents=500, month_cents_max=1000)
    >>> obstacle(terms, Situation(999_999_999)), obstacle(terms, Situation(0, coming=5_000_000_000)).name
    (None, 'COMING')
    """
    if situation.available >= terms.threshold:
        return Reason.ENOUGH
    if situation.available + situation.coming >= terms.threshold:
        return Reason.COMING
    if situation.month_cents + terms.amount_cents > terms.month_cents_max:
        return Reason.MONTH_MAX
    return None


def after_decline(code: str, declines: int) -> Pause | timedelta:
    """Pause, or wait so long, after the `declines`-th decline in a row, this one counted."""
    if code == AUTHENTICATION_REQUIRED:
        return Pause.AUTHENTICATION_REQUIRED
    return Pause.DECLINED if declines > len(BACKOFFS) else BACKOFFS[declines - 1]
