"""Following one running call: its progress, for the lease, and its delivered text, for when upstream gives no usage."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from gateway.adapters.openai.tokens import BYTES_PER_TOKEN_ABOUT, BadVocabulary, Tokenizer
from gateway.core.calls.meter import Delivered, Reading

log = structlog.get_logger(__name__)

# Delivered text is counted by the tokenizer in pieces of this size, so that a long stream holds no more of it.
FOLD_TEXT_CHARS = 16 * 1024

# Beyond so much uncounted text the stream outruns the tokenizer: it is counted by its length.
UNCOUNTED_CHARS_MAX = 8 * FOLD_TEXT_CHARS


class Metered(Protocol):
    """A meter, or whatever else reads an answer."""

    @property
    def reading(self) -> Reading: ...


class Watch:
    delivered: Delivered  # of the meter that is followed

    def __init__(self, model: str, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._meter: Metered | None = None
        self._folding: asyncio.Task[None] | None = None

    def follow(self, meter: Metered) -> None:
        self._meter = meter
        self.delivered = meter.reading.delivered

    def fold(self) -> None:
        """Once there is enough uncounted text, count it beside the stream; one count at a time."""
        delivered = self.delivered
        if delivered.text_chars <= FOLD_TEXT_CHARS:
            return
        if self._folding is None or self._folding.done():
            self._folding = asyncio.create_task(self._count())
        elif delivered.text_chars > UNCOUNTED_CHARS_MAX:
            delivered.tokens += sum(map(len, delivered.take_texts())) // BYTES_PER_TOKEN_ABOUT

    async def _count(self) -> None:
        delivered = self.delivered
        delivered.tokens += await count_tokens(self._tokenizer, self._model, delivered.take_texts())

    @property
    def output_tokens_about(self) -> int:
        return 0 if self._meter is None else self._meter.reading.delivered.tokens_about

    async def delivered_tokens(self) -> int:
        """The tokens of everything that was delivered."""
        if self._meter is None:
            return 0
        if self._folding is not None:
            await self._folding
        await self._count()
        return self._meter.reading.delivered.tokens


async def count_tokens(tokenizer: Tokenizer, model: str, texts: Sequence[str]) -> int:
    """Count the tokens of `texts`; by their bytes where the tokenizer is broken, since a settlement cannot wait."""
    try:
        counted = await tokenizer.count_to_charge(model, texts)
    except BadVocabulary as error:
        log.error("tokens are guessed from bytes", error=str(error))
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        return -(-size // BYTES_PER_TOKEN_ABOUT)
    return counted.tokens
