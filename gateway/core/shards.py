"""Shards: the fixed number of groups that accounts fall into, and the names of their Redis keys (see lua/README.md).

All keys of a shard carry one hash tag, so they live in one Redis Cluster slot.
"""

from functools import lru_cache
from zlib import crc32

# Part of the stored data: a different number would send every account to another shard.
SHARDS = 64


@lru_cache(maxsize=16_384)
def shard_of(account_id: str) -> int:
    """The shard of an account, 0 … 63, the same in every process for ever.

    >>> shard_of("0197a3c2-0000-7000-8000-000000000001")
    24
    """
    return crc32(account_id.encode()) % SHARDS


class ShardKeys:
    """The Redis keys of one shard.

    >>> ShardKeys(7).hold("0197a3c2")
    b'tg:{s07}:hold:0197a3c2'
    """

    __slots__ = ("_account", "_caps", "_hold", "leases", "outbox", "shard")

    def __init__(self, shard: int) -> None:
        prefix = b"tg:{s%02d}:" % shard
        self.shard = prefix + b"shard"
        self.leases = prefix + b"leases"
        self.outbox = prefix + b"outbox"
        self._account = prefix + b"account:"
        self._hold = prefix + b"hold:"
        self._caps = prefix + b"caps:"

    def account(self, account_id: str) -> bytes:
        return self._account + account_id.encode()

    def hold(self, request_id: str) -> bytes:
        return self._hold + request_id.encode()

    def caps(self, level: str, holder_id: str) -> bytes:
        return b"%b%b:%b" % (self._caps, level.encode(), holder_id.encode())


SHARD_KEYS = tuple(ShardKeys(shard) for shard in range(SHARDS))
