"""The control plane's OpenAPI document: complete, and true as far as a fuzzer can tell."""

from typing import Any

import msgspec
import pytest
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.core.access.key_terms import KeyTerms
from tests.proxy.wire import ask, request
from tests.shop import Shop
from tests.web.fuzz import judged

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    ignored_auth,
]
EXAMPLES = 25  # of each operation


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
    statuses = await judged(shop.url, "/api/openapi.json", key, CHECKS, EXAMPLES)
    assert {200, 201, 400, 404} <= statuses.keys()  # it was judged by more than refusals
