"""A data plane in this process for each test, and the rule that holds after each of them: the books are right."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop
from structlog.testing import capture_logs
from structlog.typing import EventDict

from gateway.sandbox.openai import SandboxOpenAISettings, SimulatedOpenAI
from gateway.sandbox.valkey import EmbeddedRedis
from tests.proxy.own_redis import OwnStack
from tests.proxy.stack import UPSTREAM_KEY, Running, Stack, open_stack
from tests.proxy.wire import ScriptedUpstream

Logs = list[EventDict]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that a gateway runs on; the sockets below it are tested on both, in http1/."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def logs() -> Iterator[Logs]:
    """What is logged while the test runs."""
    with capture_logs() as captured:
        yield captured
    structlog.reset_defaults()


@pytest.fixture
def running(database_url: str, redis_url: str, tmp_path: Path, logs: Logs) -> Running:
    """Run a stack with a gateway against an upstream; `sections` override the configuration.

    When its block ends well, no handler has failed, the audit is clean and nothing is held.
    """

    @asynccontextmanager
    async def running(upstream_url: str, **sections: Any) -> AsyncIterator[Stack]:
        opened = open_stack(database_url, redis_url, upstream_url, tmp_path / "spool", **sections)
        async with opened as stack, stack.running_gateway():
            yield stack
            assert await stack.complaints() == []
            assert await stack.held() == 0
        assert [entry for entry in logs if entry["event"] == "handler failed"] == []

    return running


@pytest.fixture
async def openai() -> AsyncIterator[SimulatedOpenAI]:
    async with SimulatedOpenAI(SandboxOpenAISettings(api_key=UPSTREAM_KEY)) as upstream:
        yield upstream


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture
async def stack(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Stack]:
    """A stack before the simulated OpenAI."""
    async with running(openai.url) as stack:
        yield stack


@pytest.fixture
async def scripted(running: Running, upstream: ScriptedUpstream) -> AsyncIterator[Stack]:
    """A stack before a scripted upstream."""
    async with running(upstream.url) as stack:
        yield stack


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A Redis of this test's own, to be stopped and killed."""
    store = EmbeddedRedis(tmp_path / "redis", durable=False)
    await store.start()
    try:
        yield store
    finally:
        store.kill()


@pytest.fixture
def own(database_url: str, redis: EmbeddedRedis, openai: SimulatedOpenAI, tmp_path: Path, logs: Logs) -> OwnStack:
    """A stack on that Redis, without a gateway yet; no handler of it fails."""
    # New calls are refused within 250 ms: so much of them may a command take.
    timely = {"redis": {"command_timeout_ms": 200}}

    @asynccontextmanager
    async def own(**sections: dict[str, Any]) -> AsyncIterator[Stack]:
        async with open_stack(database_url, redis.url, openai.url, tmp_path / "spool", **(timely | sections)) as stack:
            yield stack
        assert [entry for entry in logs if entry["event"] == "handler failed"] == []

    return own
