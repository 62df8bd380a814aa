import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.guard.breaker import (
    NOTHING,
    TRANSITIONS,
    Breaker,
    Cause,
    Counts,
    Event,
    Signal,
    State,
    after,
    probe_event,
    trips,
)
from gateway.core.guard.shared_breaker import SharedBreaker
from tests.core.fleet import POLICY, Store

NOW_MS = 1_000_000
NEWEST = NOW_MS // POLICY.bucket_ms

counts = st.builds(Counts, *[st.integers(0, 1000)] * 7)


def moved(breaker: Breaker, event: Event, now_ms: int = NOW_MS) -> Breaker:
    return after(breaker, event, now_ms, POLICY, chance=0.5, cause=Cause.RATE)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_what_the_table_does_not_name_changes_nothing(state: State, event: Event) -> None:
    breaker = Breaker(state=state, version=7)

    if (state, event) in TRANSITIONS:
        assert moved(breaker, event).state is TRANSITIONS[state, event]
        assert moved(breaker, event).version == 8
    else:
        assert moved(breaker, event) is breaker


def test_it_closes_after_enough_probes_and_opens_again_after_one_that_fails() -> None:
    breaker = moved(moved(Breaker(), Event.TRIPPED), Event.ELAPSED)
    for _ in range(POLICY.successes_to_close):
        assert breaker.state is State.HALF_OPEN
        breaker = moved(breaker, probe_event(breaker, True, POLICY))
    assert breaker.state is State.CLOSED

    assert probe_event(Breaker(state=State.HALF_OPEN, successes=2), False, POLICY) is Event.PROBE_FAILED


def test_an_opening_after_a_calm_time_is_short_again() -> None:
    closed = Breaker(changed_ms=NOW_MS, openings=4)

    soon = moved(closed, Event.TRIPPED, NOW_MS + POLICY.open_ms_max - 1)
    later = moved(closed, Event.TRIPPED, NOW_MS + POLICY.open_ms_max)

    assert (soon.openings, later.openings) == (5, 1)


@pytest.mark.parametrize(
    ("in_window", "cause"),
    [
        (Counts(ok=10, error=10), Cause.RATE),
        (Counts(ok=11, error=9), Cause.NONE),
        (Counts(ok=9, error=9), Cause.NONE),  # too few
        (Counts(error=8), Cause.STREAK),
        (Counts(error=7), Cause.NONE),
        (Counts(ok=10, timeout=10), Cause.RATE),
        (Counts(ok=10, throttled=10), Cause.NONE),  # half as heavy
        (Counts(ok=5, throttled=15), Cause.RATE),
        (Counts(neutral=1000), Cause.NONE),
        (Counts(ok=10, error=10, neutral=1000, begun=1020), Cause.RATE),
        (Counts(ok=10, error=10, begun=40), Cause.NONE),  # twenty are under way, and may all succeed
    ],
)
def test_it_opens_by_rate_or_by_streak(in_window: Counts, cause: Cause) -> None:
    assert trips({NEWEST: in_window}, NOW_MS, POLICY) is cause


def test_a_streak_goes_on_over_buckets_until_one_has_a_success() -> None:
    four = Counts(error=4)

    assert trips({NEWEST: four, NEWEST - 3: four}, NOW_MS, POLICY) is Cause.STREAK
    assert trips({NEWEST: four, NEWEST - 2: Counts(ok=1), NEWEST - 3: four}, NOW_MS, POLICY) is Cause.NONE


def test_what_the_window_has_left_behind_does_not_count() -> None:
    assert trips({NEWEST - POLICY.buckets: Counts(error=1000)}, NOW_MS, POLICY) is Cause.NONE


@given(st.dictionaries(st.integers(NEWEST - 12, NEWEST), counts), st.integers(1, 1000))
def test_more_successes_open_it_only_where_there_were_too_few_calls(buckets: dict[int, Counts], more: int) -> None:
    better = buckets | {NEWEST: buckets.get(NEWEST, NOTHING).plus(Counts(ok=more, begun=more))}

    if trips(buckets, NOW_MS, POLICY) is Cause.NONE:
        ended = sum(sum(each[:5]) for number, each in buckets.items() if number > NEWEST - POLICY.buckets)
        assert trips(better, NOW_MS, POLICY) is Cause.NONE or ended < POLICY.volume_min


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(Signal), st.integers(0, 400)), max_size=200))
def test_a_fleet_that_hears_of_everything_decides_as_one_gateway_does(steps: list[tuple[int, Signal, int]]) -> None:
    """Three gateways that report after each call open no sooner and no later than one that sees all calls."""
    store, fleet, alone = Store(), [SharedBreaker(POLICY) for _ in range(3)], SharedBreaker(POLICY)
    now_ms = NOW_MS
    for index, signal, gap_ms in steps:
        now_ms += gap_ms
        for gateway in (fleet[index], alone):
            gateway.record(signal, gateway.begin())
        for gateway in fleet:
            gateway.adopt(store.sync(gateway.report(now_ms), now_ms), now_ms, 0.5)
        for gateway in fleet:
            gateway.adopt(store.sync(gateway.report(now_ms), now_ms), now_ms, 0.5)
        alone.judge(now_ms, 0.5)
        alone.report(now_ms)
        alone.miss()
        assert {gateway.breaker.state for gateway in fleet} == {alone.breaker.state}


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["fail", "sync", "tick", "probe", "miss"])), max_size=80))
def test_whatever_happens_all_agree_once_all_have_reported(steps: list[tuple[int, str]]) -> None:
    store, fleet = Store(), [SharedBreaker(POLICY) for _ in range(2)]
    now_ms = NOW_MS
    for index, what in steps:
        now_ms += 700
        gateway = fleet[index]
        match what:
            case "fail":
                gateway.record(Signal.ERROR, gateway.begin())
                gateway.judge(now_ms, 0.5)
            case "sync":
                gateway.adopt(store.sync(gateway.report(now_ms), now_ms), now_ms, 0.5)
            case "tick":
                gateway.tick(now_ms)
            case "probe":
                gateway.probed(now_ms % 2 == 0, now_ms, 0.5)
            case _:
                gateway.report(now_ms)
                gateway.miss()
    for gateway in fleet * 3:
        gateway.adopt(store.sync(gateway.report(now_ms), now_ms), now_ms, 0.5)
    assert fleet[0].breaker == fleet[1].breaker


def test_a_call_of_an_earlier_state_does_not_count() -> None:
    gateway = SharedBreaker(POLICY)
    for _ in range(8):
        gateway.record(Signal.ERROR, gateway.begin())
    gateway.judge(NOW_MS, 0.5)
    opened_for_ms = gateway.left_ms(NOW_MS)
    gateway.tick(NOW_MS + opened_for_ms)
    for _ in range(POLICY.successes_to_close):
        gateway.probed(True, NOW_MS + opened_for_ms, 0.5)
    assert gateway.breaker.state is State.CLOSED

    for _ in range(100):
        gateway.record(Signal.TIMEOUT, 0)
    gateway.judge(NOW_MS + opened_for_ms + 1, 0.5)
    assert gateway.breaker.state is State.CLOSED


def test_a_store_that_lost_everything_learns_what_holds_from_the_first_who_speaks() -> None:
    gateway = SharedBreaker(POLICY)
    for _ in range(8):
        gateway.record(Signal.ERROR, gateway.begin())
    gateway.judge(NOW_MS, 0.5)
    gateway.adopt(Store().sync(gateway.report(NOW_MS), NOW_MS), NOW_MS, 0.5)
    emptied, other = Store(), SharedBreaker(POLICY)

    gateway.adopt(emptied.sync(gateway.report(NOW_MS), NOW_MS), NOW_MS, 0.5)
    other.adopt(emptied.sync(other.report(NOW_MS), NOW_MS), NOW_MS, 0.5)

    assert gateway.breaker.state is other.breaker.state is State.OPEN


def test_what_the_fleet_was_not_told_yet_is_not_forgotten() -> None:
    """A gateway whose probe has just closed it must tell so, or it would hear from the others that it is half open."""
    gateway, store = SharedBreaker(POLICY), Store()
    for _ in range(8):
        gateway.record(Signal.ERROR, gateway.begin())
    gateway.judge(NOW_MS, 0.5)
    later_ms = NOW_MS + gateway.left_ms(NOW_MS)
    gateway.tick(later_ms)
    for _ in range(POLICY.successes_to_close):
        gateway.probed(True, later_ms, 0.5)
    much_later_ms = later_ms + 10 * POLICY.window_ms

    assert not gateway.is_idle(much_later_ms)
    gateway.adopt(store.sync(gateway.report(much_later_ms), much_later_ms), much_later_ms, 0.5)
    assert gateway.is_idle(much_later_ms)
