"""The control plane is tested beside a data plane in this process, with the fixtures of its tests; and it may sell."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.conftest import logs, openai, running, stack
from tests.proxy.stack import Running, Stack
from tests.shop import Shop, open_shop
from tests.web.operators import Desk, operating

__all__ = ["logs", "openai", "running", "stack"]


@pytest.fixture
async def shop(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Shop]:
    async with open_shop(running, openai) as shop:
        yield shop


@pytest.fixture
async def desk(stack: Stack) -> AsyncIterator[Desk]:
    async with operating(stack) as url, aiohttp.ClientSession() as session:
        yield Desk(stack, url, session)
