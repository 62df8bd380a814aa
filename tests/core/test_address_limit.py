"""How often an address may do something within an hour."""

from ipaddress import ip_address

from gateway.core.guard.address_limit import ADDRESSES_MAX, AddressLimit

HERE = ip_address("192.0.2.1")


def test_an_address_is_refused_beyond_its_bound_until_the_hour_is_over() -> None:
    limit = AddressLimit(2)
    assert [limit.allows(HERE, now_s) for now_s in (0.0, 1.0, 2.0, 3599.0, 3600.0)] == [True, True, False, False, True]


def test_others_are_not_refused_with_it_but_the_rest_of_its_network_is() -> None:
    limit = AddressLimit(1)
    asked = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
    assert [limit.allows(ip_address(each), 0.0) for each in asked] == [True, True, True, False, True]


def test_who_cannot_be_told_apart_counts_together() -> None:
    limit = AddressLimit(1)
    assert [limit.allows(None, 0.0), limit.allows(None, 0.0)] == [True, False]


def test_it_remembers_no_more_than_its_bound_and_forgets_the_quietest() -> None:
    limit = AddressLimit(1)
    assert limit.allows(HERE, 0.0)
    for number in range(ADDRESSES_MAX):
        limit.allows(ip_address(number), 1.0)
    assert limit.allows(HERE, 2.0)
