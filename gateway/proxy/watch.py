"""Following one running call: its progress, for the lease, and its delivered text, for when upstream gives no usage."""

import asyncio

from gateway.adapters.tokens import Tokenizer
from gateway.core.meter import Reading

# Delivered text is counted by the tokenizer in pieces of this size, so that a long stream holds no more of it.
FOLD_TEXT_CHARS = 16 * 1024


class Watch:
    def __init__(self, model: str, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._reading = Reading()
        self._folding: asyncio.Task[None] | None = None

    def follow(self, reading: Reading) -> None:
        self._reading = reading

    def fold(self) -> None:
        """Once there is enough uncounted text, count it beside the stream; one count at a time."""
        delivered = self._reading.delivered
        if delivered.text_chars > FOLD_TEXT_CHARS and (self._folding is None or self._folding.done()):
            self._folding = asyncio.create_task(self._count())

    async def _count(self) -> None:
        delivered = self._reading.delivered
        counted = await self._tokenizer.count(self._model, delivered.take_texts())
        delivered.tokens += counted.tokens

    @property
    def output_tokens_about(self) -> int:
        return self._reading.delivered.tokens_about

    async def delivered_tokens(self) -> int:
        """The tokens of everything that was delivered."""
        if self._folding is not None:
            await self._folding
        await self._count()
        return self._reading.delivered.tokens
