"""Stripe's test cards and accounts (docs.stripe.com/testing) and what becomes of a payment with each."""

from typing import Final, Literal

import msgspec

from gateway.sandbox.stripe.errors import invalid

Kind = Literal["card", "us_bank_account", "sepa_debit"]


class Instrument(msgspec.Struct, frozen=True):
    """A means of payment and its fate. The number is what a customer types; `alias` names it in `pm_…` and `tok_…`."""

    number: str
    alias: str
    kind: Kind = "card"
    brand: str = "visa"
    decline: str = ""  # the decline code of a charge
    attaches: bool = True  # False: declined when it is saved, too
    authentication: Literal["", "unless_set_up", "always"] = ""
    later: Literal["", "dispute", "not_received", "inquiry", "fraud_warning"] = ""
    risk: Literal["normal", "elevated", "highest"] = "normal"
    refunds: Literal["", "pending", "fail"] = ""
    available_at_once: bool = False

    @property
    def last4(self) -> str:
        return self.number[-4:]


_CARDS: Final = (
    Instrument("4242424242424242", "card_visa"),
    Instrument("4000056655665556", "card_visa_debit"),
    Instrument("5555555555554444", "card_mastercard", brand="mastercard"),
    Instrument("378282246310005", "card_amex", brand="amex"),
    Instrument("4000000000000077", "card_bypassPending", available_at_once=True),
    Instrument("4000000000000002", "card_chargeDeclined", decline="generic_decline", attaches=False),
    Instrument(
        "4000000000009995", "card_chargeDeclinedInsufficientFunds", decline="insufficient_funds", attaches=False
    ),
    Instrument("4000000000009987", "card_chargeDeclinedLostCard", decline="lost_card", attaches=False),
    Instrument("4000000000009979", "card_chargeDeclinedStolenCard", decline="stolen_card", attaches=False),
    Instrument("4000000000000069", "card_chargeDeclinedExpiredCard", decline="expired_card", attaches=False),
    Instrument("4000000000000127", "card_chargeDeclinedIncorrectCvc", decline="incorrect_cvc", attaches=False),
    Instrument("4000000000000119", "card_chargeDeclinedProcessingError", decline="processing_error", attaches=False),
    Instrument("4000000000006975", "card_chargeDeclinedVelocityLimitExceeded", decline="card_velocity_exceeded"),
    Instrument("4000000000000341", "card_chargeCustomerFail", decline="generic_decline"),
    Instrument("4100000000000019", "card_radarBlock", decline="fraudulent", risk="highest"),
    Instrument("4000000000009235", "card_riskLevelElevated", risk="elevated"),
    Instrument("4000002500003155", "card_authenticationRequiredOnSetup", authentication="unless_set_up"),
    Instrument("4000002760003184", "card_authenticationRequired", authentication="always"),
    Instrument("4000000000003220", "card_threeDSecure2Required", authentication="always"),
    Instrument(
        "4000008260003178",
        "card_authenticationRequiredChargeDeclinedInsufficientFunds",
        decline="insufficient_funds",
        authentication="always",
    ),
    Instrument("4000000000000259", "card_createDispute", later="dispute"),
    Instrument("4000000000002685", "card_createDisputeProductNotReceived", later="not_received"),
    Instrument("4000000000001976", "card_createDisputeInquiry", later="inquiry"),
    Instrument("4000000000005423", "card_createIssuerFraudRecord", later="fraud_warning"),
    Instrument("4000000000007726", "card_pendingRefund", refunds="pending"),
    Instrument("4000000000005126", "card_refundFail", refunds="fail"),
)
_ACCOUNTS: Final = (
    Instrument("000123456789", "usBankAccount_success", "us_bank_account", ""),
    Instrument("000111111113", "usBankAccount_accountClosed", "us_bank_account", "", decline="account_closed"),
    Instrument("000222222227", "usBankAccount_insufficientFunds", "us_bank_account", "", decline="insufficient_funds"),
    Instrument("AT611904300234573201", "sepaDebit_success", "sepa_debit", ""),
    Instrument("AT321904300235473204", "sepaDebit_slow", "sepa_debit", ""),
    Instrument("AT861904300235473202", "sepaDebit_fail", "sepa_debit", "", decline="generic_decline"),
    Instrument("IT60X0542811101000000123456", "sepaDebit_failLater", "sepa_debit", "", decline="generic_decline"),
)
_BY_NUMBER: Final = {each.number: each for each in (*_CARDS, *_ACCOUNTS)}
_BY_ALIAS: Final = {each.alias: each for each in (*_CARDS, *_ACCOUNTS)}
_OLD_NAMES: Final = {
    "visa": "card_visa",
    "mastercard": "card_mastercard",
    "amex": "card_amex",
    "card_visa_chargeDeclined": "card_chargeDeclined",
    "card_visa_chargeDeclinedInsufficientFunds": "card_chargeDeclinedInsufficientFunds",
    "card_visa_chargeDeclinedLostCard": "card_chargeDeclinedLostCard",
    "card_visa_chargeDeclinedStolenCard": "card_chargeDeclinedStolenCard",
    "card_visa_chargeDeclinedVelocityLimitExceeded": "card_chargeDeclinedVelocityLimitExceeded",
    "card_threeDSecureRequired": "card_threeDSecure2Required",
}

DECLINES: Final = {
    "generic_decline": "Your card was declined.",
    "fraudulent": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "lost_card": "Your card was declined.",
    "stolen_card": "Your card was declined.",
    "expired_card": "Your card has expired.",
    "incorrect_cvc": "Your card's security code is incorrect.",
    "processing_error": "An error occurred while processing your card. Try again in a little bit.",
    "card_velocity_exceeded": "Your card was declined for making repeated attempts too frequently.",
    "authentication_required": "Your card was declined. This transaction requires authentication.",
    "account_closed": "The customer's bank account has been closed.",
}
# Declines that are an error code of their own; all others are `card_declined` with a decline code.
_OWN_CODES: Final = ("expired_card", "incorrect_cvc", "processing_error", "authentication_required")


def decline_codes(decline: str) -> tuple[str, str | None]:
    """The error's `code` and `decline_code`.

    >>> decline_codes("lost_card"), decline_codes("expired_card"), decline_codes("authentication_required")
    (('card_declined', 'lost_card'), ('expired_card', None), ('authentication_required', 'authentication_required'))
    """
    if decline == "authentication_required":
        return decline, decline
    return (decline, None) if decline in _OWN_CODES else ("card_declined", decline)


def by_number(number: str, kind: Kind = "card") -> Instrument:
    """The instrument behind what a customer typed; spaces do not matter."""
    digits = "".join(number.split())
    found = _BY_NUMBER.get(digits)
    if found is None or found.kind != kind:
        what = "card number" if kind == "card" else "account number"
        raise invalid(
            f"Your {what} is incorrect. The sandbox takes Stripe's test numbers only.",
            code="incorrect_number" if kind == "card" else "account_number_invalid",
            param="number",
        )
    return found


def by_alias(name: str) -> Instrument | None:
    """The instrument that `pm_card_visa` or `tok_visa` names, or None for an id.

    >>> by_alias("tok_visa").number, by_alias("pm_1PgaxN")
    ('4242424242424242', None)
    """
    _, _, alias = name.partition("_")
    alias = _OLD_NAMES.get(alias, alias)
    return _BY_ALIAS.get(alias) or _BY_ALIAS.get(f"card_{alias}")
