"""What Stripe takes as an amount and as a currency."""

from typing import Final

from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.world import World

_CURRENCIES: Final = frozenset({"aud", "cad", "chf", "dkk", "eur", "gbp", "jpy", "nok", "nzd", "pln", "sek", "usd"})
_CENTS_MAX: Final = 99_999_999


def currency_of(given: str) -> str:
    """The currency's code in lower case; refused if it is none that the sandbox knows."""
    code = given.lower()
    if code not in _CURRENCIES:
        raise invalid(
            f"Invalid currency: {given[:20]}. The sandbox knows {', '.join(sorted(_CURRENCIES))}.", param="currency"
        )
    return code


def check_amount(world: World, amount: int) -> None:
    """Refuse what is below Stripe's minimum or above eight digits."""
    if amount < 1:
        raise invalid(
            "This value must be greater than or equal to 1.", code="parameter_invalid_integer", param="amount"
        )
    if amount < world.settings.minimum_amount:
        raise invalid("Amount must be at least $0.50 usd", code="amount_too_small", param="amount")
    if amount > _CENTS_MAX:
        raise invalid("Amount must be no more than $999,999.99", code="amount_too_large", param="amount")
