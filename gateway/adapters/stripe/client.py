"""Stripe, through its official SDK: the few calls that we make, and its objects as our own small structs.

Only this and `objects` import the SDK. A call ends in time or raises: `StripeUnavailable` is what time mends
(also a lost answer, so every call that changes something has an idempotency key), `StripeRefused` is a decision.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import msgspec
import stripe

from gateway.adapters.stripe.objects import (
    BalanceMovement,
    Cause,
    Charged,
    Customer,
    Session,
    Told,
    id_of,
    metadata_of,
    read_charged,
    read_dispute,
    read_movement,
    read_payment,
    read_refund,
    read_session,
    told,
)
from gateway.core.accounting.payouts import Payout
from gateway.core.accounting.topups import Payment

PAGE = 100


class StripeUnavailable(Exception):
    """Stripe cannot be reached or cannot answer now; whether the call had an effect is unknown."""


class StripeRefused(Exception):
    """Stripe has decided against the call; `code` is its word for why."""

    def __init__(self, message: str, code: str = "") -> None:
        self.code = code
        super().__init__(message)


class Sale(msgspec.Struct, frozen=True):
    """What a Checkout Session is to sell."""

    purchase_id: str
    account_id: str
    customer_id: str
    name: str
    cents: int
    currency: str
    saves_card: bool


class CheckoutSettings(msgspec.Struct, frozen=True):
    return_url: str
    automatic_tax: bool
    tax_ids: bool
    invoices: bool


class Stripe:
    """`api_url` is "" for Stripe itself. The key decides whether money is real."""

    def __init__(self, key: str, *, api_url: str, timeout_s: float, retries_max: int) -> None:
        self.is_live = key.startswith(("sk_live_", "rk_live_"))
        # The SDK wants seconds, but passes a total through that aiohttp understands.
        total: Any = aiohttp.ClientTimeout(total=timeout_s)
        self._http = stripe.AIOHTTPClient(timeout=total)
        self._client = stripe.StripeClient(
            key,
            stripe_version=stripe.api_version,
            base_addresses={"api": api_url} if api_url else {},
            http_client=self._http,
            max_network_retries=retries_max,
        ).v1

    async def close(self) -> None:
        await self._http.close_async()

    async def create_customer(self, account_id: str, name: str, key: str) -> str:
        params: Any = {"name": name, "metadata": {"account_id": account_id}}
        with _errors():
            return (await self._client.customers.create_async(params, {"idempotency_key": key})).id

    async def create_session(self, sale: Sale, settings: CheckoutSettings, key: str) -> Session:
        """A page to pay on. Our id is given to the session and to its payment, which do not share metadata."""
        metadata = {"purchase_id": sale.purchase_id, "account_id": sale.account_id}
        intent: dict[str, Any] = {"metadata": metadata, "description": sale.name}
        if sale.saves_card:
            intent["setup_future_usage"] = "off_session"
        joint = "&" if "?" in settings.return_url else "?"
        price = {
            "currency": sale.currency,
            "unit_amount": sale.cents,
            "tax_behavior": "exclusive",
            "product_data": {"name": sale.name},
        }
        params: Any = {
            "mode": "payment",
            "customer": sale.customer_id,
            "client_reference_id": sale.purchase_id,
            "metadata": metadata,
            "payment_intent_data": intent,
            "line_items": [{"quantity": 1, "price_data": price}],
            "success_url": f"{settings.return_url}{joint}purchase={sale.purchase_id}",
            "cancel_url": settings.return_url,
            "adaptive_pricing": {"enabled": False},  # or Stripe may sell in another currency than we do
            "invoice_creation": {"enabled": settings.invoices},
        }
        if settings.automatic_tax or settings.tax_ids:
            params["customer_update"] = {"address": "auto", "name": "auto"}  # both default to never, which is refused
            params["automatic_tax"] = {"enabled": settings.automatic_tax}
            params["tax_id_collection"] = {"enabled": settings.tax_ids}
        with _errors():
            return read_session(await self._client.checkout.sessions.create_async(params, {"idempotency_key": key}))

    async def session(self, session_id: str) -> Session:
        with _errors():
            return read_session(await self._client.checkout.sessions.retrieve_async(session_id))

    async def portal_url(self, customer_id: str, return_url: str) -> str:
        """A page on which the customer sees invoices and changes cards."""
        with _errors():
            made = await self._client.billing_portal.sessions.create_async(
                {"customer": customer_id, "return_url": return_url}
            )
        return made.url

    async def payment(self, intent_id: str) -> Payment:
        """A payment with all that moved its money since."""
        expand: Any = {"expand": ["latest_charge.balance_transaction"]}
        with _errors():
            intent = await self._client.payment_intents.retrieve_async(intent_id, expand)
            charge = intent.latest_charge
            if not isinstance(charge, stripe.Charge):
                return read_payment(intent, None, (), ())
            of_it: Any = {"payment_intent": intent_id, "limit": PAGE}
            listed = await self._client.refunds.list_async(of_it)
            refunds = [read_refund(refund) async for refund in listed.auto_paging_iter()]
            # Always: of an inquiry, which moves no money yet, Stripe does not promise that its charge is `disputed`.
            listed_disputes = await self._client.disputes.list_async(of_it)
            disputes = [read_dispute(dispute) async for dispute in listed_disputes.auto_paging_iter()]
        return read_payment(intent, charge, tuple(refunds), tuple(disputes))

    async def charge_card(self, sale: Sale, card_id: str) -> Charged:
        """Charge a saved card without its customer. Asked again for the same purchase, it is the same charge."""
        params: Any = {
            "amount": sale.cents,
            "currency": sale.currency,
            "customer": sale.customer_id,
            "payment_method": card_id,
            "off_session": True,
            "confirm": True,
            "description": sale.name,
            "metadata": {"purchase_id": sale.purchase_id, "account_id": sale.account_id},
        }
        with _errors():
            made = await self._client.payment_intents.create_async(
                params, {"idempotency_key": f"recharge-{sale.purchase_id}"}
            )
        return read_charged(made)

    async def charged(self, customer_id: str, purchase_id: str, since_s: int) -> Charged | None:
        """The charge for this purchase, if Stripe knows of one; read from its objects, which no lost answer changes."""
        params: Any = {"customer": customer_id, "created": {"gte": since_s}, "limit": PAGE}
        with _errors():
            listed = await self._client.payment_intents.list_async(params)
            async for intent in listed.auto_paging_iter():
                if metadata_of(intent, "purchase_id") == purchase_id:
                    return read_charged(intent)
        return None

    async def create_refund(self, intent_id: str, cents: int, refund_id: str) -> None:
        params: Any = {"payment_intent": intent_id, "amount": cents, "metadata": {"refund_id": refund_id}}
        with _errors():
            await self._client.refunds.create_async(params, {"idempotency_key": f"refund-{refund_id}"})

    async def warning(self, warning_id: str) -> Cause:
        """An early fraud warning: closed once its payment was refunded or disputed."""
        with _errors():
            found = await self._client.radar.early_fraud_warnings.retrieve_async(warning_id)
        return Cause(found.id, id_of(found.payment_intent), found.actionable, "fraud warning", found.fraud_type)

    async def review(self, review_id: str) -> Cause:
        with _errors():
            found = await self._client.reviews.retrieve_async(review_id)
        is_open = found.open or found.reason != "approved"
        return Cause(found.id, id_of(found.payment_intent), is_open, "Radar review", found.reason)

    async def customer(self, customer_id: str) -> Customer:
        """A customer with the card that may be charged without them, and a business with its tax ids.

        The card is the one that the customer chose in the portal as the default, else the newest.
        """
        with _errors():
            found = await self._client.customers.retrieve_async(customer_id)
            if getattr(found, "deleted", False):
                return Customer(customer_id, is_deleted=True)
            of_it: Any = {"customer": customer_id, "type": "card", "limit": PAGE}
            listed = await self._client.payment_methods.list_async(of_it)
            numbers = await self._client.customers.tax_ids.list_async(customer_id, {"limit": PAGE})
        tax_ids = ", ".join(f"{each.value} ({each.type})" for each in reversed(numbers.data))
        chosen = id_of(found.invoice_settings.default_payment_method) if found.invoice_settings else ""
        for method in sorted(listed.data, key=lambda each: each.id != chosen):
            if method.card is not None:
                return Customer(customer_id, False, method.id, f"{method.card.brand} {method.card.last4}", tax_ids)
        return Customer(customer_id, is_deleted=False, tax_ids=tax_ids)

    async def events(self, since_s: int, *, undelivered: bool, types: tuple[str, ...]) -> AsyncIterator[Told]:
        """Events since then, newest first, at most 20 types at a time as Stripe takes them."""
        for start in range(0, len(types), 20):
            params: Any = {"types": list(types[start : start + 20]), "created": {"gte": since_s}, "limit": PAGE}
            if undelivered:
                params["delivery_success"] = False
            with _errors():
                async for event in (await self._client.events.list_async(params)).auto_paging_iter():
                    yield told(msgspec.json.encode(event.to_dict()))

    async def touched(self, since_s: int) -> set[str]:
        """The payments made, refunded or disputed since then: events can be lost for good, objects cannot."""
        params: Any = {"created": {"gte": since_s}, "limit": PAGE}
        with _errors():
            intents = await self._client.payment_intents.list_async(params)
            found = {each.id async for each in intents.auto_paging_iter()}
            refunds = await self._client.refunds.list_async(params)
            found |= {id_of(each.payment_intent) async for each in refunds.auto_paging_iter()}
            disputes = await self._client.disputes.list_async(params)
            found |= {id_of(each.payment_intent) async for each in disputes.auto_paging_iter()}
        return found - {""}

    async def balance_movements(self, since_s: int, until_s: int) -> AsyncIterator[BalanceMovement]:
        """What moved the balance in [since, until), newest first."""
        params: Any = {"created": {"gte": since_s, "lt": until_s}, "limit": PAGE, "expand": ["data.source"]}
        with _errors():
            async for each in (await self._client.balance_transactions.list_async(params)).auto_paging_iter():
                yield read_movement(each)

    async def movements_of_payout(self, payout_id: str) -> AsyncIterator[BalanceMovement]:
        """What a payout paid out, itself included."""
        params: Any = {"payout": payout_id, "limit": PAGE, "expand": ["data.source"]}
        with _errors():
            async for each in (await self._client.balance_transactions.list_async(params)).auto_paging_iter():
                yield read_movement(each)

    async def payout(self, payout_id: str) -> Payout:
        with _errors():
            found = await self._client.payouts.retrieve_async(payout_id)
        return Payout(found.id, found.amount, found.currency, found.status, found.automatic)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (
        stripe.APIConnectionError,
        stripe.AuthenticationError,  # our key's fault, and no decision about what was asked
        stripe.RateLimitError,
        aiohttp.ClientError,
        TimeoutError,
    ) as error:
        raise StripeUnavailable(f"{type(error).__name__}: {_said(error)}") from error
    except stripe.StripeError as error:
        # 409 is a call under the same key that is still running.
        if error.http_status is None or error.http_status >= 500 or error.http_status == 409:
            raise StripeUnavailable(f"{type(error).__name__}: {_said(error)}") from error
        raise StripeRefused(_said(error), error.code or "") from error


def _said(error: Exception) -> str:
    return str(getattr(error, "user_message", None) or error).partition("\n")[0][:300]
