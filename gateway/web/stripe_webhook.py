"""`POST /webhooks/stripe`: checked, stored as it came, answered; a worker handles it later.

Answers 200 only for what is stored: anything else makes Stripe send it again. It credits nothing itself.
"""

from collections.abc import Callable

import msgspec
import structlog
from aiohttp import web

from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.postgres.stripe_inbox import StripeInbox
from gateway.adapters.stripe.objects import BadSignature, told, verify
from gateway.core.errors import BillingUnavailable, InvalidRequest

log = structlog.get_logger(__name__)

# Kept beside the body; the rest is the proxies' on the way.
HEADERS_KEPT = ("Stripe-Signature", "User-Agent", "Content-Type", "x-gateway-request-id")


class StripeWebhook:
    """`secrets` are all that may sign now: two while one is being replaced."""

    def __init__(
        self, inbox: StripeInbox, secrets: tuple[str, ...], *, tolerance_s: int, now_s: Callable[[], float]
    ) -> None:
        self._inbox = inbox
        self._secrets = secrets
        self._tolerance_s = tolerance_s
        self._now_s = now_s

    def routes(self) -> list[web.AbstractRouteDef]:
        return [web.post("/webhooks/stripe", self.receive)]

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()  # the signature is over these very bytes
        signature = request.headers.get("Stripe-Signature", "")
        try:
            verify(body, signature, self._secrets, tolerance_s=self._tolerance_s, now_s=self._now_s())
        except BadSignature as error:
            log.warning("webhook refused", reason=str(error))
            raise InvalidRequest("The signature is not valid.") from error
        try:
            event = told(body)
        except msgspec.DecodeError as error:
            log.warning("webhook refused", reason=str(error))
            raise InvalidRequest(f"The body is not an event of Stripe's: {error}.") from error
        headers = {name: request.headers[name] for name in HEADERS_KEPT if name in request.headers}
        try:
            await self._inbox.keep(event, headers, "webhook")
        except LedgerUnavailable as error:
            raise BillingUnavailable(retry_after_s=1) from error
        return web.json_response({"received": True})
