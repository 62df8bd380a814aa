"""Plans: what the simulated model will say to one ask and what that consumes, decided before a byte is sent.

Everything follows from the ask and the scenario, so the same request always gets the same answer and the same usage.
"""

from typing import Any

import msgspec

from gateway.sandbox.openai.asks import CHAT, COMPLETIONS, RESPONSES, TextAsk, writes_cache
from gateway.sandbox.openai.scenarios import Scenario
from gateway.sandbox.openai.tokens import (
    CACHE_STEP_TOKENS,
    CACHE_TOKENS_MIN,
    TokenCounts,
    cached_tokens,
    count_prompt,
    seed_of,
)

_HUGE_TOKENS = 10**15


class Plan(msgspec.Struct, frozen=True, gc=False):
    """One answer: `visible` words for each choice, after `reasoning` tokens that nobody sees."""

    ask: TextAsk
    answer_id: str
    created_s: int
    model: bytes  # as served, as JSON
    tier: str
    offset: int  # of the first choice's first word
    visible: int
    reasoning: int
    limited: bool  # the output limit cut the answer
    prompt: TokenCounts  # its prompt fields only
    usage: bytes | None  # as reported, as JSON; None: not reported

    def produced(self, words: int) -> TokenCounts:
        """What was consumed once `words` words were generated, in all choices together."""
        reasoning = self.reasoning * self.ask.generated
        return msgspec.structs.replace(
            self.prompt,
            completion=reasoning + words,
            reasoning=reasoning,
            completion_audio=words if self.ask.audio else 0,
        )

    @property
    def words(self) -> int:
        """The words of the whole answer, in all choices together."""
        return self.visible * self.ask.generated

    @property
    def finish_reason(self) -> bytes:
        return b"length" if self.limited else b"stop"

    def offset_of(self, choice: int) -> int:
        return self.offset + 7 * choice


def plan(ask: TextAsk, scenario: Scenario, output_tokens: int, answer_id: str, created_s: int) -> Plan:
    """Decide the answer to `ask`; `output_tokens` is its visible length unless limit or scenario say otherwise."""
    seed = seed_of(ask.model, ask.content)
    visible = output_tokens if scenario.tokens is None else scenario.tokens
    reasoning = 16 + 8 * (seed % 13) if ask.reasons else 0
    if scenario.reasoning is not None:
        reasoning = scenario.reasoning
    limited = ask.limit is not None and ask.limit < reasoning + visible
    if ask.limit is not None:
        reasoning = min(reasoning, ask.limit)
        visible = min(visible, ask.limit - reasoning)
    decided = Plan(
        ask=ask,
        answer_id=answer_id,
        created_s=created_s,
        model=msgspec.json.encode(scenario.model or ask.model),
        tier=scenario.tier or ask.tier,
        offset=seed,
        visible=visible,
        reasoning=reasoning,
        limited=limited,
        prompt=_prompt(ask, scenario, seed),
        usage=None,
    )
    if scenario.no_usage:
        return decided
    usage = report(ask.endpoint, decided.produced(decided.words), scenario.absurd_usage)
    return msgspec.structs.replace(decided, usage=usage)


def _prompt(ask: TextAsk, scenario: Scenario, seed: int) -> TokenCounts:
    tokens = count_prompt(ask.content)
    if ask.endpoint == COMPLETIONS:
        return TokenCounts(prompt=tokens)  # the legacy endpoint knows neither cache nor modality
    audio = tokens // 2 if any(b'"input_audio"' in raw for raw in ask.content) else 0
    image = tokens // 4 if any(b'"image_url"' in raw or b'"input_image"' in raw for raw in ask.content) else 0
    text = tokens - audio - image
    cached = cached_tokens(text, seed) if scenario.cached is None else min(scenario.cached, text)
    written = 0
    if writes_cache(ask.model) and text >= CACHE_TOKENS_MIN:
        written = max(0, text // CACHE_STEP_TOKENS * CACHE_STEP_TOKENS - cached)
    return TokenCounts(prompt=tokens, cached=cached, cache_write=written, prompt_audio=audio, prompt_image=image)


_CHAT_USAGE = (
    b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
    b'"prompt_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d,"audio_tokens":%d%b},'
    b'"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":%d,'
    b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)
_RESPONSES_USAGE = (
    b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d},'
    b'"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}'
)


def report(endpoint: str, counts: TokenCounts, absurd: str | None) -> bytes:
    """The usage object that `endpoint` sends for `counts`, as JSON; made absurd in the way that `absurd` names."""
    if absurd is not None:
        counts = _absurd(counts, absurd)
    total = counts.prompt + counts.completion
    if endpoint == CHAT:
        image = b',"image_tokens":%d' % counts.prompt_image if counts.prompt_image else b""
        details = (counts.cached, counts.cache_write, counts.prompt_audio, image)
        made = (counts.reasoning, counts.completion_audio)
        usage = _CHAT_USAGE % (counts.prompt, counts.completion, total, *details, *made)
    elif endpoint == RESPONSES:
        given = (counts.prompt, counts.cached, counts.cache_write)
        usage = _RESPONSES_USAGE % (*given, counts.completion, counts.reasoning, total)
    elif endpoint == COMPLETIONS:
        totals = (counts.prompt, counts.completion, total)
        usage = b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % totals
    else:
        usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (counts.prompt, counts.prompt)
    if absurd == "text":
        return msgspec.json.encode(_as_text(msgspec.json.decode(usage)))
    return usage


def _absurd(counts: TokenCounts, how: str) -> TokenCounts:
    match how:
        case "negative":
            return msgspec.structs.replace(counts, prompt=-1 - counts.prompt, completion=-1 - counts.completion)
        case "huge":
            return msgspec.structs.replace(counts, prompt=_HUGE_TOKENS, completion=_HUGE_TOKENS)
        case "details":
            return msgspec.structs.replace(counts, cached=counts.prompt + 1, reasoning=counts.completion + 1)
    return counts


def _as_text(usage: Any) -> Any:
    if isinstance(usage, dict):
        return {name: _as_text(value) for name, value in usage.items()}
    return f"{usage} tokens"
