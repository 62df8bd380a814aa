"""Payment methods: test cards and accounts, owned by a customer or by nobody."""

from typing import Any

from gateway.sandbox.stripe.cards import Instrument, by_alias, by_number
from gateway.sandbox.stripe.declines import decline
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.metadata import merged
from gateway.sandbox.stripe.objects import Customer, Json, Metadata, PaymentMethod, no_billing_details
from gateway.sandbox.stripe.world import World


def create_payment_method(
    world: World,
    *,
    type: str,
    card: Json | None = None,
    us_bank_account: Json | None = None,
    sepa_debit: Json | None = None,
    billing_details: Json | None = None,
    metadata: Metadata | None = None,
    allow_redisplay: str = "unspecified",
) -> PaymentMethod:
    if type == "card":
        instrument = _card(card)
    elif type == "us_bank_account":
        instrument = by_number(_needed(us_bank_account, "us_bank_account", "account_number"), "us_bank_account")
    elif type == "sepa_debit":
        instrument = by_number(_needed(sepa_debit, "sepa_debit", "iban"), "sepa_debit")
    else:
        raise invalid(f"The sandbox does not simulate payment methods of type {type}.", param="type")
    return make(world, instrument, billing_details, metadata, allow_redisplay)


def make(
    world: World,
    instrument: Instrument,
    billing_details: Json | None = None,
    metadata: Metadata | None = None,
    allow_redisplay: str = "unspecified",
) -> PaymentMethod:
    """A payment method that behaves as `instrument`."""
    given = billing_details or {}
    details = no_billing_details()
    address = {**details["address"], **(given.get("address") or {})}
    method = PaymentMethod(
        id=world.id_for(PaymentMethod),
        created=world.created,
        type=instrument.kind,
        card=_card_shown(instrument) if instrument.kind == "card" else None,
        us_bank_account=_us_account_shown(instrument) if instrument.kind == "us_bank_account" else None,
        sepa_debit=_sepa_shown(instrument) if instrument.kind == "sepa_debit" else None,
        billing_details={**details, **given, "address": address},
        metadata=metadata or {},
        allow_redisplay=allow_redisplay,
    )
    world.instruments[method.id] = instrument
    return world.put(method)


def usable(world: World, given: str, param: str | None = None) -> PaymentMethod:
    """The payment method of an id; `pm_card_visa` and the like make a new one each time, as at Stripe."""
    instrument = by_alias(given) if given.startswith("pm_") else None
    return make(world, instrument) if instrument else world.get(PaymentMethod, given, param)


def attach_payment_method(world: World, method_id: str, *, customer: str) -> PaymentMethod:
    world.get(Customer, customer, "customer")
    method = usable(world, method_id)
    if method.customer is not None:
        raise invalid("The payment method you provided has already been attached to a customer.")
    instrument = world.instruments[method.id]
    if not instrument.attaches:
        raise decline(instrument.decline, payment_method=method)
    return attach(world, method, customer)


def attach(world: World, method: PaymentMethod, customer_id: str) -> PaymentMethod:
    if method.customer == customer_id:
        return method
    return world.change("payment_method.attached", method, customer=customer_id)


def detach_payment_method(world: World, method_id: str) -> PaymentMethod:
    method = world.get(PaymentMethod, method_id)
    if method.customer is None:
        raise invalid("The payment method you provided is not attached to a customer so detachment is impossible.")
    return world.change("payment_method.detached", method, customer=None)


def update_payment_method(
    world: World,
    method_id: str,
    *,
    metadata: Metadata | None = None,
    billing_details: Json | None = None,
    card: Json | None = None,
    allow_redisplay: str | None = None,
) -> PaymentMethod:
    method = world.get(PaymentMethod, method_id)
    changes: dict[str, Any] = {"metadata": merged(method.metadata, metadata)}
    if billing_details:
        address = {**method.billing_details["address"], **(billing_details.get("address") or {})}
        changes["billing_details"] = {**method.billing_details, **billing_details, "address": address}
    if card and method.card:
        changes["card"] = {**method.card, **{key: card[key] for key in ("exp_month", "exp_year") if key in card}}
    if allow_redisplay:
        changes["allow_redisplay"] = allow_redisplay
    return world.change("payment_method.updated", method, **changes)


def _card(given: Json | None) -> Instrument:
    card = given or {}
    if token := card.get("token"):
        instrument = by_alias(token)
        if instrument is None:
            raise invalid(f"No such token: '{token}'", code="resource_missing", param="card[token]")
        return instrument
    return by_number(_needed(card, "card", "number"))


def _needed(given: Json | None, group: str, name: str) -> str:
    value = (given or {}).get(name)
    if not value:
        param = f"{group}[{name}]"
        raise invalid(f"Missing required param: {param}.", code="parameter_missing", param=param)
    return str(value)


def _card_shown(instrument: Instrument) -> Json:
    return {
        "brand": instrument.brand,
        "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
        "country": "US",
        "display_brand": instrument.brand,
        "exp_month": 12,
        "exp_year": 2034,
        "fingerprint": f"sandbox{instrument.number[-9:]}",
        "funding": "debit" if "debit" in instrument.alias else "credit",
        "generated_from": None,
        "last4": instrument.last4,
        "networks": {"available": [instrument.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def _us_account_shown(instrument: Instrument) -> Json:
    return {
        "account_holder_type": "individual",
        "account_type": "checking",
        "bank_name": "STRIPE TEST BANK",
        "financial_connections_account": None,
        "fingerprint": f"sandbox{instrument.number[-9:]}",
        "last4": instrument.last4,
        "networks": {"preferred": "ach", "supported": ["ach"]},
        "routing_number": "110000000",
        "status_details": {},
    }


def _sepa_shown(instrument: Instrument) -> Json:
    return {
        "bank_code": instrument.number[4:9],
        "branch_code": "",
        "country": instrument.number[:2],
        "fingerprint": f"sandbox{instrument.number[-9:]}",
        "generated_from": {"charge": None, "setup_attempt": None},
        "last4": instrument.last4,
    }
