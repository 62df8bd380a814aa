"""One call, from its first byte to its settlement: the straight line.

    authenticate → parse → admit → estimate → reserve → relay (meter as it flows) → settle

Reads top to bottom in `Exchange.serve`. Nothing here knows which sockets carry the bytes.
"""

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

import structlog

from gateway.adapters.credits import Refused
from gateway.adapters.tokens import BadVocabulary, Tokenizer
from gateway.core.calls import Call, Caller, Endpoint, parse
from gateway.core.endings import Ended, ending
from gateway.core.errors import (
    AccountSuspended,
    GatewayError,
    InsufficientCredits,
    InvalidRequest,
    ModelNotFound,
    ShuttingDown,
    Unauthenticated,
)
from gateway.core.estimate import Estimate, affordable_output_limit, estimate_cheap, estimate_exact, texts_to_count
from gateway.core.holds import Hold, Settlement, Terms
from gateway.core.money import format_credits
from gateway.core.rates import ModelRates, RateCard, UnsoldTier
from gateway.core.routes import Free, Own, route
from gateway.proxy.http1.server import Headers, Request
from gateway.proxy.leases import Leases, OpenHold
from gateway.proxy.pricing import Priced, progress_of, settlement_of
from gateway.proxy.relay import Relay
from gateway.proxy.room import BodyRoom
from gateway.proxy.settlements import Settlements
from gateway.proxy.tally import Tally
from gateway.proxy.watch import Watch

log = structlog.get_logger(__name__)

# Reading a body of 32 MiB takes as long as a hundred calls: from this size on it is done beside the loop.
LARGE_BODY_BYTES = 1024 * 1024

T = TypeVar("T")


class Callers(Protocol):
    """Who is calling: cached, so that most requests do not wait."""

    def lookup(self, authorization: bytes | None) -> Caller | None: ...

    async def authenticate(self, authorization: bytes | None) -> Caller: ...


class Exchange:
    def __init__(
        self,
        *,
        callers: Callers,
        card: RateCard,
        leases: Leases,
        settlements: Settlements,
        relay: Relay,
        tokenizer: Tokenizer,
        tally: Tally,
        body_bytes_max: int,
        bodies_bytes_max: int,
        auto_tier: str,
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
        is_ready: Callable[[], bool],
    ) -> None:
        self._callers = callers
        self._card = card
        self._leases = leases
        self._settlements = settlements
        self._relay = relay
        self._tokenizer = tokenizer
        self._tally = tally
        self._body_bytes_max = body_bytes_max
        self._new_id = new_id
        self._now_ms = now_ms
        self._is_ready = is_ready
        self._room = BodyRoom(bodies_bytes_max, body_bytes_max)
        self._counting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._auto_tier = auto_tier
        self._rate_version = card.version
        self._rate_card_header = (b"x-rate-card", card.version.encode())
        self.is_stopping = False

    async def __call__(self, request: Request) -> None:
        request_id = self._new_id()
        try:
            await self.serve(request, request_id)
        except GatewayError as error:
            self._tally.refused(error.code)
            self._refuse(request, request_id, error)

    async def serve(self, request: Request, request_id: str) -> None:
        """Serve one request; raises the `GatewayError` that refuses it, before anything of an answer was sent."""
        target = route(request.method, request.path)
        if isinstance(target, Own):
            self._answer_own(request, target)
            return
        if self.is_stopping:
            raise ShuttingDown(retry_after_s=1)
        caller = await self._authenticate(request)
        if isinstance(target, Free):
            await self._relay.free(request, (b"x-gateway-request-id", request_id.encode()))
            return
        if request.get(b"content-encoding") not in (None, b"identity"):
            raise InvalidRequest("Send the request body without a Content-Encoding.", param=None)
        with self._room.of(request):
            await self._metered(request, caller, target, request_id)

    async def _metered(self, request: Request, caller: Caller, target: Endpoint, request_id: str) -> None:
        body = await request.read_body(self._body_bytes_max)
        call = await _read(body, partial(parse, target, body))
        opened, priced = await self._reserve(caller, call, request_id)
        watch = Watch(call.model, self._tokenizer)
        opened.progress = partial(progress_of, priced, watch)
        try:
            relayed = await self._relay.metered(request, caller, call, self._opening_headers(opened), watch)
            settlement = await self._price(priced, relayed.ended, watch)
            settled = await self._settlements.settle(settlement)
        finally:
            # However this ends, the lease is renewed no more: what is not settled by now lapses and is posted as such.
            self._leases.close(opened)
        self._tally.settled(target, settlement)
        relayed.respond(self._closing_headers(settlement, settled.balance.available if settled else None))

    async def _authenticate(self, request: Request) -> Caller:
        authorization = request.get(b"authorization")
        caller = self._callers.lookup(authorization)
        if caller is None:
            caller = await self._callers.authenticate(authorization)
        if sum(name.lower() == b"authorization" for name, _ in request.headers) != 1:
            raise Unauthenticated
        if caller.suspended:
            raise AccountSuspended
        return caller

    async def _reserve(self, caller: Caller, call: Call, request_id: str) -> tuple[OpenHold, Priced]:
        """Estimate and reserve: first under the cheap bound; the text is tokenised only if that is refused."""
        row = self._card.find(call.model)
        if row is None:
            raise ModelNotFound(f"The model {call.model[:128]!r} does not exist or has no price here.", param="model")
        terms = Terms(
            account_id=caller.account_id,
            key_id=caller.key_id,
            endpoint=call.endpoint,
            model=row.model,
            rate_version=self._rate_version,
            opened_at_ms=self._now_ms(),
        )
        try:
            estimate = await _read(call.body, partial(estimate_cheap, call, row, self._card, auto_tier=self._auto_tier))
        except UnsoldTier as error:
            raise InvalidRequest(str(error), param="service_tier") from error
        fingerprint = await _read(call.body, partial(_fingerprint, call.body))
        reply = await self._leases.open(Hold(request_id, estimate.amount, fingerprint, terms))
        if isinstance(reply, Refused):
            # One at a time for each account: its own calls wait for each other, and hold up nobody else's.
            async with self._counting.setdefault(caller.account_id, asyncio.Lock()):
                estimate = await self._estimate_exact(call, row, estimate)
            reply = await self._leases.open(Hold(request_id, estimate.amount, fingerprint, terms, attempt=2))
        if isinstance(reply, Refused):
            raise self._insufficient(call, row, estimate, reply)
        return reply, Priced(request_id, call, self._card, row, estimate, terms)

    async def _estimate_exact(self, call: Call, row: ModelRates, cheap: Estimate) -> Estimate:
        texts = await _read(call.body, partial(texts_to_count, call))
        try:
            counted = await self._tokenizer.count(call.model, texts)
        except BadVocabulary as error:
            log.error("text cannot be counted; the bound by its bytes stands", error=str(error))
            return cheap
        return await _read(
            call.body,
            partial(estimate_exact, call, row, self._card, counted.tokens, auto_tier=self._auto_tier),
        )

    def _insufficient(self, call: Call, row: ModelRates, estimate: Estimate, refused: Refused) -> InsufficientCredits:
        affordable = affordable_output_limit(
            refused.available, estimate, call, row, self._card, auto_tier=self._auto_tier
        )
        needed, available = format_credits(refused.needed), format_credits(max(refused.available, 0))
        return InsufficientCredits(
            f"This call may cost up to {needed} credits and {available} are available. "
            + (f"An output limit of {affordable} tokens would fit." if affordable else "Top up the account."),
            bound=refused.bound,
            needed=needed,
            available=available,
            affordable_output_tokens=affordable,
            needed_ucr=refused.needed,
            available_ucr=refused.available,
        )

    async def _price(self, priced: Priced, ended: Ended, watch: Watch) -> Settlement:
        how = ending(ended, priced.estimate, priced.row)
        settlement = await settlement_of(priced, ended, how, watch, self._tokenizer, self._now_ms())
        if settlement.flags:
            log.warning("call flagged", request_id=priced.request_id, flags=settlement.flags, model=priced.row.model)
        return settlement

    def _opening_headers(self, opened: OpenHold) -> Headers:
        return [
            (b"x-gateway-request-id", opened.hold.request_id.encode()),
            (b"x-credits-held", format_credits(opened.hold.amount).encode()),
            self._rate_card_header,
        ]

    def _closing_headers(self, settlement: Settlement, available: int | None) -> Headers:
        headers = [(b"x-credits-cost", format_credits(settlement.cost).encode())]
        if available is not None:
            headers.append((b"x-credits-remaining", format_credits(available).encode()))
        return headers

    def _answer_own(self, request: Request, what: Own) -> None:
        is_fine = what is Own.HEALTH or (self._is_ready() and not self.is_stopping)
        body = b'{"status":"ok"}' if is_fine else b'{"status":"unavailable"}'
        request.respond(200 if is_fine else 503, [(b"content-type", b"application/json")], body)

    def _refuse(self, request: Request, request_id: str, error: GatewayError) -> None:
        if request.gone:
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"x-gateway-request-id", request_id.encode()),
            *error.headers(),
        ]
        request.respond(error.status, headers, error.body())


async def _read(body: bytes, reading: Callable[[], T]) -> T:
    """Do what takes time by the length of `body`, beside the loop if it is long."""
    return await asyncio.to_thread(reading) if len(body) > LARGE_BODY_BYTES else reading()


def _fingerprint(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
