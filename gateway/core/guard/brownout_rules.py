"""Rules: when a model does so badly that it is reduced without an operator. Pure, on histograms and counts.

A model is slow against itself: the 95th percentile of its first bytes in the window, against that of the time before.
What a window was like goes into the time before as it passes, and fades there.
"""

from collections import deque
from typing import NamedTuple

import msgspec

SLICES = 6  # of a window
# Four buckets to each doubling, from 1 ms to about 18 hours: a percentile is known to a fifth.
_STEPS = 4
BUCKETS = 26 * _STEPS


class RulePolicy(msgspec.Struct, frozen=True):
    window_ms: int
    baseline_ms: int
    calls_min: int
    slow_factor: float
    slow_ms_min: int
    error_rate: float

    @property
    def slice_ms(self) -> int:
        return max(1, self.window_ms // SLICES)


class Finding(NamedTuple):
    """Why a rule speaks; `kind` is "latency" or "errors"."""

    kind: str
    text: str


class Slice(msgspec.Struct):
    number: int
    calls: int = 0
    failed: int = 0
    first_bytes: dict[int, int] = {}


class Performance:
    """How one model does, of one gateway's calls."""

    def __init__(self, policy: RulePolicy) -> None:
        self._policy = policy
        self._slice_ms = policy.slice_ms
        self._slices: deque[Slice] = deque()
        self._before: dict[int, float] = {}

    def record(self, now_ms: int, *, is_failed: bool, first_byte_ms: int | None) -> None:
        """One call that says something about its model; `first_byte_ms` of a stream that began."""
        newest = self._newest(now_ms)
        newest.calls += 1
        newest.failed += is_failed
        if first_byte_ms is not None:
            bucket = bucket_of(first_byte_ms)
            newest.first_bytes[bucket] = newest.first_bytes.get(bucket, 0) + 1

    def finding(self, now_ms: int) -> Finding | None:
        """Why this model is to be reduced now, if it is."""
        self._newest(now_ms)
        policy = self._policy
        calls, failed = sum(each.calls for each in self._slices), sum(each.failed for each in self._slices)
        if calls >= policy.calls_min and failed >= policy.error_rate * calls:
            return Finding("errors", f"{failed} of {calls} calls failed in {policy.window_ms // 1000} s")
        window: dict[int, float] = {}
        for each in self._slices:
            for bucket, count in each.first_bytes.items():
                window[bucket] = window.get(bucket, 0) + count
        if sum(window.values()) < policy.calls_min or sum(self._before.values()) < policy.calls_min:
            return None
        now_p95, usual_p95 = p95_ms(window), p95_ms(self._before)
        if now_p95 < policy.slow_ms_min or now_p95 < policy.slow_factor * usual_p95:
            return None
        return Finding("latency", f"the first byte takes {now_p95} ms (p95), usually {usual_p95} ms")

    def _newest(self, now_ms: int) -> Slice:
        number = now_ms // self._slice_ms
        if self._slices and self._slices[-1].number == number:
            return self._slices[-1]
        while self._slices and self._slices[0].number <= number - SLICES:
            self._fade(self._slices.popleft())
        self._slices.append(Slice(number))
        return self._slices[-1]

    def _fade(self, passed: Slice) -> None:
        kept = 1 - self._policy.slice_ms / self._policy.baseline_ms
        self._before = {bucket: count * kept for bucket, count in self._before.items()}
        for bucket, count in passed.first_bytes.items():
            self._before[bucket] = self._before.get(bucket, 0.0) + count


def bucket_of(ms: int) -> int:
    """The bucket that a time falls into.

    >>> [bucket_of(ms) for ms in (0, 1, 2, 3, 1000, 1100)]
    [0, 0, 4, 6, 39, 40]
    """
    ms = max(ms, 1)
    octave = ms.bit_length() - 1
    return min(octave * _STEPS + (ms * _STEPS >> octave) - _STEPS, BUCKETS - 1)


def bucket_end_ms(bucket: int) -> int:
    """The time at which the next bucket begins.

    >>> all(bucket_of(bucket_end_ms(bucket)) == bucket + 1 for bucket in range(2 * 4, 100))
    True
    """
    octave, step = divmod(bucket + 1, _STEPS)
    return (_STEPS + step << octave) // _STEPS


def p95_ms(histogram: dict[int, float]) -> int:
    """The time within which 95 % of them fall, as the end of its bucket; 0 of nothing."""
    wanted = 0.95 * sum(histogram.values())
    reached = 0.0
    for bucket in sorted(histogram):
        reached += histogram[bucket]
        if reached >= wanted:
            return bucket_end_ms(bucket)
    return 0
