"""The simulated OpenAI's words are counted by a real tokeniser as the simulation counts them."""

import pytest

from gateway.adapters.openai.tokens import load_encoding
from gateway.sandbox.openai.tokens import WORDS, count_prompt, text_of


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_a_part_of_an_answer_has_as_many_tokens_as_words(name: str) -> None:
    encoding = load_encoding(name)
    for offset in range(len(WORDS)):
        for words in (1, 2, 24, 65, 130):
            assert len(encoding.encode_ordinary(text_of(offset, words))) == words


def test_english_prose_is_not_counted_dearer_than_a_real_tokeniser_and_its_overhead() -> None:
    prose = "The river was slow that summer, and nobody in the village remembered when the bridge had been built. "
    real = len(load_encoding("o200k_base").encode_ordinary(prose * 20))
    assert 0.6 * real < count_prompt([f'[{{"role":"user","content":"{prose * 20}"}}]'.encode()]) <= real + 7
