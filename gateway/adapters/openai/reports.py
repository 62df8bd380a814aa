"""OpenAI's own account of a day: tokens by model and what they cost, from the organisation's usage and costs API.

It takes an admin key, which can see and change the whole organisation: it is used here only, and only to read.
"""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from decimal import Decimal
from http import HTTPStatus

import aiohttp
import msgspec
import stamina

from gateway.adapters.postgres.provider_costs import day_start
from gateway.core.accounting.reconciliation import Tokens
from gateway.core.money import UCR_PER_DOLLAR, MicroCredits

PAGES_MAX = 100
RETRY_WAIT_S_MAX = 10.0


class ReportsUnavailable(Exception):
    """OpenAI's usage or costs cannot be read now."""


class _TryAgain(Exception):
    """What another try may mend."""


class _Amount(msgspec.Struct):
    value: Decimal | None = None
    currency: str | None = None


class _Result(msgspec.Struct):
    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    num_model_requests: int = 0
    amount: _Amount | None = None


class _Bucket(msgspec.Struct):
    results: list[_Result]


class _Page(msgspec.Struct):
    data: list[_Bucket]
    has_more: bool = False
    next_page: str | None = None


class OpenAIReports:
    """`attempts_max` is of one page; `timeout_s` of one attempt."""

    def __init__(self, url: str, admin_key: str, *, timeout_s: float, attempts_max: int) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {admin_key}"}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._attempts_max = attempts_max

    async def tokens(self, day: date) -> dict[str, Tokens]:
        """What the day's calls used, by served model. Raises `ReportsUnavailable`."""
        found: dict[str, Tokens] = {}
        for kind in ("completions", "embeddings"):
            async for each in self._results(f"usage/{kind}", day, day, group_by="model"):
                used = Tokens(each.input_tokens, each.output_tokens, each.num_model_requests)
                found[each.model or ""] = found.get(each.model or "", Tokens()) + used
        return found

    async def cost(self, first: date, last: date) -> MicroCredits:
        """What the days from `first` to `last` cost, to the nearest µcr. Raises `ReportsUnavailable`."""
        total = Decimal(0)
        async for each in self._results("costs", first, last):
            if each.amount is None or not each.amount.value:
                continue
            if each.amount.currency != "usd":
                raise ReportsUnavailable(f"OpenAI tells costs in {each.amount.currency}, not in usd")
            total += each.amount.value
        return round(total * UCR_PER_DOLLAR)

    async def _results(self, path: str, first: date, last: date, **more: str) -> AsyncIterator[_Result]:
        start, end = day_start(first), day_start(last + timedelta(days=1))
        asked = {"start_time": f"{start.timestamp():.0f}", "end_time": f"{end.timestamp():.0f}", "bucket_width": "1d"}
        asked |= more
        async with aiohttp.ClientSession(headers=self._headers, timeout=self._timeout) as session:
            for _ in range(PAGES_MAX):
                page = await self._page(session, f"{self._url}/v1/organization/{path}", asked)
                for bucket in page.data:
                    for result in bucket.results:
                        yield result
                if not page.has_more or page.next_page is None:
                    return
                asked["page"] = page.next_page
        raise ReportsUnavailable(f"OpenAI's {path} has more than {PAGES_MAX} pages")

    async def _page(self, session: aiohttp.ClientSession, url: str, asked: dict[str, str]) -> _Page:
        tries = stamina.retry_context(
            on=_TryAgain, attempts=self._attempts_max, timeout=None, wait_initial=0.1, wait_max=RETRY_WAIT_S_MAX
        )
        try:
            async for attempt in tries:
                with attempt:
                    return await _ask(session, url, asked)
        except _TryAgain as error:
            raise ReportsUnavailable(str(error)) from error
        raise AssertionError("a retry ends with an answer or an error")


async def _ask(session: aiohttp.ClientSession, url: str, asked: dict[str, str]) -> _Page:
    try:
        async with session.get(url, params=asked, allow_redirects=False) as answer:
            body = await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _TryAgain(f"OpenAI cannot be asked: {type(error).__name__}: {error}") from error
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise _TryAgain(f"OpenAI answered {answer.status}")
    if answer.status != HTTPStatus.OK:
        raise ReportsUnavailable(f"OpenAI answered {answer.status}; is OPENAI_ADMIN_KEY an admin key?")
    try:
        return msgspec.json.decode(body, type=_Page)
    except msgspec.DecodeError as error:
        raise ReportsUnavailable(f"OpenAI's answer cannot be read: {error}") from error
