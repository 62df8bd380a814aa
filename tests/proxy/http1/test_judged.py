"""The edge's reader beside h11: whatever it accepts, h11 accepts as the same requests, however the bytes are split."""

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.proxy.http1.edge import Connection
from gateway.proxy.http1.server import Server
from tests.proxy.http1 import fuzz
from tests.proxy.http1.wire import hello


def judged(parts: list[bytes]) -> int:
    loop = asyncio.new_event_loop()
    try:
        server = Server(hello)
        return fuzz.judge(Connection(server, loop), server.known_heads, parts)
    finally:
        loop.close()


@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_any_split_of_valid_requests_gives_the_same_requests(data: st.DataObject) -> None:
    stream = data.draw(st.sampled_from([base for base in fuzz.REQUESTS if b"chunked" not in base]))
    stream += data.draw(st.sampled_from(fuzz.REQUESTS))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b]
    assert judged(parts) == (1 if b"Connection: close" in stream[: -len(stream) // 2] else 2)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
@settings(deadline=None, max_examples=100)
def test_random_bytes_are_refused_or_wait_for_more(parts: list[bytes]) -> None:
    judged(parts)


async def test_damaged_messages_are_read_as_h11_reads_them_or_refused() -> None:
    await fuzz.fuzz(seconds=1.0, seed=random.Random(7).randrange(2**32))
