"""One API call, decided without waiting: who asks, by which version, with which parameters, under which key.

`begin` refuses or repeats what it must; `run` does it. Between the two a call may be held up, and meet its own retry.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

import msgspec

from gateway.sandbox.stripe.deliveries import Deliveries
from gateway.sandbox.stripe.errors import StripeError, invalid
from gateway.sandbox.stripe.expand import shown
from gateway.sandbox.stripe.form import read_form
from gateway.sandbox.stripe.idempotency import Answer, IdempotencyKeys
from gateway.sandbox.stripe.objects import Json, WebhookEndpoint
from gateway.sandbox.stripe.parameters import read_parameters
from gateway.sandbox.stripe.routes import Route
from gateway.sandbox.stripe.scenarios import Faults
from gateway.sandbox.stripe.settings import API_VERSION, SandboxStripeSettings
from gateway.sandbox.stripe.simulated import checked
from gateway.sandbox.stripe.world import World

# What callers of older versions, who name none, still say: the official CLI does.
_OLD_PARAMETERS: Final = frozenset({"payment_method_types"})
_ALWAYS: Final = frozenset({"expand"})


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A call that may run."""

    request_id: str
    route: Route
    ids: Sequence[str]
    parameters: Json
    scope: str
    key: str | None


class Reply(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    headers: dict[str, str]


class Stripe:
    """The whole simulated Stripe, apart from its sockets and its clock."""

    def __init__(self, settings: SandboxStripeSettings, seed: int) -> None:
        self.settings = settings
        self.world = World(settings, seed)
        self.random = Random(seed)
        self.deliveries = Deliveries(settings, self.random)
        self.keys = IdempotencyKeys(settings.keys_max)
        self.faults = Faults()
        self.world.pending_webhooks = self.deliveries.pending

    def begin(
        self, route: Route, ids: Sequence[str], pairs: list[tuple[str, str]], headers: Mapping[str, str], now_s: float
    ) -> Ask | Reply:
        """What may run, or the reply that it gets without running."""
        request_id = self.world.new_id("req", 14)
        key = headers.get("Idempotency-Key") if route.method == "POST" else None
        try:
            scope = self._authenticate(headers.get("Authorization", ""))
            old = self._is_old(headers.get("Stripe-Version"))
            parameters = self._parameters(route, pairs, old)
            if key is not None:
                answer = self.keys.begin(scope, key, _fingerprint(route, ids, pairs), now_s)
                if answer is not None:
                    repeated = {"Idempotent-Replayed": "true", "Original-Request": answer.request_id}
                    return self._reply(request_id, answer.status, answer.body, key, repeated)
        except StripeError as error:
            return self._reply(request_id, error.status, _encoded(error.body()), key)
        return Ask(
            request_id=request_id,
            route=route,
            ids=ids,
            parameters=parameters,
            scope=scope,
            key=key,
        )

    def run(self, ask: Ask, now_s: float, *, broken: bool = False) -> Reply:
        """Do it, and keep the answer under its key. `broken`: done or not, the answer is a 500."""
        request = {"id": ask.request_id, "idempotency_key": ask.key}
        parameters = dict(ask.parameters)
        paths = parameters.pop("expand", [])
        world = self.world.at(now_s, request)
        try:
            tree = shown(world, ask.route.call(world, *ask.ids, **parameters), paths)
            status, body = 200, _encoded(tree)
        except StripeError as error:
            status, body = error.status, _encoded(error.body())
        world.run_due()
        if broken:
            status, body = 500, _BROKEN
        return self._finish(ask, status, body)

    def fail(self, ask: Ask) -> Reply:
        """Answer 500 without having done it; the key keeps even that."""
        return self._finish(ask, 500, _BROKEN)

    def abandon(self, ask: Ask) -> None:
        """The caller is gone before it ran."""
        if ask.key is not None:
            self.keys.abandon(ask.scope, ask.key)

    def refuse(self, error: StripeError) -> Reply:
        """A refusal of what is no call at all."""
        return self._reply(self.world.new_id("req", 14), error.status, _encoded(error.body()), None)

    def plan_deliveries(self, monotonic_s: float) -> None:
        """Send out what has happened since."""
        events, self.world.new_events = self.world.new_events, []
        endpoints = list(self.world.newest_first(WebhookEndpoint))[::-1]
        for event in events:
            if self.deliveries.scenario.suppress and self.random.random() < self.deliveries.scenario.suppress:
                self.world.forget_event(event.id)
            else:
                self.deliveries.plan(event, endpoints, monotonic_s)

    def _finish(self, ask: Ask, status: int, body: bytes) -> Reply:
        if ask.key is not None:
            self.keys.finish(ask.scope, ask.key, Answer(status, body, ask.request_id))
        return self._reply(ask.request_id, status, body, ask.key)

    def _reply(
        self, request_id: str, status: int, body: bytes, key: str | None, more: dict[str, str] | None = None
    ) -> Reply:
        headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION, "Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key[:255].encode("ascii", "replace").decode()
            headers["Original-Request"] = request_id
        if status in (409, 429) or status >= 500:
            headers["Stripe-Should-Retry"] = "true" if status != 500 else "false"
        return Reply(status, body, headers | (more or {}))

    def _authenticate(self, authorization: str) -> str:
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() == "basic":
            secret = _user_of(secret)
        elif scheme.lower() != "bearer":
            secret = ""
        if not secret:
            raise StripeError(
                401,
                "invalid_request_error",
                "You did not provide an API key. You need to provide your API key in the Authorization header, using "
                "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
            )
        wanted = self.settings.api_key
        if secret != wanted if wanted else not secret.startswith(("sk_test_", "rk_test_")):
            shown_key = f"{secret[:8]}{'*' * 8}{secret[-4:]}" if len(secret) > 16 else "*" * 8
            raise StripeError(401, "invalid_request_error", f"Invalid API Key provided: {shown_key}")
        return secret

    def _is_old(self, version: str | None) -> bool:
        if version not in (None, API_VERSION):
            raise invalid(f"Invalid Stripe API version: {version}. The sandbox simulates {API_VERSION} only.")
        return version is None

    def _parameters(self, route: Route, pairs: list[tuple[str, str]], old: bool) -> Json:
        given = read_form(pairs)
        if route.params is None:
            return checked(given, route.takes, route.needs)
        extra = _OLD_PARAMETERS & route.takes if old else frozenset()
        read = read_parameters(route.params, given, extra)
        checked(read, route.takes | _ALWAYS, route.needs)
        return read


def _fingerprint(route: Route, ids: Sequence[str], pairs: list[tuple[str, str]]) -> str:
    return hashlib.sha256(repr((route.method, route.path, list(ids), sorted(pairs))).encode()).hexdigest()


def _user_of(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _encoded(tree: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(tree), indent=2)


_BROKEN: Final = _encoded(
    StripeError(500, "api_error", "An unknown error occurred. This one was ordered from the sandbox.").body()
)
