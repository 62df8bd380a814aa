"""The simulated Stripe as a server on the loopback interface, which is the only one it takes."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Self

import msgspec
from aiohttp import web

from gateway.sandbox.loopback import listen, loopback_address
from gateway.sandbox.stripe.control import Clock, Control
from gateway.sandbox.stripe.courier import Courier
from gateway.sandbox.stripe.deliveries import Attempt
from gateway.sandbox.stripe.exchange import Exchange
from gateway.sandbox.stripe.objects import Json
from gateway.sandbox.stripe.orders import add_endpoint
from gateway.sandbox.stripe.routes import ROUTES
from gateway.sandbox.stripe.scenarios import Fault, WebhookScenario
from gateway.sandbox.stripe.service import Stripe
from gateway.sandbox.stripe.settings import SandboxStripeSettings
from gateway.sandbox.stripe.storefront import Storefront
from gateway.sandbox.stripe.world import World


class SimulatedStripe:
    """A running simulated Stripe; an async context manager.

    `url` is its origin, as `StripeClient(…, base_addresses={"api": url})` takes it. What can be ordered over HTTP can
    be ordered by the methods, too, from within the same event loop.
    """

    def __init__(
        self,
        settings: SandboxStripeSettings | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings or SandboxStripeSettings()
        self._host = loopback_address(host)
        self._port = port
        seed = self._settings.seed
        self._stripe = Stripe(self._settings, time.time_ns() if seed is None else seed)
        self._clock = Clock(clock)
        self._courier = Courier(self._stripe)
        self._ticking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._control = Control(self._stripe, self._clock, self._courier, self._happened)
        self._runner = web.AppRunner(
            self._app(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=self._settings.shutdown_timeout_s,
        )
        self.url = ""

    def _app(self) -> web.Application:
        exchange = Exchange(self._stripe, self._clock, self._happened)
        app = web.Application(client_max_size=self._settings.body_bytes_max)
        app.add_routes([web.route(route.method, route.path, exchange.serving(route)) for route in ROUTES])
        app.add_routes(Storefront(self._world, self._happened).routes())
        app.add_routes(self._control.routes())
        app.router.add_route("*", "/{anything:.*}", exchange.unknown)
        return app

    def _world(self) -> World:
        return self._stripe.world.at(self._clock())

    def _happened(self) -> None:
        self._courier.wake()
        self._changed.set()

    async def _tick(self) -> None:
        """Do what was left for later when its time has come."""
        world = self._stripe.world
        while True:
            self._changed.clear()
            due_s = world.next_due_s
            wait_s = None if due_s is None else max(0.0, due_s - self._clock())
            try:
                await asyncio.wait_for(self._changed.wait(), wait_s)
            except TimeoutError:
                self._world().run_due()
                self._courier.wake()

    def order(self, order: str, object_id: str | None = None, **given: Any) -> Json:
        """One of `orders.ORDERS`: `order("charges/dispute", charge_id, amount=500)`. Raises `StripeError`."""
        return self._control.order(order, object_id, **given)

    def advance(self, by_s: float) -> None:
        """Let time pass."""
        self._control.advance(by_s)

    def settle(self) -> None:
        """Let as much time pass as Stripe takes for what it does later: debits, disputes, late refunds."""
        self._control.settle()

    def set_scenario(self, **members: float) -> None:
        """What happens to deliveries from now on: the members of `WebhookScenario`."""
        self._control.set_scenario(msgspec.convert(members, WebhookScenario))

    def add_fault(self, does: Any, *, method: str = "*", path: str = "*", times: int = 1, wait_s: float = 0.0) -> None:
        """What happens to the next matching API calls: see `Fault`."""
        self._control.add_fault(Fault(does=does, method=method, path=path, times=times, wait_s=wait_s))

    def deliver_now(self) -> None:
        """Every delivery and retry that waits is sent at once."""
        self._control.deliver_now()

    def send_again(self, event_id: str) -> None:
        """Deliver an event once more."""
        self._control.send_again(event_id)

    async def idle(self) -> None:
        """Wait until no delivery waits or is under way."""
        await self._courier.idle()

    @property
    def attempts(self) -> list[Attempt]:
        """What was delivered, oldest first."""
        return list(self._stripe.deliveries.log)

    async def __aenter__(self) -> Self:
        for each in self._settings.endpoints:
            add_endpoint(self._world(), url=each.url, secret=each.secret, enabled_events=list(each.enabled_events))
        self.url = await listen(self._runner, self._host, self._port)
        self._stripe.world.origin = self.url
        await self._courier.__aenter__()
        self._ticking = asyncio.create_task(self._tick(), name="stripe clock")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        await self._courier.__aexit__()
        await self._runner.cleanup()


async def serve(
    host: str, port: int, settings: SandboxStripeSettings, *, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve until cancelled; `on_ready` is told the origin once it listens.

    Raises `ValueError` for an address that is not loopback and `OSError` if the port is taken.
    """
    async with SimulatedStripe(settings, host=host, port=port) as running:
        if on_ready is not None:
            on_ready(running.url)
        await asyncio.Event().wait()
