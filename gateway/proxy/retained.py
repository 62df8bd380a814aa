"""Second copies of settlements: what Redis' outbox has, kept here until Postgres has it. Pure bookkeeping, bounded."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.adapters.redis.credits import EventId
from gateway.core.holds import Settlement
from gateway.core.shards import SHARDS, shard_of


class Copy(NamedTuple):
    """A settlement with the place of its event in the outbox of its shard."""

    event_id: EventId
    settlement: Settlement


class Retained:
    def __init__(self, copies_max: int) -> None:
        self._copies_max = copies_max
        self._shards: list[deque[Copy]] = [deque() for _ in range(SHARDS)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, event_id: EventId, settlement: Settlement) -> None:
        self._shards[shard_of(settlement.terms.account_id)].append(Copy(event_id, settlement))
        self._count += 1
        if self._count > self._copies_max:
            # Postgres is far behind. Redis' outbox still has the event; only the second copy goes.
            max(self._shards, key=len).popleft()
            self._count -= 1

    def take_passed(self, positions: Sequence[EventId], count: int) -> list[Copy]:
        """Hand out at most `count` copies whose place is not behind the position of their shard."""
        taken: list[Copy] = []
        for copies, position in zip(self._shards, positions, strict=True):
            while copies and copies[0].event_id <= position and len(taken) < count:
                taken.append(copies.popleft())
        self._count -= len(taken)
        return taken

    def take_shard(self, shard: int) -> list[Copy]:
        """Hand out all copies of `shard`."""
        taken = list(self._shards[shard])
        self._shards[shard].clear()
        self._count -= len(taken)
        return taken

    def give_back(self, copies: Iterable[Copy]) -> None:
        """Take again what was handed out, in its order and in front of what came meanwhile."""
        for copy in reversed(list(copies)):
            self._shards[shard_of(copy.settlement.terms.account_id)].appendleft(copy)
            self._count += 1
