"""What is for sale: packages of credits by name, and amounts of one's own within bounds. 1,000 credits are $1."""

import tomllib

import msgspec

from gateway.core.accounting.topups import UCR_PER_CENT, Order
from gateway.core.money import MicroCredits

CUSTOM = "custom"
CURRENCY = "usd"  # a cent of it is 10 credits, and every sum that is shown is in dollars
CENTS_MIN, CENTS_MAX = 50, 99_999_999  # that Stripe charges at once
BONUS_CREDITS_MAX = 1_000_000_000


class PackagesError(ValueError):
    """The list of packages cannot be used."""


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One package: its credits follow from its price; `bonus_credits` are promotional and come on top."""

    name: str
    title: str
    amount_cents: int
    bonus_credits: int = 0

    @property
    def bonus(self) -> MicroCredits:
        return self.bonus_credits * UCR_PER_CENT // 10


def custom(amount_cents: int) -> Package:
    """Credits for that much, without a bonus."""
    return Package(CUSTOM, f"{amount_cents * 10:,} credits", amount_cents)


class Packages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    currency: str
    custom_cents_min: int
    custom_cents_max: int
    package: tuple[Package, ...]

    def named(self, name: str) -> Package | None:
        return next((each for each in self.package if each.name == name), None)

    def custom(self, amount_cents: int) -> Package | None:
        """An amount of the customer's choice, if it is within the bounds. It brings no bonus."""
        if not self.custom_cents_min <= amount_cents <= self.custom_cents_max:
            return None
        return custom(amount_cents)

    def order(self, package: Package, *, is_live: bool) -> Order:
        return Order(package.amount_cents, self.currency, is_live, package.bonus)


def load_packages(text: str) -> Packages:
    """Read packages.toml; raises `PackagesError`."""
    try:
        read = msgspec.convert(tomllib.loads(text), Packages)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PackagesError(str(error)) from error
    if read.currency != CURRENCY:
        raise PackagesError(f"currency is {CURRENCY!r}, in small letters: credits are sold for nothing else")
    if not CENTS_MIN <= read.custom_cents_min <= read.custom_cents_max <= CENTS_MAX:
        raise PackagesError(f"custom_cents_min and custom_cents_max are {CENTS_MIN} to {CENTS_MAX}, the first no more")
    names = [each.name for each in read.package]
    if len(set(names)) < len(names) or CUSTOM in names or "" in names:
        raise PackagesError(f"a package's name must be its own, and not {CUSTOM!r}")
    for each in read.package:
        if not CENTS_MIN <= each.amount_cents <= CENTS_MAX:
            raise PackagesError(f"{each.name}: amount_cents is {CENTS_MIN} to {CENTS_MAX}")
        if not 0 <= each.bonus_credits <= BONUS_CREDITS_MAX:
            raise PackagesError(f"{each.name}: bonus_credits is 0 to {BONUS_CREDITS_MAX}")
    return read
