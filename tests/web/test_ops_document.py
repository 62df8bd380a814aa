"""The operations API's OpenAPI document: true as far as a fuzzer can tell, and no handler breaks by what it sends."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import content_type_conformance, ignored_auth, response_schema_conformance

from gateway.adapters.postgres.audit_log import Signature
from gateway.app.ops import ops_routes
from gateway.core.access.operators import Role
from gateway.web.metrics import registry
from gateway.web.ops.listener import exposition, listen, ops_app
from tests.proxy.conftest import logs, openai, running, stack
from tests.proxy.stack import Stack

__all__ = ["logs", "openai", "running", "stack"]

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, ignored_auth]
EXAMPLES = 20  # of each operation


@pytest.fixture
async def url(stack: Stack) -> AsyncIterator[str]:
    app = ops_app(
        stack.gateway.readiness, exposition(registry(stack.gateway.metrics)), ops_routes(stack.config, stack.stores)
    )
    runner, url = await listen(app, "127.0.0.1", 0)
    yield url
    await runner.cleanup()


# The stack, in another thread, draws random numbers meanwhile.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
async def test_what_answers_is_what_the_document_says(stack: Stack, url: str) -> None:
    key, _ = await stack.stores.ops_keys.create("fuzzer", Role.ADMIN, Signature("boss", "a test"))
    statuses: Counter[int] = Counter()

    def judge() -> None:
        schema = schemathesis.openapi.from_url(f"{url}/ops/openapi.json")
        for found in schema.get_all_operations():
            assert isinstance(found, Ok), found
            operation = found.ok()

            @settings(
                max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy())
            def answers(case: Any) -> None:
                answer = case.call(base_url=url, headers={"Authorization": f"Bearer {key}"})
                statuses[answer.status_code] += 1
                case.validate_response(answer, checks=CHECKS)

            answers()

    await asyncio.to_thread(judge)
    assert {200, 400} <= statuses.keys()  # it was judged by more than refusals
