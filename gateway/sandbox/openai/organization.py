"""The organisation's usage and costs by the day, as OpenAI reports them to an admin key: all that was served, ever.

Source of the shapes: the organization section of OpenAI's published OpenAPI document; its own SDK reads them in the
tests. Prices are those of the newest shipped rate card without its markup. Days are UTC, of a call's end. Not
simulated: minutes and hours, filters, and grouping by anything but the model; they are refused, never ignored.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web

from gateway.core.calls.usage import ReportedUsage, disjoint
from gateway.core.money import UCR_PER_DOLLAR
from gateway.core.pricing.rate_card import load_card
from gateway.core.pricing.rates import TOKENS_PER_RATE, RateCard, UnsoldTier, millionths, priced_tier
from gateway.resources import shipped
from gateway.sandbox.openai import errors
from gateway.sandbox.openai.answers import EMBEDDINGS
from gateway.sandbox.openai.errors import ApiError
from gateway.sandbox.openai.log import LogEntry
from gateway.sandbox.openai.tokens import TokenCounts

DAY_S: Final = 86_400
BUCKETS_DEFAULT: Final = 7
USAGE_BUCKETS_MAX, COST_BUCKETS_MAX = 31, 180
_PAGE: Final = "page_"
_TAKEN: Final = {"start_time", "end_time", "bucket_width", "limit", "page", "group_by", "group_by[]"}

Results = list[dict[str, Any]]


class Served(NamedTuple):
    """Calls alike in all that is reported and priced."""

    is_embedding: bool
    model: str
    tier: str
    usage: TokenCounts


Day = Counter[Served]


class Organization:
    """What was served by day: `count` adds to it, the handlers report it."""

    def __init__(self, clock: Callable[[], float], admin_key: str | None) -> None:
        self._clock = clock
        self._admin_key = admin_key
        self._days: defaultdict[int, Day] = defaultdict(Counter)

    def count(self, entry: LogEntry) -> None:
        """Add a call that has ended, if it used anything."""
        if entry.usage != TokenCounts():
            ended_at_s = int(self._clock())
            served = Served(entry.endpoint == EMBEDDINGS, entry.served_model, entry.tier, entry.usage)
            self._days[ended_at_s - ended_at_s % DAY_S][served] += 1

    async def usage_completions(self, request: web.Request) -> web.Response:
        return self._answer(request, USAGE_BUCKETS_MAX, _completions, {"model"})

    async def usage_embeddings(self, request: web.Request) -> web.Response:
        return self._answer(request, USAGE_BUCKETS_MAX, _embeddings, {"model"})

    async def costs(self, request: web.Request) -> web.Response:
        return self._answer(request, COST_BUCKETS_MAX, _costs, set())

    def _answer(
        self, request: web.Request, buckets_max: int, results: Callable[[Day, bool], Results], groups: set[str]
    ) -> web.Response:
        try:
            self._check_key(request)
            body = self._page(_Query(request, buckets_max, groups), results)
        except ApiError as error:
            return web.Response(status=error.status, body=error.body(), content_type="application/json")
        return web.json_response(body)

    def _check_key(self, request: web.Request) -> None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise errors.key_missing()
        if self._admin_key is not None and key.strip() != self._admin_key:
            raise errors.key_incorrect(key.strip())

    def _page(self, asked: "_Query", results: Callable[[Day, bool], Results]) -> dict[str, Any]:
        """A bucket for each day, also where nothing was served; the next page begins where this one ends."""
        end_s = asked.end_s if asked.end_s is not None else int(self._clock()) + 1
        begins = range(asked.start_s - asked.start_s % DAY_S, end_s, DAY_S)
        data = [
            {
                "object": "bucket",
                "start_time": begin,
                "end_time": begin + DAY_S,
                "results": results(self._days.get(begin, Day()), asked.is_by_model),
            }
            for begin in begins[: asked.limit]
        ]
        more = begins[asked.limit :]
        return {
            "object": "page",
            "data": data,
            "has_more": bool(more),
            "next_page": f"{_PAGE}{more[0]}" if more else None,
        }


class _Query:
    """The parameters of one request; raises `ApiError`."""

    def __init__(self, request: web.Request, buckets_max: int, groups: set[str]) -> None:
        self._query = request.query
        if unknown := sorted(set(request.query) - _TAKEN):
            raise errors.parameter_invalid(unknown[0], f"{unknown[0]} is not simulated.", "unsupported_parameter")
        if request.query.get("bucket_width", "1d") != "1d":
            raise errors.parameter_invalid("bucket_width", "Only 1d is simulated.", "invalid_value")
        grouped = {*request.query.getall("group_by", ()), *request.query.getall("group_by[]", ())}
        if not grouped <= groups:
            raise errors.parameter_invalid("group_by", f"Only {sorted(groups)} is simulated.", "invalid_value")
        self.is_by_model = "model" in grouped
        start = self._whole("start_time")
        if start is None:
            raise errors.parameter_missing("start_time")
        page = request.query.get("page")
        self.start_s = start if page is None else self._number("page", page.removeprefix(_PAGE))
        self.end_s = self._whole("end_time")
        limit = self._whole("limit")
        self.limit = BUCKETS_DEFAULT if limit is None else limit
        if not 1 <= self.limit <= buckets_max:
            raise errors.parameter_invalid("limit", f"limit is 1 to {buckets_max}.", "invalid_value")

    def _whole(self, name: str) -> int | None:
        text = self._query.get(name)
        return None if text is None else self._number(name, text)

    def _number(self, name: str, text: str) -> int:
        if not text.isdecimal() or len(text) > 12:
            raise errors.parameter_invalid(name, f"Invalid '{name}': a whole number is needed.", "invalid_type")
        return int(text)


def _completions(day: Day, is_by_model: bool) -> Results:
    return [
        {
            "object": "organization.usage.completions.result",
            "input_tokens": sum(each.usage.prompt * count for each, count in calls.items()),
            "input_cached_tokens": sum(each.usage.cached * count for each, count in calls.items()),
            "input_cache_write_tokens": sum(each.usage.cache_write * count for each, count in calls.items()),
            "output_tokens": sum(each.usage.completion * count for each, count in calls.items()),
            "num_model_requests": calls.total(),
            "model": model,
        }
        | dict.fromkeys(("project_id", "user_id", "api_key_id", "batch", "service_tier"))
        for model, calls in _grouped(day, is_by_model, is_embedding=False)
    ]


def _embeddings(day: Day, is_by_model: bool) -> Results:
    return [
        {
            "object": "organization.usage.embeddings.result",
            "input_tokens": sum(each.usage.prompt * count for each, count in calls.items()),
            "num_model_requests": calls.total(),
            "model": model,
        }
        | dict.fromkeys(("project_id", "user_id", "api_key_id"))
        for model, calls in _grouped(day, is_by_model, is_embedding=True)
    ]


def _grouped(day: Day, is_by_model: bool, *, is_embedding: bool) -> Iterable[tuple[str | None, Day]]:
    groups: defaultdict[str | None, Day] = defaultdict(Counter)
    for each, count in day.items():
        if each.is_embedding is is_embedding:
            groups[each.model if is_by_model else None][each] = count
    return groups.items()


def _costs(day: Day, _: bool) -> Results:
    card = _newest_card()
    cost = sum((_cost(card, each) * count for each, count in day.items()), Fraction(0))
    if not cost:
        return []
    amount = {"value": float(cost / UCR_PER_DOLLAR), "currency": "usd"}
    return [{"object": "organization.costs.result", "amount": amount, "line_item": None, "project_id": None}]


def _newest_card() -> RateCard:
    path = max((shipped("config") / "rates").glob("*.toml"))
    return load_card(path.read_text(encoding="utf-8"), path.stem)


def _cost(card: RateCard, served: Served) -> Fraction:
    """What one call costs, in µcr; nothing where the card does not tell."""
    row = card.find(served.model)
    if row is None or row.markup is None:
        return Fraction(0)
    usage = disjoint(msgspec.convert(_reported(served.usage), ReportedUsage))
    try:
        rate = card.rate(row, priced_tier(served.tier or None), usage.input_total)
    except UnsoldTier:
        return Fraction(0)
    return Fraction(millionths(usage, rate), TOKENS_PER_RATE) / Fraction(row.markup)


def _reported(made: TokenCounts) -> dict[str, Any]:
    """As OpenAI nests it in an answer."""
    return {
        "prompt_tokens": made.prompt,
        "completion_tokens": made.completion,
        "prompt_tokens_details": {
            "cached_tokens": made.cached,
            "cache_write_tokens": made.cache_write,
            "audio_tokens": made.prompt_audio,
            "image_tokens": made.prompt_image,
        },
        "completion_tokens_details": {"reasoning_tokens": made.reasoning, "audio_tokens": made.completion_audio},
    }
