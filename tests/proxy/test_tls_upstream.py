"""The whole line before an upstream that speaks TLS, as the real one does."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.prices import CHAT, ask_of, price_of
from tests.proxy.stack import Running
from tests.proxy.wire import ask, request

CALLS = 20


@pytest.fixture
async def tls_url(openai: SimulatedOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The simulated OpenAI behind TLS, whose authority the gateway trusts."""
    authority, behind = trustme.CA(), urlsplit(openai.url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(behind.hostname, behind.port)
        await asyncio.gather(pipe(reader, back_writer), pipe(back_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_at_once_on_a_cold_gateway_are_all_served_and_charged_exactly(
    running: Running, openai: SimulatedOpenAI, tls_url: str, stream: bool
) -> None:
    async with running(tls_url) as stack:
        asked = request(CHAT, stack.key, ask_of(CHAT, stream=stream))
        for _ in range(2):  # the second time, there are sessions to be resumed
            answers = await asyncio.gather(*(ask(stack.address, asked) for _ in range(CALLS)))
            assert {got.status for got in answers} == {200}
        lines = await stack.lines()
        assert {line.outcome for line in lines} == {"exact"}
        charged = sorted(line.cost for line in lines)
        assert charged == sorted(price_of(stack.card, entry) for entry in openai.log.entries())
        assert len(charged) == 2 * CALLS
