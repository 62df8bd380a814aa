"""What is served where something is sold, described for the OpenAPI document as it answers; see `described`.

Apart from the rest, since the SDK of Stripe, which is large, comes with it.
"""

import msgspec

from gateway.core.accounting.topups import PurchaseState
from gateway.web.api.purchases import Asked
from gateway.web.api.recharge import Wanted as RechargeAsked
from gateway.web.operations import Operation


class Purchase(msgspec.Struct):
    """A purchase. Amounts of money are cents; credits are decimals."""

    id: str
    state: PurchaseState
    package: str
    amount_cents: int
    tax_cents: int
    currency: str
    credits: str
    bonus_credits: str
    refunded_cents: int
    reversed_credits: str
    save_card: bool
    checkout_url: str | None
    receipt_url: str | None
    created_at: str
    paid_at: str | None


class Purchases(msgspec.Struct):
    purchases: list[Purchase]


class Package(msgspec.Struct):
    name: str
    title: str
    amount_cents: int
    credits: int
    bonus_credits: int


class CustomAmount(msgspec.Struct):
    amount_cents_min: int
    amount_cents_max: int


class Packages(msgspec.Struct):
    currency: str
    packages: list[Package]
    custom: CustomAmount


class Portal(msgspec.Struct):
    url: str


class Recharge(msgspec.Struct, omit_defaults=True):
    """An account's automatic recharge; off, nothing but that is told."""

    on: bool
    threshold_credits: str = ""
    amount_cents: int = 0
    month_cents_max: int = 0
    paused: str | None = None
    card: str | None = None
    needs_card: bool = False
    checkout_url: str | None = None


SOLD = (
    Operation("GET", "/api/packages", None, "What is for sale.", Packages, is_open=True),
    Operation("GET", "/api/purchases", None, "The account's purchases.", Purchases),
    Operation("POST", "/api/purchases", None, "Begin a purchase; the answer says where it is paid.", Purchase, 201,
              takes=Asked, creates=True),
    Operation("POST", "/api/purchases/portal", None, "A page for cards and invoices.", Portal, 201),
    Operation("GET", "/api/recharge", None, "The automatic recharge.", Recharge),
    Operation("PUT", "/api/recharge", None, "Agree to an automatic recharge, or turn it off.", Recharge,
              takes=RechargeAsked),
)  # fmt: skip
