"""Stripe's side of the books: what each movement adds to the balance, and payouts that bring it to the bank.

The balance transactions of a payout, its own included, sum to zero.
"""

import msgspec

from gateway.sandbox.stripe.errors import StripeError, invalid
from gateway.sandbox.stripe.metadata import merged
from gateway.sandbox.stripe.objects import BalanceTransaction, Json, Metadata, Payout
from gateway.sandbox.stripe.transitions import PAYOUT, after
from gateway.sandbox.stripe.world import World


def fee_of(world: World, amount: int) -> int:
    """Stripe's fee in cents for a charge, rounded half up."""
    settings = world.settings
    return (amount * settings.fee_rate + 5_000) // 10_000 + settings.fee_fixed


def book(
    world: World,
    kind: str,
    source: str | None,
    amount: int,
    currency: str,
    *,
    category: str | None = None,
    fee: int = 0,
    at_once: bool = False,
    description: str | None = None,
) -> BalanceTransaction:
    """Add a movement of `amount` cents (negative: out of the balance), less `fee`."""
    details = [{"amount": fee, "application": None, "currency": currency, "description": "Stripe fees"}]
    details[0]["type"] = "stripe_fee"
    return world.put(
        BalanceTransaction(
            id=world.id_for(BalanceTransaction),
            created=world.created,
            amount=amount,
            available_on=world.created + (0 if at_once else world.settings.available_after_s),
            currency=currency,
            description=description,
            fee=fee,
            fee_details=details if fee else [],
            net=amount - fee,
            reporting_category=category or kind,
            source=source,
            status="available" if at_once else "pending",
            type=kind,
        )
    )


def charge_own_fee(
    world: World, *, amount: int, category: str = "fee", description: str = "Radar"
) -> BalanceTransaction:
    """Stripe takes `amount` cents for what belongs to no payment; no event tells of it."""
    kind = "stripe_fee" if category == "fee" else "adjustment"
    return book(world, kind, None, -amount, "usd", category=category, at_once=True, description=description)


def as_of_now(world: World, movement: BalanceTransaction) -> BalanceTransaction:
    """The movement as it is shown now: what was pending becomes available by itself."""
    if movement.status == "pending" and movement.available_on <= world.created:
        return msgspec.structs.replace(movement, status="available")
    return movement


def balance(world: World) -> Json:
    """`GET /v1/balance`."""
    totals: dict[str, dict[str, int]] = {"available": {}, "pending": {}}
    for movement in world.newest_first(BalanceTransaction):
        of_currency = totals[as_of_now(world, movement).status]
        of_currency[movement.currency] = of_currency.get(movement.currency, 0) + movement.net
    currencies = sorted({"usd", *totals["available"], *totals["pending"]})
    shown: Json = {
        status: [
            {"amount": (cents := sums.get(currency, 0)), "currency": currency, "source_types": {"card": cents}}
            for currency in currencies
        ]
        for status, sums in totals.items()
    }
    return {"object": "balance", "livemode": False, **shown}


def pay_out_everything(world: World, *, currency: str = "usd", even_pending: bool = False) -> Payout:
    """The automatic payout: all that is available and was in no payout yet; `even_pending` waits for nothing."""
    movements = [
        movement
        for movement in world.newest_first(BalanceTransaction)
        if movement.currency == currency
        and movement.id not in world.payout_of
        and movement.type != "payout"
        and (even_pending or as_of_now(world, movement).status == "available")
    ]
    total = sum(movement.net for movement in movements)
    if not movements or total == 0:
        raise _insufficient(currency)
    payout = _send(world, total, currency, automatic=True, description="STRIPE PAYOUT")
    for movement in movements:
        world.payout_of[movement.id] = payout.id
        world.put(
            msgspec.structs.replace(
                movement, status="available", available_on=min(movement.available_on, world.created)
            )
        )
    world.payout_of[payout.balance_transaction or ""] = payout.id
    world.emit("payout.created", payout)
    return payout


def create_payout(
    world: World, *, amount: int, currency: str, description: str | None = None, metadata: Metadata | None = None
) -> Payout:
    """A manual payout, out of what is available."""
    available = sum(
        movement.net
        for movement in world.newest_first(BalanceTransaction)
        if movement.currency == currency and as_of_now(world, movement).status == "available"
    )
    if amount > available:
        raise _insufficient(currency)
    payout = _send(world, amount, currency, automatic=False, description=description, metadata=metadata)
    world.emit("payout.created", payout)
    world.later(world.settings.later_s, _arrive, payout.id)
    return payout


def _insufficient(currency: str) -> StripeError:
    message = f"You have insufficient available funds in your {currency} balance for this payout."
    return invalid(message, code="balance_insufficient")


def _send(
    world: World,
    amount: int,
    currency: str,
    *,
    automatic: bool,
    description: str | None,
    metadata: Metadata | None = None,
) -> Payout:
    payout = Payout(
        id=world.id_for(Payout),
        created=world.created,
        amount=amount,
        arrival_date=world.created,
        automatic=automatic,
        currency=currency,
        description=description,
        metadata=metadata or {},
        reconciliation_status="in_progress" if automatic else "not_applicable",
    )
    movement = book(world, "payout", payout.id, -amount, currency, at_once=True, description=description)
    return world.put(msgspec.structs.replace(payout, balance_transaction=movement.id))


def _arrive(world: World, payout_id: str) -> None:
    if world.get(Payout, payout_id).status == "in_transit":
        payout_paid(world, payout_id)


def payout_paid(world: World, payout_id: str) -> Payout:
    """It reached the bank; an automatic payout is then ready to be reconciled."""
    payout = world.get(Payout, payout_id)
    status = after(PAYOUT, "payout", payout.status, "pay")
    reconciled = "completed" if payout.automatic else payout.reconciliation_status
    paid = world.change("payout.paid", payout, status=status, reconciliation_status=reconciled)
    if paid.automatic:
        world.emit("payout.reconciliation_completed", paid)
    return paid


def payout_failed(world: World, payout_id: str, code: str = "account_closed") -> Payout:
    """The bank sent it back: the money is in the balance again, and in no payout."""
    payout = world.get(Payout, payout_id)
    status = after(PAYOUT, "payout", payout.status, "fail")
    returned = book(
        world, "payout_failure", payout.id, payout.amount, payout.currency, category="payout_reversal", at_once=True
    )
    return world.change(
        "payout.failed",
        payout,
        status=status,
        failure_code=code,
        failure_message="The bank account has been closed.",
        failure_balance_transaction=returned.id,
    )


def update_payout(world: World, payout_id: str, *, metadata: Metadata | None = None) -> Payout:
    payout = world.get(Payout, payout_id)
    return world.change("payout.updated", payout, metadata=merged(payout.metadata, metadata))
