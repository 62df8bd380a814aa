"""Judges what answers against its OpenAPI document, by requests that a fuzzer makes up out of the document."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok


async def judged(url: str, document: str, key: str, checks: Sequence[Any], examples: int) -> Counter[int]:
    """How many answers had which status, once all were as the document says; `examples` for each operation.

    In another thread: what answers lives in this one's loop.
    """
    statuses: Counter[int] = Counter()

    def judge() -> None:
        for found in schemathesis.openapi.from_url(url + document).get_all_operations():
            assert isinstance(found, Ok), found
            operation = found.ok()

            @settings(
                max_examples=examples, deadline=None, database=None, derandomize=True,
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy())
            def answers(case: Any) -> None:
                answer = case.call(base_url=url, headers={"Authorization": f"Bearer {key}"})
                statuses[answer.status_code] += 1
                case.validate_response(answer, checks=checks)

            answers()

    await asyncio.to_thread(judge)
    return statuses
