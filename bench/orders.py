"""What the bench tells its load process to do, and what comes back: one JSON line each way."""

import msgspec


class Shot(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests of a load are made of. Connection i repeats the same bytes, with key i modulo their number,
    unless one of the two switches says otherwise."""

    port: int
    keys: tuple[str, ...]
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes
    answer_bytes: int | None  # exact length of a right answer's body; None: whatever is not empty
    event_bytes: int = 0  # a right answer is a whole number of events of this length, and then the stream's end
    every_key: bool = False  # each request takes the next key, whatever its connection
    traced: bool = False  # each request has a `traceparent` of its own, so that no head comes twice


class ClosedLoop(msgspec.Struct, frozen=True, kw_only=True, tag="closed"):
    """Each connection sends its next call when its last is answered; ends after a time, or after so many calls."""

    shot: Shot
    connections: int
    duration_s: float
    calls_max: int | None = None


class OpenLoop(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Calls start on a fixed schedule, whatever the answers do; a latency counts from the scheduled instant.

    `direct` gets as many calls, each half an interval after one of `shot`: what slows one down slows both.
    """

    shot: Shot
    direct: Shot
    rate_per_s: float
    duration_s: float


class HoldStreams(msgspec.Struct, frozen=True, kw_only=True, tag="hold"):
    """Open `streams` more slow streams and report when each has delivered its first event; they stay open."""

    shot: Shot
    streams: int
    open_per_s: float


class AwaitStreams(msgspec.Struct, frozen=True, tag="await"):
    """Wait until every held stream has ended by itself, and report."""


Order = ClosedLoop | OpenLoop | HoldStreams | AwaitStreams


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a load did. Latencies are of right answers only; `errors` counts all others."""

    calls: int
    errors: int
    elapsed_s: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    complaint: str = ""  # the first thing that went wrong
    direct: "Outcome | None" = None  # of an open loop: the calls beside it
