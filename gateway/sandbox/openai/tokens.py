"""Tokens: the simulated OpenAI's own rules for counting them, and the words its answers are made of.

Prompt: one token for each 6 bytes of the raw JSON of the fields that carry content, rounded up, the JSON around the
text standing for OpenAI's overhead; a prompt given as token ids counts exactly. So a prompt never has more tokens than
its body has bytes, and English prose about as many as a real tokeniser finds. Output: one token for each word.
"""

from zlib import crc32

import msgspec

BYTES_PER_TOKEN = 6
CACHE_STEP_TOKENS = 128
CACHE_TOKENS_MIN = 1024

# With and without its leading space, each is one token of o200k_base and of cl100k_base, so a real tokeniser counts an
# answer, or any part of it that ends between two words, as we do.
_ALL_WORDS = (
    "answer river light simple paper music window future market silver travel number story winter summer bridge "
    "forest orange camera coffee planet metal circle engine letter mirror signal button thread the time people way "
    "water long little very after words called just where most know get through back much before also around "
    "another came come work three word because does part even place well such"
)
WORDS = _ALL_WORDS.split()
_LOOP = [f" {word}" for word in WORDS] * 2


class TokenCounts(msgspec.Struct, frozen=True, gc=False):
    """What a request consumed, as OpenAI nests it: the two totals include their details.

    The prompt's details never overlap: what is cached or written to the cache is text.
    """

    prompt: int = 0
    cached: int = 0
    cache_write: int = 0
    prompt_audio: int = 0
    prompt_image: int = 0
    completion: int = 0
    reasoning: int = 0
    completion_audio: int = 0


def count_prompt(content: list[bytes]) -> int:
    """Tokens of the raw JSON values that carry a request's content.

    >>> count_prompt([b'"Hello there"']), count_prompt([b"[1, 2, 3]"]), count_prompt([b"[[1],[2,3]]"])
    (3, 3, 3)
    """
    tokens = size = 0
    for raw in content:
        if _holds_token_ids(raw):
            tokens += raw.count(b",") + 1
        else:
            size += len(raw)
    return tokens - (-size // BYTES_PER_TOKEN)


def _holds_token_ids(raw: bytes) -> bool:
    return raw[:1] == b"[" and raw[:64].lstrip(b"[ \t\r\n")[:1].isdigit()


def seed_of(model: str, content: list[bytes]) -> int:
    """A number that the same model and content always give; all that is random in an answer comes from it."""
    seed = crc32(model.encode())
    for raw in content:
        seed = crc32(raw, seed)
    return seed


def cached_tokens(text_tokens: int, seed: int) -> int:
    """How many of a prompt's text tokens were found in the cache: 0, or 1024 and more in steps of 128.

    >>> cached_tokens(1023, 7), cached_tokens(2000, 8), cached_tokens(2000, 9)
    (0, 1920, 0)
    """
    steps = (text_tokens - CACHE_TOKENS_MIN) // CACHE_STEP_TOKENS + 1
    step = seed % (steps + 1) if steps > 0 else 0
    return CACHE_TOKENS_MIN + (step - 1) * CACHE_STEP_TOKENS if step else 0


def pieces(offset: int) -> list[str]:
    """One round of an answer's words from `offset`, each with its leading space; an answer repeats it.

    The first piece of an answer goes without its space.
    """
    start = offset % len(WORDS)
    return _LOOP[start : start + len(WORDS)]


def text_of(offset: int, count: int) -> str:
    """The first `count` pieces of an answer, as one text.

    >>> text_of(0, 3), text_of(64 * 5 + 1, 1), text_of(0, 0)
    ('answer river light', 'river', '')
    """
    one_round = pieces(offset)
    rounds, rest = divmod(count, len(WORDS))
    return ("".join(one_round) * rounds + "".join(one_round[:rest]))[1:]
