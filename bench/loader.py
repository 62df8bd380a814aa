"""The bench's end of the load process: gives it one order at a time and waits for the outcome."""

import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from bench import wire
from bench.orders import AwaitStreams, ClosedLoop, HoldStreams, OpenLoop, Order, Outcome, Shot
from bench.processes import BenchError, Children
from bench.target import Target

OPEN_PER_S = 500.0


class Loader:
    def __init__(self, children: Children, upstream: Target) -> None:
        self._child = children.start("load", [sys.executable, "-m", "bench.load"], pipes=True)
        self._log = children.log_of("load")
        self._release_url = f"http://127.0.0.1:{upstream.port}/bench/release"
        self._upstream = upstream
        self._decoder = msgspec.json.Decoder(Outcome)

    def plain(self, target: Target, *, connections: int, duration_s: float, calls_max: int | None = None) -> Outcome:
        """Plain calls in a closed loop."""
        shot = _shot(target, wire.request_body(stream=False), wire.PLAIN_ANSWER_BYTES)
        return self._do(ClosedLoop(shot=shot, connections=connections, duration_s=duration_s, calls_max=calls_max))

    def scheduled(self, target: Target, *, rate_per_s: float, duration_s: float) -> Outcome:
        """Plain calls in an open loop, and as many direct ones between them."""
        body = wire.request_body(stream=False)
        shot = _shot(target, body, wire.PLAIN_ANSWER_BYTES)
        direct = _shot(self._upstream, body, wire.PLAIN_ANSWER_BYTES)
        return self._do(OpenLoop(shot=shot, direct=direct, rate_per_s=rate_per_s, duration_s=duration_s))

    def streamed(self, target: Target, *, events: int, pace_ms: int) -> Outcome:
        """One paced stream on each of the target's connections."""
        shot = _shot(target, wire.request_body(stream=True, events=events, pace_ms=pace_ms), wire.stream_bytes(events))
        streams = target.stream_connections
        return self._do(ClosedLoop(shot=shot, connections=streams, duration_s=120, calls_max=streams))

    @contextmanager
    def held_streams(self, target: Target, streams: int) -> Iterator[Outcome]:
        """While this context lasts, `streams` slow streams are open; then all of them end as streams do."""
        pace_ms = max(1000, streams // 2)  # at most 2,000 events a second in all
        body = wire.request_body(stream=True, events=1_000_000, pace_ms=pace_ms)
        opened = self._do(HoldStreams(shot=_shot(target, body, None), streams=streams, open_per_s=OPEN_PER_S))
        try:
            yield opened
        finally:
            with urllib.request.urlopen(self._release_url, timeout=10) as reply:
                reply.read()
            self._do(AwaitStreams())

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


def _shot(target: Target, body: bytes, answer_bytes: int | None) -> Shot:
    known_bytes = answer_bytes if target.verbatim else None
    return Shot(port=target.port, keys=target.keys, headers=target.headers, body=body, answer_bytes=known_bytes)
