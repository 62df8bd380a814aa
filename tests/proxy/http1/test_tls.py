"""TLS to the upstream, with a certificate authority of our own: who is trusted, and what a new connection reuses."""

import asyncio
import contextlib
import datetime
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from gateway.proxy.http1.client import AnswerBroken, Buffers, ConnectFailed, Pool, Timeouts
from gateway.proxy.http1.tls import client_context
from tests.patience import PATIENCE_S
from tests.proxy.http1.wire import Script, hang_up, read_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"
LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class TlsUpstream:
    """Answers each request with what came, and keeps what its connections were."""

    def __init__(self) -> None:
        self.resumed: list[bool] = []
        self.bodies: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.resumed.append(writer.get_extra_info("ssl_object").session_reused)
        try:
            while True:
                head = await read_head(reader)
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0] or 0)
                body = await reader.readexactly(length)
                self.bodies.append(body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (length, body))
                await writer.drain()
                if head.startswith(b"POST /last "):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            await hang_up(writer)


@asynccontextmanager
async def tls_upstream(
    certificate: trustme.LeafCert, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, *, serve: Script | None = None
) -> AsyncIterator[TlsUpstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    certificate.configure_cert(context)
    upstream = TlsUpstream()
    server = await asyncio.start_server(serve or upstream.serve, "127.0.0.1", 0, ssl=context)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()


@asynccontextmanager
async def pool_to(upstream: TlsUpstream, ca_file: Path, *, age_s_max: float = PATIENCE_S) -> AsyncIterator[Pool]:
    pool = Pool(
        f"https://localhost:{upstream.port}",
        timeouts=Timeouts(connect_s=PATIENCE_S, age_s_max=age_s_max),
        buffers=Buffers(sweep_s=0.01),
        ssl=client_context(str(ca_file)),
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield pool
    finally:
        await pool.close()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


async def post(pool: Pool, body: bytes = b"ab", target: bytes = b"/") -> bytes:
    return await (await pool.send(b"POST", target, [], body)).read(1 << 26)


async def test_large_bodies_pass_both_ways_on_one_connection(authority: trustme.CA, ca_file: Path) -> None:
    body = bytes(range(256)) * 20_000
    async with tls_upstream(authority.issue_cert("localhost")) as upstream, pool_to(upstream, ca_file) as pool:
        for _ in range(2):
            assert await post(pool, body) == body
        assert pool.connections == len(upstream.resumed) == 1


async def test_all_of_an_answer_arrives_though_upstream_leaves_right_behind_it_and_its_reader_is_slow(
    authority: trustme.CA, ca_file: Path
) -> None:
    body = bytes(range(256)) * 8_000
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    def answer_and_leave(listener: socket.socket) -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    upstream = TlsUpstream()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream.port = listener.getsockname()[1]
        for _ in range(5):
            async with pool_to(upstream, ca_file) as pool:
                leaving = asyncio.create_task(asyncio.to_thread(answer_and_leave, listener))
                answer = await pool.send(b"GET", b"/", [], None)
                taken = []
                async for piece in answer.chunks():
                    taken.append(piece)
                    await asyncio.sleep(0.001)  # reading is paused for most of the time
                await leaving
                assert b"".join(taken) == body
                assert pool.idle == 0


async def test_a_connection_is_not_used_again_behind_a_body_that_upstream_has_not_taken(
    authority: trustme.CA, ca_file: Path
) -> None:
    is_seen, is_gone = asyncio.Event(), asyncio.Event()

    async def answer_and_read_no_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")
        await is_seen.wait()
        writer.transport.abort()
        is_gone.set()

    certificate = authority.issue_cert("localhost")
    async with tls_upstream(certificate, serve=answer_and_read_no_more) as upstream, pool_to(upstream, ca_file) as pool:
        assert await post(pool, bytes(1 << 25)) == b"ab"
        assert pool.idle == 0
        is_seen.set()
        await is_gone.wait()


@pytest.mark.parametrize("wrong", ["authority", "name", "date"])
async def test_a_certificate_that_does_not_verify_gets_no_byte_of_a_request(
    authority: trustme.CA, ca_file: Path, wrong: str
) -> None:
    certificate = {
        "authority": lambda: trustme.CA().issue_cert("localhost"),
        "name": lambda: authority.issue_cert("api.openai.com"),
        "date": lambda: authority.issue_cert("localhost", not_after=LONG_AGO),
    }[wrong]()
    async with tls_upstream(certificate) as upstream, pool_to(upstream, ca_file) as pool:
        for _ in range(2):
            with pytest.raises(ConnectFailed, match=r"(?i)certificate verify failed"):
                await post(pool)
        assert upstream.bodies == []
        assert pool.connections == 0


async def test_the_systems_authorities_do_not_know_ours(authority: trustme.CA) -> None:
    async with tls_upstream(authority.issue_cert("localhost")) as upstream:
        pool = Pool(f"https://localhost:{upstream.port}", ssl=client_context())
        with pytest.raises(ConnectFailed, match=r"(?i)certificate verify failed"):
            await post(pool)
        await pool.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_new_connection_resumes_the_session_of_an_old_one(
    authority: trustme.CA, ca_file: Path, version: ssl.TLSVersion
) -> None:
    async with tls_upstream(authority.issue_cert("localhost"), version) as upstream, pool_to(upstream, ca_file) as pool:
        for _ in range(3):
            assert await post(pool, target=b"/last") == b"ab"
        await asyncio.gather(*(post(pool) for _ in range(3)))
        assert upstream.resumed == [False, True, True, True, True, True]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_connections_made_at_once_before_there_is_a_session_are_made_all_the_same(
    authority: trustme.CA, ca_file: Path, version: ssl.TLSVersion
) -> None:
    async with tls_upstream(authority.issue_cert("localhost"), version) as upstream, pool_to(upstream, ca_file) as pool:
        assert await asyncio.gather(*(post(pool) for _ in range(20))) == [b"ab"] * 20
        assert await post(pool, target=b"/last") == b"ab"


async def test_a_session_of_another_server_is_no_way_around_its_certificate(
    authority: trustme.CA, ca_file: Path
) -> None:
    async with tls_upstream(authority.issue_cert("localhost")) as right, pool_to(right, ca_file) as pool:
        await post(pool, target=b"/last")
        port = right.port
        async with tls_upstream(trustme.CA().issue_cert("localhost")) as wrong:
            context = client_context(str(ca_file))
            for origin, is_trusted in ((port, True), (wrong.port, False), (port, True)):
                other = Pool(f"https://localhost:{origin}", ssl=context)
                if is_trusted:
                    assert await post(other) == b"ab"
                else:
                    with pytest.raises(ConnectFailed):
                        await post(other)
                await other.close()
        assert wrong.bodies == []
        assert right.resumed == [False, False, True]


async def test_an_old_connection_is_not_used_again(authority: trustme.CA, ca_file: Path) -> None:
    async with (
        tls_upstream(authority.issue_cert("localhost")) as upstream,
        pool_to(upstream, ca_file, age_s_max=0.1) as pool,  # one of a tick may be too old before its first request
    ):
        while len(upstream.resumed) < 3:
            assert await post(pool) == b"ab"
            await asyncio.sleep(0.01)


async def test_a_connection_that_upstream_closed_while_idle_is_not_used(authority: trustme.CA, ca_file: Path) -> None:
    async with tls_upstream(authority.issue_cert("localhost")) as upstream, pool_to(upstream, ca_file) as pool:
        for _ in range(5):
            assert await post(pool, target=b"/last") == b"ab"
            while pool.connections:
                await asyncio.sleep(0)
        assert len(upstream.resumed) == 5


@pytest.mark.parametrize("is_end_said", [True, False])
async def test_an_answer_that_ends_with_its_connection_is_whole_only_if_upstream_says_that_it_ends(
    authority: trustme.CA, ca_file: Path, is_end_said: bool
) -> None:
    has_arrived = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nab")
        await has_arrived.wait()
        if not is_end_said:
            writer.transport.abort()  # the end of TCP, without that of TLS
        await hang_up(writer)

    async with (
        tls_upstream(authority.issue_cert("localhost"), serve=serve) as upstream,
        pool_to(upstream, ca_file) as pool,
    ):
        answer = await pool.send(b"GET", b"/", [], None)
        with contextlib.nullcontext() if is_end_said else pytest.raises(AnswerBroken):
            async for piece in answer.chunks():
                assert piece == b"ab"
                has_arrived.set()
        assert has_arrived.is_set()
