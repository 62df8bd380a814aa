"""Breakers: one model, or the whole upstream, is let alone while it fails. The table of states, and what trips one.

A breaker is a value. It changes only by `after`, one version at a time, so that a fleet can agree on it by
compare-and-set; what trips it are counters in buckets of time, which a fleet adds up. While a breaker is open or half
open no caller's call goes upstream: the operator's own probes find out whether it may close.
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import NamedTuple

import msgspec


class Signal(IntEnum):
    """What the end of one call says about upstream."""

    OK = 0
    ERROR = 1  # 5xx, or an answer that failed or broke off
    TIMEOUT = 2
    THROTTLED = 3  # 429
    UNREACHABLE = 4  # no connection
    NEUTRAL = 5  # nothing: a caller's own error (4xx but 429), or one who left


class Counts(NamedTuple):
    """How many calls gave each signal, in the order of `Signal`; and how many were begun."""

    ok: int = 0
    error: int = 0
    timeout: int = 0
    throttled: int = 0
    unreachable: int = 0
    neutral: int = 0
    begun: int = 0

    def plus(self, other: "Counts") -> "Counts":
        return Counts(*map(int.__add__, self, other))

    @property
    def under_way(self) -> int:
        """By how many more were begun than ended."""
        return max(0, self.begun - sum(self[:6]))


NOTHING = Counts()
Buckets = Mapping[int, Counts]  # by the number of the bucket: time // bucket_ms


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Event(StrEnum):
    TRIPPED = "tripped"  # the counters passed a bound
    ELAPSED = "elapsed"  # it was open for its time
    PROBE_SUCCEEDED = "probe_succeeded"
    PROBES_SUFFICED = "probes_sufficed"
    PROBE_FAILED = "probe_failed"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.CLOSED, Event.TRIPPED): State.OPEN,
    (State.OPEN, Event.ELAPSED): State.HALF_OPEN,
    (State.HALF_OPEN, Event.PROBE_SUCCEEDED): State.HALF_OPEN,
    (State.HALF_OPEN, Event.PROBES_SUFFICED): State.CLOSED,
    (State.HALF_OPEN, Event.PROBE_FAILED): State.OPEN,
}


class Cause(StrEnum):
    """Why a breaker opened."""

    NONE = ""
    RATE = "error_rate"
    STREAK = "consecutive_failures"
    PROBE = "probe_failed"


class BreakerPolicy(msgspec.Struct, frozen=True):
    """When to open, for how long, and when to close. The weights: a failure of weight 2 counts as two failed calls."""

    window_ms: int
    bucket_ms: int
    volume_min: int  # calls in the window, before the rate of failures says anything
    failure_rate: float
    streak: int  # failures, by weight, with no success between them, of the fleet as a whole
    open_ms: int  # doubled with each opening that follows soon on another, up to…
    open_ms_max: int
    jitter: float  # of the open time, to either side
    probes_max: int  # at once, in the whole fleet
    successes_to_close: int
    error_weight: float = 1.0
    timeout_weight: float = 1.0
    throttled_weight: float = 0.5
    unreachable_weight: float = 1.0
    enabled: bool = True  # False: none ever opens

    def failures(self, counts: Counts) -> float:
        """The failures among them, by weight."""
        return (
            counts.error * self.error_weight
            + counts.timeout * self.timeout_weight
            + counts.throttled * self.throttled_weight
            + counts.unreachable * self.unreachable_weight
        )

    @property
    def buckets(self) -> int:
        """How many buckets the window spans."""
        return -(-self.window_ms // self.bucket_ms)


class Breaker(msgspec.Struct, frozen=True):
    """One breaker at one moment. Times are those of the clock of whoever holds it."""

    state: State = State.CLOSED
    version: int = 0
    changed_ms: int = 0
    until_ms: int = 0  # while open: then it is half open
    openings: int = 0  # one soon upon the other
    successes: int = 0  # of probes, while half open
    cause: Cause = Cause.NONE


def after(
    breaker: Breaker, event: Event, now_ms: int, policy: BreakerPolicy, *, chance: float, cause: Cause
) -> Breaker:
    """The breaker after `event`; itself, if that means nothing in its state. `chance` in [0, 1) spreads openings."""
    state = TRANSITIONS.get((breaker.state, event))
    if state is None:
        return breaker
    changed = msgspec.structs.replace(breaker, state=state, version=breaker.version + 1)
    if state is State.OPEN:
        is_calm = breaker.state is State.CLOSED and now_ms - breaker.changed_ms >= policy.open_ms_max
        openings = 1 if is_calm else breaker.openings + 1
        until_ms = now_ms + open_time_ms(openings, policy, chance)
        return msgspec.structs.replace(
            changed, changed_ms=now_ms, until_ms=until_ms, openings=openings, successes=0, cause=cause
        )
    if event is Event.PROBE_SUCCEEDED:
        return msgspec.structs.replace(changed, successes=breaker.successes + 1)
    return msgspec.structs.replace(changed, changed_ms=now_ms, until_ms=0, successes=0)


def open_time_ms(openings: int, policy: BreakerPolicy, chance: float) -> int:
    """How long the `openings`-th opening in a row lasts.

    >>> policy = BreakerPolicy(10_000, 1_000, 20, 0.5, 5, 5_000, 60_000, 0.2, 2, 3)
    >>> [open_time_ms(n, policy, 0.5) for n in (1, 2, 3, 9)], open_time_ms(1, policy, 0.0)
    ([5000, 10000, 20000, 60000], 4000)
    """
    plain_ms = min(policy.open_ms << min(openings - 1, 30), policy.open_ms_max)
    return max(1, round(plain_ms * (1 + policy.jitter * (2 * chance - 1))))


def probe_event(breaker: Breaker, succeeded: bool, policy: BreakerPolicy) -> Event:
    """What the outcome of a probe means for a half-open breaker."""
    if not succeeded:
        return Event.PROBE_FAILED
    enough = breaker.successes + 1 >= policy.successes_to_close
    return Event.PROBES_SUFFICED if enough else Event.PROBE_SUCCEEDED


def trips(buckets: Buckets, now_ms: int, policy: BreakerPolicy) -> Cause:
    """Why these counters open a closed breaker at `now_ms`; `Cause.NONE` if they do not.

    By rate: enough calls in the window, and of their weight too much failed. By streak: since the last bucket with a
    success, as many failures as are no chance any more, however few calls there are. Failures are quick where successes
    take seconds, so of calls that are still under way the best is hoped: else a breaker that has just closed would open
    by a tenth of failures, before the first success is there.
    """
    if not policy.enabled:
        return Cause.NONE
    newest = now_ms // policy.bucket_ms
    total, streak, unbroken = NOTHING, 0.0, True
    for number in range(newest, newest - policy.buckets, -1):
        counts = buckets.get(number, NOTHING)
        total = total.plus(counts)
        unbroken = unbroken and not counts.ok
        if unbroken:
            streak += policy.failures(counts)
    failed = policy.failures(total)
    ended = sum(total[:5])
    if failed and ended >= policy.volume_min and failed >= policy.failure_rate * (total.ok + failed + total.under_way):
        return Cause.RATE
    if streak >= policy.streak and streak >= policy.failure_rate * (streak + total.under_way):
        return Cause.STREAK
    return Cause.NONE
