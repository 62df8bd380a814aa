"""Which caps bind a caller, and what it is told when one refuses."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.access.callers import Caller
from gateway.core.errors import BeyondRateLimit, CapReached, ModelNotAllowed, RateLimited
from gateway.core.guard.caps import UNLIMITED, Bounds, Caps, CapsByLevel, Excess, Level, bounds_of
from gateway.core.guard.refusals import cap_refusal, is_by_size, request_refusal
from gateway.core.holds import Counted

ACCOUNT = "0197a3c2-0000-7000-8000-000000000001"
CALLER = Caller(ACCOUNT, "k1", member_id="m1", time_zone="Europe/Berlin")
NOW_MS = int(datetime.fromisoformat("2026-11-30T22:59:59.999+00:00").timestamp() * 1000)

limits = st.none() | st.integers(0, 10**12) | st.just(UNLIMITED)
caps = st.builds(Caps, request=limits, day=limits, month=limits, output_tokens=limits, concurrent=limits)


NONE = Caps()


def bounds(account: Caps = NONE, member: Caps = NONE, key: Caps = NONE) -> Bounds:
    return bounds_of(CALLER, CapsByLevel(account, member, key), NOW_MS)


def test_an_accounts_caps_are_its_plans_save_what_it_says_itself() -> None:
    plan = Caps(day=100, output_tokens=10_000, on_output=Excess.CLAMP)
    assert Caps(day=500, concurrent=3).over(plan) == Caps(
        day=500, output_tokens=10_000, concurrent=3, on_output=Excess.CLAMP
    )
    assert Caps().over(plan) == plan


def test_unlimited_lifts_what_a_plan_caps() -> None:
    lifted = bounds(Caps(day=UNLIMITED, output_tokens=UNLIMITED).over(Caps(day=100, output_tokens=10)))
    assert lifted == bounds()


@given(caps, caps, caps)
def test_of_every_level_the_tightest_bound_on_one_request_counts(account: Caps, member: Caps, key: Caps) -> None:
    made = bounds(account, member, key)
    asked = [each.request for each in (account, member, key) if each.request not in (None, UNLIMITED)]
    assert (made.request[0] if made.request else None) == min(asked, default=None)
    outputs = [each.output_tokens for each in (account, member, key) if each.output_tokens not in (None, UNLIMITED)]
    assert made.output_tokens == min(outputs, default=None)


@given(caps, caps, caps)
def test_what_is_checked_has_a_key_and_a_line_and_what_is_counted_has_its_windows(
    account: Caps, member: Caps, key: Caps
) -> None:
    made = bounds(account, member, key)
    assert len(made.lines) == len(made.keys) == len(made.checked)
    told = {level: line.decode().split(" ") for level, line in zip(made.checked, made.lines, strict=True)}
    assert all(words[0] == level and len(words) == 8 for level, words in told.items())
    for counted in made.counted:
        words = told[Level(counted.level)]
        assert (words[1], words[3]) == (counted.day or "-", counted.month or "-")


def test_a_caller_without_caps_sends_redis_nothing_more() -> None:
    made = bounds(Caps(request=5, output_tokens=9, models_denied=("o1*",)))
    assert (made.keys, made.lines, made.counted) == ((), (), ())


def test_every_level_is_counted_under_its_own_key_and_in_the_accounts_time_zone() -> None:
    made = bounds(Caps(day=1), Caps(month=2), Caps(concurrent=3))
    assert made.keys == (
        b"tg:{s24}:caps:account:0197a3c2-0000-7000-8000-000000000001",
        b"tg:{s24}:caps:member:m1",
        b"tg:{s24}:caps:key:k1",
    )
    assert made.counted == (
        Counted("account", "2026-11-30@Europe/Berlin"),
        Counted("member", "", "2026-11@Europe/Berlin"),
        Counted("key"),
    )
    assert made.hold_at(NOW_MS)
    assert not made.hold_at(NOW_MS + 1)  # midnight in Berlin, and the month's end


@pytest.mark.parametrize(
    ("allowed", "denied", "model", "is_allowed"),
    [
        (None, None, "gpt-4o", True),
        (("gpt-4o*",), None, "gpt-4o-mini", True),
        (("gpt-4o",), None, "gpt-4o-mini", False),
        (None, ("o1*",), "o1-pro", False),
        (("*",), ("o1-pro",), "o1-pro", False),
        ((), None, "gpt-4o", False),
    ],
)
def test_models_are_allowed_and_denied_by_pattern(
    allowed: tuple[str, ...] | None, denied: tuple[str, ...] | None, model: str, is_allowed: bool
) -> None:
    made = bounds(key=Caps(models_allowed=allowed, models_denied=denied))
    if is_allowed:
        made.allow_model(model)
    else:
        with pytest.raises(ModelNotAllowed):
            made.allow_model(model)


def test_a_dated_name_is_denied_with_its_model() -> None:
    made = bounds(Caps(models_denied=("gpt-4o",)), key=Caps(models_allowed=("gpt-4o",)))
    with pytest.raises(ModelNotAllowed):
        made.allow_model("gpt-4o-2024-08-06", "gpt-4o")


def test_one_request_may_cost_what_its_cap_says_and_no_more() -> None:
    made = bounds(Caps(request=500), key=Caps(request=400))
    assert request_refusal(made, 400) is None
    assert request_refusal(made, 401) == ("key_request", 400)


def refused(bound: str, needed: int, available: int, wait_ms: int = 0, **caps: Any) -> Any:
    error = cap_refusal(bounds(Caps(**caps)), bound, needed, available, wait_ms, affordable_output_tokens=7)
    return type(error), error.status, error.retry_after_s, error.details


def test_a_reached_day_is_402_and_says_when_it_resets() -> None:
    kind, status, retry_after_s, details = refused("account_day", 3_000_000, 1_500_000, day=10_000_000)
    assert (kind, status, retry_after_s) == (CapReached, 402, None)
    assert details == {
        "cap": "account_day",
        "limit": "10",
        "needed": "3",
        "available": "1.5",
        "needed_ucr": 3_000_000,
        "available_ucr": 1_500_000,
        "affordable_output_tokens": 7,
        "resets_at": "2026-12-01T00:00:00+01:00",
    }
    assert refused("account_month", 3, -5, month=10)[3]["available"] == "0"


def test_a_rate_is_429_and_says_when_to_come_back() -> None:
    assert refused("account_requests", 1, 0, 1_001, requests_a_minute=60)[:3] == (RateLimited, 429, 2)
    assert refused("account_tokens", 100, 50, 10, tokens_a_minute=100)[:3] == (RateLimited, 429, 1)
    assert refused("account_concurrent", 1, 0, concurrent=4)[:3] == (RateLimited, 429, 1)


def test_a_call_that_no_minute_allows_is_not_to_be_retried() -> None:
    kind, status, retry_after_s, details = refused("account_tokens", 101, 100, tokens_a_minute=100)
    assert (kind, status, retry_after_s) == (BeyondRateLimit, 429, None)
    assert details == {"limit": "account_tokens", "rate": "tokens", "allowed": 100, "remaining": 100}


def test_a_closer_estimate_helps_where_size_counts() -> None:
    assert [is_by_size(each) for each in ("balance", "key_day", "account_tokens")] == [True] * 3
    assert [is_by_size(each) for each in ("key_requests", "account_concurrent")] == [False] * 2
