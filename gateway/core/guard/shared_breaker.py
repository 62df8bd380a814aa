"""One gateway's share in a breaker that a fleet agrees on; pure, with the clock as an argument.

It decides by what it knows: the fleet's counters as last heard, and its own since. What it decided holds here at once,
and is proposed to the fleet with the next report; the fleet takes it if nothing else was decided meanwhile, and if so,
that holds here too. A fleet that does not answer leaves the gateway to its own counters.
"""

from collections.abc import Iterable
from typing import NamedTuple

from gateway.core.guard.breaker import (
    NOTHING,
    Breaker,
    BreakerPolicy,
    Buckets,
    Cause,
    Counts,
    Event,
    Signal,
    State,
    after,
    probe_event,
    trips,
)

BEGUN = Counts._fields.index("begun")


class Report(NamedTuple):
    """What a gateway tells the fleet: its breaker, the version that it came from, and what was counted since."""

    base_version: int
    breaker: Breaker
    age_ms: int  # since the breaker changed
    left_ms: int  # of an open breaker's time
    counts: Counts


class Standing(NamedTuple):
    """What the fleet answers: the breaker that holds, and what all gateways counted under it."""

    breaker: Breaker  # its times mean nothing here: they are of another clock
    age_ms: int
    left_ms: int
    buckets: tuple[tuple[int, Counts], ...]  # age of the bucket, in buckets → counts


class SharedBreaker:
    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self.breaker = Breaker()
        self._base_version = 0
        self._reported: Breaker | None = None
        self._fleet: dict[int, Counts] = {}
        self._alone: dict[int, Counts] = {}  # what no answer of the fleet has confirmed
        self._fresh = [0] * len(NOTHING)  # since the last report
        self._is_alone = False  # the last report was not answered
        self._used_ms = 0

    @property
    def refuses(self) -> bool:
        return self.breaker.state is not State.CLOSED

    @property
    def may_probe(self) -> bool:
        """Whether it is half open, and by agreement: what follows from an opinion of one's own is not agreed to."""
        is_agreed = self._is_alone or self.breaker.version == self._base_version
        return is_agreed and self.breaker.state is State.HALF_OPEN

    def left_ms(self, now_ms: int) -> int:
        """How much of its time an open breaker has left."""
        return max(0, self.breaker.until_ms - now_ms) if self.breaker.state is State.OPEN else 0

    def is_idle(self, now_ms: int) -> bool:
        """Whether there is nothing to tell of it, nor to hear: closed, and not called for as long as calls count."""
        is_told = self.breaker.version == self._base_version and not any(self._fresh)
        return is_told and not self.refuses and now_ms - self._used_ms > self._policy.window_ms

    # --- what happens --------------------------------------------------------------------------------------------

    def begin(self) -> int:
        """Count a call that is sent upstream; returns the version that it began under, for `record`."""
        self._fresh[BEGUN] += 1
        return self.breaker.version

    def record(self, signal: Signal, version: int) -> None:
        """Count the end of a call, unless it began under another version. After a failure, `judge`."""
        if version == self.breaker.version:
            self._fresh[signal] += 1

    def judge(self, now_ms: int, chance: float) -> None:
        """Open the breaker if what is known by now says so; `chance` in [0, 1)."""
        if self.breaker.state is State.CLOSED:
            cause = trips(self._known(now_ms), now_ms, self._policy)
            if cause is not Cause.NONE:
                self._move(Event.TRIPPED, now_ms, chance, cause)

    def tick(self, now_ms: int) -> None:
        """Let time pass: an open breaker becomes half open."""
        if self.breaker.state is State.OPEN and now_ms >= self.breaker.until_ms:
            self._move(Event.ELAPSED, now_ms, 0.0, self.breaker.cause)

    def probed(self, succeeded: bool, now_ms: int, chance: float) -> None:
        """A probe of this gateway came to its end."""
        if self.breaker.state is State.HALF_OPEN:
            self._move(probe_event(self.breaker, succeeded, self._policy), now_ms, chance, Cause.PROBE)

    # --- the fleet -----------------------------------------------------------------------------------------------

    def report(self, now_ms: int) -> Report:
        """What to tell the fleet now; then `adopt` its answer, or `miss` it, before the next."""
        counts, self._fresh = Counts(*self._fresh), [0] * len(NOTHING)
        if counts != NOTHING:
            self._used_ms = now_ms
        self._alone = self._with(self._alone, now_ms, counts)
        self._reported = self.breaker
        return Report(self._base_version, self.breaker, now_ms - self.breaker.changed_ms, self.left_ms(now_ms), counts)

    def miss(self) -> None:
        """The fleet did not answer: what was reported stays this gateway's own knowledge."""
        self._reported, self._is_alone = None, True

    def adopt(self, standing: Standing, now_ms: int, chance: float) -> None:
        """The fleet's answer to the last report."""
        theirs, reported = standing.breaker, self._reported
        newest = now_ms // self._policy.bucket_ms
        self._reported, self._is_alone = None, False
        is_ours = reported is not None and (theirs.version, theirs.state) == (reported.version, reported.state)
        if is_ours or theirs.version == self._base_version:
            self._base_version = theirs.version
            if theirs.version == self.breaker.version:
                self._alone.clear()
                self._fleet = _merged((newest - age, counts) for age, counts in standing.buckets)
        else:
            self._base_version = theirs.version
            self._forget_counts()
            self.breaker = Breaker(
                state=theirs.state,
                version=theirs.version,
                changed_ms=now_ms - standing.age_ms,
                until_ms=now_ms + standing.left_ms,
                openings=theirs.openings,
                successes=theirs.successes,
                cause=theirs.cause,
            )
            self._fleet = _merged((newest - age, counts) for age, counts in standing.buckets)
        self.judge(now_ms, chance)

    # --- inside --------------------------------------------------------------------------------------------------

    def _move(self, event: Event, now_ms: int, chance: float, cause: Cause) -> None:
        moved = after(self.breaker, event, now_ms, self._policy, chance=chance, cause=cause)
        if moved is not self.breaker:
            self.breaker = moved
            self._forget_counts()

    def _forget_counts(self) -> None:
        """Counts belong to one version: those of another say nothing about this one."""
        self._fleet, self._alone, self._fresh = {}, {}, [0] * len(NOTHING)

    def _known(self, now_ms: int) -> Buckets:
        own = self._with(self._alone, now_ms, Counts(*self._fresh))
        return _merged((*self._fleet.items(), *own.items()))

    def _with(self, buckets: Buckets, now_ms: int, counts: Counts) -> dict[int, Counts]:
        """These buckets with some more in the newest, without those that the window has left behind."""
        newest = now_ms // self._policy.bucket_ms
        kept = [(number, each) for number, each in buckets.items() if number > newest - self._policy.buckets]
        return _merged((*kept, (newest, counts)))


def _merged(buckets: Iterable[tuple[int, Counts]]) -> dict[int, Counts]:
    merged: dict[int, Counts] = {}
    for number, counts in buckets:
        merged[number] = merged.get(number, NOTHING).plus(counts)
    return merged
