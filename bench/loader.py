"""The bench's end of the load process: gives it one order at a time and waits for the outcome."""

import sys
import urllib.request

import msgspec

from bench import wire
from bench.orders import AwaitStreams, ClosedLoop, HoldStreams, OpenLoop, Order, Outcome, Shot
from bench.processes import BenchError, Children
from bench.target import Target

OPEN_PER_S = 1000.0
HELD_PACE_MS = 5000  # of an open stream's events: 10,000 streams make 2,000 a second
TIMEOUT_S = 120.0  # of a load that ends after so many calls


class Loader:
    def __init__(self, children: Children, upstream: Target) -> None:
        self._child = children.start("load", [sys.executable, "-m", "bench.load"], pipes=True)
        self._log = children.log_of("load")
        self._release_url = f"http://127.0.0.1:{upstream.port}/bench/release"
        self._upstream = upstream
        self._decoder = msgspec.json.Decoder(Outcome)

    def plain(
        self,
        target: Target,
        *,
        connections: int,
        duration_s: float,
        traced: bool = False,
        size_bytes: int | None = None,
    ) -> Outcome:
        """Plain calls in a closed loop; `traced`: no head comes twice."""
        shot = _plain(target, size_bytes, traced=traced)
        return self._do(ClosedLoop(shot=shot, connections=connections, duration_s=duration_s))

    def counted(self, target: Target, *, connections: int, calls: int) -> Outcome:
        """So many plain calls in a closed loop."""
        order = ClosedLoop(shot=_plain(target), connections=connections, duration_s=TIMEOUT_S, calls_max=calls)
        return self._do(order)

    def each_key(
        self, target: Target, keys: tuple[str, ...], *, connections: int, duration_s: float, calls: int | None = None
    ) -> Outcome:
        """Plain calls in a closed loop, each with the next of `keys`."""
        shot = msgspec.structs.replace(_plain(target), keys=keys, every_key=True)
        return self._do(ClosedLoop(shot=shot, connections=connections, duration_s=duration_s, calls_max=calls))

    def scheduled(self, target: Target, *, rate_per_s: float, duration_s: float) -> Outcome:
        """Plain calls in an open loop, and as many direct ones between them."""
        shot, direct = _plain(target), _plain(self._upstream)
        return self._do(OpenLoop(shot=shot, direct=direct, rate_per_s=rate_per_s, duration_s=duration_s))

    def streamed(self, target: Target, *, events: int, pace_ms: int) -> Outcome:
        """One paced stream on each of the target's connections."""
        shot = _shot(target, wire.request_body(stream=True, events=events, pace_ms=pace_ms), wire.stream_bytes(events))
        streams = target.stream_connections
        return self._do(ClosedLoop(shot=shot, connections=streams, duration_s=TIMEOUT_S, calls_max=streams))

    def open_streams(self, target: Target, streams: int) -> Outcome:
        """Open `streams` more slow streams; the outcome counts all that are open."""
        body = wire.request_body(stream=True, events=1_000_000, pace_ms=HELD_PACE_MS)
        shot = _shot(target, body, None)
        if target.verbatim:
            shot = msgspec.structs.replace(shot, event_bytes=wire.EVENT_BYTES)
        return self._do(HoldStreams(shot=shot, streams=streams, open_per_s=OPEN_PER_S))

    def end_streams(self) -> Outcome:
        """Let the upstream end all open streams at once; the outcome counts those that arrived whole."""
        with urllib.request.urlopen(self._release_url, timeout=10) as reply:
            reply.read()
        return self._do(AwaitStreams())

    def _do(self, order: Order) -> Outcome:
        orders, outcomes = self._child.stdin, self._child.stdout
        assert orders is not None
        assert outcomes is not None
        try:
            orders.write(msgspec.json.encode(order) + b"\n")
            orders.flush()
        except BrokenPipeError as error:
            raise BenchError(f"the load process is gone: see {self._log}") from error
        line = outcomes.readline()
        if not line:
            raise BenchError(f"the load process is gone: see {self._log}")
        return self._decoder.decode(line)


def _plain(target: Target, size_bytes: int | None = None, *, traced: bool = False) -> Shot:
    body = wire.request_body(stream=False, size_bytes=size_bytes or wire.PLAIN_REQUEST_BYTES)
    return msgspec.structs.replace(_shot(target, body, wire.PLAIN_ANSWER_BYTES), traced=traced)


def _shot(target: Target, body: bytes, answer_bytes: int | None) -> Shot:
    known_bytes = answer_bytes if target.verbatim else None
    return Shot(port=target.port, keys=target.keys, headers=target.headers, body=body, answer_bytes=known_bytes)
