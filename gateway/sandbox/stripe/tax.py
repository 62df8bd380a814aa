"""Taxes, as far as a buyer of credits meets them: one rate a country, none for a business of another country."""

from typing import Final

from gateway.sandbox.stripe.amounts import currency_of
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.objects import Customer, Json, TaxCalculation, no_address
from gateway.sandbox.stripe.world import World

_EU: Final = frozenset(
    {
        *("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU"),
        *("IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"),
    }
)


def rate_for(world: World, country: str | None, business: bool) -> int:
    """The rate in hundredths of a percent; a business of another country pays its own tax (reverse charge)."""
    if country is None or (business and country != world.settings.seller_country):
        return 0
    return world.settings.tax_rates.get(country, 0)


def tax_within(amount: int, rate: int, inclusive: bool) -> int:
    """The tax in cents that is added to `amount`, or contained in it, rounded half up.

    >>> tax_within(1000, 1900, inclusive=False), tax_within(1190, 1900, inclusive=True)
    (190, 190)
    """
    divisor = 10_000 + rate if inclusive else 10_000
    return (2 * amount * rate + divisor) // (2 * divisor)


def tax_id_type(country: str | None) -> str:
    """The kind of business number that a country has."""
    if country in _EU:
        return "eu_vat"
    return {"GB": "gb_vat", "US": "us_ein", "CH": "ch_vat", "CA": "ca_bn", "AU": "au_abn"}.get(country or "", "us_ein")


def create_calculation(
    world: World,
    *,
    currency: str,
    line_items: list[Json],
    customer: str | None = None,
    customer_details: Json | None = None,
) -> TaxCalculation:
    """What a sale would be taxed; a payment intent refers to it by `hooks[inputs][tax][calculation]`."""
    details = dict(customer_details or {})
    if customer:
        known = world.get(Customer, customer, "customer")
        details = {"address": known.address} | details
    address = {**no_address(), **(details.get("address") or {})}
    if not address["country"]:
        message = "We could not determine the customer's tax location based on the provided customer address."
        raise invalid(message, code="customer_tax_location_invalid")
    rate = rate_for(world, address["country"], bool(details.get("tax_ids")))
    inside = sum(tax_within(each["amount"], rate, True) for each in line_items if _inclusive(each))
    added = sum(tax_within(each["amount"], rate, False) for each in line_items if not _inclusive(each))
    subtotal = sum(each["amount"] for each in line_items)
    return world.put(
        TaxCalculation(
            id=world.id_for(TaxCalculation),
            amount_total=subtotal + added,
            currency=currency_of(currency),
            customer=customer,
            customer_details={
                "address": address,
                "address_source": "billing",
                "ip_address": None,
                "tax_ids": details.get("tax_ids") or [],
                "taxability_override": "none",
            },
            expires_at=world.created + 90 * 86_400,
            tax_amount_exclusive=added,
            tax_amount_inclusive=inside,
            tax_breakdown=_breakdown(address["country"], rate, subtotal, added, inside),
            tax_date=world.created,
        )
    )


def _inclusive(item: Json) -> bool:
    return item.get("tax_behavior") == "inclusive"


def _breakdown(country: str, rate: int, subtotal: int, added: int, inside: int) -> list[Json]:
    details = {
        "country": country,
        "flat_amount": None,
        "percentage_decimal": f"{rate / 100:g}",
        "rate_type": "percentage",
        "state": None,
        "tax_type": "vat" if country in _EU or country == "GB" else "sales_tax",
    }
    return [
        {
            "amount": added or inside,
            "inclusive": inside > 0,
            "tax_rate_details": details,
            "taxability_reason": "standard_rated" if rate else "zero_rated",
            "taxable_amount": subtotal - inside,
        }
    ]


def check_hook(world: World, hooks: Json | None, amount: int) -> None:
    """A payment that names a calculation must be for its total."""
    calculation_id = (((hooks or {}).get("inputs") or {}).get("tax") or {}).get("calculation")
    if calculation_id:
        calculation = world.get(TaxCalculation, calculation_id, "hooks[inputs][tax][calculation]")
        if calculation.amount_total != amount:
            message = f"The amount ({amount}) differs from the calculation's amount_total ({calculation.amount_total})."
            raise invalid(message, param="amount")
