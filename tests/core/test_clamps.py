"""An output limit in a body is lowered or added, and nothing else changes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls.calls import Endpoint, parse
from gateway.core.calls.clamps import with_output_limit

CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS = Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES, Endpoint.EMBEDDINGS


def clamped(endpoint: Endpoint, body: bytes, limit: int = 100) -> bytes:
    call = with_output_limit(parse(endpoint, body), limit)
    again = parse(endpoint, call.body)
    assert (again.output_limit, again.content) == (call.output_limit, call.content)
    return call.body


@pytest.mark.parametrize(
    ("endpoint", "before", "after"),
    [
        (CHAT, b'{"model":"m" , "max_tokens" : 500}', b'{"model":"m" , "max_tokens" : 100}'),
        (CHAT, b'{"model":"m","max_completion_tokens":500}', b'{"model":"m","max_completion_tokens":100}'),
        (CHAT, b'{"model":"m","max_tokens":100}', b'{"model":"m","max_tokens":100}'),
        (CHAT, b' { "model":"m"}', b' {"max_completion_tokens":100, "model":"m"}'),
        (CHAT, b'{"model":"m","max_tokens":null}', b'{"max_completion_tokens":100,"model":"m","max_tokens":null}'),
        (CHAT, b'{"model":"m","max_completion_tokens":null}', b'{"model":"m","max_completion_tokens":100}'),
        (
            CHAT,
            b'{"model":"m","max_tokens":50,"max_completion_tokens":500}',
            b'{"model":"m","max_tokens":50,"max_completion_tokens":100}',
        ),
        (RESPONSES, b'{"model":"m","input":"x"}', b'{"max_output_tokens":100,"model":"m","input":"x"}'),
        (RESPONSES, b'{"model":"m","max_output_tokens":500}', b'{"model":"m","max_output_tokens":100}'),
        (COMPLETIONS, b'{"model":"m","max_tokens":500}', b'{"model":"m","max_tokens":100}'),
        (COMPLETIONS, b'{"model":"m"}', b'{"model":"m"}'),  # 16 tokens long
        (COMPLETIONS, b'{"model":"m","max_tokens":null}', b'{"model":"m","max_tokens":100}'),
        (EMBEDDINGS, b'{"model":"m","input":"x"}', b'{"model":"m","input":"x"}'),
    ],
)
def test_the_limit_is_the_only_thing_that_changes(endpoint: Endpoint, before: bytes, after: bytes) -> None:
    assert clamped(endpoint, before) == after


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","metadata":{"max_tokens":9999},"max_tokens":500}',
        b'{"model":"m","max\\u005ftokens":500,"metadata":{"max_tokens":9999}}',
        b'{"model":"m","metadata":"\\"max_tokens\\":7","max_tokens":500}',
        b'{"model":"m","metadata":{"max_completion_tokens":9999}}',
        b'{"model":"m","max_completion\\u005ftokens":null}',
        b'{"model":"m","max_tokens":1,"max_tokens":500}',
    ],
)
def test_a_limit_elsewhere_in_the_body_is_not_taken_for_the_calls(body: bytes) -> None:
    before, after = json.loads(body), json.loads(clamped(CHAT, body))
    assert {min(after[each] for each in ("max_tokens", "max_completion_tokens") if after.get(each) is not None)} == {
        100
    }
    assert after.get("metadata") == before.get("metadata")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=6) | st.just('"max_tokens": 7'),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["max_tokens", "max_completion_tokens", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["messages", "metadata", "x"]), values), st.integers(1, 10**6), st.data())
def test_whatever_else_a_body_says_it_says_still(others: dict[str, Any], limit: int, data: st.DataObject) -> None:
    asked = data.draw(
        st.dictionaries(st.sampled_from(["max_tokens", "max_completion_tokens"]), st.none() | st.integers(1, 10**6))
    )
    fields = list({"model": "m", **others, **asked}.items())
    body = dict(data.draw(st.permutations(fields)))
    raw = json.dumps(body, ensure_ascii=data.draw(st.booleans())).encode()
    after = json.loads(with_output_limit(parse(CHAT, raw), limit).body)
    bound = [after.pop(name) for name in ("max_tokens", "max_completion_tokens") if after.get(name) is not None]
    assert max(bound) <= limit
    for name in ("max_tokens", "max_completion_tokens"):
        after.pop(name, None)
        body.pop(name, None)
    assert after == body


def test_a_completion_that_names_no_limit_is_16_tokens_long_and_clamped_below_that_only() -> None:
    call = parse(COMPLETIONS, b'{"model":"m"}')
    assert with_output_limit(call, 16) is call
    assert with_output_limit(call, 15).body == b'{"max_tokens":15,"model":"m"}'
