"""Everything the simulated Stripe knows: objects by kind, events, and what is still to happen.

No clock, no network, no randomness but the seeded ids: the time is set by whoever calls. Bounded: a full table refuses,
old events are forgotten.
"""

import heapq
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import msgspec

from gateway.sandbox.stripe import objects
from gateway.sandbox.stripe.cards import Instrument
from gateway.sandbox.stripe.errors import StripeError, no_such
from gateway.sandbox.stripe.ids import Ids
from gateway.sandbox.stripe.settings import API_VERSION, SandboxStripeSettings

KINDS: Final[dict[str, type[objects.Identified]]] = {
    "cus": objects.Customer,
    "txi": objects.TaxId,
    "pm": objects.PaymentMethod,
    "pi": objects.PaymentIntent,
    "seti": objects.SetupIntent,
    "ch": objects.Charge,
    "re": objects.Refund,
    "txn": objects.BalanceTransaction,
    "du": objects.Dispute,
    "po": objects.Payout,
    "issfr": objects.EarlyFraudWarning,
    "prv": objects.Review,
    "prod": objects.Product,
    "price": objects.Price,
    "cs": objects.Session,
    "in": objects.Invoice,
    "ii": objects.InvoiceItem,
    "bps": objects.PortalSession,
    "taxcalc": objects.TaxCalculation,
    "we": objects.WebhookEndpoint,
    "evt": objects.Event,
}
_PREFIXES: Final = {kind: prefix for prefix, kind in KINDS.items()}
Thing = TypeVar("Thing", bound=objects.Identified)


class World:
    """One Stripe account in test mode.

    `origin` is where its pages are; `request` is what the next events say they come from. Whoever changes something
    sets the time by `at`, and calls `run_due` afterwards.
    """

    def __init__(self, settings: SandboxStripeSettings, seed: int) -> None:
        self.settings = settings
        self.origin = "http://127.0.0.1"
        self.now = 0.0
        self.request: objects.Json = {"id": None, "idempotency_key": None}
        self.instruments: dict[str, Instrument] = {}  # by payment method
        self.set_up: set[str] = set()  # payment methods that were authenticated for later use
        self.line_items: dict[str, list[objects.LineItem]] = {}  # by Checkout Session
        self.plans: dict[str, objects.Json] = {}  # what a Checkout Session does once it is paid
        self.session_of: dict[str, str] = {}  # Checkout Session by payment or setup intent
        self.payout_of: dict[str, str] = {}  # payout by balance transaction
        self.secrets: dict[str, list[str]] = {}  # by webhook endpoint, the newest first
        self.deleted: set[str] = set()  # customers
        self.pending_webhooks: Callable[[str], int] = lambda _event_id: 0
        self.new_events: list[objects.Event] = []  # not yet taken by the courier
        self._ids = Ids(seed)
        self._tables: dict[type, dict[str, Any]] = {kind: {} for kind in KINDS.values()}
        self._due: list[tuple[float, int, Continuation, str]] = []
        self._scheduled = 0

    def at(self, now_s: float, request: objects.Json | None = None) -> "World":
        """It is `now_s` (never earlier than it was), and what happens comes from `request`."""
        self.now = max(self.now, now_s)
        self.request = request or {"id": None, "idempotency_key": None}
        return self

    @property
    def created(self) -> int:
        return int(self.now)

    def new_id(self, prefix: str, length: int = 24) -> str:
        return self._ids.new(prefix, length)

    def id_for(self, kind: type[objects.Identified]) -> str:
        """A new object's id; refused if its table is full."""
        if len(self._tables[kind]) >= self.settings.objects_max and kind is not objects.Event:
            message = f"The sandbox holds {self.settings.objects_max} objects of this kind, which is all it can."
            raise StripeError(500, "api_error", message)
        return self.new_id("cs_test" if kind is objects.Session else _PREFIXES[kind])

    def put(self, thing: Thing) -> Thing:
        """Store a new object or a new state of it."""
        self._tables[type(thing)][thing.id] = thing
        return thing

    def remove(self, kind: type[objects.Identified], object_id: str) -> None:
        del self._tables[kind][object_id]

    def get(self, kind: type[Thing], object_id: str, param: str | None = None) -> Thing:
        """The object's present state. Raises `StripeError`; `param` names the parameter that named it."""
        found: Thing | None = self._tables[kind].get(object_id)
        if found is None:
            raise no_such(kind.__name__.lower(), object_id, param)
        return found

    def find(self, object_id: str) -> objects.Identified | None:
        """Any object by its id, or None."""
        kind = KINDS.get(object_id.partition("_")[0])
        return None if kind is None else self._tables[kind].get(object_id)

    def newest_first(self, kind: type[Thing]) -> Iterator[Thing]:
        return iter(reversed(self._tables[kind].values()))

    def count(self, kind: type[objects.Identified]) -> int:
        return len(self._tables[kind])

    def emit(self, kind: str, thing: objects.Identified, before: objects.Identified | None = None) -> None:
        """Something happened to `thing`; `before` is the state that it changed from, for updates."""
        data: objects.Json = {"object": thing}
        if before is not None:
            data["previous_attributes"] = _changed(before, thing)
        event = objects.Event(
            id=self.id_for(objects.Event),
            created=self.created,
            api_version=API_VERSION,
            data=data,
            request=self.request,
            type=kind,
        )
        events = self._tables[objects.Event]
        events[event.id] = event
        self.new_events.append(event)
        if len(events) > self.settings.events_max:
            del events[next(iter(events))]

    def forget_event(self, event_id: str) -> None:
        """As if it had never been generated."""
        self._tables[objects.Event].pop(event_id, None)

    def change(self, kind: str, before: Thing, **changes: Any) -> Thing:
        """Store `before` with `changes` and tell of it by an event that holds what was."""
        thing = self.put(msgspec.structs.replace(before, **changes))
        self.emit(kind, thing, before)
        return thing

    def later(self, after_s: float, continuation: "Continuation", object_id: str) -> None:
        """`continuation` is called with the id once `after_s` have passed."""
        self._scheduled += 1
        heapq.heappush(self._due, (self.now + after_s, self._scheduled, continuation, object_id))

    @property
    def next_due_s(self) -> float | None:
        return self._due[0][0] if self._due else None

    def run_due(self) -> None:
        """Do what was left for later and is due now."""
        self.request = {"id": None, "idempotency_key": None}
        while self._due and self._due[0][0] <= self.now:
            _, _, continuation, object_id = heapq.heappop(self._due)
            continuation(self, object_id)


Continuation = Callable[[World, str], None]


def _changed(before: objects.Identified, after: objects.Identified) -> objects.Json:
    """The members of `before` that differ."""
    changed = {}
    for name in before.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            changed[name] = _changed_members(old, new)
    return changed


def _changed_members(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: old.get(key) for key in {**old, **new} if old.get(key) != new.get(key)}
    return old
