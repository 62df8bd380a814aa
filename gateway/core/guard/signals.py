"""Signals: what the end of one call tells a breaker. A caller's own mistake, and its leaving, tell nothing."""

import re

from gateway.core.calls.endings import Ended, Fault
from gateway.core.guard.breaker import Signal

THROTTLED = 429

_OF_FAULT = {
    Fault.UNREACHABLE: Signal.UNREACHABLE,
    Fault.TIMEOUT: Signal.TIMEOUT,
    Fault.BROKEN: Signal.ERROR,
}

# Codes of errors inside an answer that began well. What a caller sent is wrong with a prompt or an image:
# https://platform.openai.com/docs/api-reference/responses/object, `error.code`.
_CALLERS_OWN = re.compile(r"invalid_|image|content_policy|content_filter|context_length|string_above|unsupported_")
_THROTTLED = re.compile(r"rate_limit")


def model_signal(ended: Ended) -> Signal:
    """What the call says about its model."""
    if ended.status == 200 and not ended.cut and not ended.reading.failed and ended.fault is None:  # nearly always
        return Signal.OK
    if ended.fault is not None:
        return _OF_FAULT[ended.fault]
    if ended.status == THROTTLED:
        return Signal.THROTTLED
    if ended.status >= 500:
        return Signal.ERROR
    if not 200 <= ended.status < 300:
        return Signal.NEUTRAL
    if ended.reading.failed:
        return _of_code(ended.reading.error)
    if ended.cut and not ended.reading.complete and not ended.is_out_of_slices:
        return Signal.NEUTRAL if ended.caller_gone else Signal.ERROR
    return Signal.OK


def _of_code(code: str) -> Signal:
    if _CALLERS_OWN.search(code):
        return Signal.NEUTRAL
    return Signal.THROTTLED if _THROTTLED.search(code) else Signal.ERROR


def upstream_signal(ended: Ended) -> Signal:
    """What it says about the upstream as a whole: whether it is there. What it answers is its models' matter."""
    if ended.fault is Fault.UNREACHABLE:
        return Signal.UNREACHABLE
    return Signal.OK if ended.status else Signal.NEUTRAL
