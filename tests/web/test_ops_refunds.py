"""Refunds on an operator's word: once for a key, within the policy, and signed."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gateway.core.access.operators import Role
from gateway.core.money import UCR_PER_CREDIT
from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.stack import Running
from tests.shop import Shop, open_shop
from tests.web.operators import BOSS, operating

ASKED = {"key": "ticket 7", "reason": "asked for", "credits": "1000"}


class Desk:
    def __init__(self, shop: Shop, url: str, session: aiohttp.ClientSession) -> None:
        self.shop = shop
        self._url = url
        self._session = session

    async def refund(self, purchase_id: str, body: Any, role: Role = Role.OPERATOR) -> tuple[int, Any]:
        key, _ = await self.shop.stack.stores.ops_keys.create("ann", role, BOSS)
        where = f"{self._url}/ops/purchases/{purchase_id}/refunds"
        async with self._session.post(where, json=body, headers={"Authorization": f"Bearer {key}"}) as reply:
            told = await reply.json()
        await self.shop.settle()
        return reply.status, told


@pytest.fixture
async def desk(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Desk]:
    async with (
        open_shop(running, openai) as shop,
        aiohttp.ClientSession() as session,
        operating(shop.stack) as url,
    ):
        shop.account = await shop.stack.new_account("buyer", ucr=0)
        yield Desk(shop, url, session)


async def test_the_same_key_is_the_same_refund_and_it_is_signed_once(desk: Desk) -> None:
    purchase_id = await desk.shop.bought()
    first = await desk.refund(purchase_id, ASKED)
    assert (first[0], first[1]["state"], first[1]["cents"]) == (201, "made", 100)
    assert await desk.refund(purchase_id, ASKED) == first
    assert await desk.shop.available() == 4_000 * UCR_PER_CREDIT
    (line,) = await desk.shop.stack.stores.audit_log.page(subject=purchase_id, count=10)
    assert (line.author, line.action, line.reason) == ("ann", "refund.create", "asked for")


async def test_what_is_not_allowed_moves_nothing_and_says_why(desk: Desk) -> None:
    purchase_id = await desk.shop.bought()
    refused = [
        (await desk.refund(purchase_id, ASKED, Role.VIEWER))[0],
        (await desk.refund(purchase_id, ASKED | {"reason": " "}))[0],
        (await desk.refund(purchase_id, ASKED | {"key": ""}))[0],
        (await desk.refund(purchase_id, ASKED | {"credits": "x"}))[0],
        (await desk.refund("nothing", ASKED))[0],
    ]
    assert refused == [403, 400, 400, 400, 400]
    _, told = await desk.refund(purchase_id, ASKED | {"credits": "5010"})
    assert "at most $5.00" in told["error"]["message"]
    assert await desk.shop.available() == 5_000 * UCR_PER_CREDIT
