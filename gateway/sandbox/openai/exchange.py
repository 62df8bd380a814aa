"""The straight line of one request: log → key → scenario → answer → delivery."""

import asyncio
import hashlib
from collections.abc import Callable

from aiohttp import web

from gateway.sandbox.openai import errors
from gateway.sandbox.openai.answers import ENDPOINTS, Answer, Question, answer, events, refusal
from gateway.sandbox.openai.delivery import Delivery, Pace, close
from gateway.sandbox.openai.errors import ApiError
from gateway.sandbox.openai.log import LogEntry, Outcome, RequestLog
from gateway.sandbox.openai.organization import Organization
from gateway.sandbox.openai.realtime import REALTIME, converse
from gateway.sandbox.openai.scenarios import HEADER, USUAL, Scenario, ScenarioError, parse_scenario
from gateway.sandbox.openai.settings import SandboxOpenAISettings

_ID_DIGITS = 32
_REQUESTS_LIMIT = 10_000
_TOKENS_LIMIT = 2_000_000
_TOKENS_PER_MS = _TOKENS_LIMIT / 60_000


class Exchange:
    """Serves requests; holds what outlives one: the log, the count of requests, the scenario that holds for all."""

    def __init__(self, settings: SandboxOpenAISettings, clock: Callable[[], float]) -> None:
        self.organization = Organization(clock, settings.admin_key)
        self.log = RequestLog(settings.log_entries_max, on_end=self.organization.count)
        self.scenario = parse_scenario(settings.scenario)
        self.stopping = asyncio.Event()
        self._settings = settings
        self._clock = clock
        self._requests = 0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one request and write down how it ended."""
        entry = self._begin(request)
        try:
            return await self._exchange(request, entry)
        except asyncio.CancelledError:
            gone = request.transport is None or request.transport.is_closing()
            self.log.end(entry, Outcome.CLIENT_GONE if gone else Outcome.STOPPED)
            raise
        except ConnectionError:
            self.log.end(entry, Outcome.STOPPED if self.stopping.is_set() else Outcome.CLIENT_GONE)
            close(request, reset=False)
            return web.Response()  # which nobody will see: the connection is closed

    def _begin(self, request: web.Request) -> LogEntry:
        sequence = self._requests
        self._requests += 1
        resource = request.match_info.route.resource
        endpoint = "" if resource is None else resource.canonical
        instance = self._settings.instance
        entry = LogEntry(
            sequence=sequence,
            request_id=f"req_{instance}{sequence:0{max(1, _ID_DIGITS - len(instance))}x}",
            method=request.method,
            path=request.path,
            began_at_s=self._clock(),
            raw_headers=b"\n".join([part for pair in request.raw_headers for part in pair]),
            endpoint=endpoint if endpoint in ENDPOINTS else "",
        )
        self.log.begin(entry)
        return entry

    async def _exchange(self, request: web.Request, entry: LogEntry) -> web.StreamResponse:
        scenario = USUAL
        try:
            body = await self._body(request, entry)
            self._check_key(request)
            scenario = self._scenario(request)
            if request.path == REALTIME and scenario.status is None:
                socket = await converse(request, entry, self._settings.output_tokens)
                self.log.end(entry, Outcome.COMPLETE)
                return socket
            answered = answer(entry.method, entry.path, self._question(request, entry, scenario, body))
        except ApiError as error:
            answered = refusal(error, scenario)
        if scenario.drop:
            close(request, reset=False)
            self.log.end(entry, Outcome.CUT)
            return web.Response()
        entry.model = answered.model
        entry.served_model = answered.served_model
        entry.tier = answered.tier
        entry.stream = answered.plan is not None
        pace = pace_of(scenario, self._settings)
        headers = _headers(entry, answered, pace)
        delivery = Delivery(request, entry, self.log, scenario, pace, headers, self.stopping)
        if answered.plan is None:
            return await delivery.plain(answered)
        return await delivery.stream(events(answered.plan), answered.plan.produced)

    async def _body(self, request: web.Request, entry: LogEntry) -> bytes:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise errors.body_too_large() from error
        entry.body_bytes = len(body)
        entry.body_sha256 = hashlib.sha256(body).hexdigest()
        return body

    def _check_key(self, request: web.Request) -> None:
        if self._settings.api_key is None:
            return
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise errors.key_missing()
        if key.strip() != self._settings.api_key:
            raise errors.key_incorrect(key.strip())

    def _scenario(self, request: web.Request) -> Scenario:
        asked = request.headers.get(HEADER)
        if asked is None:
            return self.scenario
        try:
            return parse_scenario(asked, self.scenario)
        except ScenarioError as error:
            raise errors.parameter_invalid(HEADER, str(error), "invalid_scenario") from error

    def _question(self, request: web.Request, entry: LogEntry, scenario: Scenario, body: bytes) -> Question:
        return Question(
            endpoint=entry.endpoint,
            body=body,
            scenario=scenario,
            output_tokens=self._settings.output_tokens,
            answer_id=entry.request_id[4:],
            created_s=int(entry.began_at_s),
            name=request.match_info.get("model", ""),
        )


def pace_of(scenario: Scenario, settings: SandboxOpenAISettings) -> Pace:
    """The pace that the scenario orders, else the usual one."""
    return Pace(
        ttft_ms=settings.ttft_ms if scenario.ttft is None else scenario.ttft,
        tokens_per_s=settings.tokens_per_s if scenario.rate is None else scenario.rate,
    )


def _headers(entry: LogEntry, answered: Answer, pace: Pace) -> dict[str, str]:
    """OpenAI's headers of one answer; nothing in them depends on other requests."""
    headers = {
        "x-request-id": entry.request_id,
        "openai-version": "2020-10-01",
        "openai-organization": "sandbox",
        "openai-processing-ms": str(int(1000 * pace.generation_s(answered.words)) + 1),
    }
    if answered.retry_after_s is not None:
        headers["retry-after"] = str(answered.retry_after_s)
    if entry.model:
        tokens = answered.usage.prompt
        headers["x-ratelimit-limit-requests"] = str(_REQUESTS_LIMIT)
        headers["x-ratelimit-limit-tokens"] = str(_TOKENS_LIMIT)
        headers["x-ratelimit-remaining-requests"] = str(_REQUESTS_LIMIT - 1)
        headers["x-ratelimit-remaining-tokens"] = str(max(0, _TOKENS_LIMIT - tokens))
        headers["x-ratelimit-reset-requests"] = "6ms"
        headers["x-ratelimit-reset-tokens"] = f"{int(tokens / _TOKENS_PER_MS)}ms"
    return headers
