"""What a caller is told when a cap refuses its call: which, how much it needed, how much is left, and until when."""

from gateway.core.errors import BeyondRateLimit, CapReached, GatewayError, RateLimited
from gateway.core.guard.caps import Bounds, Caps, Level
from gateway.core.guard.windows import ends_at
from gateway.core.money import MicroCredits, format_credits

# How soon a call may be tried again that was one too many at once: nobody knows when one of them ends.
CONCURRENT_RETRY_S = 1

# Bounds in which a smaller estimate of the same call needs less.
_BY_SIZE = frozenset({"balance", "request", "day", "month", "tokens"})
# Those that a smaller output limit can meet too, and that are said in credits.
_IN_CREDITS = frozenset({"balance", "request", "day", "month"})


def kind_of(bound: str) -> str:
    """The kind of a bound as a refusal names it.

    >>> kind_of("account_day"), kind_of("balance")
    ('day', 'balance')
    """
    return bound.rpartition("_")[2]


def is_by_size(bound: str) -> bool:
    """Whether a closer estimate of the call may still pass this bound."""
    return kind_of(bound) in _BY_SIZE


def is_in_credits(bound: str) -> bool:
    return kind_of(bound) in _IN_CREDITS


def request_refusal(bounds: Bounds, amount: MicroCredits) -> tuple[str, MicroCredits] | None:
    """The cap on one request that does not allow `amount`, and what it allows."""
    if bounds.request is None or amount <= bounds.request[0]:
        return None
    limit, level = bounds.request
    return f"{level.value}_request", limit


def cap_refusal(
    bounds: Bounds, bound: str, needed: int, available: int, wait_ms: int, *, affordable_output_tokens: int
) -> GatewayError:
    """The error for what a cap refused. `needed` and `available` are µcr, requests, tokens or calls, by the bound."""
    level_name, _, kind = bound.partition("_")
    caps = bounds.caps[list(Level).index(Level(level_name))]
    if kind == "concurrent":
        limit = caps.concurrent or 0
        return RateLimited(
            f"{_owner(level_name)} may have {limit} calls at once, and they all run now.",
            retry_after_s=CONCURRENT_RETRY_S,
            limit=bound,
            allowed=limit,
        )
    if kind in ("requests", "tokens"):
        allowed = (caps.requests_a_minute if kind == "requests" else caps.tokens_a_minute) or 0
        return _rate_refusal(level_name, kind, allowed, needed, available, wait_ms)
    return _credits_refusal(bounds, level_name, kind, caps, needed, available, affordable_output_tokens)


def _credits_refusal(
    bounds: Bounds, level: str, kind: str, caps: Caps, needed: MicroCredits, available: MicroCredits, affordable: int
) -> CapReached:
    allowed, window = {
        "request": (caps.request, None),
        "day": (caps.day, bounds.windows.day),
        "month": (caps.month, bounds.windows.month),
    }[kind]
    resets_at = "" if window is None else ends_at(window, bounds.time_zone)
    left = format_credits(max(available, 0))
    text = f"{_owner(level)} may use {format_credits(allowed or 0)} credits in one {kind}; this call may cost up to "
    text += f"{format_credits(needed)}" + (f", and {left} are left until {resets_at}." if resets_at else ".")
    return CapReached(
        text + (f" An output limit of {affordable} tokens would fit." if affordable else ""),
        cap=f"{level}_{kind}",
        limit=format_credits(allowed or 0),
        needed=format_credits(needed),
        available=left,
        needed_ucr=needed,
        available_ucr=available,
        affordable_output_tokens=affordable,
        resets_at=resets_at,
    )


def _rate_refusal(level: str, kind: str, allowed: int, needed: int, left: int, wait_ms: int) -> GatewayError:
    wait_s = max(1, -(-wait_ms // 1000))
    text = f"{_owner(level)} may use {allowed} {kind} a minute; this call "
    is_never = needed > allowed
    return (BeyondRateLimit if is_never else RateLimited)(
        text + (f"may use {needed}." if is_never else f"would pass it. Try again in {wait_s} s."),
        retry_after_s=None if is_never else wait_s,
        limit=f"{level}_{kind}",
        rate=kind,
        allowed=allowed,
        remaining=left,
    )


def _owner(level: str) -> str:
    return f"This {level}"
