"""Shards: the fixed number of groups that accounts fall into. All keys of a shard live in one Redis Cluster slot."""

from zlib import crc32

# Part of the stored data: a different number would send every account to another shard.
SHARDS = 64


def shard_of(account_id: str) -> int:
    """The shard of an account, 0 … 63, the same in every process for ever.

    >>> shard_of("0197a3c2-0000-7000-8000-000000000001")
    24
    """
    return crc32(account_id.encode()) % SHARDS
