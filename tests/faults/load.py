"""A light load through the SDK, running beside a fault, and what its callers saw."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI

from tests.patience import PATIENCE_S

MODEL = "gpt-4o-mini"
HELLO: Any = [{"role": "user", "content": "Say hello."}]
# Named in every request, so that the upstream's log tells whose it was.
TAG_HEADER = "x-load"


class Load:
    """Some callers make plain calls, some streamed ones. `seen` counts ends: "ok", a status, or "broken"."""

    def __init__(self, client: AsyncOpenAI, tag: str) -> None:
        self._client = client
        self._tag = tag
        self._changed = asyncio.Event()
        self.seen: Counter[str] = Counter()
        self.slowest_503_s = 0.0

    async def call(self, *, streamed: bool = False, scenario: str = "") -> str:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        headers = {TAG_HEADER: self._tag} | ({"x-sandbox-scenario": scenario} if scenario else {})
        try:
            answer: Any = await self._client.chat.completions.create(
                model=MODEL, messages=HELLO, max_completion_tokens=60, stream=streamed, extra_headers=headers
            )
            if streamed:
                async for _ in answer:
                    pass
            end = "ok"
        except openai.APIStatusError as error:
            end = str(error.status_code)
            self.slowest_503_s = max(self.slowest_503_s, loop.time() - began_s)
        except (openai.APIError, httpx2.HTTPError):
            end = "broken"
        self.seen[end] += 1
        self._changed.set()
        if end != "ok":
            await asyncio.sleep(0.02)  # a refusal comes at once; do not spin on it
        return end

    async def wait_for(self, end: str, more: int = 1, timeout_s: float = PATIENCE_S) -> None:
        """Wait until `more` calls have ended so, from now on."""
        wanted = self.seen[end] + more
        async with asyncio.timeout(timeout_s):
            while self.seen[end] < wanted:
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def load(base_url: str, key: str, tag: str, callers: int = 4) -> AsyncIterator[Load]:
    """Run a load until the block ends; every call that is under way then is finished first."""
    async with AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=20) as client:
        made = Load(client, tag)
        stopping = asyncio.Event()

        async def caller(number: int) -> None:
            while not stopping.is_set():
                await made.call(streamed=number % 2 == 1)

        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(caller(number))
            try:
                yield made
            finally:
                stopping.set()
