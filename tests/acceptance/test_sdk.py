"""The official SDK, pointed at the gateway by `base_url` alone, gets its answers, and they are charged."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from tests.patience import PATIENCE_S
from tests.up import Stack

MODEL = "gpt-4o-mini"
HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def caller(stack: Stack) -> tuple[str, str]:
    return stack.new_caller("sdk", credits=100_000)


@pytest.fixture
async def client(stack: Stack, caller: tuple[str, str]) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=stack.base_url, api_key=caller[1], max_retries=0) as made:
        yield made


async def test_a_plain_chat_says_what_it_held_and_cost(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, max_tokens=50)
    completion = raw.parse()
    assert completion.choices[0].message.content
    held, cost = Decimal(raw.headers["x-credits-held"]), Decimal(raw.headers["x-credits-cost"])
    assert 0 < cost <= held
    assert Decimal(raw.headers["x-credits-remaining"]) > 0
    assert raw.headers["x-rate-card"].count("@") == 1
    assert raw.headers["x-gateway-request-id"]


async def test_a_streamed_chat_hides_the_usage_event_that_was_not_asked_for(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)


async def test_a_streamed_chat_shows_the_usage_event_that_was_asked_for(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None


async def test_responses_plain_and_streamed(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(model="gpt-5-mini", input="Say hello.", max_output_tokens=500)
    assert answer.output_text
    async with client.responses.stream(model="gpt-5-mini", input="Say hello.", max_output_tokens=500) as stream:
        kinds = [event.type async for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


async def test_embeddings_floats_and_base64(client: AsyncOpenAI) -> None:
    made = await client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    assert len(made.data) == 2
    floats = await client.embeddings.create(model="text-embedding-3-small", input="one", encoding_format="float")
    assert len(floats.data[0].embedding) == len(made.data[0].embedding)


async def test_legacy_completions(client: AsyncOpenAI) -> None:
    made = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt=["a", "b"], n=2, max_tokens=5)
    assert len(made.choices) == 4
    stream = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt="a", max_tokens=5, stream=True)
    assert [chunk async for chunk in stream]


async def test_models_and_moderations_are_free(stack: Stack, caller: tuple[str, str], client: AsyncOpenAI) -> None:
    before = stack.settled_account(caller[0])
    assert [model async for model in client.models.list()]
    assert (await client.models.retrieve(MODEL)).id == MODEL
    assert (await client.moderations.create(input="hello")).results
    assert stack.settled_account(caller[0]) == before


def test_the_sync_client_works_too(stack: Stack, caller: tuple[str, str]) -> None:
    with OpenAI(base_url=stack.base_url, api_key=caller[1], max_retries=0) as client:
        assert client.chat.completions.create(model=MODEL, messages=HELLO).choices
        with client.chat.completions.create(model=MODEL, messages=HELLO, stream=True) as stream:
            assert list(stream)


async def test_a_wrong_key_raises_the_sdks_class(stack: Stack) -> None:
    async with AsyncOpenAI(base_url=stack.base_url, api_key="sk-tg-nope", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model=MODEL, messages=HELLO)


async def test_a_revoked_key_stops_working_soon(stack: Stack) -> None:
    account, key = stack.new_caller("revoked")
    async with AsyncOpenAI(base_url=stack.base_url, api_key=key, max_retries=0) as client:
        await client.chat.completions.create(model=MODEL, messages=HELLO)
        [listed] = stack.tollgate("keys", "list", account)["keys"]
        stack.tollgate("keys", "revoke", listed["key_id"])
        with pytest.raises(openai.AuthenticationError):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await client.models.list()


async def test_too_little_credit_is_a_402_that_says_what_would_fit(stack: Stack) -> None:
    account, key = stack.new_caller("poor", credits=1)
    before = len(stack.upstream_log())
    async with AsyncOpenAI(base_url=stack.base_url, api_key=key) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=10_000)
        error = refused.value.response.json()["error"]
        assert (refused.value.status_code, error["code"]) == (402, "insufficient_credits")
        assert error["needed_ucr"] > error["available_ucr"] == 1_000_000
        assert refused.value.response.headers["x-should-retry"] == "false"
        assert len(stack.upstream_log()) == before
        assert stack.settled_account(account)["available_ucr"] == 1_000_000
        affordable = error["affordable_output_tokens"]
        assert affordable > 0
        await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=affordable)


async def test_upstreams_errors_pass_unchanged_and_cost_nothing(
    stack: Stack, caller: tuple[str, str], client: AsyncOpenAI
) -> None:
    before = stack.settled_account(caller[0])
    kinds = {429: openai.RateLimitError, 400: openai.BadRequestError, 500: openai.InternalServerError}
    for status, kind in kinds.items():
        with pytest.raises(kind) as raised:
            await client.chat.completions.create(
                model=MODEL, messages=HELLO, extra_headers={"x-sandbox-scenario": f"status={status}"}
            )
        assert raised.value.response.headers["x-request-id"]
    assert stack.settled_account(caller[0]) == before


async def test_an_unpriced_model_never_reaches_upstream(stack: Stack, client: AsyncOpenAI) -> None:
    before = len(stack.upstream_log())
    with pytest.raises(openai.NotFoundError) as refused:
        await client.chat.completions.create(model="gpt-unheard-of", messages=HELLO)
    assert refused.value.code == "model_not_found"
    assert len(stack.upstream_log()) == before


def test_the_callers_key_never_goes_upstream(stack: Stack, caller: tuple[str, str]) -> None:
    with OpenAI(base_url=stack.base_url, api_key=caller[1]) as client:
        client.chat.completions.create(model=MODEL, messages=HELLO)
    assert caller[1] not in str(stack.upstream_log())
