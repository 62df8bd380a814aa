"""A simulated Stripe on a port of its own, the official SDK connected to it, and an endpoint that checks signatures."""

from collections.abc import AsyncIterator

import pytest
import stripe

from gateway.sandbox.stripe import SandboxStripeSettings, SimulatedStripe
from tests.sandbox.stripe.parties import Receiver, connected


@pytest.fixture
async def simulated() -> AsyncIterator[SimulatedStripe]:
    settings = SandboxStripeSettings(seed=7, later_s=3600.0, delivery_retries_s=(0.02, 0.02), search_lag_s=60.0)
    async with SimulatedStripe(settings) as running:
        yield running


@pytest.fixture
async def client(simulated: SimulatedStripe) -> AsyncIterator[stripe.StripeClient]:
    async with connected(simulated.url) as client:
        yield client


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as running:
        yield running
