"""Which other sites' pages may read the control plane, as their browsers ask."""

import pytest

from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.stack import Running, Stack
from tests.proxy.wire import Received, ask, request

APP = b"https://app.example.com"
EDGE = {"cors_origins": [APP.decode()]}


async def asked(stack: Stack, method: str, path: str, *fields: tuple[bytes, bytes], key: str = "") -> Received:
    return await ask(stack.address, request(path, key, method=method, fields=[*fields]))


async def test_a_listed_sites_page_may_ask_and_read(running: Running, openai: SimulatedOpenAI) -> None:
    async with running(openai.url, edge=EDGE) as stack:
        wants = (b"Access-Control-Request-Method", b"POST")
        before = await asked(stack, "OPTIONS", "/api/keys", (b"Origin", APP), wants)
        assert (before.status, before.get(b"access-control-allow-origin")) == (204, APP)
        assert b"idempotency-key" in (before.get(b"access-control-allow-headers") or b"")
        assert b"DELETE" in (before.get(b"access-control-allow-methods") or b"")
        for key, status in ((stack.key, 200), ("", 401)):  # a refusal can be read, too
            got = await asked(stack, "GET", "/api/balance", (b"Origin", APP), key=key)
            assert (got.status, got.get(b"access-control-allow-origin")) == (status, APP)
            assert got.get(b"vary") == b"Origin"
            assert got.all(b"access-control-allow-credentials") == []


@pytest.mark.parametrize(
    "origin",
    [b"https://evil.example", b"https://app.example.com.evil.example", b"http://app.example.com", b"null", b"*"],
)
async def test_no_other_page_is_told_it_may(running: Running, openai: SimulatedOpenAI, origin: bytes) -> None:
    async with running(openai.url, edge=EDGE) as stack:
        wants = (b"Access-Control-Request-Method", b"GET")
        before = await asked(stack, "OPTIONS", "/api/balance", (b"Origin", origin), wants)
        got = await asked(stack, "GET", "/api/balance", (b"Origin", origin), key=stack.key)
        elsewhere = await asked(stack, "GET", "/billing/ledger/export.csv", (b"Origin", APP), key=stack.key)
        for answer in (before, got, elsewhere):
            assert answer.all(b"access-control-allow-origin") == []
        assert (before.status, got.get(b"vary")) == (405, b"Origin")


async def test_by_default_no_site_is_listed(running: Running, openai: SimulatedOpenAI) -> None:
    async with running(openai.url) as stack:
        got = await asked(stack, "GET", "/api/balance", (b"Origin", APP), key=stack.key)
        assert (got.all(b"access-control-allow-origin"), got.all(b"vary")) == ([], [])
