"""The delivered text of a call that reports no usage is counted beside the stream, whatever becomes of the count."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.adapters.openai.tokens import Tokenizer
from gateway.core.calls.meter import Reading
from gateway.proxy.watch import FOLD_TEXT_CHARS, Watch
from tests.proxy.conftest import Logs

MODEL = "gpt-4o-mini"


@pytest.fixture
def tokenizer() -> Iterator[Tokenizer]:
    made = Tokenizer()
    yield made
    made.close()


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Tokenizer]:
    """A tokenizer whose vocabularies are missing."""
    made = Tokenizer(tmp_path)
    yield made
    made.close()


async def test_a_long_stream_is_counted_as_it_goes_and_holds_little_text(tokenizer: Tokenizer) -> None:
    watch, reading = Watch(MODEL, tokenizer), Reading()
    watch.follow(SimpleNamespace(reading=reading))
    for _ in range(3):
        for _ in range(FOLD_TEXT_CHARS):
            reading.delivered.add(" word")
            watch.fold()
        assert await watch.delivered_tokens() == reading.delivered.tokens
        assert reading.delivered.text_chars == 0
    words = 3 * FOLD_TEXT_CHARS
    assert words <= reading.delivered.tokens < words * 1.001  # a piece may be cut within a word


async def test_a_tokenizer_that_fails_while_counting_is_replaced_by_a_guess_from_bytes(
    broken: Tokenizer, logs: Logs
) -> None:
    watch, reading = Watch(MODEL, broken), Reading()
    watch.follow(SimpleNamespace(reading=reading))
    for _ in range(FOLD_TEXT_CHARS):
        reading.delivered.add("word")
        watch.fold()
    assert await watch.delivered_tokens() == FOLD_TEXT_CHARS
    assert {entry["event"] for entry in logs} == {"tokens are guessed from bytes"}
