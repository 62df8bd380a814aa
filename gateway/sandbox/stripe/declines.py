"""How a decline is told: the 402, and the same error kept on the intent."""

from gateway.sandbox.stripe.cards import DECLINES, decline_codes
from gateway.sandbox.stripe.errors import StripeError, declined
from gateway.sandbox.stripe.objects import Json, PaymentMethod


def decline(why: str, **shown: object) -> StripeError:
    """The 402 that a decline is answered with; `shown` are the objects that the error carries."""
    code, decline_code = decline_codes(why)
    return declined(DECLINES[why], code=code, decline_code=decline_code, **shown)


def last_error(why: str, method: PaymentMethod, charge_id: str | None = None) -> Json:
    """The error as the intent keeps it."""
    return dict(decline(why, payment_method=method, charge=charge_id).body()["error"])
