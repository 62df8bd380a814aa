"""The control plane's OpenAPI document: complete, and true as far as a fuzzer can tell."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.core.access.key_terms import KeyTerms
from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.conftest import Running, logs, openai, running
from tests.proxy.wire import ask, request
from tests.shop import ENVIRONMENT, Shop, open_shop

__all__ = ["logs", "openai", "running"]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    ignored_auth,
]
EXAMPLES = 25  # of each operation


@pytest.fixture
async def shop(running: Running, openai: SimulatedOpenAI, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    async with open_shop(running, openai) as shop:
        yield shop


async def document_of(shop: Shop) -> dict[str, Any]:
    answer = await ask(shop.stack.address, request("/api/openapi.json", "", method="GET"))
    assert (answer.status, answer.get(b"content-type")) == (200, b"application/json")
    document: dict[str, Any] = msgspec.json.decode(answer.body)
    return document


async def test_every_path_of_api_and_billing_is_in_the_document(shop: Shop) -> None:
    described = {(method.upper(), path) for path, item in (await document_of(shop))["paths"].items() for method in item}
    served = {
        (method, path.replace("{form}", form))
        for method, path in shop.stack.gateway.control_routes()
        for form in (("pdf", "csv") if "{form" in path else ("",))
        if path.startswith(("/api/", "/billing/")) and path != "/api/openapi.json"
    }
    assert described == served


# The gateway, in another thread, draws random numbers meanwhile.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
async def test_what_answers_is_what_the_document_says(shop: Shop) -> None:
    stack = shop.stack
    scopes = frozenset({"read", "buy", "manage"})
    key, _ = await stack.stores.keys.issue(stack.account.id, KeyTerms(scopes=scopes))
    document = await document_of(shop)
    schema = schemathesis.openapi.from_dict(document)
    base_url = f"http://{stack.address[0]}:{stack.address[1]}"

    statuses: Counter[int] = Counter()

    def judge() -> None:
        for found in schema.get_all_operations():
            assert isinstance(found, Ok), found
            operation = found.ok()

            @settings(
                max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy())
            def answers(case: Any) -> None:
                answer = case.call(base_url=base_url, headers={"Authorization": f"Bearer {key}"})
                statuses[answer.status_code] += 1
                case.validate_response(answer, checks=CHECKS)

            answers()

    await asyncio.to_thread(judge)
    assert {200, 201, 400, 404} <= statuses.keys()  # it was judged by more than refusals
