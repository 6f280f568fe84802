"""Addresses: what counts as one client."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.addresses import network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        pytest.param("192.0.2.7", "192.0.2.7", id="ipv4"),
        pytest.param("::ffff:192.0.2.7", "192.0.2.7", id="ipv4-mapped"),
        pytest.param("::FFFF:c000:0207", "192.0.2.7", id="ipv4-mapped-in-hex"),
        pytest.param("0:0:0:0:0:ffff:192.0.2.7", "192.0.2.7", id="ipv4-mapped-in-full"),
        pytest.param("64:ff9b::192.0.2.7", "192.0.2.7", id="nat64"),
        pytest.param("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", id="ipv6"),
        pytest.param("2001:0DB8:0001:0002::1", "2001:db8:1:2::/64", id="ipv6-spelled-otherwise"),
        pytest.param("2001:db8:1:3::1", "2001:db8:1:3::/64", id="ipv6-of-the-next-network"),
        pytest.param("::1", "::1", id="loopback"),
        pytest.param("fe80::1%eth0", "fe80::1%eth0", id="link-local"),
        pytest.param("fe80::2", "fe80::2", id="another-on-the-link"),
        pytest.param("testclient", "testclient", id="no-address"),
        pytest.param("192.0.2.7:8080", "192.0.2.7:8080", id="with-a-port"),
        pytest.param("", "", id="empty"),
        pytest.param("a:b", "a:b", id="garbage"),
    ],
)
def test_an_address_counts_as_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**64 - 1))
def test_all_addresses_of_a_network_count_as_one(number: int, host: int) -> None:
    first, second = (IPv6Address(number >> 64 << 64 | low) for low in (host, host ^ 1))
    if not (first.ipv4_mapped or second.ipv4_mapped or number >> 64 in (0, 0x64FF9B << 32) or first.is_link_local):
        assert network_of(str(first)) == network_of(str(second)) == network_of(first.exploded)


@given(st.text(max_size=60))
def test_nothing_that_a_server_says_makes_it_raise(address: str) -> None:
    assert isinstance(network_of(address), str)
