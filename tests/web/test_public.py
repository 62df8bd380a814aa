"""The control plane beside the OpenAI API on one port: its status, its errors, and that it shares connections."""

import msgspec
import pytest

from gateway import __version__
from tests.proxy.stack import Stack
from tests.proxy.wire import Client, ask, request


async def test_the_status_says_whether_calls_are_served(stack: Stack) -> None:
    await stack.gateway.ready.step()
    got = await ask(stack.address, request("/api/status", "", method="GET"))
    assert got.status == 200
    assert msgspec.json.decode(got.body) == {"status": "ok", "banners": [], "version": __version__}
    assert got.get(b"x-gateway-request-id")
    assert got.all(b"server") == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/api/unheard-of", 404, "not_found"),
        ("GET", "/api/status/../../v1/models", 404, "not_found"),
        ("GET", "/%76%31/models", 404, "not_found"),
        ("POST", "/api/status", 405, "method_not_allowed"),
        ("GET", "/api/<status>", 404, "not_found"),
    ],
)
async def test_every_refusal_has_the_openai_shape(stack: Stack, method: str, path: str, status: int, code: str) -> None:
    got = await ask(stack.address, request(path, "", method=method))
    error = msgspec.json.decode(got.body)["error"]
    assert (got.status, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert set(error) == {"message", "type", "code", "param"}
    assert got.get(b"x-gateway-request-id")
    assert got.get(b"x-should-retry") == b"false"


async def test_a_path_that_takes_another_method_says_which(stack: Stack) -> None:
    got = await ask(stack.address, request("/api/status", "", method="DELETE"))
    assert got.get(b"allow") == b"GET, HEAD"


@pytest.mark.parametrize("twice", [(b"Content-Type", b"application/json"), (b"User-Agent", b"x")])
async def test_a_header_that_stands_once_is_refused_twice_and_the_connection_ends(
    stack: Stack, twice: tuple[bytes, bytes]
) -> None:
    got = await ask(stack.address, request("/api/status", "", method="GET", fields=[twice, twice]))
    assert (got.status, msgspec.json.decode(got.body)["error"]["code"]) == (400, "invalid_request")
    assert got.get(b"x-gateway-request-id")
    assert got.get(b"connection") == b"close"


async def test_two_keys_prove_nobody(stack: Stack) -> None:
    twice = (b"Authorization", b"Bearer x")
    got = await ask(stack.address, request("/api/balance", "", method="GET", fields=[twice, twice]))
    assert got.status == 401


async def test_a_large_head_that_the_edge_takes_is_taken_here_too(stack: Stack) -> None:
    fields = [(b"X-Large", b"x" * 30_000), *((b"X-%d" % number, b"1") for number in range(120))]
    got = await ask(stack.address, request(f"/api/status?{'q' * 20_000}", "", method="GET", fields=fields))
    assert got.status == 200


async def test_calls_and_the_control_plane_share_a_connection(stack: Stack) -> None:
    async with Client.connect(stack.address) as client:
        for _ in range(2):
            assert (await client.ask(request("/api/status", "", method="GET"))).status == 200
            assert (await client.ask(request("/v1/models", stack.key, method="GET"))).status == 200
            assert (await client.ask(request("/health", "", method="GET"))).status == 200
