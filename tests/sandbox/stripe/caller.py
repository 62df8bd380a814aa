"""Calls the simulated Stripe without sockets, for tests of many histories."""

from typing import Any

import msgspec

from gateway.sandbox.stripe.orders import carry_out
from gateway.sandbox.stripe.routes import ROUTES, Route
from gateway.sandbox.stripe.service import Ask, Stripe
from gateway.sandbox.stripe.settings import SandboxStripeSettings


class Caller:
    """A Stripe for which nothing takes time, and whose clock is `now_s`."""

    def __init__(self) -> None:
        self.stripe = Stripe(SandboxStripeSettings(later_s=0.0), seed=3)
        self.now_s = 1_800_000_000.0

    def call(self, method: str, path: str, **form: str) -> dict[str, Any]:
        """The answer, whatever its status; `__` stands for a bracket in a name."""
        route, ids = self._route(method, f"/v1/{path}")
        pairs = [(_bracketed(name), value) for name, value in form.items()]
        ask = self.stripe.begin(route, ids, pairs, {"Authorization": "Bearer sk_test_x"}, self.now_s)
        reply = self.stripe.run(ask, self.now_s) if isinstance(ask, Ask) else ask
        answer: dict[str, Any] = msgspec.json.decode(reply.body)
        return answer

    def order(self, order: str, object_id: str | None = None, **given: Any) -> Any:
        world = self.stripe.world.at(self.now_s)
        done = carry_out(world, order, object_id, given)
        world.run_due()
        return done

    def _route(self, method: str, path: str) -> tuple[Route, list[str]]:
        parts = path.split("/")
        for route in ROUTES:
            pattern = route.path.split("/")
            if route.method == method and len(pattern) == len(parts):
                pairs = list(zip(pattern, parts, strict=True))
                if all(mine == theirs or mine.startswith("{") for mine, theirs in pairs):
                    return route, [theirs for mine, theirs in pairs if mine.startswith("{")]
        raise AssertionError(path)


def _bracketed(name: str) -> str:
    first, *rest = name.split("__")
    return first + "".join(f"[{part}]" for part in rest)
