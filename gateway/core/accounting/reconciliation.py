"""A day's reconciliation: figures that come from two places, and whether they agree.

Differences are added up without their signs, so that two mistakes never hide each other.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from enum import StrEnum
from typing import Protocol

import msgspec

from gateway.core.money import MicroCredits, format_credits
from gateway.core.pricing.provider_costs import ModelCost

NOTES_MAX = 5
PPM = 1_000_000


class Verdict(StrEnum):
    OK = "ok"
    MISMATCH = "mismatch"
    NOT_CHECKED = "not checked"


class Check(msgspec.Struct, frozen=True):
    """One pair of figures. `off` is how much of it disagrees; `notes` are examples, or why it was not checked."""

    name: str
    unit: str  # credits and dollars are told in µcr and cents
    expected: int
    found: int
    off: int
    verdict: Verdict
    notes: tuple[str, ...] = ()
    is_outage: bool = False  # not checked, though it should have been: worth another try

    @property
    def difference(self) -> int:
        return self.found - self.expected

    @property
    def share_ppm(self) -> int | None:
        """What disagrees, in millionths of what was expected; None where nothing was expected."""
        return self.off * PPM // abs(self.expected) if self.expected else None


class Report(msgspec.Struct, frozen=True):
    day: date
    is_over: bool  # the figures of a day that is not over still move
    checks: tuple[Check, ...]
    margins: tuple[ModelCost, ...] = ()

    @property
    def mismatches(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.verdict is Verdict.MISMATCH)

    @property
    def outages(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.is_outage)


class DayCosts(msgspec.Struct, frozen=True):
    """What the ledger's calls of a day cost; `unknown` says why that cannot be told, or is empty."""

    day: date
    models: tuple[ModelCost, ...] = ()
    unknown: str = ""


class Source(Protocol):
    """Somebody who knows figures of a day beside the books. Outages of its own are checks that were not made."""

    @property
    def label(self) -> str: ...

    async def checks(self, of: DayCosts) -> tuple[Check, ...]: ...


class Unasked:
    """A source that is not there; `why` says what it would take."""

    def __init__(self, name: str, why: str) -> None:
        self.label = name
        self._why = why

    async def checks(self, _: DayCosts) -> tuple[Check, ...]:
        return (not_checked(self.label, self._why, is_outage=False),)


class Tokens(msgspec.Struct, frozen=True):
    """What calls of one model used, by OpenAI's account or ours."""

    input: int = 0  # cached and written to the cache included
    output: int = 0
    calls: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.input + other.input, self.output + other.output, self.calls + other.calls)

    def off(self, other: "Tokens") -> int:
        return abs(self.input - other.input) + abs(self.output - other.output)


class PaymentSums(msgspec.Struct, frozen=True):
    """What a payment came to until now, in cents: by Stripe's account or ours."""

    received: int  # tax included
    fees: int
    returned: int  # by refunds and disputes, less what came back

    @property
    def net(self) -> int:
        return self.received - self.fees - self.returned


def compare(
    name: str, unit: str, expected: int, found: int, *, ppm_max: int, off: int | None = None, notes: Iterable[str] = ()
) -> Check:
    """The figures agree if no more than `ppm_max` parts in a million of the expected one are off.

    >>> [compare("", "", *pair, ppm_max=1000).verdict.value for pair in ((1000, 1001), (1000, 1002), (0, 1))]
    ['ok', 'mismatch', 'mismatch']
    """
    missed = abs(found - expected) if off is None else off
    verdict = Verdict.OK if missed * PPM <= abs(expected) * ppm_max else Verdict.MISMATCH
    return Check(name, unit, expected, found, missed, verdict, tuple(notes)[:NOTES_MAX])


def none_of(name: str, unit: str, complaints: Iterable[str]) -> Check:
    """What must not be there at all."""
    return compare(name, unit, 0, len(notes := tuple(complaints)), ppm_max=0, notes=notes)


def not_checked(name: str, why: str, *, is_outage: bool) -> Check:
    return Check(name, "", 0, 0, 0, Verdict.NOT_CHECKED, (why,), is_outage)


def payment_checks(
    stripe: Mapping[str, PaymentSums], books: Mapping[str, PaymentSums], *, ppm_max: int
) -> tuple[Check, ...]:
    """Payments by their id. Amounts are compared of those that both sides have: a missing one is missed once."""
    missing = [f"{intent} is at Stripe and not in the books" for intent in sorted(stripe.keys() - books.keys())]
    missing += [f"{intent} is in the books and not at Stripe" for intent in sorted(books.keys() - stripe.keys())]
    counted = compare(
        "payments at Stripe", "payments", len(stripe), len(books), off=len(missing), ppm_max=ppm_max, notes=missing
    )
    both = sorted(stripe.keys() & books.keys())
    compared = [
        amounts(
            f"{what} through Stripe",
            {each: (getattr(stripe[each], what), getattr(books[each], what)) for each in both},
            ppm_max=ppm_max,
        )
        for what in ("received", "fees", "returned")
    ]
    return (counted, *compared)


def amounts(name: str, pairs: Mapping[str, tuple[int, int]], *, ppm_max: int) -> Check:
    """Cents of each thing: at Stripe, and in the books."""
    off = {each: abs(found - expected) for each, (expected, found) in pairs.items() if found != expected}
    return compare(
        name,
        "cents",
        sum(expected for expected, _ in pairs.values()),
        sum(found for _, found in pairs.values()),
        off=sum(off.values()),
        ppm_max=ppm_max,
        notes=[f"{each}: {pairs[each][0]} at Stripe, {pairs[each][1]} in the books" for each in _largest(off)],
    )


def provider_usage(provider: Mapping[str, Tokens], ours: Mapping[str, Tokens], *, ppm_max: int) -> Check:
    """Tokens of all models. More on their side is what we paid for and never charged."""
    nothing = Tokens()
    pairs = {model: (provider.get(model, nothing), ours.get(model, nothing)) for model in {*provider, *ours}}
    off = {model: missed for model, (theirs, mine) in pairs.items() if (missed := theirs.off(mine))}
    return compare(
        "tokens at OpenAI",
        "tokens",
        sum(each.input + each.output for each in provider.values()),
        sum(each.input + each.output for each in ours.values()),
        off=sum(off.values()),
        ppm_max=ppm_max,
        notes=[
            f"{model}: {theirs.input} in, {theirs.output} out at OpenAI; {mine.input} in, {mine.output} out metered"
            for model, (theirs, mine) in ((model, pairs[model]) for model in _largest(off))
        ],
    )


def margin_check(costs: Iterable[ModelCost], *, percent_min: int, ppm_max: int) -> Check:
    """Every model must have brought `percent_min` of its cost, but for what rounding takes: a µcr a call at most."""
    costing = [each for each in costs if each.cost > 0]
    low = [
        each
        for each in costing
        if (each.priced + each.calls) * 100 * PPM < (each.cost - 1) * percent_min * (PPM - ppm_max)
    ]
    notes = [
        f"{each.model}: {in_words(each.priced, 'µcr')} for {in_words(each.cost, 'µcr')}, {each.margin_percent} %"
        for each in low
    ]
    name = f"models that bring {percent_min} % of their cost"
    return compare(name, "models", len(costing), len(costing) - len(low), ppm_max=0, notes=notes)


def _largest(off: Mapping[str, int]) -> list[str]:
    return sorted(off, key=lambda each: (-off[each], each))[:NOTES_MAX]


def figure(amount: int, unit: str) -> str:
    """A figure as people read it, and as they call its unit beside it: credits where it is µcr, dollars for cents.

    >>> figure(1_500_000, "µcr"), figure(-250, "cents"), figure(1234, "tokens")
    ('1.5', '-$2.50', '1,234')
    """
    if unit == "µcr":
        return format_credits(amount)
    if unit == "cents":
        return f"{'-' if amount < 0 else ''}${abs(amount) // 100:,}.{abs(amount) % 100:02d}"
    return f"{amount:,}"


def unit_in_words(unit: str) -> str:
    return {"µcr": "credits", "cents": ""}.get(unit, unit)


def in_words(amount: int, unit: str) -> str:
    """A figure with its unit.

    >>> in_words(1_500_000, "µcr"), in_words(-250, "cents"), in_words(1234, "tokens")
    ('1.5 credits', '-$2.50', '1,234 tokens')
    """
    return f"{figure(amount, unit)} {unit_in_words(unit)}".rstrip()


def outstanding_check(balances: MicroCredits, granted: MicroCredits, debited: MicroCredits) -> Check:
    """What customers have is what they were given or sold, less what their calls were charged: to the µcr."""
    return compare("outstanding = granted - debited", "µcr", granted - debited, balances, ppm_max=0)
