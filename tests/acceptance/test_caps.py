"""A day's cap over two gateway processes: 500 calls at once pass it by nothing, and none is refused that would fit."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import urlsplit

from gateway.core.money import UCR_PER_CREDIT
from tests.patience import PATIENCE_S
from tests.proxy.wire import Received, ask, request
from tests.up import Stack

CALLS = 500
CREDITS = 100_000
BODY = json.dumps(
    {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 20}
).encode()


async def call(pair: Stack, key: str, scenario: bytes = b"") -> Received:
    """One call on a connection of its own, so that either process may take it."""
    where = urlsplit(pair.base_url)
    assert where.hostname is not None
    assert where.port is not None
    fields = [(b"x-sandbox-scenario", scenario)] if scenario else []
    return await ask((where.hostname, where.port), request("/v1/chat/completions", key, BODY, fields))


async def until_all_know(pair: Stack, key: str) -> None:
    """Until calls are told their rate limit on so many connections in a row that both processes are among them."""
    in_a_row = 0
    async with asyncio.timeout(PATIENCE_S):
        while in_a_row < 20:
            told = (await call(pair, key)).get(b"x-gateway-ratelimit-limit-requests") is not None
            in_a_row = in_a_row + 1 if told else 0


async def test_500_calls_at_once_over_two_processes_pass_a_days_cap_by_nothing(pair: Stack) -> None:
    account, key = pair.new_caller("caps", credits=CREDITS)
    noon = f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"  # where no midnight comes near
    pair.tollgate("accounts", "set", account, "--time-zone", noon, "--on-disconnect", "cancel")
    held_ucr = _ucr((await call(pair, key)).get(b"x-credits-held") or b"")
    cap_ucr = 200 * held_ucr
    pair.tollgate("caps", "set", account, "--day", str(Decimal(cap_ucr) / UCR_PER_CREDIT), "--rpm", "100000")
    await until_all_know(pair, key)
    spent_ucr = CREDITS * UCR_PER_CREDIT - pair.settled_account(account)["balance_ucr"]

    tasks = [asyncio.create_task(call(pair, key, b"ttft=60000")) for _ in range(CALLS)]  # longer than the test looks
    async with asyncio.timeout(PATIENCE_S):
        while True:
            refused = [task.result() for task in tasks if task.done()]
            [standing] = await asyncio.to_thread(pair.tollgate, "caps", "show", account)
            if standing["used"]["open_calls"] + len(refused) == CALLS:
                break
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    used_ucr, open_calls = standing["used"]["day"], standing["used"]["open_calls"]
    assert {got.status for got in refused} == {402}
    assert used_ucr <= cap_ucr  # by nothing, while every call that was admitted is under way
    assert open_calls >= (cap_ucr - spent_ucr) // held_ucr  # and nobody is refused for whom there is room
    told = json.loads(refused[-1].body)["error"]
    assert (told["code"], told["cap"]) == ("cap_reached", "account_day")
    assert told["needed_ucr"] > cap_ucr - used_ucr


def _ucr(credits: bytes) -> int:
    return int(Decimal(credits.decode()) * UCR_PER_CREDIT)
