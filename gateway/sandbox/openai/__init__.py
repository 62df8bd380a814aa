"""The simulated OpenAI: an upstream for the demo, tests and load, which answers like OpenAI and breaks to order.

Answers are deterministic: the same request gets the same text and the same usage. Ids count the requests. How tokens
are counted is said in `tokens`; models whose name ends in `-does-not-exist` are unknown, all others are served. Not
simulated: stop sequences, logprobs, tool calls, and the turns behind `previous_response_id`, which cost nothing here.

A request's header `x-sandbox-scenario` holds orders, separated by commas: `tokens=200, ttft=50, cut=7`.

    tokens=N           visible length of each choice; output limits still cut it
    reasoning=N        reasoning tokens before it, for any model
    cached=N           cached prompt tokens, at most those that are text
    model=X            the served model is named X
    tier=X             the served tier: default, flex, priority, scale
    ttft=MS            time to the first token (of a plain answer: added to its generation)
    rate=N             tokens a second; 0: as fast as possible
    slow-headers=MS    time before the status line
    encoding=X         gzip, deflate, br or zstd; a stream is flushed after each event
    split=N            the body leaves in pieces of N bytes
    no-content-length  a plain body is sent chunked
    no-usage           no usage is reported
    absurd-usage=X     negative (also without =X), huge, details (above their totals), text (strings for numbers)
    malformed          a plain body ends early, inside a valid length; a stream's second event is broken JSON
    status=N           OpenAI's error N, 400 to 599; 429 and 503 with retry-after=S (1)
    stall=N            nothing more after N events of a stream, or N bytes of a plain body; stall: no answer at all
    cut=N              the connection is closed after N events or bytes, before the end that the headers promise
    reset=N            the same by a TCP reset, which may take what was sent with it
    fail=N             an error event after N events ends the stream
    drop               the connection is closed before a byte is answered

`PUT /sandbox/scenario` sets what holds for every request. `GET /sandbox/log` shows every request and what it really
produced, `DELETE /sandbox/log` clears it. `GET /v1/organization/usage/{completions,embeddings}` and `…/costs` report
what was served by the day, to any bearer key; a clear does not change them.
"""

from gateway.sandbox.openai.app import SimulatedOpenAI, create_app, serve
from gateway.sandbox.openai.log import LogEntry, Outcome, RequestLog
from gateway.sandbox.openai.settings import SandboxOpenAISettings
from gateway.sandbox.openai.tokens import TokenCounts

__all__ = [
    "LogEntry",
    "Outcome",
    "RequestLog",
    "SandboxOpenAISettings",
    "SimulatedOpenAI",
    "TokenCounts",
    "create_app",
    "serve",
]
