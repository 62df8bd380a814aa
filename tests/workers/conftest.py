"""Workers are tested beside a data plane in this process, with the fixtures of its tests; some look at Stripe, too."""

from collections.abc import AsyncIterator

import pytest
from stripe import StripeClient

from tests.proxy.conftest import logs, openai, running, stack
from tests.sandbox.stripe.parties import connected
from tests.shop import Shop

__all__ = ["logs", "openai", "running", "stack"]


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[StripeClient]:
    async with connected(shop.simulated.url) as client:
        yield client
