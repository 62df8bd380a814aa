"""Reserving: from a call that was estimated to the hold that it runs under, or to the error that refuses it.

A cheap bound is tried first. Where that is refused, the text is really counted; where that is refused too and the
account wants it, the output is cut down to what there is room for.
"""

import asyncio
from typing import NamedTuple
from weakref import WeakValueDictionary

import msgspec
import structlog

from gateway.adapters.openai.tokens import BadVocabulary, Tokenizer
from gateway.adapters.redis.credits import Refused
from gateway.core.access.callers import Caller
from gateway.core.calls.calls import Call
from gateway.core.calls.clamps import with_output_limit
from gateway.core.calls.estimate import (
    Estimate,
    affordable_output_limit,
    estimate_exact,
    estimate_limited,
    texts_to_count,
)
from gateway.core.calls.slices import Sizes, Sliced, slices_of
from gateway.core.errors import GatewayError, InsufficientCredits
from gateway.core.guard.caps import Bounds, Shortfall
from gateway.core.guard.refusals import cap_refusal, is_by_size, is_in_credits, request_refusal
from gateway.core.holds import Hold, Terms
from gateway.core.money import MicroCredits, format_credits
from gateway.core.pricing.rates import ModelRates, RateCard
from gateway.proxy.leases import Leases, OpenHold

log = structlog.get_logger(__name__)

# While other calls of its account take what a call was about to be fitted into, it is fitted anew.
ATTEMPTS_MAX = 6

_RATE_LINES = {
    name: b"x-gateway-ratelimit-limit-%b: %%d\r\nx-gateway-ratelimit-remaining-%b: %%d\r\n"
    b"x-gateway-ratelimit-reset-%b: %%dms\r\n" % (name.encode(), name.encode(), name.encode())
    for name in ("requests", "tokens")
}


class Wanted(NamedTuple):
    """A call that was read and estimated, and is not held yet."""

    request_id: str
    caller: Caller
    bounds: Bounds
    call: Call
    card: RateCard
    row: ModelRates
    estimate: Estimate
    fingerprint: str  # of the body as it came, in hex
    lines: bytes  # header lines of what admission changed
    limited_by: str  # what lowered the output limit: "cap", or the bound that it was fitted into
    is_shadow: bool = False  # what it would cost is neither held nor charged; its calls and tokens count as ever
    sliced: Sliced | None = None  # then `estimate` is that of the first slice,
    sliced_by: str = ""  # and this the bound that did not allow the whole

    @property
    def amount(self) -> MicroCredits:
        """What is to be held."""
        return 0 if self.is_shadow else self.estimate.amount


class Reserving:
    def __init__(self, leases: Leases, tokenizer: Tokenizer, *, sizes: Sizes, auto_tier: str) -> None:
        self._leases = leases
        self._tokenizer = tokenizer
        self._sizes = sizes
        self._auto_tier = auto_tier
        self._counting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def reserve(self, wanted: Wanted, opened_at_ms: int) -> tuple[OpenHold, Wanted]:
        """The hold, and the call as it is held; raises the `GatewayError` that refuses it."""
        terms = _terms(wanted, opened_at_ms)
        reply = await self._open(wanted, terms, 1)
        if isinstance(reply, Refused) and is_by_size(reply.bound):
            # One at a time for each account: its own calls wait for each other, and hold up nobody else's.
            async with self._counting.setdefault(terms.account_id, asyncio.Lock()):
                wanted = wanted._replace(estimate=await self._estimate_exact(wanted))
            reply = await self._open(wanted, terms, 2)
        attempt = 3
        while isinstance(reply, Refused):
            fitting = self._fitting(wanted, reply) if attempt <= ATTEMPTS_MAX else None
            if fitting is None:
                raise self._refusal(wanted, reply)
            wanted = fitting
            reply = await self._open(wanted, terms, attempt)
            attempt += 1
        return reply, wanted

    async def _open(self, wanted: Wanted, terms: Terms, attempt: int) -> OpenHold | Refused:
        estimate, bounds = wanted.estimate, wanted.bounds
        over = request_refusal(bounds, wanted.amount)
        if over is not None:
            return Refused(over[0], wanted.amount, over[1])
        if not bounds.keys:
            hold = Hold(wanted.request_id, wanted.amount, wanted.fingerprint, terms, attempt)
        else:
            whole = estimate if wanted.sliced is None else wanted.sliced.whole
            tokens = whole.input_tokens_max + whole.output_tokens_max
            hold = Hold(
                wanted.request_id,
                wanted.amount,
                wanted.fingerprint,
                terms,
                attempt,
                tokens,
                bounds.keys,
                bounds.lines,
            )
        return await self._leases.open(hold)

    async def _estimate_exact(self, wanted: Wanted) -> Estimate:
        call = wanted.call
        texts = await asyncio.to_thread(texts_to_count, call)
        try:
            counted = await self._tokenizer.count(call.model, texts)
        except BadVocabulary as error:
            log.error("text cannot be counted; the bound by its bytes stands", error=str(error))
            return wanted.estimate
        return await asyncio.to_thread(
            estimate_exact, call, wanted.row, wanted.card, counted.tokens, auto_tier=self._auto_tier
        )

    def _fitting(self, wanted: Wanted, refused: Refused) -> Wanted | None:
        """The call with as much output as there is credit for; None if that is none, or its account wants it whole.

        Where its account has it sliced, it keeps its output, and is held for a first slice of it.
        """
        policy = wanted.bounds.on_unaffordable
        if policy is Shortfall.REFUSE or not is_in_credits(refused.bound):
            return None
        if policy is Shortfall.SLICE:
            sliced = self._sliced(wanted, refused)
            if sliced is not None:
                return sliced
        limit = self._affordable(wanted, refused)
        call = with_output_limit(wanted.call, limit) if limit else wanted.call
        if call is wanted.call:
            return None
        estimate = estimate_limited(wanted.estimate, call, wanted.row, wanted.card, auto_tier=self._auto_tier)
        return wanted._replace(call=call, estimate=estimate, limited_by=refused.bound)

    def _sliced(self, wanted: Wanted, refused: Refused) -> Wanted | None:
        sliced = wanted.sliced or slices_of(
            wanted.call, wanted.row, wanted.card, wanted.estimate, self._sizes, auto_tier=self._auto_tier
        )
        covered = sliced.first(refused.available) if sliced is not None else 0
        if sliced is None or not covered:
            return None
        return wanted._replace(sliced=sliced, estimate=sliced.estimate(covered), sliced_by=refused.bound)

    def _affordable(self, wanted: Wanted, refused: Refused) -> int:
        """The output limit that would fit into what is available."""
        return affordable_output_limit(
            refused.available, wanted.estimate, wanted.call, wanted.row, wanted.card, auto_tier=self._auto_tier
        )

    def _refusal(self, wanted: Wanted, refused: Refused) -> GatewayError:
        affordable = self._affordable(wanted, refused) if is_in_credits(refused.bound) else 0
        if refused.bound != "balance":
            return cap_refusal(wanted.bounds, *msgspec.structs.astuple(refused), affordable_output_tokens=affordable)
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


def _terms(wanted: Wanted, opened_at_ms: int) -> Terms:
    caller = wanted.caller
    return Terms(
        account_id=caller.account_id,
        key_id=caller.key_id,
        endpoint=wanted.call.endpoint,
        model=wanted.row.model,
        rate_version=wanted.card.version,
        opened_at_ms=opened_at_ms,
        member_id=caller.member_id or "",
        is_shadow=wanted.is_shadow,
        counted=wanted.bounds.counted,
    )


def limit_line(wanted: Wanted) -> bytes:
    """The header line of an output limit that the gateway has lowered."""
    return b"x-gateway-output-limit: %d; by=%b\r\n" % (wanted.call.output_limit or 0, wanted.limited_by.encode())


def slice_line(wanted: Wanted) -> bytes:
    """The header line of a call that is held in slices: the output that the first one pays for."""
    covered = wanted.estimate.output_tokens_max
    return b"x-gateway-output-slice: %d; by=%b\r\n" % (covered, wanted.sliced_by.encode())


def rate_lines(bounds: Bounds, left: tuple[int, ...]) -> bytes:
    """Header lines of the gateway's own rates, named after OpenAI's, whose own are passed on beside them.

    Of requests and of tokens, the limit with the least room is told: of the account, the member or the key.
    """
    lines = b""
    for name, places in bounds.rates:
        room, limit = min([(left[place], limit) for place, limit in places])
        lines += _RATE_LINES[name] % (limit, room, (limit - room) * 60_000 // limit)
    return lines
