"""A running sliced call: holds more for it as its answer flows, and says when nothing more is to be had.

Nothing is let through that its hold does not pay for. While Redis is away the answer goes on to the end of its slice,
waits a little, and ends there as if the credit had.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial

import structlog

from gateway.adapters.openai.tokens import Tokenizer
from gateway.adapters.redis.credits import Refused
from gateway.core.calls.closings import closing_of
from gateway.core.calls.encodings import CorruptEncoding
from gateway.core.calls.endings import Ended
from gateway.core.calls.estimate import Estimate
from gateway.core.calls.meter import Meter
from gateway.core.calls.slices import Sizes, Sliced
from gateway.core.calls.sse import EventSplitter
from gateway.core.calls.stream_meters import EVENT_BYTES_MAX, stream_meter
from gateway.core.calls.usage import AbsurdUsage, Usage, disjoint
from gateway.core.errors import BillingUnavailable
from gateway.core.guard.caps import Bounds
from gateway.core.guard.refusals import request_refusal
from gateway.proxy.bodies import Coding
from gateway.proxy.http1.answer import Answer
from gateway.proxy.http1.server import Request
from gateway.proxy.leases import Leases, OpenHold
from gateway.proxy.pricing import Priced, count_delivered
from gateway.proxy.redact import Redactor
from gateway.proxy.reserving import Wanted
from gateway.proxy.watch import Watch

log = structlog.get_logger(__name__)

# Between two attempts to hold more while Redis is away.
RETRY_S = 0.1
# Text is bounded by its bytes, and really counted when that bound says that it is time, and there is so much of it.
COUNTED_BYTES_MIN = 256


class Slicer:
    """What the sliced calls of one gateway have in common."""

    def __init__(
        self, leases: Leases, tokenizer: Tokenizer, sizes: Sizes, *, wait_s: float, clock: Callable[[], float]
    ) -> None:
        self.sizes = sizes
        self._leases = leases
        self._tokenizer = tokenizer
        self._wait_s = wait_s
        self._clock = clock

    def start(self, sliced: Sliced, wanted: Wanted, opened: OpenHold, priced: Priced, watch: Watch) -> "Slicing":
        return Slicing(
            sliced,
            opened,
            wanted.bounds,
            self._leases,
            watch,
            partial(count_delivered, priced, watch, self._tokenizer),
            estimate=priced.estimate,
            wait_s=self._wait_s,
            clock=self._clock,
        )


class Slicing:
    """One call. `estimate` is the bound of what its hold pays for by now."""

    def __init__(
        self,
        sliced: Sliced,
        opened: OpenHold,
        bounds: Bounds,
        leases: Leases,
        watch: Watch,
        count_used: Callable[[], Awaitable[Usage]],
        *,
        estimate: Estimate,
        wait_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._sliced = sliced
        self._opened = opened
        self._bounds = bounds
        self._leases = leases
        self._watch = watch
        self._count_used = count_used
        self._wait_s = wait_s
        self._clock = clock
        self._ahead: asyncio.Task[bool] | None = None  # asks for the next slice beside the stream
        self._counted_tokens = 0  # of what has passed
        self._uncounted_bytes = 0
        self._reported_tokens = 0  # by an upstream that tells its usage on the way
        self.estimate = estimate

    # --- the stream ----------------------------------------------------------------------------------------------

    async def pass_on(
        self, request: Request, answer: Answer, coding: Coding, redactor: Redactor, meter: Meter, ended: Ended
    ) -> None:
        """Write what is paid for, event by event; upstream waits while more is being held, or the caller is slow.

        Raises AnswerBroken, and CorruptEncoding for an answer that cannot be read: it cannot be sliced either.
        """
        try:
            async with aclosing(self._events(answer, coding, meter, ended)) as events:
                async for event in events:
                    data = redactor.feed(event)
                    if data and not request.gone:
                        request.write(data)
                        ended.sent_any = True
                    await request.drain()
        except asyncio.CancelledError:
            answer.abort()
            raise

    async def _events(self, answer: Answer, coding: Coding, meter: Meter, ended: Ended) -> AsyncGenerator[bytes, None]:
        """Upstream's events as far as they are paid for, then those of the end."""
        if not coding.is_known:
            raise CorruptEncoding
        closing, splitter = closing_of(self._sliced.call), EventSplitter(EVENT_BYTES_MAX)
        ahead = stream_meter(self._sliced.call.endpoint, strip_usage_event=False)  # of what has come, not passed
        try:
            async for block in answer.chunks():
                for event in splitter.feed(coding.decode(block) if coding.decode else block):
                    ahead.feed(event)
                    if not await self._may_pass(ahead):
                        ended.cut = ended.is_out_of_slices = True
                        answer.abort()
                        yield closing.close(await self._count_used())
                        return
                    closing.note(event)
                    yield meter.feed(event)
            yield meter.feed(splitter.take_tail())
        finally:
            await self._stop_asking()

    async def _may_pass(self, ahead: Meter) -> bool:
        """Whether the event that `ahead` has just read is paid for; waits for it to be, if need be."""
        reading = ahead.reading
        text_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in reading.delivered.take_texts())
        if reading.usage is not None and not reading.usage_final:
            with suppress(AbsurdUsage):
                self._reported_tokens = disjoint(reading.usage).output_total
        if not await self._cover(text_bytes):
            return False
        self._uncounted_bytes += text_bytes
        if self._uncounted_bytes >= COUNTED_BYTES_MIN and self._wants_more():
            await self._count()
        if self._wants_more():
            self._ask_ahead()
        return True

    @property
    def _delivered_tokens(self) -> int:
        """At most so many: every token is a byte or more."""
        return max(self._counted_tokens + self._uncounted_bytes, self._reported_tokens)

    async def _count(self) -> None:
        self._counted_tokens, self._uncounted_bytes = await self._watch.delivered_tokens(), 0

    # --- the hold ------------------------------------------------------------------------------------------------

    def _covers(self, more: int) -> bool:
        return self._sliced.covers(self._covered, self._delivered_tokens + more)

    def _wants_more(self) -> bool:
        return self._sliced.wants_more(self._covered, self._delivered_tokens)

    @property
    def _covered(self) -> int:
        return self.estimate.output_tokens_max

    async def _cover(self, more: int) -> bool:
        """Wait until `more` tokens may pass; False if they may not."""
        if self._covers(more):
            return True
        await self._count()
        if self._ahead is not None:
            await self._ahead
            self._ahead = None
        while not self._covers(more):
            if not await self._extend():
                return False
        return True

    def _ask_ahead(self) -> None:
        if self._ahead is not None and self._ahead.done() and self._ahead.result():
            self._ahead = None
        if self._ahead is None:  # what was refused is asked for once more, when the slice is used up
            self._ahead = asyncio.create_task(self._extend())

    async def _stop_asking(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.wait([self._ahead])
            if not self._ahead.cancelled():
                self._ahead.result()

    async def _extend(self) -> bool:
        """Hold the next slice, or what is to be had of it; False if that is none."""
        give_up_at = self._clock() + self._wait_s
        target = self._sliced.next(self._covered)
        while target:
            try:
                refused = await self._hold(self._sliced.estimate(target))
            except BillingUnavailable:
                if self._clock() >= give_up_at:
                    log.warning("no further slice: Redis is away", request_id=self._opened.hold.request_id)
                    return False
                await asyncio.sleep(RETRY_S)
                continue
            if refused is None:
                return True
            target = self._sliced.fitting(refused.available, self._covered)
        return False

    async def _hold(self, estimate: Estimate) -> Refused | None:
        over = request_refusal(self._bounds, estimate.amount)
        if over is not None:
            return Refused(over[0], estimate.amount, over[1])
        refused = await self._leases.extend(self._opened, estimate.amount)
        if refused is None:
            self.estimate = estimate
        return refused
