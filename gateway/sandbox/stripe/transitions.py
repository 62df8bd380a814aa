"""How the states of Stripe's objects follow one another: one table a kind, from (status, what happens) to status.

What a table does not hold is refused with the code that Stripe gives.
"""

from typing import Final

from gateway.sandbox.stripe.errors import invalid

Table = dict[tuple[str, str], str]

_UNPAID = ("requires_payment_method", "requires_confirmation", "requires_action")

INTENT: Final[Table] = {
    **{(status, "choose"): "requires_confirmation" for status in _UNPAID},
    **{(status, "ask"): "requires_action" for status in _UNPAID},
    **{(status, "decline"): "requires_payment_method" for status in (*_UNPAID, "processing")},
    **{(status, "process"): "processing" for status in _UNPAID},
    **{(status, "hold"): "requires_capture" for status in _UNPAID},
    **{(status, "succeed"): "succeeded" for status in (*_UNPAID, "processing", "requires_capture")},
    **{(status, "cancel"): "canceled" for status in (*_UNPAID, "requires_capture")},
}

SETUP: Final[Table] = {
    **{(status, "choose"): "requires_confirmation" for status in _UNPAID},
    **{(status, "ask"): "requires_action" for status in _UNPAID},
    **{(status, "decline"): "requires_payment_method" for status in _UNPAID},
    **{(status, "succeed"): "succeeded" for status in _UNPAID},
    **{(status, "cancel"): "canceled" for status in _UNPAID},
}

SESSION: Final[Table] = {("open", "complete"): "complete", ("open", "expire"): "expired"}

REFUND: Final[Table] = {
    ("pending", "succeed"): "succeeded",
    ("pending", "fail"): "failed",
    ("succeeded", "fail"): "failed",  # the bank sends it back, days later
}

DISPUTE: Final[Table] = {
    ("warning_needs_response", "submit"): "warning_under_review",
    ("warning_needs_response", "close"): "warning_closed",
    ("warning_under_review", "close"): "warning_closed",
    ("warning_needs_response", "escalate"): "needs_response",
    ("warning_under_review", "escalate"): "needs_response",
    ("needs_response", "submit"): "under_review",
    ("needs_response", "close"): "lost",
    ("needs_response", "lose"): "lost",
    ("needs_response", "win"): "won",
    ("under_review", "lose"): "lost",
    ("under_review", "win"): "won",
}

PAYOUT: Final[Table] = {
    ("in_transit", "pay"): "paid",
    ("in_transit", "fail"): "failed",
    ("paid", "fail"): "failed",  # banks return payouts after the fact
}

INVOICE: Final[Table] = {
    ("draft", "finalize"): "open",
    ("open", "pay"): "paid",
    ("open", "void"): "void",
    ("open", "write_off"): "uncollectible",
    ("uncollectible", "pay"): "paid",
    ("uncollectible", "void"): "void",
}

_CODES: Final = {
    "PaymentIntent": "payment_intent_unexpected_state",
    "SetupIntent": "setup_intent_unexpected_state",
    "payout": "payout_not_allowed",
}


def after(table: Table, kind: str, status: str, happens: str) -> str:
    """The status after `happens`; refused if that cannot happen now.

    >>> after(DISPUTE, "dispute", "under_review", "win")
    'won'
    """
    following = table.get((status, happens))
    if following is None:
        raise invalid(f"You cannot {happens} this {kind} because it has a status of {status}.", code=_CODES.get(kind))
    return following
