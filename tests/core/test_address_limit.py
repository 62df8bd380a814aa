"""So much a minute or an hour from one address, and never more than a bounded table."""

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.guard.address_limit import HOUR_S, MINUTE_S, AddressLimit

HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def admitted(limit: AddressLimit, times: list[float]) -> list[float]:
    found = []
    for now in times:
        if limit.wait_s(HERE, now) == 0:
            limit.take(HERE, now)
            found.append(now)
    return found


@given(st.integers(1, 20), st.lists(st.floats(0, 600), max_size=200))
def test_no_minute_has_more_than_twice_its_limit_and_the_long_run_no_more_than_it(
    per_minute: int, times: list[float]
) -> None:
    found = admitted(AddressLimit(per_minute, 10), sorted(times))
    for start in found:
        assert sum(start <= each < start + MINUTE_S for each in found) <= 2 * per_minute
    if found:
        assert len(found) <= per_minute * (1 + (found[-1] - found[0]) / MINUTE_S) + 1


def test_a_burst_of_a_minutes_worth_is_allowed_and_then_one_at_a_time() -> None:
    limit = AddressLimit(6, 10)
    assert admitted(limit, [0.0] * 20) == [0.0] * 6
    assert limit.wait_s(HERE, 0.0) == 10
    assert admitted(limit, [9.9, 10.0, 10.1, 20.0]) == [10.0, 20.0]
    assert limit.wait_s(THERE, 0.0) == 0


def test_an_hours_worth_flows_off_within_an_hour() -> None:
    limit = AddressLimit(6, 10, HOUR_S)
    assert admitted(limit, [0.0] * 20 + [599.9, 600.0, 4200.0]) == [0.0] * 6 + [600.0, 4200.0]


@given(st.integers(1, 500), st.floats(0, 2e9), st.sampled_from([MINUTE_S, HOUR_S]))
def test_no_fraction_of_a_window_costs_the_last_one_of_a_burst(most: int, now: float, window_s: float) -> None:
    assert len(admitted(AddressLimit(most, 10, window_s), [now] * (most + 5))) == most


def test_trying_on_while_refused_does_not_make_the_wait_longer() -> None:
    limit = AddressLimit(6, 10)
    for _ in range(1000):
        limit.take(HERE, 0.0)
    assert limit.wait_s(HERE, 0.0) == 10


def test_the_table_is_bounded_and_forgets_who_was_quiet_longest() -> None:
    limit = AddressLimit(1, 100)
    for number in range(1000):
        limit.take(ip_address(number), 0.0)
    assert len(limit) == 100
    assert limit.wait_s(ip_address(899), 0.0) == 0
    assert limit.wait_s(ip_address(900), 0.0) > 0


def test_an_ipv6_network_is_one_customer_and_the_unreadable_are_one_too() -> None:
    limit = AddressLimit(1, 10)
    limit.take(ip_address("2001:db8::1"), 0.0)
    limit.take(None, 0.0)
    assert limit.wait_s(ip_address("2001:db8::ffff"), 0.0) > 0
    assert limit.wait_s(ip_address("2001:db8:0:1::1"), 0.0) == 0
    assert limit.wait_s(None, 0.0) > 0
