"""Where a request comes from: what trusted proxies vouch for, and nothing else."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.access.addresses import client_address, is_within, read_address

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))

strangers = st.ip_addresses().map(str).filter(lambda text: not is_within(read_address(text), PROXIES))
proxies = st.one_of(st.ip_addresses(network=PROXIES[0]), st.ip_addresses(network=PROXIES[1])).map(str)
written = st.lists(st.one_of(st.text(max_size=30), strangers, proxies), max_size=4)


@given(stranger=strangers, forwarded=written)
def test_a_peer_that_is_no_trusted_proxy_is_the_client_whatever_it_writes(stranger: str, forwarded: list[str]) -> None:
    assert client_address(f"{stranger}:80", forwarded, PROXIES) == read_address(stranger)


@given(peer=proxies, hops=st.lists(proxies, max_size=3), client=strangers, forged=written)
def test_the_right_most_hop_that_is_no_trusted_proxy_is_the_client(
    peer: str, hops: list[str], client: str, forged: list[str]
) -> None:
    lines = [*forged, ", ".join([client, *hops])]
    assert client_address(f"{peer}:80", lines, PROXIES) == read_address(client)


@given(peer=proxies, forwarded=written)
def test_without_trusted_proxies_no_header_counts(peer: str, forwarded: list[str]) -> None:
    assert client_address(f"{peer}:80", forwarded, ()) == read_address(peer)


@pytest.mark.parametrize("hop", ["unknown", "", "1.2.3", "1.2.3.4.5", "[", "_hidden", "10.0.0.256"])
def test_a_hop_that_cannot_be_read_is_nobody(hop: str) -> None:
    assert client_address("10.0.0.1:80", [f"10.0.0.9, {hop}"], PROXIES) is None
    assert not is_within(None, PROXIES)


@pytest.mark.parametrize("hop", ["1.2.3.4", " 1.2.3.4 ", "1.2.3.4:99", "::ffff:1.2.3.4", "[::ffff:1.2.3.4]:99"])
def test_an_address_is_the_same_however_it_is_written(hop: str) -> None:
    assert str(client_address("10.0.0.1:80", [hop], PROXIES)) == "1.2.3.4"


def test_behind_trusted_proxies_only_the_farthest_is_the_client() -> None:
    assert str(client_address("10.0.0.1:80", ["10.0.0.3, 10.0.0.2"], PROXIES)) == "10.0.0.3"
    assert str(client_address("10.0.0.1:80", [], PROXIES)) == "10.0.0.1"
    assert client_address("", [], PROXIES) is None  # a UNIX socket
