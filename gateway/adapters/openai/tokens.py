"""The tokenizer: counts tokens with tiktoken, off the event loop, from vocabularies that ship inside the package.

It never reaches for the network and never reads the environment: a file is used only if its SHA-256 is the published
one. Vocabularies are loaded at the first count (half a second and 80 MB), never before.
"""

import asyncio
import base64
import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from tiktoken import Encoding

VOCABULARIES = Path(__file__).parent / "vocabularies"

# Text that a hostile caller chose costs up to a second of CPU for each MiB, so no count reads more than this.
COUNTED_BYTES_MAX = 1_048_576
# tiktoken gets pieces of at most this many characters: its pattern overflows the stack on a MiB of white space, and
# long runs of one letter cost it up to ten times as much. A cut adds a token at most.
PIECE_CHARACTERS = 32_768
# Counts that wait for the one thread; further ones are answered by their bytes.
WAITING_MAX = 64
# English and code have four to five bytes a token: a fair figure where no bound is wanted.
BYTES_PER_TOKEN_ABOUT = 4


class TokenCount(msgspec.Struct, frozen=True):
    """How many tokens, and whether that is only an upper bound or another model's count."""

    tokens: int
    estimated: bool


class BadVocabulary(RuntimeError):
    """A vocabulary file of this installation is missing or damaged; install the package again."""


class Vocabulary(NamedTuple):
    """A vocabulary's file, named as tiktoken's cache names it, and the pattern that splits text for it."""

    file_name: str
    sha256: str
    pattern: str


# Hashes and patterns: tiktoken_ext/openai_public.py of tiktoken 0.14 (MIT), whose own loader would fetch the files.
KNOWN = {
    "o200k_base": Vocabulary(
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        "|".join(
            (
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"\p{N}{1,3}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                r"\s*[\r\n]+",
                r"\s+(?!\S)",
                r"\s+",
            )
        ),
    ),
    "cl100k_base": Vocabulary(
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    ),
}
FALLBACK = "o200k_base"  # for models that tiktoken does not know yet, and for retired ones whose files do not ship


class Tokenizer:
    """Counts tokens in threads of its own. Close it when the service stops."""

    def __init__(
        self,
        vocabularies: Path = VOCABULARIES,
        *,
        counted_bytes_max: int = COUNTED_BYTES_MAX,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._directory = vocabularies
        self._counted_bytes_max = counted_bytes_max
        self._waiting_max = waiting_max
        self._waiting = 0
        self._encodings: dict[str, Encoding] = {}
        self._loading = threading.Lock()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        # Settlements do not queue behind admissions, which any caller can cause in any number.
        self._charging = ThreadPoolExecutor(1, thread_name_prefix="tokenizer-charging")
        self._closing = threading.Event()

    async def count(self, model: str, texts: Sequence[str]) -> TokenCount:
        """Count the tokens of `texts` as ordinary text: what looks like a special token is none.

        An upper bound, marked as estimated, for what is beyond the byte limit, or when too many counts wait already.
        Raises `BadVocabulary`.
        """
        if self._waiting >= self._waiting_max or self._closing.is_set():
            return TokenCount(sum(len(text.encode("utf-8", "surrogatepass")) for text in texts), estimated=True)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, self._count, model, tuple(texts), 1)
        finally:
            self._waiting -= 1

    async def count_to_charge(self, model: str, texts: Sequence[str]) -> TokenCount:
        """Count what a caller pays for: never answered by a bound, however many counts wait for admission.

        What is beyond the byte limit is taken at `BYTES_PER_TOKEN_ABOUT`. Raises `BadVocabulary`.
        """
        if self._closing.is_set():
            size = sum(len(_encode(text)) for text in texts)
            return TokenCount(-(-size // BYTES_PER_TOKEN_ABOUT), estimated=True)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._charging, self._count, model, tuple(texts), BYTES_PER_TOKEN_ABOUT)

    def close(self) -> None:
        """Let the thread end: counts that wait are cancelled, the running one stops at its next piece."""
        self._closing.set()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._charging.shutdown(wait=False, cancel_futures=True)

    def _count(self, model: str, texts: tuple[str, ...], bytes_per_token: int) -> TokenCount:
        name, known = encoding_name(model)
        with self._loading:
            encoding = self._encodings.get(name)
            if encoding is None:
                encoding = self._encodings[name] = load_encoding(name, self._directory)
        tokens, bytes_left, cut = 0, self._counted_bytes_max, False
        for text in texts:
            for start in range(0, len(text), PIECE_CHARACTERS):
                piece = _encode(text[start : start + PIECE_CHARACTERS])
                if len(piece) > bytes_left or self._closing.is_set():
                    tokens += -(-len(piece) // bytes_per_token)
                    cut = True
                else:
                    tokens += len(encoding.encode_ordinary(piece.decode()))
                    bytes_left -= len(piece)
        return TokenCount(tokens, estimated=cut or not known)


def encoding_name(model: str) -> tuple[str, bool]:
    """Return the vocabulary that counts for `model`, and whether it is known to be the model's own."""
    import tiktoken

    try:
        name = tiktoken.encoding_name_for_model(model)
    except KeyError:
        return FALLBACK, False
    return (name, True) if name in KNOWN else (FALLBACK, False)


def load_encoding(name: str, directory: Path = VOCABULARIES) -> "Encoding":
    """Read one vocabulary from `directory`; raises `BadVocabulary` if the file is not the published one."""
    import tiktoken

    vocabulary = KNOWN[name]
    path = directory / vocabulary.file_name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadVocabulary(f"{path.name}: cannot be read: {error.strerror}; install the package again") from error
    if hashlib.sha256(data).hexdigest() != vocabulary.sha256:
        raise BadVocabulary(f"{path.name}: is not the published {name} vocabulary; install the package again")
    ranks: dict[bytes, int] = {}
    for line in data.splitlines():
        token, _, rank = line.partition(b" ")
        ranks[base64.b64decode(token)] = int(rank)
    return tiktoken.Encoding(name, pat_str=vocabulary.pattern, mergeable_ranks=ranks, special_tokens={})


def _encode(text: str) -> bytes:
    """UTF-8, with U+FFFD for half a surrogate pair (JSON can spell one), as the upstream reads it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
