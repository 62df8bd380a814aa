"""The lists of the API: every kind of object, by its creation and by what else Stripe filters it."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from gateway.sandbox.stripe import objects
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.listing import created_within, page, search
from gateway.sandbox.stripe.objects import Json
from gateway.sandbox.stripe.world import World

Test = Callable[[World, Any, Any], bool]
_OF_A_PAGE: Final = frozenset({"limit", "starting_after", "ending_before"})


class Listing:
    """`GET` of a kind: filtered by the attributes `names` and by `tests`; `takes` are the parameters it knows."""

    def __init__(self, kind: type[objects.Identified], url: str, *names: str, **tests: Test) -> None:
        self._kind = kind
        self._url = url
        self._tests = {name: _same(name) for name in names} | tests
        self.takes = _OF_A_PAGE | {"created"} | self._tests.keys()

    def __call__(self, world: World, **given: Any) -> Json:
        wanted = {name: value for name, value in given.items() if name not in _OF_A_PAGE}
        return page(self._chosen(world, wanted), self._url, given)

    def _chosen(self, world: World, wanted: Json) -> Iterator[objects.Identified]:
        created = wanted.pop("created", None)
        for thing in world.newest_first(self._kind):
            if created is not None and not created_within(thing, created):
                continue
            if all(self._tests[name](world, thing, value) for name, value in wanted.items()):
                yield thing


def _same(name: str) -> Test:
    return lambda _world, thing, value: bool(getattr(thing, name) == value)


class Search:
    """`GET …/search` of a kind."""

    def __init__(self, kind: type[objects.Identified], url: str) -> None:
        self._kind = kind
        self._url = url

    def __call__(self, world: World, *, query: str, limit: int = 10, page: str | None = None) -> Json:
        return search(world, self._kind, self._url, query, limit, page)


def _in_payout(world: World, movement: Any, payout_id: str) -> bool:
    payout = world.get(objects.Payout, payout_id, "payout")
    if not payout.automatic:
        message = "Balance transaction history can only be filtered on automatic transfers, not manual."
        raise invalid(message, param="payout")
    return world.payout_of.get(movement.id) == payout_id


def _of_customer(world: World, thing: Any, customer_id: str) -> bool:
    world.get(objects.Customer, customer_id, "customer")  # refuses an unknown one
    return bool(thing.customer == customer_id)


def _delivered(world: World, event: Any, wanted: bool) -> bool:
    return (world.pending_webhooks(event.id) == 0) == wanted


def _of_type(_world: World, event: Any, kind: str) -> bool:
    start, _, rest = kind.rpartition(".*")
    return bool(event.type.startswith(f"{start}.") if start and not rest else event.type == kind)


def _of_types(_world: World, event: Any, kinds: list[str]) -> bool:
    if len(kinds) > 20:
        raise invalid("You may not specify more than 20 types.", param="types")
    return event.type in kinds


CUSTOMERS: Final = Listing(objects.Customer, "/v1/customers", "email")
PAYMENT_METHODS: Final = Listing(objects.PaymentMethod, "/v1/payment_methods", "customer", "type")
PAYMENT_INTENTS: Final = Listing(objects.PaymentIntent, "/v1/payment_intents", customer=_of_customer)
SETUP_INTENTS: Final = Listing(objects.SetupIntent, "/v1/setup_intents", "customer", "payment_method")
CHARGES: Final = Listing(objects.Charge, "/v1/charges", "customer", "payment_intent")
REFUNDS: Final = Listing(objects.Refund, "/v1/refunds", "charge", "payment_intent")
DISPUTES: Final = Listing(objects.Dispute, "/v1/disputes", "charge", "payment_intent")
SESSIONS: Final = Listing(
    objects.Session, "/v1/checkout/sessions", "customer", "payment_intent", "status", "payment_link", "subscription"
)
PAYOUTS: Final = Listing(objects.Payout, "/v1/payouts", "status")
MOVEMENTS: Final = Listing(
    objects.BalanceTransaction, "/v1/balance_transactions", "currency", "source", "type", payout=_in_payout
)
WARNINGS: Final = Listing(objects.EarlyFraudWarning, "/v1/radar/early_fraud_warnings", "charge", "payment_intent")
REVIEWS: Final = Listing(objects.Review, "/v1/reviews", open=lambda _world, review, _value: bool(review.open))
PRODUCTS: Final = Listing(objects.Product, "/v1/products", "active")
PRICES: Final = Listing(objects.Price, "/v1/prices", "active", "currency", "product", "type")
INVOICES: Final = Listing(objects.Invoice, "/v1/invoices", "customer", "status", "collection_method")
ENDPOINTS: Final = Listing(objects.WebhookEndpoint, "/v1/webhook_endpoints")
EVENTS: Final = Listing(objects.Event, "/v1/events", type=_of_type, types=_of_types, delivery_success=_delivered)


def payment_methods_of(world: World, customer_id: str, **given: Any) -> Json:
    """A customer's own list of payment methods."""
    world.get(objects.Customer, customer_id)
    return Listing(objects.PaymentMethod, f"/v1/customers/{customer_id}/payment_methods", "customer", "type")(
        world, customer=customer_id, **given
    )


def tax_ids_of(world: World, customer_id: str, **given: Any) -> Json:
    """A customer's own list of tax ids."""
    world.get(objects.Customer, customer_id)
    return Listing(objects.TaxId, f"/v1/customers/{customer_id}/tax_ids", "customer")(
        world, customer=customer_id, **given
    )


def line_items_of(world: World, session_id: str, **given: Any) -> Json:
    """What a Checkout Session sells."""
    world.get(objects.Session, session_id)
    return page(reversed(world.line_items[session_id]), f"/v1/checkout/sessions/{session_id}/line_items", given)
