"""What a simulated Stripe is started with. The pinned API version is `API_VERSION`, and stands nowhere else."""

from typing import Final

import msgspec
import stripe

# The SDK's types, and so our parameters and objects, belong to one version of the API: one is upgraded with the other.
API_VERSION: Final = stripe.api_version

_TAX_RATES: Final = {"AT": 2000, "DE": 1900, "FR": 2000, "GB": 2000, "US": 0}


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook endpoint that exists from the start."""

    url: str
    secret: str
    enabled_events: tuple[str, ...] = ("*",)


class SandboxStripeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes, times and rates. Amounts are in cents, rates in hundredths of a percent."""

    # What a Checkout Session takes that names no methods; at Stripe the dashboard decides.
    checkout_methods: tuple[str, ...] = ("card",)
    api_key: str | None = None  # the only secret key accepted; any test key, if None
    seed: int | None = None  # decides ids and scenarios; None: another in each run
    endpoints: tuple[Endpoint, ...] = ()
    # How long Stripe takes for what it does later: bank debits, refunds that fail or stay pending, disputes.
    later_s: float = 1.0
    # With capture_method automatic_async, the default, a charge gets its balance transaction this much later.
    balance_transaction_after_s: float = 0.0
    search_lag_s: float = 60.0  # search finds what is older than this, as at Stripe
    delivery_timeout_s: float = 10.0
    delivery_retries_s: tuple[float, ...] = (2.0, 10.0, 30.0)  # Stripe's hours, shortened
    deliveries_at_once: int = 16
    fee_rate: int = 290
    fee_fixed: int = 30
    dispute_fee: int = 1500
    available_after_s: int = 2 * 86_400
    minimum_amount: int = 50
    # Rates of tax by country of the customer; a business with a tax id pays none (reverse charge).
    tax_rates: dict[str, int] = msgspec.field(default_factory=lambda: dict(_TAX_RATES))
    seller_country: str = "US"
    body_bytes_max: int = 1 << 20
    objects_max: int = 100_000  # of a kind; a full sandbox refuses
    events_max: int = 20_000  # the oldest are forgotten
    keys_max: int = 20_000  # idempotency keys; the oldest are forgotten
    attempts_logged_max: int = 10_000
    shutdown_timeout_s: float = 1.0
