"""Realtime sessions: whose key goes upstream, which bytes pass, who ends them, and that none is relayed unasked."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from tests.patience import PATIENCE_S
from tests.proxy.conftest import Logs
from tests.proxy.stack import UPSTREAM_KEY, Running, Stack, until
from tests.proxy.wire import Client, Received, ScriptedUpstream, ask, read_head, request

REALTIME = "/v1/realtime?model=gpt-realtime"
SWITCH = [(b"Connection", b"keep-alive, Upgrade"), (b"Upgrade", b"websocket")]
FIELDS = [(b"Sec-WebSocket-Version", b"13"), (b"sec-websocket-KEY", b"dGhlIHNhbXBsZSBub25jZQ==")]
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Odd: 1\r\n\r\n"
)
UNMETERED = {"sessions": "unmetered", "closing_timeout_ms": 200}

Far = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def handshake(key: str, fields: list[tuple[bytes, bytes]] | None = None) -> bytes:
    return request(REALTIME, key, method="GET", fields=[*SWITCH, *FIELDS, *(fields or [])])


class Switching(ScriptedUpstream):
    """An upstream that switches every connection, and hands out what it then has in its hands."""

    def __init__(self, head: bytes = SWITCHED) -> None:
        super().__init__()
        self.head = head
        self.serve = self._switch
        self.sessions: asyncio.Queue[Far] = asyncio.Queue()
        self.may_end = asyncio.Event()

    async def _switch(self, _: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.head)
        self.sessions.put_nowait((reader, writer))
        await self.may_end.wait()


@pytest.fixture
async def switching() -> AsyncIterator[Switching]:
    async with Switching() as scripted:
        yield scripted
        scripted.may_end.set()


@pytest.fixture
async def selling(running: Running, switching: Switching) -> AsyncIterator[Stack]:
    async with running(switching.url, realtime=UNMETERED) as stack:
        yield stack


# --- who may -----------------------------------------------------------------------------------------------------


async def test_no_session_is_relayed_unless_the_operator_has_said_so(
    scripted: Stack, upstream: ScriptedUpstream
) -> None:
    got = await ask(scripted.address, handshake(scripted.key))
    assert got.status == 403
    assert b'"endpoint_not_allowed"' in got.body
    assert b"realtime.sessions" in got.body
    assert upstream.requests == []


async def test_a_session_needs_a_key(selling: Stack, switching: Switching) -> None:
    for wrong in ("", "sk-tg-wrong"):
        got = await ask(selling.address, handshake(wrong))
        assert got.status == 401
    assert switching.requests == []


async def test_the_path_without_a_handshake_is_refused(selling: Stack, switching: Switching) -> None:
    got = await ask(selling.address, request(REALTIME, selling.key, method="GET"))
    assert got.status == 400
    assert switching.requests == []


async def test_what_follows_the_handshake_at_once_is_no_session(selling: Stack, switching: Switching) -> None:
    smuggled = handshake(selling.key) + request("/v1/models", selling.key, method="GET")
    async with Client.connect(selling.address) as client:
        got = await client.ask(smuggled)
    assert got.status == 400
    assert all(received.target == b"/v1/models" for received in switching.requests)


async def test_there_are_no_more_sessions_than_the_bound(running: Running, switching: Switching) -> None:
    async with running(switching.url, realtime=UNMETERED | {"sessions_max": 1}) as stack:
        async with Client.connect(stack.address) as first:
            assert (await first.begin(handshake(stack.key))).status == 101
            got = await ask(stack.address, handshake(stack.key))
            assert got.status == 503
        await stack.quiet()
        async with Client.connect(stack.address) as second:
            assert (await second.begin(handshake(stack.key))).status == 101


# --- the handshake -----------------------------------------------------------------------------------------------


async def test_the_handshake_goes_upstream_with_its_fields_and_the_gateways_key(
    selling: Stack, switching: Switching
) -> None:
    extensions = (b"Sec-WebSocket-Extensions", b"permessage-deflate; client_max_window_bits")
    async with Client.connect(selling.address) as client:
        got = await client.begin(handshake(selling.key, [extensions, (b"OpenAI-Beta", b"realtime=v1")]))
    (asked,) = switching.requests
    assert asked.line == b"GET %b HTTP/1.1" % REALTIME.encode()
    assert [field for field in asked.fields if field[0] != b"Host"] == [
        *FIELDS,
        extensions,
        (b"OpenAI-Beta", b"realtime=v1"),
        (b"authorization", b"Bearer " + UPSTREAM_KEY.encode()),
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
    ]
    assert got.line == b"HTTP/1.1 101 Switching Protocols"
    assert got.get(b"sec-websocket-accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert got.get(b"x-odd") == b"1"
    assert (got.all(b"connection"), got.all(b"upgrade")) == ([b"Upgrade"], [b"websocket"])
    assert got.get(b"x-gateway-request-id")


async def test_a_browsers_key_is_taken_from_the_subprotocols_and_goes_no_further(
    selling: Stack, switching: Switching
) -> None:
    offer = b"realtime, openai-insecure-api-key.%b, openai-beta.realtime-v1" % selling.key.encode()
    async with Client.connect(selling.address) as client:
        got = await client.begin(handshake("", [(b"Sec-WebSocket-Protocol", offer)]))
    assert got.status == 101
    (asked,) = switching.requests
    assert asked.all(b"sec-websocket-protocol") == [b"realtime, openai-beta.realtime-v1"]
    assert asked.all(b"authorization") == [b"Bearer " + UPSTREAM_KEY.encode()]
    assert not any(selling.key.encode() in value for _, value in asked.fields)


async def test_a_key_among_the_subprotocols_is_no_key_elsewhere(selling: Stack, switching: Switching) -> None:
    offer = (b"Sec-WebSocket-Protocol", b"openai-insecure-api-key." + selling.key.encode())
    got = await ask(selling.address, request("/v1/models", "", method="GET", fields=[*SWITCH, offer]))
    assert got.status == 401


async def test_a_refused_handshake_is_relayed_whole_and_the_connection_goes_on(
    running: Running, upstream: ScriptedUpstream
) -> None:
    body = b"x" * 100_000
    refusal = b"HTTP/1.1 426 Upgrade It\r\nX-Why: version\r\nContent-Length: %d\r\n\r\n" % len(body)
    upstream.answer = refusal + body
    async with running(upstream.url, realtime=UNMETERED) as stack, Client.connect(stack.address) as client:
        for _ in range(2):
            got = await client.ask(handshake(stack.key))
            assert got.line == b"HTTP/1.1 426 Upgrade It"
            assert got.get(b"x-why") == b"version"
            assert got.body == body


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nBad Field: 1\r\n\r\n",
        b"HTTP/1.1 1",
        b"",
    ],
)
async def test_a_101_to_something_else_is_a_broken_upstream(
    running: Running, upstream: ScriptedUpstream, head: bytes
) -> None:
    async def serve(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        writer.close()

    upstream.serve = serve
    async with running(upstream.url, realtime=UNMETERED) as stack:
        got = await ask(stack.address, handshake(stack.key))
    assert got.status == 502
    assert b'"upstream_broken"' in got.body


async def test_a_caller_who_leaves_before_the_answer_leaves_nobody_upstream(
    running: Running, upstream: ScriptedUpstream
) -> None:
    left = asyncio.Event()

    async def never_answer(_: Received, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await reader.read()
        left.set()

    upstream.serve = never_answer
    async with running(upstream.url, realtime=UNMETERED) as stack:
        async with Client.connect(stack.address) as client:
            client.writer.write(handshake(stack.key))
            await until(lambda: len(upstream.requests) == 1)
        async with asyncio.timeout(PATIENCE_S):
            await left.wait()


async def test_a_caller_who_leaves_while_its_key_is_looked_up_is_no_failure(
    selling: Stack, switching: Switching
) -> None:
    for number in range(5):
        caller = await selling.new_account(f"new {number}")  # whose key no gateway knows yet
        async with Client.connect(selling.address) as client:
            client.writer.write(handshake(caller.key))
        await until(lambda: selling.gateway.server.connections == 0)
        await selling.quiet()
    assert switching.requests == []


# --- bytes both ways ---------------------------------------------------------------------------------------------


async def test_bytes_pass_both_ways_as_they_are(selling: Stack, switching: Switching) -> None:
    switching.head = SWITCHED + b"first frame"
    async with Client.connect(selling.address) as client:
        await client.begin(handshake(selling.key))
        assert await client.reader.readexactly(11) == b"first frame"
        far_reader, far_writer = await switching.sessions.get()
        odd = bytes(range(256)) * 4000
        client.writer.write(odd)
        assert await far_reader.readexactly(len(odd)) == odd
        far_writer.write(odd)
        assert await client.reader.readexactly(len(odd)) == odd


async def test_what_a_caller_sends_while_the_handshake_runs_reaches_upstream_behind_it(
    running: Running, upstream: ScriptedUpstream
) -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()
    go_on = asyncio.Event()

    async def switch_late(_: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(SWITCHED)
        got.put_nowait(await reader.readexactly(5))

    upstream.serve = switch_late
    async with running(upstream.url, realtime=UNMETERED) as stack, Client.connect(stack.address) as client:
        client.writer.write(handshake(stack.key))
        await until(lambda: len(upstream.requests) == 1)
        client.writer.write(b"early")
        await asyncio.sleep(0.05)  # nothing tells that the gateway has read it; both orders must do
        go_on.set()
        assert (await read_head(client.reader)).status == 101
        assert await got.get() == b"early"


async def fill(writer: asyncio.StreamWriter) -> int:
    """Write until nobody takes any more; returns how much was taken."""
    sent = 0
    while True:
        writer.write(bytes(64 * 1024))
        sent += 64 * 1024
        try:
            async with asyncio.timeout(0.5):
                await writer.drain()
        except TimeoutError:
            return sent
        assert sent < 1 << 28, "nothing holds the sender back"


@pytest.mark.parametrize("who", ["caller", "upstream"])
async def test_a_slow_side_holds_the_other_back_and_loses_nothing(
    selling: Stack, switching: Switching, who: str
) -> None:
    async with Client.connect(selling.address) as client:
        await client.begin(handshake(selling.key))
        far_reader, far_writer = await switching.sessions.get()
        talker, listener, hears = (client.writer, far_writer, far_reader)
        if who == "upstream":
            talker, listener, hears = (far_writer, client.writer, client.reader)
        transport = cast(asyncio.Transport, listener.transport)  # uvloop's are not subclasses
        transport.pause_reading()
        sent = await fill(talker)
        transport.resume_reading()
        assert await hears.readexactly(sent) == bytes(sent)


# --- ends --------------------------------------------------------------------------------------------------------


async def test_a_side_that_ends_its_sending_still_hears_the_other(running: Running, switching: Switching) -> None:
    slow = UNMETERED | {"closing_timeout_ms": 10_000}
    async with running(switching.url, realtime=slow) as stack, Client.connect(stack.address) as client:
        await client.begin(handshake(stack.key))
        far_reader, far_writer = await switching.sessions.get()
        client.writer.write(b"last words")
        client.writer.write_eof()
        assert await far_reader.read() == b"last words"
        far_writer.write(b"farewell")
        far_writer.write_eof()
        assert await client.reader.read() == b"farewell"


async def test_upstreams_end_is_the_callers_end(selling: Stack, switching: Switching) -> None:
    async with Client.connect(selling.address) as client:
        await client.begin(handshake(selling.key))
        _, far_writer = await switching.sessions.get()
        far_writer.write(b"bye")
        far_writer.close()
        assert await client.reader.read() == b"bye"


@pytest.mark.parametrize("who", ["caller", "upstream"])
async def test_a_side_that_is_cut_cuts_the_other(selling: Stack, switching: Switching, who: str) -> None:
    async with Client.connect(selling.address) as client:
        await client.begin(handshake(selling.key))
        far_reader, far_writer = await switching.sessions.get()
        broken, other = (client.writer, far_reader) if who == "caller" else (far_writer, client.reader)
        broken.transport.abort()
        async with asyncio.timeout(PATIENCE_S):
            try:
                assert await other.read() == b""
            except ConnectionResetError:
                pass
    await selling.quiet()
    assert len(selling.gateway.sessions) == 0


BOUNDS: list[tuple[dict[str, Any], str]] = [
    ({"idle_timeout_ms": 100}, "idle"),
    ({"session_s_max": 1}, "total"),
]


@pytest.mark.parametrize(("bound", "end"), BOUNDS)
async def test_a_session_ends_at_its_bounds_and_is_counted(
    running: Running, switching: Switching, logs: Logs, bound: dict[str, Any], end: str
) -> None:
    async with running(switching.url, realtime=UNMETERED | bound) as stack, Client.connect(stack.address) as client:
        await client.begin(handshake(stack.key))
        client.writer.write(b"12345")
        assert await client.reader.read() == b""
        await stack.quiet()
        assert dict(stack.gateway.tally.sessions) == {end: 1}
    (told,) = [entry for entry in logs if entry["event"] == "unmetered session ended"]
    assert (told["account_id"], told["end"], told["sent_bytes"]) == (stack.account.id, end, 5)
    assert stack.key not in str(told)


async def test_a_session_ends_soon_when_its_key_is_revoked(selling: Stack, switching: Switching) -> None:
    key_id = (await selling.gateway.callers.authenticate(b"Bearer " + selling.key.encode())).key_id
    async with Client.connect(selling.address) as client:
        await client.begin(handshake(selling.key))
        await selling.stores.keys.revoke(key_id)
        async with asyncio.timeout(PATIENCE_S):
            assert await client.reader.read() == b""
        await selling.quiet()
    assert dict(selling.gateway.tally.sessions) == {"revoked": 1}


async def test_a_half_closed_session_ends_soon(running: Running, switching: Switching) -> None:
    async with running(switching.url, realtime=UNMETERED) as stack, Client.connect(stack.address) as client:
        await client.begin(handshake(stack.key))
        client.writer.write_eof()
        await stack.quiet()


async def test_a_stopping_gateway_ends_its_sessions(running: Running, switching: Switching, logs: Logs) -> None:
    async with running(switching.url, realtime=UNMETERED, edge={"drain_s": 0}) as stack:
        client = Client(*await asyncio.open_connection(*stack.address))
        await client.begin(handshake(stack.key))
        stopping = asyncio.create_task(stack.gateway.server.drain(0))
        assert await client.reader.read() == b""
        await stopping
        client.leave()
    assert [entry["end"] for entry in logs if entry["event"] == "unmetered session ended"] == ["closed"]
