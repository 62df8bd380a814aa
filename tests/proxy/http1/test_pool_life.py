"""How connections of the upstream pool end, and when a request is sent again."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.proxy.http1.client import (
    AnswerBroken,
    Buffers,
    ConnectFailed,
    HeadTimeout,
    Pool,
    PoolExhausted,
    Timeouts,
    Unanswered,
)
from tests.patience import PATIENCE_S
from tests.proxy.http1.wire import Script, always, ask, pool_to, read_head, upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"


def dying(requests: list[bytes], second: bytes = b"") -> Script:
    """Answers the first request of a connection, and the second with so much; then the connection ends."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (OK, second):
            requests.append(await read_head(reader))
            writer.write(answer)

    return script


async def test_a_silent_upstream_times_out_before_its_head_and_in_its_body() -> None:
    timeouts = Timeouts(head_s=0.05, body_idle_s=0.05)
    async with upstream(always(b"HTTP/1.1 100 Continue\r\n\r\n")) as origin, pool_to(origin, timeouts=timeouts) as pool:
        with pytest.raises(HeadTimeout):
            await ask(pool, b"POST", b"{}")
    async with upstream(always(OK[:-1])) as origin, pool_to(origin, timeouts=timeouts) as pool:
        with pytest.raises(AnswerBroken, match="stalled"):
            await (await ask(pool)).read(10)


async def test_an_aborted_answer_closes_its_connection_and_a_complete_one_does_not() -> None:
    closed = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        assert await reader.read() == b""
        closed.set()

    async with upstream(stream) as origin, pool_to(origin) as pool, asyncio.timeout(PATIENCE_S):
        answer = await ask(pool)
        with pytest.raises(AnswerBroken, match="given up"):
            await answer.pump(lambda data: answer.abort())
        await closed.wait()
    async with upstream(always(OK)) as origin, pool_to(origin) as pool:
        answer = await ask(pool)
        await answer.read(10)
        answer.abort()
        answer.resume()
        assert pool.idle == 1


async def test_a_cancelled_request_closes_its_connection() -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        assert await reader.read() == b""
        closed.set()

    async with upstream(silent) as origin, pool_to(origin) as pool, asyncio.timeout(PATIENCE_S):
        asking = asyncio.create_task(ask(pool))
        await asked.wait()
        asking.cancel()
        await closed.wait()
        assert asking.cancelled()


async def test_nothing_listening_and_no_room_are_told_apart() -> None:
    async with upstream(always(OK)) as origin:
        pass
    async with pool_to(origin) as pool:
        with pytest.raises(ConnectFailed):
            await ask(pool)
        assert pool.connections == 0
    async with upstream(always(b"")) as origin, pool_to(origin, connections_max=1) as pool:
        asking = asyncio.create_task(ask(pool))
        while not pool.connections:
            await asyncio.sleep(0)
        with pytest.raises(PoolExhausted):
            await ask(pool)
        asking.cancel()
        await asyncio.wait([asking])


async def test_a_connection_that_upstream_closed_while_idle_is_not_used() -> None:
    async with upstream(always(OK, close=True)) as origin, pool_to(origin) as pool:
        for _ in range(5):
            assert await (await ask(pool, b"POST", b"{}")).read(10) == b"ab"


async def test_what_upstream_said_unasked_just_now_is_no_answer_to_the_next_request() -> None:
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        async with pool_to(f"http://127.0.0.1:{listener.getsockname()[1]}") as pool, asyncio.timeout(PATIENCE_S):
            for method in (b"GET", b"POST"):
                asking = loop.create_task(ask(pool, method, b""))
                far = sockets.enter_context((await loop.sock_accept(listener))[0])
                assert (await loop.sock_recv(far, 1024)).startswith(method)
                await loop.sock_sendall(far, OK)
                assert await (await asking).read(10) == b"ab"
                far.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")  # unread by the loop as yet


async def test_only_an_idempotent_request_is_sent_again_when_a_used_connection_dies_unanswered() -> None:
    requests: list[bytes] = []
    async with upstream(dying(requests)) as origin, pool_to(origin) as pool:
        for _ in range(2):
            assert await (await ask(pool)).read(10) == b"ab"
        assert len(requests) == 3
        with pytest.raises(Unanswered):
            await ask(pool, b"POST", b"")
        assert len(requests) == 4


@pytest.mark.parametrize("part", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", OK[:-1]])
async def test_a_request_of_whose_answer_a_byte_arrived_is_never_sent_again(part: bytes) -> None:
    requests: list[bytes] = []
    async with upstream(dying(requests, part)) as origin, pool_to(origin) as pool:
        assert await (await ask(pool)).read(10) == b"ab"
        with pytest.raises(AnswerBroken, match="cut"):
            await (await ask(pool)).read(10)
    assert len(requests) == 2


async def test_a_body_that_is_iterated_is_never_sent_again() -> None:
    requests: list[bytes] = []

    async def once() -> AsyncIterator[bytes]:
        yield b"abc"

    async with upstream(dying(requests)) as origin, pool_to(origin) as pool:
        await (await ask(pool)).read(10)
        with pytest.raises(Unanswered):
            await ask(pool, b"PUT", once())
    assert len(requests) == 2


async def test_a_new_connection_that_dies_unanswered_is_not_tried_again() -> None:
    requests = 0

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_head(reader)
        requests += 1

    async with upstream(die) as origin, pool_to(origin) as pool:
        with pytest.raises(Unanswered):
            await ask(pool)
    assert requests == 1


async def test_idle_and_old_connections_are_closed() -> None:
    closed = asyncio.Event()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await always(OK)(reader, writer)
        finally:
            closed.set()

    quick = Buffers(sweep_s=0.02)
    for timeouts in (Timeouts(idle_s=0.02), Timeouts(age_s_max=0.0)):
        closed.clear()
        async with upstream(count) as origin, pool_to(origin, timeouts=timeouts, buffers=quick) as pool:
            async with asyncio.timeout(PATIENCE_S):
                await (await ask(pool)).read(10)
                while not closed.is_set():
                    await asyncio.sleep(0.05)
                    await (await ask(pool)).read(10) if timeouts.age_s_max == 0.0 else None


@pytest.mark.parametrize(("said", "is_kept"), [(b"timeout=9", True), (b"timeout=1", False), (b"max=5", True)])
async def test_a_connection_is_not_kept_that_upstream_is_about_to_drop(said: bytes, is_kept: bool) -> None:
    answer = b"HTTP/1.1 200 OK\r\nKeep-Alive: %b\r\nContent-Length: 2\r\n\r\nab" % said
    async with upstream(always(answer)) as origin, pool_to(origin) as pool:
        assert await (await ask(pool)).read(10) == b"ab"
        assert pool.idle == is_kept


async def test_an_idle_connection_is_closed_before_upstream_drops_it() -> None:
    answer = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2, max=99\r\nContent-Length: 2\r\n\r\nab"
    async with upstream(always(answer)) as origin, pool_to(origin, timeouts=Timeouts(idle_s=9999.0)) as pool:
        await (await ask(pool)).read(10)
        async with asyncio.timeout(PATIENCE_S):
            while pool.connections:
                await asyncio.sleep(0.01)


async def test_a_connection_that_grows_old_while_idle_is_closed_and_one_at_work_is_not() -> None:
    proceed = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK[:-1])
        await proceed.wait()
        writer.write(OK[-1:])
        await reader.read()

    async with upstream(always(OK)) as origin, pool_to(origin, timeouts=Timeouts(age_s_max=0.1)) as pool:
        await (await ask(pool)).read(10)
        assert pool.idle == 1
        async with asyncio.timeout(PATIENCE_S):
            while pool.connections:
                await asyncio.sleep(0.01)
    async with upstream(script) as origin, pool_to(origin, timeouts=Timeouts(age_s_max=0.05)) as pool:
        reading = asyncio.create_task((await ask(pool)).read(10))
        await asyncio.wait([reading], timeout=0.2)
        proceed.set()
        assert await reading == b"ab"


async def test_closing_the_pool_breaks_what_is_under_way() -> None:
    async with upstream(always(OK[:-1])) as origin, pool_to(origin) as pool:
        reading = asyncio.create_task((await ask(pool)).read(10))
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(AnswerBroken):
            await reading
        with pytest.raises(PoolExhausted):
            await ask(pool)


def test_an_origin_is_a_scheme_a_host_and_perhaps_a_port() -> None:
    for wrong in ("api.openai.com", "ftp://a", "http://a/v1", "https://a"):
        with pytest.raises(ValueError):
            Pool(wrong)
