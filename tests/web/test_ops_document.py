"""The operations API's OpenAPI document: true as far as a fuzzer can tell, and no handler breaks by what it sends."""

from collections.abc import AsyncIterator

import pytest
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, ignored_auth, response_schema_conformance

from gateway.adapters.postgres.audit_log import Signature
from gateway.core.access.operators import Role
from tests.proxy.stack import Stack
from tests.web.fuzz import judged
from tests.web.operators import operating

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, ignored_auth]
EXAMPLES = 20  # of each operation


@pytest.fixture
async def url(stack: Stack) -> AsyncIterator[str]:
    async with operating(stack) as url:
        yield url


# The stack, in another thread, draws random numbers meanwhile.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
async def test_what_answers_is_what_the_document_says(stack: Stack, url: str) -> None:
    key, _ = await stack.stores.ops_keys.create("fuzzer", Role.ADMIN, Signature("boss", "a test"))
    statuses = await judged(url, "/ops/openapi.json", key, CHECKS, EXAMPLES)
    assert {200, 400} <= statuses.keys()  # it was judged by more than refusals
