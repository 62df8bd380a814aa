"""Usage: what a call really consumed, in disjoint classes that add up to what OpenAI reports.

OpenAI's totals include their details (`prompt_tokens` includes the cached ones, and so on). Here each token stands in
exactly one class, so a price is a plain sum and nothing is charged twice.
Source of the shapes: CompletionUsage and ResponseUsage of OpenAI's published OpenAPI document.
"""

import msgspec


class Usage(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Tokens by class; every class is disjoint from the others. All counts are ≥ 0."""

    input: int = 0
    input_cached: int = 0
    input_cache_write: int = 0
    input_audio: int = 0
    input_image: int = 0
    output: int = 0
    output_reasoning: int = 0
    output_audio: int = 0
    output_image: int = 0

    @property
    def input_total(self) -> int:
        return self.input + self.input_cached + self.input_cache_write + self.input_audio + self.input_image

    @property
    def output_total(self) -> int:
        return self.output + self.output_reasoning + self.output_audio + self.output_image


def at_least(reported: Usage, counted: Usage) -> Usage:
    """What was counted, but never less than an upstream reported on the way: it knows the input, the output went on.

    >>> found = at_least(Usage(input=9, input_cached=4, output=20), Usage(input=12, output=25))
    >>> found == Usage(input=9, input_cached=4, output=25)
    True
    """
    if reported.input_total == 0:
        return msgspec.structs.replace(counted, output=max(counted.output, reported.output_total))
    more = max(0, counted.output_total - reported.output_total)
    return msgspec.structs.replace(reported, output=reported.output + more)


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class ReportedUsage(msgspec.Struct):
    """A `usage` object as OpenAI sends it, of chat completions, completions, embeddings or responses."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class AbsurdUsage(ValueError):
    """The reported usage contradicts itself or passes every bound, so it cannot be priced."""


def disjoint(reported: ReportedUsage) -> Usage:
    """Split OpenAI's nested counts into disjoint classes; raises `AbsurdUsage` if they contradict each other.

    Cached tokens are counted as text first: only what text cannot hold is taken from audio, then from images,
    since OpenAI gives no cached count by modality on these endpoints.

    >>> details = _InputDetails(cached_tokens=4)
    >>> disjoint(ReportedUsage(prompt_tokens=10, completion_tokens=5, prompt_tokens_details=details)) == Usage(
    ...     input=6, input_cached=4, output=5
    ... )
    True
    """
    into = reported.prompt_tokens if reported.prompt_tokens is not None else reported.input_tokens
    out = reported.completion_tokens if reported.completion_tokens is not None else reported.output_tokens
    if into is None:
        raise AbsurdUsage("usage reports no input tokens")
    out = out or 0
    given = reported.prompt_tokens_details or reported.input_tokens_details or _InputDetails()
    made = reported.completion_tokens_details or reported.output_tokens_details or _OutputDetails()
    cached, written = given.cached_tokens or 0, given.cache_write_tokens or 0
    audio, image = given.audio_tokens or 0, given.image_tokens or 0
    reasoning, audio_out, image_out = made.reasoning_tokens or 0, made.audio_tokens or 0, made.image_tokens or 0
    if min(into, out, cached, written, audio, image, reasoning, audio_out, image_out) < 0:
        raise AbsurdUsage("usage reports a negative count")
    if cached + written > into or audio + image > into or reasoning + audio_out + image_out > out:
        raise AbsurdUsage("usage reports details larger than their total")

    text = into - audio - image
    text_left = text - cached - written
    if text_left < 0:  # the cache held more than the text: the rest of it was audio, then image
        audio += text_left
        text_left = 0
        if audio < 0:
            image, audio = image + audio, 0
    return Usage(
        input=text_left,
        input_cached=cached,
        input_cache_write=written,
        input_audio=audio,
        input_image=image,
        output=out - reasoning - audio_out - image_out,
        output_reasoning=reasoning,
        output_audio=audio_out,
        output_image=image_out,
    )
