"""What is for sale: packages of credits by name, and amounts of one's own within bounds. 1,000 credits are $1."""

import tomllib

import msgspec

from gateway.core.money import MicroCredits
from gateway.core.topups import UCR_PER_CENT, Order

CUSTOM = "custom"


class PackagesError(ValueError):
    """The list of packages cannot be used."""


class Package(msgspec.Struct, frozen=True):
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
    names = [each.name for each in read.package]
    if len(set(names)) < len(names) or CUSTOM in names:
        raise PackagesError(f"a package's name must be its own, and not {CUSTOM!r}")
    if any(each.amount_cents < 50 or each.bonus_credits < 0 for each in read.package):
        raise PackagesError("a package costs at least 50 cents, and its bonus is not negative")
    return read
