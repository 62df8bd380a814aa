import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.guard.brownout_rules import Performance, RulePolicy, bucket_of, p95_ms

POLICY = RulePolicy(
    window_ms=60_000, baseline_ms=3_600_000, calls_min=30, slow_factor=3.0, slow_ms_min=2_000, error_rate=0.2
)
MINUTE_MS = 60_000


def watched(
    minutes: int, first_byte_ms: int, *, calls_a_minute: int = 60, chance: random.Random | None = None
) -> Performance:
    """A model that was called for so long, with first bytes around `first_byte_ms`."""
    chance = chance or random.Random(1)
    performance = Performance(POLICY)
    for call in range(minutes * calls_a_minute):
        took_ms = round(first_byte_ms * chance.uniform(0.5, 1.5))
        performance.record(call * MINUTE_MS // calls_a_minute, is_failed=False, first_byte_ms=took_ms)
    return performance


def add_minute(
    performance: Performance, minute: int, *, calls: int = 60, failed: int = 0, first_byte_ms: int = 800
) -> None:
    for call in range(calls):
        is_failed = call < failed
        at_ms = minute * MINUTE_MS + call * MINUTE_MS // calls
        performance.record(at_ms, is_failed=is_failed, first_byte_ms=None if is_failed else first_byte_ms)


def kind(performance: Performance, minute: int) -> str | None:
    finding = performance.finding(minute * MINUTE_MS)
    return None if finding is None else finding.kind


def test_a_model_that_is_as_usual_is_left_alone() -> None:
    performance = watched(30, 800)
    assert kind(performance, 30) is None


def test_a_model_far_slower_than_usual_is_found() -> None:
    performance = watched(30, 800)
    add_minute(performance, 30, first_byte_ms=6_000)
    finding = performance.finding(31 * MINUTE_MS - 1)
    assert finding is not None
    assert finding.kind == "latency"
    assert "usually 1" in finding.text


def test_slow_is_relative_to_the_model_itself() -> None:
    performance = watched(30, 5_000)
    add_minute(performance, 30, first_byte_ms=6_000)
    assert performance.finding(31 * MINUTE_MS - 1) is None


def test_a_quick_model_that_gets_slower_is_not_slow_yet() -> None:
    performance = watched(30, 100)
    add_minute(performance, 30, first_byte_ms=1_200)
    assert performance.finding(31 * MINUTE_MS - 1) is None


@pytest.mark.parametrize(("failed", "found"), [(11, None), (12, "errors"), (60, "errors")])
def test_errors_count_by_their_share_of_the_window(failed: int, found: str | None) -> None:
    performance = watched(5, 800)
    add_minute(performance, 6, failed=failed)
    finding = performance.finding(7 * MINUTE_MS - 1)
    assert (finding.kind if finding else None) == found


def test_few_calls_say_nothing() -> None:
    performance = watched(30, 800)
    add_minute(performance, 31, calls=29, failed=29)
    assert performance.finding(32 * MINUTE_MS - 1) is None


def test_a_model_that_is_new_has_no_usual() -> None:
    performance = Performance(POLICY)
    add_minute(performance, 0, first_byte_ms=60_000)
    assert performance.finding(MINUTE_MS - 1) is None


def test_what_lasts_becomes_the_usual() -> None:
    performance = watched(10, 800)
    for minute in range(10, 200):
        add_minute(performance, minute, first_byte_ms=6_000)
    assert performance.finding(200 * MINUTE_MS - 1) is None


def test_noise_is_never_found() -> None:
    for seed in range(5):
        performance = watched(240, 2_500, chance=random.Random(seed))
        assert kind(performance, 240) is None


@given(st.lists(st.integers(1, 10_000_000), min_size=1, max_size=200))
def test_a_percentile_is_at_most_a_quarter_too_large(times_ms: list[int]) -> None:
    histogram: dict[int, float] = {}
    for each in times_ms:
        histogram[bucket_of(each)] = histogram.get(bucket_of(each), 0) + 1
    exact = sorted(times_ms)[math.ceil(0.95 * len(times_ms)) - 1]
    assert exact <= p95_ms(histogram) <= exact * 1.25 + 1
