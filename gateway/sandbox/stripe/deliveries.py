"""Which event is sent to which endpoint, when, and how often: the plan of webhooks, without sending any."""

import hashlib
import heapq
import hmac
from collections import deque
from random import Random
from typing import Any

import msgspec

from gateway.sandbox.stripe.objects import Event, WebhookEndpoint
from gateway.sandbox.stripe.scenarios import Fate, WebhookScenario
from gateway.sandbox.stripe.settings import SandboxStripeSettings


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to send an event to an endpoint."""

    event: Event
    endpoint_id: str
    attempt: int
    fate: Fate
    copy: bool = False  # of a delivery that has a retry of its own


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that was made, for the log. `status` is None if there was no answer."""

    at_s: float
    event_id: str
    type: str
    endpoint_id: str
    attempt: int
    status: int | None
    took_ms: float
    note: str = ""


class Deliveries:
    """All deliveries of one run. Times are seconds of any clock that does not go back."""

    def __init__(self, settings: SandboxStripeSettings, random: Random) -> None:
        self._retries_s = settings.delivery_retries_s
        self._random = random
        self._due: list[tuple[float, int, Delivery]] = []
        self._planned = 0
        self._under_way = 0
        self._open: dict[str, set[str]] = {}  # endpoints that have not acknowledged, by event
        self.scenario = WebhookScenario()
        self.log: deque[Attempt] = deque(maxlen=settings.attempts_logged_max)
        self._tracked_max = settings.events_max

    def plan(self, event: Event, endpoints: list[WebhookEndpoint], now_s: float) -> None:
        """Send `event` to every endpoint that listens for it."""
        listening = [each.id for each in endpoints if each.status == "enabled" and listens(each, event.type)]
        if not listening:
            return
        self._open[event.id] = set(listening)
        if len(self._open) > self._tracked_max:
            del self._open[next(iter(self._open))]
        for endpoint_id in listening:
            fates = self.scenario.fates(self._random)
            genuine = [fate for fate in fates if not fate.forged]
            for fate in fates:
                copy = fate.forged or fate is not genuine[0]
                delivery = Delivery(event=event, endpoint_id=endpoint_id, attempt=1, fate=fate, copy=copy)
                self._push(now_s + fate.wait_s, delivery)

    def send_again(self, event: Event, endpoint_id: str, now_s: float) -> None:
        """By hand, as from Stripe's dashboard."""
        self._push(now_s, Delivery(event=event, endpoint_id=endpoint_id, attempt=1, fate=Fate(0.0, False)))

    def _push(self, due_s: float, delivery: Delivery) -> None:
        self._planned += 1
        heapq.heappush(self._due, (due_s, self._planned, delivery))

    @property
    def next_due_s(self) -> float | None:
        return self._due[0][0] if self._due else None

    @property
    def idle(self) -> bool:
        """Nothing is being sent or waits to be."""
        return not self._due and not self._under_way

    def take_due(self, now_s: float, most: int) -> list[Delivery]:
        """At most `most` deliveries whose time has come; each must be reported by `answered`."""
        taken: list[Delivery] = []
        while self._due and self._due[0][0] <= now_s and len(taken) < most:
            taken.append(heapq.heappop(self._due)[2])
        self._under_way += len(taken)
        return taken

    def hurry(self) -> None:
        """Everything that waits is due at once, in the order in which it was due."""
        self._due = [(0.0, number, delivery) for number, (_, _, delivery) in enumerate(sorted(self._due, key=_when))]

    def answered(self, delivery: Delivery, status: int | None, now_s: float, took_ms: float) -> None:
        """What the endpoint answered; a failure is tried again as long as there are tries."""
        self._under_way -= 1
        lost = delivery.fate.reply_lost and delivery.attempt == 1
        note = "forged" if delivery.fate.forged else "reply lost" if lost else ""
        self.log.append(
            Attempt(
                at_s=now_s,
                event_id=delivery.event.id,
                type=delivery.event.type,
                endpoint_id=delivery.endpoint_id,
                attempt=delivery.attempt,
                status=status,
                took_ms=took_ms,
                note=note,
            )
        )
        if delivery.fate.forged:
            return
        if status is not None and 200 <= status < 300 and not lost:
            waiting = self._open.get(delivery.event.id, set())
            waiting.discard(delivery.endpoint_id)
            if not waiting:
                self._open.pop(delivery.event.id, None)
        elif not delivery.copy and delivery.attempt <= len(self._retries_s):
            again = msgspec.structs.replace(delivery, attempt=delivery.attempt + 1)
            self._push(now_s + self._retries_s[delivery.attempt - 1], again)

    def pending(self, event_id: str) -> int:
        """How many endpoints have not acknowledged it: `pending_webhooks`."""
        return len(self._open.get(event_id, ()))


def _when(planned: tuple[float, int, Delivery]) -> tuple[float, int]:
    return planned[0], planned[1]


def listens(endpoint: WebhookEndpoint, kind: str) -> bool:
    return "*" in endpoint.enabled_events or kind in endpoint.enabled_events


def signature(body: bytes, secrets: list[str], timestamp_s: int) -> str:
    """The `Stripe-Signature` header: one `v1` for each secret that is in force."""
    signed = b"%d.%b" % (timestamp_s, body)
    marks = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets]
    return ",".join([f"t={timestamp_s}", *(f"v1={mark}" for mark in marks)])


def body_of(event: Event, pending: int) -> bytes:
    """The event as it is sent and as the API shows it."""
    shown: Any = msgspec.structs.replace(event, pending_webhooks=pending)
    return msgspec.json.format(msgspec.json.encode(shown), indent=2)
