"""What one network address may try before it is known who it is."""

from collections.abc import AsyncIterator

import pytest

from gateway.core.access.keys import make_key
from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.prices import CHAT, ask_of
from tests.proxy.stack import Running, Stack
from tests.proxy.wire import Received, ask, request


@pytest.fixture
async def guarded(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Stack]:
    edge = {"failed_keys_per_minute_max": 3, "guarded_per_minute_max": 2, "trusted_proxies": ["127.0.0.0/8"]}
    async with running(openai.url, edge=edge) as stack:
        yield stack


async def tried(stack: Stack, key: str, *, source: str = "192.0.2.1", path: str = CHAT) -> Received:
    body = ask_of(CHAT) if path == CHAT else b"{}"
    method = "POST" if path == CHAT or "urchases" in path else "GET"
    return await ask(stack.address, request(path, key, body, [(b"X-Forwarded-For", source.encode())], method=method))


async def test_after_so_many_wrong_keys_an_address_must_wait(guarded: Stack) -> None:
    wrong = [make_key(bytes([number]) * 32) for number in range(5)]
    answers = [await tried(guarded, key) for key in wrong]
    assert [got.status for got in answers] == [401, 401, 401, 429, 429]
    assert 0 < int(answers[-1].get(b"retry-after") or 0) <= 21
    assert (await tried(guarded, wrong[0], source="192.0.2.2")).status == 401


async def test_a_key_that_is_known_goes_on_working_from_there(guarded: Stack) -> None:
    assert (await tried(guarded, guarded.key)).status == 200
    for number in range(4):
        await tried(guarded, make_key(bytes([number]) * 32))
    assert (await tried(guarded, guarded.key)).status == 200


async def test_wrong_keys_on_the_control_plane_count_too(guarded: Stack) -> None:
    answers = [await tried(guarded, "sk-tg-nobody", path="/api/ledger") for _ in range(4)]
    assert [got.status for got in answers] == [401, 401, 401, 429]
    assert (await tried(guarded, "sk-tg-nobody")).status == 401  # its form alone tells; nobody is asked


async def test_purchases_are_limited_by_address_whoever_asks(guarded: Stack) -> None:
    spelt = [
        "/api/purchases",
        "/api/%70urchases",
        "/%61pi/purchases/portal?a=b",
    ]  # the control plane takes each for the first
    answers = [await tried(guarded, guarded.key, path=path) for path in spelt]
    assert answers[-1].status == 429
    assert 429 not in [got.status for got in answers[:2]]
