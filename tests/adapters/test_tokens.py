"""The tokenizer: right counts from shipped files, off the loop, whatever the text."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.openai.tokens import (
    KNOWN,
    PIECE_CHARACTERS,
    VOCABULARIES,
    BadVocabulary,
    TokenCount,
    Tokenizer,
    encoding_name,
    load_encoding,
)
from tests.patience import PATIENCE_S


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[Tokenizer]:
    tokenizer = Tokenizer()
    yield tokenizer
    tokenizer.close()


@pytest.fixture(scope="module")
def o200k() -> tiktoken.Encoding:
    return load_encoding("o200k_base")


SAMPLES = [
    "",
    "hello world",
    "I'm 12345 years old.\r\n\r\n  Ok",
    "naïve 日本語 🙂🙂",
    "def f(x):\n\treturn x  \n",
    " " * 100 + "x",
]


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_counts_are_tiktoken_s_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(VOCABULARIES))  # theirs finds the files under its cache's names
    theirs, ours = tiktoken.get_encoding(name), load_encoding(name)
    for text in SAMPLES:
        assert ours.encode_ordinary(text) == theirs.encode_ordinary(text)


@pytest.mark.parametrize(
    ("model", "name", "known"),
    [
        ("gpt-4o-2024-08-06", "o200k_base", True),
        ("gpt-4.1-mini", "o200k_base", True),
        ("gpt-5.4", "o200k_base", True),
        ("o3-mini", "o200k_base", True),
        ("gpt-4", "cl100k_base", True),
        ("gpt-3.5-turbo-0125", "cl100k_base", True),
        ("text-embedding-3-small", "cl100k_base", True),
        ("gpt-6-sol", "o200k_base", False),
        ("gpt-audio", "o200k_base", False),
        ("text-davinci-003", "o200k_base", False),
        ("", "o200k_base", False),
    ],
)
def test_a_model_has_its_vocabulary_or_an_estimate(model: str, name: str, known: bool) -> None:
    assert encoding_name(model) == (name, known)


async def test_texts_are_counted_one_by_one(tokenizer: Tokenizer) -> None:
    assert await tokenizer.count("gpt-4o", ["hello world", "", "hello world"]) == TokenCount(4, estimated=False)
    assert await tokenizer.count("gpt-6-sol", ["hello world"]) == TokenCount(2, estimated=True)
    assert await tokenizer.count("gpt-4", []) == TokenCount(0, estimated=False)


async def test_what_looks_like_a_special_token_is_text(tokenizer: Tokenizer) -> None:
    count = await tokenizer.count("gpt-4o", ["<|endoftext|>"])
    assert count.tokens > 1


@pytest.mark.parametrize("text", ["\ud800", "a\udc00b", "\udfff\ud800" * 10, "\ud83d\ude42"])
async def test_half_a_surrogate_pair_is_counted(tokenizer: Tokenizer, text: str) -> None:
    assert (await tokenizer.count("gpt-4o", [text])).tokens >= 1


@pytest.mark.parametrize("text", [" " * 1_000_000, "\t" * 1_000_000, "a" * 1_000_000, "^" * 1_000_000])
async def test_a_hostile_run_is_counted_in_pieces(tokenizer: Tokenizer, text: str) -> None:
    """tiktoken panics on a million blanks in one piece."""
    count = await tokenizer.count("gpt-4o", [text])
    assert 0 < count.tokens < 1_000_000
    assert not count.estimated


async def test_beyond_the_byte_limit_each_byte_is_a_token() -> None:
    tokenizer = Tokenizer(counted_bytes_max=PIECE_CHARACTERS)
    counted = await tokenizer.count("gpt-4o", ["word " * 6_000])
    capped = await tokenizer.count("gpt-4o", ["word " * 6_000, "é" * PIECE_CHARACTERS])
    tokenizer.close()
    assert not counted.estimated
    assert capped == TokenCount(counted.tokens + 2 * PIECE_CHARACTERS, estimated=True)


async def test_the_loop_runs_on_while_text_is_counted(tokenizer: Tokenizer) -> None:
    await tokenizer.count("gpt-4o", ["load"])
    counting = asyncio.ensure_future(tokenizer.count("gpt-4o", ["a" * 1_000_000]))
    turns = 0
    while not counting.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    assert (await counting).tokens > 0


async def test_too_many_counts_at_once_are_answered_by_their_bytes() -> None:
    tokenizer = Tokenizer(waiting_max=1)
    first, second = await asyncio.gather(
        tokenizer.count("gpt-4o", ["hello world"]), tokenizer.count("gpt-4o", ["hello wörld"])
    )
    tokenizer.close()
    assert first == TokenCount(2, estimated=False)
    assert second == TokenCount(12, estimated=True)


async def test_a_closed_tokenizer_answers_with_bytes() -> None:
    tokenizer = Tokenizer()
    tokenizer.close()
    tokenizer.close()
    assert await tokenizer.count("gpt-4o", ["hello world"]) == TokenCount(11, estimated=True)


async def test_closing_ends_a_running_count_soon() -> None:
    tokenizer = Tokenizer(counted_bytes_max=10**9)
    await tokenizer.count("gpt-4o", ["load"])
    running = asyncio.ensure_future(tokenizer.count("gpt-4o", ["a" * 30_000_000]))
    await asyncio.sleep(0)
    tokenizer.close()
    async with asyncio.timeout(PATIENCE_S):
        (outcome,) = await asyncio.gather(running, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError) or (isinstance(outcome, TokenCount) and outcome.estimated)


@pytest.mark.parametrize("damage", ["cut", "missing"])
async def test_a_damaged_vocabulary_is_refused_and_never_fetched(damage: str, tmp_path: Path) -> None:
    shutil.copytree(VOCABULARIES, tmp_path, dirs_exist_ok=True)
    path = tmp_path / KNOWN["o200k_base"].file_name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    tokenizer = Tokenizer(tmp_path)
    with pytest.raises(BadVocabulary, match="install the package again"):
        await tokenizer.count("gpt-4o", ["hello"])
    assert (await tokenizer.count("gpt-4", ["hello"])).tokens == 1
    tokenizer.close()


def test_nothing_is_loaded_before_the_first_count() -> None:
    code = "import sys, gateway.adapters.openai.tokens as t; t.Tokenizer().close(); sys.exit('tiktoken' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@given(text=st.text(max_size=100))
def test_a_text_never_has_more_tokens_than_bytes(o200k: tiktoken.Encoding, text: str) -> None:
    assert len(o200k.encode_ordinary(text)) <= len(text.encode())
