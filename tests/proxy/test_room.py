"""What bounds all callers together: the sum of large bodies; and what the key of the upstream cannot hide in."""

import asyncio
import gzip
from contextlib import AsyncExitStack

from gateway.sandbox.openai import SimulatedOpenAI
from tests.patience import PATIENCE_S
from tests.proxy.prices import CHAT, ask_of
from tests.proxy.stack import UPSTREAM_KEY, Running, until
from tests.proxy.wire import Client, ScriptedUpstream, answer, ask, read_message, request


async def test_large_bodies_beyond_their_common_room_are_refused_until_there_is_room(
    running: Running, openai: SimulatedOpenAI
) -> None:
    body = ask_of(CHAT, messages=[{"role": "user", "content": "word " * 30_000}])
    async with running(openai.url, edge={"bodies_bytes_max": 200_000}) as stack, AsyncExitStack() as clients:
        first = await clients.enter_async_context(Client.connect(stack.address))
        first.writer.write(request(CHAT, stack.key, body, [(b"x-sandbox-scenario", b"slow-headers=400")]))
        await openai.log.wait_until(lambda log: log.arrived == 1)
        refused = await ask(stack.address, request(CHAT, stack.key, body))
        assert (refused.status, refused.get(b"retry-after")) == (503, b"1")
        small = await ask(stack.address, request(CHAT, stack.key, ask_of(CHAT)))
        assert small.status == 200
        assert (await read_message(first.reader)).status == 200
        assert (await ask(stack.address, request(CHAT, stack.key, body))).status == 200


async def test_a_large_body_that_is_only_announced_keeps_nobody_out(running: Running, openai: SimulatedOpenAI) -> None:
    body = ask_of(CHAT, messages=[{"role": "user", "content": "word " * 30_000}])
    announced = (b"Content-Length: 33554432", b"Transfer-Encoding: chunked")
    async with running(openai.url, edge={"bodies_bytes_max": 200_000}) as stack, AsyncExitStack() as clients:
        for framing in announced:
            client = await clients.enter_async_context(Client.connect(stack.address))
            client.writer.write(request(CHAT, stack.key).replace(b"Content-Length: 0", framing))
        await until(lambda: stack.gateway.server.running == len(announced))
        for _ in range(3):
            assert (await ask(stack.address, request(CHAT, stack.key, body))).status == 200


async def test_a_large_chunked_body_takes_room_for_what_came_and_gives_it_back(
    running: Running, openai: SimulatedOpenAI
) -> None:
    body = ask_of(CHAT, messages=[{"role": "user", "content": "word " * 30_000}])
    chunked = request(CHAT, "KEY").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunked += b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with running(openai.url, edge={"bodies_bytes_max": 300_000}) as stack:
        for _ in range(3):
            assert (await ask(stack.address, chunked.replace(b"KEY", stack.key.encode()))).status == 200


async def test_bodies_for_the_control_plane_have_a_room_of_their_own(running: Running, openai: SimulatedOpenAI) -> None:
    body = ask_of(CHAT, messages=[{"role": "user", "content": "word " * 30_000}])
    page = request("/billing/nothing", "", b"a" * 150_000)
    async with (
        running(openai.url, edge={"bodies_bytes_max": 200_000}) as stack,
        Client.connect(stack.address) as client,
    ):
        client.writer.write(page[:-1])
        async with asyncio.timeout(PATIENCE_S):
            while (refused := await ask(stack.address, page)).status == 404:  # not all of it has arrived
                pass
        assert refused.status == 503
        assert (await ask(stack.address, request(CHAT, stack.key, body))).status == 200
        assert (await client.ask(page[-1:])).status == 404
        assert (await ask(stack.address, page)).status == 404


async def test_the_upstreams_key_hides_neither_in_a_reason_nor_in_a_compressed_error(running: Running) -> None:
    packed = gzip.compress(b'{"error":{"message":"bad key %s"}}' % UPSTREAM_KEY.encode())
    fields = [(b"Content-Type", b"application/json"), (b"Content-Encoding", b"gzip"), (b"X-Credits-Cost", b"0")]
    scripted = ScriptedUpstream(answer(packed, fields, b"403 " + UPSTREAM_KEY.encode()))
    async with scripted as upstream, running(upstream.url) as stack:
        got = await ask(stack.address, request(CHAT, stack.key, ask_of(CHAT)))
        assert got.status == 403
        assert UPSTREAM_KEY.encode() not in got.line + got.body
        assert got.get(b"content-encoding") is None
        assert b"bad key ***" in got.body
        assert got.all(b"x-credits-cost") == [b"0"]  # ours alone
