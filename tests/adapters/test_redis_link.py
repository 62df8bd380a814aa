"""The link to Redis: pipelined by tick, fast to fail, quick to come back."""

import asyncio
import gc
import os
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvloop

from gateway.adapters.redis.link import RedisLink, RedisScriptError, RedisUnavailable
from gateway.sandbox.valkey import EmbeddedRedis
from tests.patience import PATIENCE_S

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def opened(url: str, **options: int) -> AsyncIterator[RedisLink]:
    link = RedisLink(url, **options)
    await link.open()
    try:
        yield link
    finally:
        await link.close()


@asynccontextmanager
async def scripted_server(handle: Handler, path: Path | None = None) -> AsyncIterator[str]:
    """A server that speaks as `handle` does, on TCP or the socket `path`; yields its URL."""
    served: set[asyncio.Task[object]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        try:
            await handle(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    if path is not None:
        server = await asyncio.start_unix_server(serve, path)
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"unix://{path}" if path else f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*served)


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A server that the test may stop and kill."""
    store = EmbeddedRedis(tmp_path / "redis", durable=False)
    await store.start()
    yield store
    await store.stop()


async def timed(awaitable: Awaitable[object]) -> float:
    """How many seconds it took to fail."""
    start = asyncio.get_running_loop().time()
    with pytest.raises(RedisUnavailable):
        await awaitable
    return asyncio.get_running_loop().time() - start


async def command(link: RedisLink, *arguments: bytes) -> object:
    return await link.command(*arguments)


async def test_replies_reach_the_commands_they_answer(redis_url: str) -> None:
    async with opened(redis_url) as link:
        sent = [link.command(b"ECHO", b"%d" % number) for number in range(1000)]
        assert await asyncio.gather(*sent) == [b"%d" % number for number in range(1000)]
        assert link.pending == 0


async def test_the_commands_of_one_tick_leave_as_one_write() -> None:
    reads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            reads.append(data)
            writer.write(b"+PONG\r\n" * data.count(b"PING"))

    async with scripted_server(handle) as url, opened(url) as link:
        reads.clear()
        await asyncio.gather(*(link.command(b"PING") for _ in range(50)))
        assert len(reads) == 1


async def test_an_error_reply_fails_only_its_own_command(redis_url: str) -> None:
    async with opened(redis_url) as link:
        await link.command(b"SET", b"text", b"x")
        good, bad, also_good = (link.command(b"GET", b"text"), link.command(b"INCR", b"text"), link.command(b"PING"))
        with pytest.raises(RedisScriptError, match="not an integer"):
            await bad
        assert (await good, await also_good) == (b"x", b"PONG")


@pytest.mark.parametrize("code", ["LOADING", "MOVED", "BUSY", "OOM", "MISCONF", "CLUSTERDOWN"])
async def test_an_error_of_the_servers_state_is_unavailability(code: str) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(b"+PONG\r\n" if b"PING" in data else f"-{code} as it is\r\n".encode())

    async with scripted_server(handle) as url, opened(url) as link:
        with pytest.raises(RedisUnavailable, match=code):
            await link.command(b"GET", b"x")
        assert link.available


async def test_a_server_that_became_a_replica_is_left_and_looked_up_again() -> None:
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        is_first = connections == 1
        while data := await reader.read(65536):
            if b"PING" in data:
                writer.write(b"+PONG\r\n")
            else:
                writer.write(b"-READONLY You can't write against a read only replica.\r\n" if is_first else b"+OK\r\n")

    async with scripted_server(handle) as url, opened(url) as link:
        with pytest.raises(RedisUnavailable, match="READONLY"):
            await link.command(b"SET", b"x", b"1")
        assert not link.available
        await link.wait_available()
        assert await link.command(b"SET", b"x", b"1") == b"OK"


async def test_a_caller_that_gave_up_disturbs_nobody(redis_url: str) -> None:
    async with opened(redis_url) as link:
        gone, stays = link.command(b"ECHO", b"1"), link.command(b"ECHO", b"2")
        gone.cancel()
        assert await stays == b"2"
        assert await link.command(b"ECHO", b"3") == b"3"


async def test_a_stopped_redis_fails_callers_within_250_ms_and_then_at_once(own_redis: EmbeddedRedis) -> None:
    async with opened(own_redis.url) as link:
        assert own_redis.pid is not None
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            assert max(await asyncio.gather(*(timed(command(link, b"PING")) for _ in range(20)))) < 0.25
            assert await timed(command(link, b"PING")) < 0.1
            assert not link.available
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        await asyncio.wait_for(link.wait_available(), PATIENCE_S)
        assert await link.command(b"PING") == b"PONG"


async def test_a_killed_redis_fails_callers_at_once_and_is_found_again(own_redis: EmbeddedRedis) -> None:
    async with opened(own_redis.url, reconnect_backoff_ms_max=100) as link:
        waiting = asyncio.ensure_future(timed(command(link, b"BLPOP", b"nothing", b"0")))
        await asyncio.sleep(0)  # let it be sent
        own_redis.kill()
        assert await waiting < 0.25
        assert await timed(command(link, b"PING")) < 0.1
        await own_redis.wait()
        await own_redis.start()
        await asyncio.wait_for(link.wait_available(), PATIENCE_S)
        assert await link.command(b"PING") == b"PONG"


async def test_a_black_hole_never_counts_as_redis() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass

    async with scripted_server(handle) as url, opened(url, command_timeout_ms=20) as link:
        assert not link.available
        with pytest.raises(RedisUnavailable):
            link.command(b"PING")


async def test_a_reply_that_lies_in_the_socket_while_the_process_is_busy_is_in_time(redis_url: str) -> None:
    async with opened(redis_url, command_timeout_ms=20) as link:
        busy_until = asyncio.get_running_loop().time() + 0.06
        waiting = link.command(b"PING")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        while asyncio.get_running_loop().time() < busy_until:
            pass
        assert await waiting == b"PONG"
        assert link.available


async def test_beyond_the_bound_of_unanswered_commands_callers_are_refused(redis_url: str) -> None:
    async with opened(redis_url, pending_commands_max=3) as link:
        sent = [link.command(b"PING") for _ in range(3)]
        with pytest.raises(RedisUnavailable, match="too many"):
            link.command(b"PING")
        assert await asyncio.gather(*sent) == [b"PONG"] * 3
        assert await link.command(b"PING") == b"PONG"


@pytest.mark.parametrize("rubbish", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+PONG\r\n+PONG\r\n"])
async def test_what_is_no_reply_ends_the_connection(rubbish: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"+PONG\r\n")
        await reader.read(65536)
        writer.write(rubbish)
        await reader.read()

    async with scripted_server(handle) as url, opened(url) as link:
        sent = link.command(b"GET", b"x")
        try:
            await sent
        except RedisUnavailable:
            pass
        with pytest.raises(RedisUnavailable):
            await link.command(b"GET", b"x")


async def test_closing_fails_what_is_unanswered(redis_url: str) -> None:
    link = RedisLink(redis_url, command_timeout_ms=5000)
    await link.open()
    waiting = link.command(b"BLPOP", b"nothing", 0)
    await link.close()
    with pytest.raises(RedisUnavailable):
        await waiting
    with pytest.raises(RedisUnavailable):
        link.command(b"PING")


async def test_failures_that_nobody_awaits_are_not_reported(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    link = RedisLink(redis_url, command_timeout_ms=5000)
    await link.open()
    link.command(b"BLPOP", b"nothing", 0)
    link.command(b"NONSENSE")
    await link.close()
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_redis_may_come_after_the_gateway(tmp_path: Path) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(b"+PONG\r\n" * data.count(b"PING"))

    path = tmp_path / "redis.sock"
    async with opened(f"unix://{path}", reconnect_backoff_ms_max=50) as link:
        assert not link.available
        async with scripted_server(handle, path):
            await asyncio.wait_for(link.wait_available(), PATIENCE_S)
            assert await link.command(b"PING") == b"PONG"
            await link.close()


async def test_user_password_and_database_of_the_url_are_used(own_redis: EmbeddedRedis) -> None:
    parts = urlsplit(own_redis.url)
    async with opened(own_redis.url) as admin:
        await admin.command(b"ACL", b"SETUSER", b"tollgate", b"on", b">p@ss", b"~*", b"+@all")
        async with opened(f"redis://tollgate:p%40ss@127.0.0.1:{parts.port}/3") as link:
            assert await link.command(b"ACL", b"WHOAMI") == b"tollgate"
            await link.command(b"SET", b"x", b"1")
        assert await admin.command(b"GET", b"x") is None
        await admin.command(b"SELECT", 3)
        assert await admin.command(b"GET", b"x") == b"1"
    async with opened(f"redis://:wrong@127.0.0.1:{parts.port}/0") as refused:
        assert not refused.available


async def test_tls_is_spoken_and_certificates_are_verified(redis_url: str) -> None:
    certificate = Path(__file__).with_name("localhost.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    plain = urlsplit(redis_url)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_redis, from_writer = await asyncio.open_connection(plain.hostname, plain.port)
        await asyncio.wait(
            [asyncio.ensure_future(pump(reader, from_writer)), asyncio.ensure_future(pump(to_redis, writer))]
        )
        writer.close()
        from_writer.close()

    async with await asyncio.start_server(handle, "localhost", 0, ssl=context) as server:
        address = f"rediss://:{plain.password or ''}@localhost:{server.sockets[0].getsockname()[1]}/0"
        async with opened(f"{address}?ssl_ca_certs={certificate}", command_timeout_ms=2000) as link:
            assert await link.command(b"PING") == b"PONG"
        async with opened(f"{address}?ssl_cert_reqs=none", command_timeout_ms=2000) as trusting:
            assert trusting.available
        async with opened(address, command_timeout_ms=2000) as distrusting:
            assert not distrusting.available


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    writer.close()


def test_it_works_on_uvloop_too(redis_url: str) -> None:
    async def main() -> object:
        async with opened(redis_url) as link:
            return await asyncio.gather(*(link.command(b"ECHO", b"x") for _ in range(100)))

    assert uvloop.run(main()) == [b"x"] * 100
