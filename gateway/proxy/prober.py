"""Probes: the operator's own requests that find out whether a model, or the upstream, answers again.

Each asks for the least that there is, under the gateway's own key. No caller waits for one, and none is charged.
"""

import asyncio

import msgspec

from gateway.core.calls.calls import Endpoint
from gateway.proxy.http1.client import Pool
from gateway.proxy.http1.errors import UpstreamFailed

ANSWER_BYTES_MAX = 256 * 1024
OUTPUT_TOKENS = 16  # the least that every model and endpoint takes

_TEXT = "ping"
_ASKS: dict[Endpoint, dict[str, object]] = {
    Endpoint.CHAT: {"messages": [{"role": "user", "content": _TEXT}], "max_completion_tokens": OUTPUT_TOKENS},
    Endpoint.COMPLETIONS: {"prompt": _TEXT, "max_tokens": 1},
    Endpoint.RESPONSES: {"input": _TEXT, "max_output_tokens": OUTPUT_TOKENS, "store": False},
    Endpoint.EMBEDDINGS: {"input": _TEXT},
}


# Of a model that only other gateways have called: what it answers to, by its name.
_NAMED = {"embedding": Endpoint.EMBEDDINGS, "instruct": Endpoint.COMPLETIONS, "-002": Endpoint.COMPLETIONS}


def usual_endpoint(model: str) -> Endpoint:
    """Where a model is asked, as far as its name tells.

    >>> [usual_endpoint(model).value for model in ("gpt-5", "text-embedding-3-small", "text-embedding-ada-002")]
    ['/v1/responses', '/v1/embeddings', '/v1/embeddings']
    """
    return next((endpoint for part, endpoint in _NAMED.items() if part in model), Endpoint.RESPONSES)


class Prober:
    def __init__(self, pool: Pool, *, upstream_key: str, timeout_s: float) -> None:
        self._pool = pool
        self._headers = [(b"authorization", b"Bearer " + upstream_key.encode())] if upstream_key else []
        self._timeout_s = timeout_s

    async def model_answers(self, model: str, endpoint: Endpoint) -> bool:
        """Whether `model` answers. A refusal of this very request is an answer: the model is there."""
        body = msgspec.json.encode({"model": model} | _ASKS[endpoint])
        headers = [*self._headers, (b"content-type", b"application/json")]
        status = await self._status(b"POST", endpoint.encode(), headers, body)
        return 200 <= status < 500 and status not in (401, 403, 408, 429)

    async def upstream_answers(self) -> bool:
        """Whether there is anybody; what it says does not matter."""
        return await self._status(b"GET", b"/v1/models", self._headers, None) > 0

    async def _status(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes | None
    ) -> int:
        """The status of the whole answer; 0 if there was none in time."""
        start = self._pool.start_of_head(method, target, headers)
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._pool.ask(method, start, body)
                try:
                    await answer.read(ANSWER_BYTES_MAX)
                finally:
                    answer.abort()  # nothing, if it is complete
                return answer.status
        except (UpstreamFailed, TimeoutError):
            return 0
