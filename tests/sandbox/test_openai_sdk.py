"""The simulated OpenAI, as the official SDK sees it: strict parsing of every answer, and the classes of its errors."""

import asyncio
import base64
from array import array
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from gateway.sandbox.openai import SandboxOpenAISettings, SimulatedOpenAI
from tests.sdk import without_tls

KEY = "sk-upstream-0123456789"
HELLO: list[Any] = [{"role": "user", "content": "Tell me a story about a river."}]
SPEECH = {"data": "UklGRiQAAABXQVZF", "format": "wav"}


@pytest.fixture
async def upstream() -> AsyncIterator[SimulatedOpenAI]:
    async with SimulatedOpenAI(SandboxOpenAISettings(api_key=KEY)) as running:
        yield running


@pytest.fixture
async def client(upstream: SimulatedOpenAI) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=upstream.base_url,
        api_key=KEY,
        max_retries=0,
        http_client=without_tls(),
        _strict_response_validation=True,
    ) as connected:
        yield connected


@pytest.fixture
async def lenient(upstream: SimulatedOpenAI) -> AsyncIterator[AsyncOpenAI]:
    """For what the SDK's own types do not describe: base64 vectors, and `finish_reason: null` of legacy chunks."""
    async with AsyncOpenAI(base_url=upstream.base_url, api_key=KEY, max_retries=0) as connected:
        yield connected


def ordered(scenario: str) -> dict[str, str]:
    return {"x-sandbox-scenario": scenario}


async def test_a_chat_completion_has_as_many_words_as_it_reports_tokens(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    content, usage = answer.choices[0].message.content, answer.usage
    assert content is not None
    assert usage is not None
    assert usage.completion_tokens == len(content.split(" ")) == 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert answer.choices[0].finish_reason == "stop"
    assert answer.service_tier == "default"
    assert answer.id.startswith("chatcmpl-")


async def test_a_limit_cuts_the_answer_and_says_so(client: AsyncOpenAI) -> None:
    old = await client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=5)
    new = await client.chat.completions.create(model="gpt-4o", messages=HELLO, max_completion_tokens=5)
    for answer in (old, new):
        assert answer.usage is not None
        assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 5)


async def test_each_choice_is_another_text_and_all_are_counted(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="gpt-4o", messages=HELLO, n=3, max_tokens=10)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 30


@pytest.mark.parametrize(
    ("asked", "served"),
    [("flex", "flex"), ("priority", "priority"), ("fast", "priority"), ("auto", "default"), ("default", "default")],
)
async def test_the_tier_that_was_asked_for_is_served(client: AsyncOpenAI, asked: Any, served: str) -> None:
    answer = await client.chat.completions.create(model="gpt-5", messages=HELLO, service_tier=asked)
    assert answer.service_tier == served


async def test_a_reasoning_model_is_charged_for_its_thoughts_within_the_limit(client: AsyncOpenAI) -> None:
    free = await client.chat.completions.create(model="o3", messages=HELLO)
    tight = await client.chat.completions.create(model="o3", messages=HELLO, max_completion_tokens=3)
    assert free.usage is not None
    assert free.usage.completion_tokens_details is not None
    assert free.usage.completion_tokens_details.reasoning_tokens == free.usage.completion_tokens - 24
    assert tight.usage is not None
    assert tight.usage.completion_tokens_details is not None
    assert tight.usage.completion_tokens_details.reasoning_tokens == tight.usage.completion_tokens == 3
    assert (tight.choices[0].message.content, tight.choices[0].finish_reason) == ("", "length")


async def test_a_long_prompt_is_partly_cached_and_the_rest_written(client: AsyncOpenAI) -> None:
    found = set()
    for number in range(12):
        messages: list[Any] = [{"role": "user", "content": f"{number} " + "hello " * 3000}]
        answer = await client.chat.completions.create(model="gpt-5.6", messages=messages)
        assert answer.usage is not None
        details = answer.usage.prompt_tokens_details
        assert details is not None
        cached, written = details.cached_tokens or 0, details.cache_write_tokens or 0
        assert cached % 128 == 0
        assert cached == 0 or cached >= 1024
        assert answer.usage.prompt_tokens - 128 < cached + written <= answer.usage.prompt_tokens
        found.add(cached)
    assert len(found) > 3


async def test_audio_in_and_out_is_counted_as_audio(client: AsyncOpenAI) -> None:
    spoken: list[Any] = [{"role": "user", "content": [{"type": "input_audio", "input_audio": SPEECH}]}]
    answer = await client.chat.completions.create(
        model="gpt-4o-audio-preview",
        messages=spoken,
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
    )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.prompt_tokens_details.audio_tokens == answer.usage.prompt_tokens // 2 > 0
    assert answer.usage.completion_tokens_details.audio_tokens == 24
    assert answer.choices[0].message.audio is not None
    assert len(answer.choices[0].message.audio.transcript.split()) == 24


async def test_a_stream_with_usage_has_null_usage_until_a_last_chunk_without_choices(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == sum(bool(c.choices and c.choices[0].delta.content) for c in chunks)
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_without_usage_has_no_usage_key(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
    assert not [chunk async for chunk in stream if "usage" in chunk.model_fields_set]


async def test_streamed_and_plain_answers_are_the_same_text(client: AsyncOpenAI) -> None:
    plain = await client.chat.completions.create(model="gpt-4o", messages=HELLO, n=2)
    texts = ["", ""]
    async for chunk in await client.chat.completions.create(model="gpt-4o", messages=HELLO, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in plain.choices]


async def test_deltas_are_padded_to_one_size_unless_told_otherwise(client: AsyncOpenAI) -> None:
    async def sizes(**options: Any) -> set[int | None]:
        stream = await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True, **options)
        found: set[int | None] = set()
        async for chunk in stream:
            pad = (chunk.model_extra or {}).get("obfuscation")
            found.add(None if pad is None else len(pad) + len(chunk.choices[0].delta.content or ""))
        return found

    assert len(await sizes()) == 1
    assert await sizes(stream_options={"include_obfuscation": False}) == {None}


async def test_a_streamed_completion_ends_with_its_usage(lenient: AsyncOpenAI) -> None:
    stream = await lenient.completions.create(
        model="gpt-3.5-turbo-instruct",
        prompt="Once",
        stream=True,
        max_tokens=7,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert len("".join(c.choices[0].text for c in chunks[:-1]).split()) == 7
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 7


async def test_a_completion_of_two_prompts_counts_every_candidate(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt=["a", "b"], n=2, best_of=3)
    assert len(answer.choices) == 4
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2 * 3 * 16  # the legacy endpoint's own default limit


async def test_a_prompt_of_token_ids_counts_exactly(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt=[[1, 2, 3], [4, 5]], max_tokens=1)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 5


@pytest.mark.parametrize("model", ["gpt-4o", "o3"])
async def test_a_response_reports_what_its_text_took(client: AsyncOpenAI, model: str) -> None:
    answer = await client.responses.create(model=model, input="Hello", instructions="Be brief.", service_tier="flex")
    assert answer.status == "completed"
    assert answer.usage is not None
    thought = answer.usage.output_tokens_details.reasoning_tokens
    assert answer.usage.output_tokens == len(answer.output_text.split()) + thought
    assert (thought > 0) == (model == "o3")
    assert (answer.service_tier, answer.instructions) == ("flex", "Be brief.")


@pytest.mark.parametrize("model", ["gpt-4o", "o3"])
@pytest.mark.parametrize(("limit", "last"), [(1000, "response.completed"), (2, "response.incomplete")])
async def test_a_streamed_response_names_and_numbers_its_events(
    client: AsyncOpenAI, model: str, limit: int, last: str
) -> None:
    stream = await client.responses.create(model=model, input="Hello", max_output_tokens=limit, stream=True)
    events: list[Any] = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:3]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
    ]
    assert events[-1].type == last
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == events[-1].response.output_text
    assert events[0].response.usage is None
    usage = events[-1].response.usage
    assert usage.output_tokens == len(deltas.split()) + usage.output_tokens_details.reasoning_tokens
    if last == "response.incomplete":
        assert events[-1].response.incomplete_details.reason == "max_output_tokens"
        assert usage.output_tokens == 2


async def test_the_sdk_s_own_accumulators_understand_the_streams(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model="gpt-4o", messages=HELLO) as chat:
        completion = await chat.get_final_completion()
    assert len((completion.choices[0].message.content or "").split()) == 24
    async with client.responses.stream(model="o3", input="Hello") as stream:
        response = await stream.get_final_response()
    assert len(response.output_text.split()) == 24


async def test_embeddings_are_unit_vectors_and_the_same_in_both_encodings(lenient: AsyncOpenAI) -> None:
    model = "text-embedding-3-small"
    floats = await lenient.embeddings.create(model=model, input=["a", "b"], encoding_format="float")
    usual = await lenient.embeddings.create(model=model, input=["a", "b"])  # the SDK asks for base64 and decodes it
    raw = await lenient.embeddings.create(model=model, input=["a", "b"], encoding_format="base64")
    assert len(floats.data) == 2
    for plain, decoded, encoded in zip(floats.data, usual.data, raw.data, strict=True):
        assert list(plain.embedding) == pytest.approx(list(decoded.embedding))
        assert array("f", base64.b64decode(str(encoded.embedding))).tolist() == list(plain.embedding)
        assert len(plain.embedding) == 1536
        assert sum(value * value for value in plain.embedding) == pytest.approx(1.0, abs=1e-4)
    assert floats.data[0].embedding != floats.data[1].embedding
    assert floats.usage.prompt_tokens == floats.usage.total_tokens > 0


async def test_embeddings_take_token_ids_and_dimensions(client: AsyncOpenAI) -> None:
    one = await client.embeddings.create(
        model="text-embedding-3-large", input=[1, 2, 3], dimensions=256, encoding_format="float"
    )
    two = await client.embeddings.create(model="text-embedding-3-large", input=[[1, 2], [3]], encoding_format="float")
    assert (len(one.data), len(one.data[0].embedding), one.usage.prompt_tokens) == (1, 256, 3)
    assert (len(two.data), len(two.data[0].embedding), two.usage.prompt_tokens) == (2, 3072, 3)


async def test_models_are_listed_and_looked_up(client: AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    assert "gpt-4o-mini" in listed
    assert (await client.models.retrieve("gpt-4o-mini")).id == "gpt-4o-mini"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-9-does-not-exist")


async def test_moderations_answer_each_input(client: AsyncOpenAI) -> None:
    answer = await client.moderations.create(input=["a", "b"])
    assert [result.flagged for result in answer.results] == [False, False]


async def test_a_wrong_key_or_none_is_an_authentication_error(upstream: SimulatedOpenAI) -> None:
    wrong = AsyncOpenAI(base_url=upstream.base_url, api_key="sk-wrong-0123456789", max_retries=0)
    async with wrong:
        with pytest.raises(openai.AuthenticationError) as caught:
            await wrong.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert caught.value.code == "invalid_api_key"
        assert "sk-wrong-0123456789" not in str(caught.value)
        with pytest.raises(openai.AuthenticationError, match="didn't provide"):
            await wrong.models.list(extra_headers={"Authorization": ""})


async def test_an_unknown_model_is_not_found_on_every_endpoint(client: AsyncOpenAI) -> None:
    model = "gpt-9-does-not-exist"
    for call in (
        client.chat.completions.create(model=model, messages=HELLO),
        client.completions.create(model=model, prompt="a"),
        client.responses.create(model=model, input="a"),
        client.embeddings.create(model=model, input="a"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            await call
        assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (403, openai.PermissionDeniedError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
async def test_an_ordered_status_raises_the_sdk_s_class(
    client: AsyncOpenAI, status: int, error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as caught:
        await client.responses.create(model="gpt-4o", input="a", extra_headers=ordered(f"status={status}"))
    assert caught.value.status_code == status
    assert caught.value.request_id is not None
    assert caught.value.request_id.startswith("req_")
    assert ("retry-after" in caught.value.response.headers) == (status in (429, 503))


async def test_an_error_event_in_a_stream_raises(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, extra_headers=ordered("fail=3")
    )
    with pytest.raises(openai.APIError, match="server had an error"):
        async for _ in stream:
            pass


async def test_headers_are_those_of_openai(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    names = {"x-request-id", "openai-processing-ms", "openai-version", "openai-organization"}
    limits = {
        f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")
    }
    assert names | limits <= set(answer.headers)
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) < int(answer.headers["x-ratelimit-limit-tokens"])


async def test_the_synchronous_sdk_parses_the_same_answers(upstream: SimulatedOpenAI) -> None:
    def calls() -> tuple[str, str, int]:
        with OpenAI(base_url=upstream.base_url, api_key=KEY, max_retries=0, _strict_response_validation=True) as client:
            plain = client.chat.completions.create(model="gpt-4o", messages=HELLO)
            streamed = client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
            vectors = client.embeddings.create(
                model="text-embedding-3-small", input="a", dimensions=8, encoding_format="float"
            )
            return plain.choices[0].message.content or "", text, len(vectors.data[0].embedding)

    plain, streamed, dimensions = await asyncio.to_thread(calls)
    assert plain == streamed
    assert len(plain.split()) == 24
    assert dimensions == 8
