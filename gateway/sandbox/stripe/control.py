"""`/_sandbox/…`: orders to the sandbox over HTTP, JSON in and out. What they are is told in the package's docstring."""

from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from gateway.sandbox.stripe.courier import Courier
from gateway.sandbox.stripe.errors import StripeError
from gateway.sandbox.stripe.expand import shown
from gateway.sandbox.stripe.objects import Event, Json, Resource, WebhookEndpoint
from gateway.sandbox.stripe.orders import carry_out
from gateway.sandbox.stripe.scenarios import Fault, WebhookScenario
from gateway.sandbox.stripe.service import Stripe
from gateway.sandbox.stripe.world import KINDS


class Clock:
    """The sandbox's time: the machine's, set forward."""

    def __init__(self, source: Callable[[], float]) -> None:
        self._source = source
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return self._source() + self._ahead_s

    def advance(self, by_s: float) -> None:
        if by_s < 0:
            raise StripeError(400, "invalid_request_error", "The clock only goes forward.")
        self._ahead_s += by_s


class Control:
    """What the control routes do, and what `SimulatedStripe` offers to Python."""

    def __init__(self, stripe: Stripe, clock: Clock, courier: Courier, happened: Callable[[], None]) -> None:
        self._stripe = stripe
        self._clock = clock
        self._courier = courier
        self._happened = happened

    def order(self, order: str, object_id: str | None = None, **given: Any) -> Json:
        """Carry out one of `ORDERS` and return the object that results. Raises `StripeError`."""
        world = self._stripe.world.at(self._clock())
        try:
            return shown(world, carry_out(world, order, object_id, given), [])
        finally:
            world.run_due()
            self._happened()

    def advance(self, by_s: float) -> None:
        """Let time pass: what was to happen in it happens."""
        self._clock.advance(by_s)
        self._stripe.world.at(self._clock()).run_due()
        self._happened()

    def settle(self) -> None:
        """Let as much time pass as Stripe takes for what it does later."""
        settings = self._stripe.settings
        self.advance(max(settings.later_s, settings.balance_transaction_after_s))

    def deliver_now(self) -> None:
        """All deliveries and retries that wait are due."""
        self._stripe.deliveries.hurry()
        self._courier.wake()

    def send_again(self, event_id: str) -> None:
        """Deliver an event once more, to every endpoint."""
        event = self._stripe.world.get(Event, event_id)
        for endpoint in self._stripe.world.newest_first(WebhookEndpoint):
            self._stripe.deliveries.send_again(event, endpoint.id, 0.0)
        self._courier.wake()

    def set_scenario(self, scenario: WebhookScenario) -> None:
        self._stripe.deliveries.scenario = scenario

    def add_fault(self, fault: Fault) -> None:
        self._stripe.faults.add(fault)

    def state(self) -> Json:
        """Counts, for people and for tests that wait."""
        world, deliveries = self._stripe.world, self._stripe.deliveries
        counts = {kind.__name__: world.count(kind) for kind in KINDS.values() if issubclass(kind, Resource)}
        return {"now": int(self._clock()), "idle": deliveries.idle, "objects": counts}

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/_sandbox", _answering(self._get_state)),
            web.post("/_sandbox/clock", _answering(self._post_clock)),
            web.post("/_sandbox/settle", _answering(self._post_settle)),
            web.put("/_sandbox/webhooks", _answering(self._put_webhooks)),
            web.post("/_sandbox/faults", _answering(self._post_fault)),
            web.delete("/_sandbox/faults", _answering(self._delete_faults)),
            web.get("/_sandbox/deliveries", _answering(self._get_deliveries)),
            web.post("/_sandbox/deliveries", _answering(self._post_deliveries)),
            web.post("/_sandbox/events/{id}/resend", _answering(self._post_resend)),
            web.post("/_sandbox/{kind}/{verb}", _answering(self._post_order)),
            web.post("/_sandbox/{kind}/{id}/{verb}", _answering(self._post_order)),
        ]

    def _get_state(self, _path: Json, _body: bytes) -> Any:
        return self.state()

    def _post_clock(self, _path: Json, body: bytes) -> Any:
        self.advance(msgspec.json.decode(body, type=_Advance).advance_s)
        return self.state()

    def _post_settle(self, _path: Json, _body: bytes) -> Any:
        self.settle()
        return self.state()

    def _put_webhooks(self, _path: Json, body: bytes) -> Any:
        self.set_scenario(msgspec.json.decode(body or b"{}", type=WebhookScenario))
        return self._stripe.deliveries.scenario

    def _post_fault(self, _path: Json, body: bytes) -> Any:
        fault = msgspec.json.decode(body, type=Fault)
        self.add_fault(fault)
        return fault

    def _delete_faults(self, _path: Json, _body: bytes) -> Any:
        self._stripe.faults.clear()
        return {}

    def _get_deliveries(self, _path: Json, _body: bytes) -> Any:
        return {"attempts": list(self._stripe.deliveries.log), "idle": self._stripe.deliveries.idle}

    def _post_deliveries(self, _path: Json, _body: bytes) -> Any:
        self.deliver_now()
        return {}

    def _post_resend(self, path: Json, _body: bytes) -> Any:
        self.send_again(path["id"])
        return {}

    def _post_order(self, path: Json, body: bytes) -> Any:
        given = msgspec.json.decode(body or b"{}", type=dict[str, Any])
        return self.order(f"{path['kind']}/{path['verb']}", path.get("id"), **given)


class _Advance(msgspec.Struct, forbid_unknown_fields=True):
    advance_s: float


def _answering(act: Callable[[Json, bytes], Any]) -> Callable[[web.Request], Any]:
    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        try:
            status, said = 200, act(dict(request.match_info), body)
        except StripeError as error:
            status, said = error.status, error.body()
        except (msgspec.DecodeError, ValueError) as error:
            status, said = 400, {"error": {"type": "invalid_request_error", "message": str(error)}}
        return web.Response(status=status, body=msgspec.json.encode(said), content_type="application/json")

    return answer
