"""A key that suddenly spends many times its usual: in review within seconds, told of, and served again on release."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import msgspec
import openai
import pytest

from gateway.adapters.postgres.database import Pool, open_pool
from gateway.adapters.postgres.spending import SpendingBook
from tests.documented import is_from_tollgate
from tests.patience import PATIENCE_S
from tests.receiver import Receiver, receiving
from tests.spending import spend_hourly
from tests.up import Stack, running_up

IN_REVIEW_S_MAX = 30.0  # five on a machine of its own
FOLLOWS_S_MAX = 2.0  # a second, and what a busy machine adds
PAST_HOURS = range(4, 12)
SLOW = {"x-sandbox-scenario": "rate=25, tokens=150"}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    given = {
        "TOLLGATE_NOTIFY__PRIVATE_NETWORKS": '["127.0.0.0/8"]',
        "TOLLGATE_ANOMALY__HOUR_CREDITS_MIN": "0",
    }
    with running_up(tmp_path_factory.mktemp("up") / "data", env=given) as running:
        yield running


@pytest.fixture
async def pool(up: Stack) -> AsyncIterator[Pool]:
    url = up.ready["database_url"]
    async with await open_pool(url, connections_max=2, connect_timeout_s=5, command_timeout_s=30) as opened:
        yield opened


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


async def with_past(pool: Pool, account_id: str, key_id: str) -> None:
    """The key has spent a thousandth of a credit in each of some hours."""
    await spend_hourly(pool, account_id, key_id, 1000, PAST_HOURS)
    book = SpendingBook(pool)  # the workers' own is past that already
    async with asyncio.timeout(PATIENCE_S):
        while await pool.fetchval("SELECT count(*) FROM spending_hour WHERE key_id = $1", key_id) < len(PAST_HOURS):
            await book.roll()


async def ask(client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Say hello."}])


async def stream_to_its_end(client: openai.AsyncOpenAI, started: asyncio.Event) -> str | None:
    """Why the stream finished."""
    reason = None
    async for chunk in await client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "Count."}], stream=True, extra_headers=SLOW
    ):
        started.set()
        reason = chunk.choices[0].finish_reason if chunk.choices else reason
    return reason


async def until_refused(client: openai.AsyncOpenAI) -> openai.PermissionDeniedError:
    async with asyncio.timeout(IN_REVIEW_S_MAX):
        while True:
            try:
                await client.models.list()
            except openai.PermissionDeniedError as error:
                return error
            await asyncio.sleep(0.05)


async def until_served(client: openai.AsyncOpenAI) -> None:
    async with asyncio.timeout(FOLLOWS_S_MAX):
        while True:
            try:
                return await ask(client)
            except openai.PermissionDeniedError:
                await asyncio.sleep(0.05)


async def test_a_key_that_spends_many_times_its_usual_is_in_review_until_it_is_released(
    up: Stack, pool: Pool, receiver: Receiver
) -> None:
    account_id, secret = up.new_caller("spender", 100_000)
    _, other_secret = up.new_caller("bystander", 100_000)
    key_id = await pool.fetchval("SELECT id FROM api_key WHERE account_id = $1", account_id)
    target = up.tollgate("notices", "targets", "add", receiver.url, "--account", "spender")
    await with_past(pool, account_id, key_id)

    async with (
        openai.AsyncOpenAI(base_url=up.base_url, api_key=secret, max_retries=0) as client,
        openai.AsyncOpenAI(base_url=up.base_url, api_key=other_secret, max_retries=0) as bystander,
    ):
        started = asyncio.Event()
        running = asyncio.create_task(stream_to_its_end(client, started))
        await started.wait()

        await ask(client)
        spent_at = time.monotonic()
        refusal = await until_refused(client)
        took_s = time.monotonic() - spent_at

        assert (refusal.status_code, refusal.code) == (403, "account_in_review")
        assert took_s < IN_REVIEW_S_MAX
        assert isinstance(refusal.body, dict)
        reference = refusal.body["reference"]
        assert not running.done()
        assert await running == "stop"
        await ask(bystander)

        await receiver.wait_for(1, IN_REVIEW_S_MAX)
        [came] = receiver.came
        signed_at = came.headers["x-tollgate-signature"]
        assert is_from_tollgate(signed_at, came.body, target["secret"], now_s=time.time())
        told = msgspec.json.decode(came.body)
        assert (told["kind"], told["fields"]["reference"]) == ("in_review", reference)

        released = await asyncio.to_thread(
            up.tollgate, "reviews", "release", reference, "--reason", "a load test", "--author", "olga"
        )
        assert (released["account_status"], released["closed_by"]) == ("active", "olga")
        await until_served(client)


async def test_nobody_is_judged_by_the_first_hours_of_use(up: Stack, pool: Pool) -> None:
    account_id, secret = up.new_caller("beginner", 100_000)
    async with openai.AsyncOpenAI(base_url=up.base_url, api_key=secret, max_retries=0) as client:
        for _ in range(3):
            await ask(client)
        async with asyncio.timeout(IN_REVIEW_S_MAX):
            while not await pool.fetchval("SELECT count(*) FROM spending_minute WHERE account_id = $1", account_id):
                await asyncio.sleep(0.05)
        await ask(client)

    assert account_id not in {each["account_id"] for each in up.tollgate("reviews", "list", "--all")["reviews"]}
