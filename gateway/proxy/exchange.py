"""One call, from its first byte to its settlement: the straight line.

    authenticate → parse → admit → estimate → reserve → relay (meter as it flows) → settle

Reads top to bottom in `Exchange.serve`. Nothing here knows which sockets carry the bytes.
"""

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec
import structlog

from gateway.adapters.openai.tokens import Tokenizer
from gateway.adapters.redis.credits import Settled
from gateway.core.access.addresses import Address, Network, client_address
from gateway.core.access.callers import Caller, Restrictions
from gateway.core.access.jwts import token_credential_of
from gateway.core.access.keys import credential_of
from gateway.core.calls.calls import Call, Endpoint, parse
from gateway.core.calls.clamps import keep_output, with_output_limit
from gateway.core.calls.endings import Charge, Ended, ending
from gateway.core.calls.estimate import estimate_cheap
from gateway.core.calls.routes import Control, Free, Own, Route, Session, route
from gateway.core.calls.sessions import model_asked
from gateway.core.calls.usage import at_least
from gateway.core.errors import (
    BillingUnavailable,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ShuttingDown,
    Unauthenticated,
)
from gateway.core.guard.caps import Bounds
from gateway.core.guard.policy import Controls, admit_call, admit_request
from gateway.core.guard.windows import opened_ms
from gateway.core.holds import Settlement
from gateway.core.money import format_credits
from gateway.core.pricing.rates import ModelRates, RateCard, UnsoldTier
from gateway.core.pricing.schedule import Schedule
from gateway.proxy.breakers import Breakers
from gateway.proxy.http1.framing import RequestHead
from gateway.proxy.http1.handover import Handover
from gateway.proxy.http1.headers import encode
from gateway.proxy.http1.server import Request
from gateway.proxy.leases import Leases, OpenHold
from gateway.proxy.pricing import Priced, count_delivered, progress_of, settlement_of
from gateway.proxy.realtime import Sessions
from gateway.proxy.relay import JSON, Relay
from gateway.proxy.reserving import Reserving, Wanted, limit_line, rate_lines, slice_line
from gateway.proxy.room import BodyRoom
from gateway.proxy.rules import BrownoutRules
from gateway.proxy.settlements import Settlements
from gateway.proxy.slicing import Slicer
from gateway.proxy.strangers import Strangers
from gateway.proxy.subprotocols import offered_keys
from gateway.proxy.tally import Tally
from gateway.proxy.watch import Watch

log = structlog.get_logger(__name__)

# Reading a body of 32 MiB takes as long as a hundred calls: from this size on it is done beside the loop.
LARGE_BODY_BYTES = 1024 * 1024

FORWARDED = b"x-forwarded-for"
FALLBACK = b"x-gateway-fallback"  # "allow": another model will do while the one that is asked for is reduced


class Callers(Protocol):
    """Who is calling: cached, so that most requests do not wait."""

    def known(self, credential: bytes) -> Caller | None: ...

    async def authenticate(self, authorization: bytes | None) -> Caller: ...


class CapsOf(Protocol):
    """What bounds the calls of a caller that are opened at a time, without waiting; raises `BillingUnavailable`."""

    def bounds(self, caller: Caller, time_ms: int) -> Bounds: ...


class Exchange:
    def __init__(
        self,
        *,
        callers: Callers,
        caps: CapsOf,
        cards: Schedule,
        leases: Leases,
        settlements: Settlements,
        relay: Relay,
        slicer: Slicer,
        breakers: Breakers,
        rules: BrownoutRules,
        sessions: Sessions,
        control: Handover,
        tokenizer: Tokenizer,
        tally: Tally,
        strangers: Strangers,
        body_bytes_max: int,
        bodies_bytes_max: int,
        auto_tier: str,
        controls: Callable[[], Controls],
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
        missing: Callable[[], str],
        trusted_proxies: tuple[Network, ...] = (),
    ) -> None:
        self._callers = callers
        self._caps = caps
        self._cards = cards
        self._leases = leases
        self._settlements = settlements
        self._relay = relay
        self._slicer = slicer
        self._breakers = breakers
        self._rules = rules
        self._sessions = sessions
        self._control = control
        self._tokenizer = tokenizer
        self._tally = tally
        self._strangers = strangers
        self._body_bytes_max = body_bytes_max
        self._controls = controls
        self._new_id = new_id
        self._now_ms = now_ms
        self._missing = missing
        self._trusted_proxies = trusted_proxies
        self._room = BodyRoom(bodies_bytes_max)
        self._control_room = BodyRoom(bodies_bytes_max)  # apart: who has no key must not keep out who has one
        self._reserving = Reserving(leases, tokenizer, sizes=slicer.sizes, auto_tier=auto_tier)
        self._auto_tier = auto_tier
        self.is_stopping = False

    async def __call__(self, request: Request) -> None:
        request_id = self._new_id()
        try:
            target = self._route(request.head)
            if isinstance(target, Endpoint):
                await self.serve(request, target, request_id)
            else:
                await self._serve_unmetered(request, target, request_id)
        except Unauthenticated as error:
            self._strangers.failed(self.client_address(request))
            self._refuse(request, request_id, error)
        except GatewayError as error:
            self._refuse(request, request_id, error)

    async def serve(self, request: Request, target: Endpoint, request_id: str) -> None:
        """Serve one call; raises the `GatewayError` that refuses it, before anything of an answer was sent."""
        if self.is_stopping:
            raise ShuttingDown(retry_after_s=1)
        caller = self._known(request.head) or await self._ask(request)
        self._admit(request, caller)
        if request.get(b"content-encoding") not in (None, b"identity"):
            raise InvalidRequest("Send the request body without a Content-Encoding.", param=None)
        is_late, share = not request.complete, self._room.share_for(request, self._body_bytes_max)
        try:
            if share is not None:
                await share.fill()
            wanted = await self._read(request, request_id, caller, target, is_late=is_late)
            opened, wanted = await self._reserving.reserve(wanted, self._now_ms())
            priced = Priced(request_id, wanted.call, wanted.card, wanted.row, wanted.estimate, opened.hold.terms)
            watch = Watch(priced.call.model, self._tokenizer)
            opened.progress = partial(progress_of, priced, watch)
            try:
                began = self._breakers.begin(priced.row.model, target)
                slicing = None
                if wanted.sliced is not None:
                    slicing = self._slicer.start(wanted.sliced, wanted, opened, priced, watch)
                relayed = await self._relay.metered(
                    request, wanted.caller, priced.call, self._opening_lines(opened, wanted), watch, slicing
                )
                if slicing is not None:
                    priced = msgspec.structs.replace(priced, estimate=slicing.estimate)
                self._breakers.ended(priced.row.model, relayed.ended, began)
                self._rules.ended(priced.row.model, relayed.ended)
                settlement = await self._price(priced, relayed.ended, watch)
                settled = await self._settlements.settle(settlement)
            finally:
                # However this ends, the lease is renewed no more: what is unsettled now lapses and is posted as such.
                self._leases.close(opened)
        finally:
            if share is not None:
                share.leave()
        self._tally.settled(target, settlement)
        relayed.respond(_closing_lines(settlement, settled))

    async def _serve_unmetered(self, request: Request, target: Free | Own | Session | Control, request_id: str) -> None:
        if isinstance(target, Own):
            self._answer_own(request, target)
            return
        if self.is_stopping:
            raise ShuttingDown(retry_after_s=1)
        if isinstance(target, Control):
            await self._serve_control(request, request_id)
            return
        caller = self._known(request.head) or await self._ask(request)
        self._admit(request, caller)
        if request.gone:  # while its key was looked up
            return
        if isinstance(target, Free):
            await self._relay.free(request, b"x-gateway-request-id: %b\r\n" % request_id.encode())
        else:
            await self._sessions.serve(request, caller, request_id, partial(self._may_go_on, request.head))

    async def _serve_control(self, request: Request, request_id: str) -> None:
        address = self.client_address(request)
        self._strangers.admit(address, request.head.method, request.head.path)
        share = self._control_room.share_for(request, self._control.body_bytes_max)
        try:
            if share is not None:
                await share.fill()
            status = await self._control.serve(request, (b"x-gateway-request-id", request_id.encode()))
            if status == Unauthenticated.status:
                self._strangers.failed(address)
        finally:
            if share is not None:
                share.leave()

    # --- who and what ----------------------------------------------------------------------------------------------

    def _route(self, head: RequestHead) -> Route:
        target: Route | None = head.notes.get("route")
        if target is None:
            target = head.notes["route"] = route(head.method, head.path)
        return target

    def _authorization(self, head: RequestHead) -> bytes:
        """What proves the caller; raises `Unauthenticated` if there is nothing, or more than one thing."""
        given = [value for name, value in head.headers if name.lower() == b"authorization"]
        if not given and isinstance(self._route(head), Session):
            given = offered_keys(head.headers)
        if len(given) != 1:
            raise Unauthenticated
        return given[0]

    def _known(self, head: RequestHead) -> Caller | None:
        """The caller, if that is known without asking; raises `Unauthenticated`."""
        credential: bytes | None = head.notes.get("credential")
        if credential is None:
            authorization = self._authorization(head)
            credential = credential_of(authorization) or token_credential_of(authorization)
            if credential is None:
                raise Unauthenticated
            head.notes["credential"] = credential
        return self._callers.known(credential)

    async def _ask(self, request: Request) -> Caller:
        """Who is calling, of whom nothing is known yet; raises `RateLimited` if too many from there were nobody."""
        self._strangers.check(self.client_address(request))
        return await self._authenticate(request.head)

    async def _authenticate(self, head: RequestHead) -> Caller:
        return await self._callers.authenticate(self._authorization(head))

    def _admit(self, request: Request, caller: Caller) -> None:
        """Raises the `GatewayError` that refuses this request, whatever its call."""
        self._check_controls(request.head, caller)
        if caller.restrictions is not None:
            self._restrict(request, caller.restrictions)

    def _check_controls(self, head: RequestHead, caller: Caller) -> None:
        controls = self._controls()
        admit_request(caller, head.path.decode("latin-1"), controls, self._now_ms())
        if controls.brownouts is not None and isinstance(self._route(head), Session):
            controls.brownouts.check_session(model_asked(head.target), caller, self._now_ms())

    async def _may_go_on(self, head: RequestHead) -> bool:
        """Whether a session may: its key can be revoked meanwhile, its account suspended, its endpoint switched off."""
        try:
            caller = self._known(head) or await self._authenticate(head)
        except Unauthenticated:
            return False
        except BillingUnavailable:  # nobody can tell now
            return True
        try:
            self._check_controls(head, caller)
        except GatewayError:
            return False
        return True

    def _restrict(self, request: Request, restrictions: Restrictions) -> None:
        head = request.head
        restrictions.check_request(head.path.decode("latin-1"), self.client_address(request))
        if isinstance(self._route(head), Session):
            restrictions.check_model(model_asked(head.target))

    def client_address(self, request: Request) -> Address | None:
        forwarded_for = [value.decode("latin-1") for name, value in request.head.headers if name.lower() == FORWARDED]
        return client_address(request.peer, forwarded_for, self._trusted_proxies)

    async def _read(
        self, request: Request, request_id: str, caller: Caller, target: Endpoint, *, is_late: bool
    ) -> Wanted:
        """Parse and estimate; raises the `GatewayError` that refuses the call."""
        body = await request.read_body(self._body_bytes_max)
        if is_late:  # it may have taken hours, in which its key was revoked, or its account suspended
            caller = self._known(request.head) or await self._authenticate(request.head)
            self._admit(request, caller)
        bounds = self._caps.bounds(caller, opened_ms(request_id))
        estimated = partial(self._estimated, request, request_id, caller, bounds, target, body)
        return estimated() if len(body) <= LARGE_BODY_BYTES else await asyncio.to_thread(estimated)

    def _estimated(
        self, request: Request, request_id: str, caller: Caller, bounds: Bounds, target: Endpoint, body: bytes
    ) -> Wanted:
        now_ms, controls = self._now_ms(), self._controls()
        call, lines = parse(target, body), b""
        admit_call(caller, call)
        card = self._cards.at(now_ms)
        row, limited_by = _sold(card, call, bounds), ""
        if controls.brownouts is not None:
            is_cheap = partial(card.is_no_dearer, row, call.service_tier, self._auto_tier)
            asked_limit = call.output_limit
            call, lines = controls.brownouts.trim(
                call,
                row.model,
                caller,
                bounds,
                accepts_reroute=is_cheap if request.get(FALLBACK) == b"allow" else None,
                auto_tier=self._auto_tier,
                now_ms=now_ms,
            )
            row = _sold(card, call, bounds)
            if asked_limit is not None:  # the model that it was rerouted to may write less
                call = with_output_limit(call, row.output_tokens_max)
            limited_by = "" if call.output_limit == asked_limit else "brownout"
        self._breakers.check(row.model)
        kept = keep_output(call, row, bounds)
        limited_by = limited_by if kept is call else "cap"
        try:
            estimate = estimate_cheap(kept, row, card, auto_tier=self._auto_tier)
        except UnsoldTier as error:
            raise InvalidRequest(str(error), param="service_tier") from error
        fingerprint, is_shadow = hashlib.sha256(body).hexdigest(), controls.is_shadow(caller.account_id)
        return Wanted(request_id, caller, bounds, kept, card, row, estimate, fingerprint, lines, limited_by, is_shadow)

    # --- the end ---------------------------------------------------------------------------------------------------

    async def _price(self, priced: Priced, ended: Ended, watch: Watch) -> Settlement:
        how = ending(ended, priced.estimate, priced.row)
        usage = how.usage
        if how.charge is Charge.DELIVERED:
            usage = at_least(usage, await count_delivered(priced, watch, self._tokenizer))
        settlement = settlement_of(priced, ended, how, usage, self._now_ms())
        if settlement.flags:
            log.warning("call flagged", request_id=priced.request_id, flags=settlement.flags, model=priced.row.model)
        return settlement

    def _opening_lines(self, opened: OpenHold, wanted: Wanted) -> bytes:
        lines = wanted.lines
        if wanted.limited_by:
            lines += limit_line(wanted)
        if wanted.sliced is not None:
            lines += slice_line(wanted)
        if opened.reserved.left:
            lines += rate_lines(wanted.bounds, opened.reserved.left)
        return b"%bx-gateway-request-id: %b\r\nx-credits-held: %b\r\nx-rate-card: %b\r\n" % (
            lines,
            opened.hold.request_id.encode(),
            format_credits(opened.hold.amount).encode(),
            opened.hold.terms.rate_version.encode(),
        )

    def _answer_own(self, request: Request, what: Own) -> None:
        missing = "" if what is Own.HEALTH else "shutting down" if self.is_stopping else self._missing()
        body = {"status": "unavailable", "reason": missing} if missing else {"status": "ok"}
        request.respond(503 if missing else 200, JSON, msgspec.json.encode(body))

    def _refuse(self, request: Request, request_id: str, error: GatewayError) -> None:
        self._tally.refused(error.code)
        if not request.gone:
            lines = b"%bx-gateway-request-id: %b\r\n%b" % (JSON, request_id.encode(), encode(error.headers()))
            request.respond(error.status, lines, error.body())


def _sold(card: RateCard, call: Call, bounds: Bounds) -> ModelRates:
    """The row that prices the call's model; raises the `GatewayError` that refuses that model."""
    row = card.find(call.model)
    if row is None:
        raise ModelNotFound(f"The model {call.model[:128]!r} does not exist or has no price here.", param="model")
    if bounds.models:
        bounds.allow_model(call.model, row.model)
    return row


def _closing_lines(settlement: Settlement, settled: Settled | None) -> bytes:
    cost = b"x-credits-cost: %b\r\n" % format_credits(settlement.charged).encode()
    if settlement.terms.is_shadow:
        cost += b"x-credits-shadow-cost: %b\r\n" % format_credits(settlement.cost).encode()
    if settled is None:
        return cost
    return b"%bx-credits-remaining: %b\r\n" % (cost, format_credits(settled.balance.available).encode())
