"""The transport beside h11 and aiohttp: whatever it accepts, they accept as the same, however the bytes are split."""

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.proxy.http1.edge import Connection
from gateway.proxy.http1.server import Server
from tests.proxy.http1.damage import REQUESTS
from tests.proxy.http1.fuzz import fuzz
from tests.proxy.http1.judges import judge
from tests.proxy.http1.wire import hello


def judged(parts: list[bytes]) -> int:
    async def judge_here() -> int:
        server = Server(hello)
        return judge(Connection(server, asyncio.get_running_loop()), server.known_heads, parts)

    return asyncio.run(judge_here())


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_any_split_of_valid_requests_gives_the_same_requests(data: st.DataObject) -> None:
    stream = data.draw(st.sampled_from([base for base in REQUESTS if b"chunked" not in base]))
    stream += data.draw(st.sampled_from(REQUESTS))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b]
    assert judged(parts) == (1 if b"Connection: close" in stream[: -len(stream) // 2] else 2)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
@settings(deadline=None, max_examples=60)
def test_random_bytes_are_refused_or_wait_for_more(parts: list[bytes]) -> None:
    judged(parts)


async def test_damaged_and_contradictory_messages_are_read_as_strict_parsers_read_them_or_refused() -> None:
    tally = await fuzz(streams=2000, seed=random.Random(7).randrange(2**32))
    assert tally.requests > 500
    assert tally.accepted > 20
