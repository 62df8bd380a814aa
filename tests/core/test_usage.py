from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls.usage import AbsurdUsage, ReportedUsage, Usage, disjoint

COUNT = st.integers(0, 1000)


def usage_of(document: dict[str, Any]) -> Usage:
    return disjoint(msgspec.convert(document, ReportedUsage))


@given(COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT)
def test_classes_add_up_to_what_was_reported(
    into: int, out: int, cached: int, written: int, audio: int, image: int, reasoning: int, audio_out: int
) -> None:
    document = {
        "prompt_tokens": into,
        "completion_tokens": out,
        "prompt_tokens_details": {
            "cached_tokens": cached,
            "cache_write_tokens": written,
            "audio_tokens": audio,
            "image_tokens": image,
        },
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": audio_out},
    }
    contradicts = cached + written > into or audio + image > into or reasoning + audio_out > out
    if contradicts:
        with pytest.raises(AbsurdUsage):
            usage_of(document)
        return
    usage = usage_of(document)
    assert (usage.input_total, usage.output_total) == (into, out)
    assert min(msgspec.to_builtins(usage).values(), default=0) >= 0


def test_cached_tokens_are_not_counted_twice() -> None:
    assert usage_of({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}) == Usage(
        input=6, input_cached=4
    )


def test_what_the_text_cannot_hold_was_cached_audio() -> None:
    details = {"cached_tokens": 8, "audio_tokens": 6}
    assert usage_of({"prompt_tokens": 10, "prompt_tokens_details": details}) == Usage(input_cached=8, input_audio=2)


def test_responses_and_embeddings_have_their_own_names() -> None:
    assert usage_of({"input_tokens": 3, "output_tokens": 2}) == Usage(input=3, output=2)
    assert usage_of({"prompt_tokens": 3, "total_tokens": 3}) == Usage(input=3)


def test_null_details_are_no_details() -> None:
    assert usage_of({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": None}) == Usage(
        input=3, output=1
    )
