"""What packages.toml may say."""

import pytest

from gateway.core.accounting.topups import UCR_PER_CENT
from gateway.core.pricing.packages import PackagesError, load_packages
from gateway.resources import shipped

GOOD = """
currency = "usd"
custom_cents_min = 500
custom_cents_max = 1000000

[[package]]
name = "pro"
title = "Pro"
amount_cents = 5000
bonus_credits = 2500
"""


def test_a_package_is_its_price_in_credits_and_its_bonus_on_top() -> None:
    packages = load_packages(GOOD)
    pro = packages.named("pro")
    assert pro is not None
    order = packages.order(pro, is_live=False)
    assert (order.paid, order.bonus) == (5000 * UCR_PER_CENT, 250 * UCR_PER_CENT)


def test_what_is_shipped_can_be_sold() -> None:
    assert load_packages((shipped("config") / "packages.toml").read_text(encoding="utf-8")).named("starter")


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        ("bonus_credits", "bonus_credit", "bonus_credit"),  # a bonus that nobody would get
        ('"usd"', '"USD"', "currency"),  # Stripe tells it in small letters: no payment would fit
        ('"usd"', '"eur"', "currency"),
        ("custom_cents_min = 500", "custom_cents_min = -500", "custom_cents_min"),
        ("custom_cents_min = 500", "custom_cents_min = 2000000", "custom_cents_min"),
        ("custom_cents_max = 1000000", "custom_cents_max = 100000000", "custom_cents_max"),
        ("amount_cents = 5000", "amount_cents = 49", "amount_cents"),
        ("amount_cents = 5000", "amount_cents = 50.5", "int"),
        ("bonus_credits = 2500", "bonus_credits = -1", "bonus_credits"),
        ("bonus_credits = 2500", "bonus_credits = 9000000000000000000", "bonus_credits"),
        ('name = "pro"', 'name = ""', "name"),
        ('name = "pro"', 'name = "custom"', "custom"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_and_names_the_field(good: str, bad: str, why: str) -> None:
    assert good in GOOD
    with pytest.raises(PackagesError, match=why):
        load_packages(GOOD.replace(good, bad, 1))
