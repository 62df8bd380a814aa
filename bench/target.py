"""What is measured: a port that answers chat completions, and the processes whose CPU and memory count as its own."""

from enum import Enum

import msgspec


class Kind(Enum):
    DIRECT = "direct"  # the upstream itself: the floor of latency
    YARDSTICK = "yardstick"  # relays, meters nothing
    TOLLGATE = "tollgate"
    PEER = "peer"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: Kind
    port: int
    pids: tuple[int, ...]
    keys: tuple[str, ...] = ("sk-bench",)
    headers: tuple[tuple[str, str], ...] = ()  # that it wants beside the usual ones
    verbatim: bool = True  # answers with the upstream's bytes; False for a peer that writes its own
    stream_connections: int = 32  # fewer for a peer that would drown
