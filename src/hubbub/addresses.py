"""Addresses of clients, as limits count them: pure.

One client can have a whole network of IPv6: a home or a server gets a /64 at least (RFC 6177, RFC 7421), so an address
counts as its /64. An IPv4 address has several spellings in IPv6, and counts as itself in each of them.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

_NAT64: Final = 0x0064FF9B << 96  # 64:ff9b::/96, RFC 6052: the last 32 bits are the IPv4 address
_NETWORK_MASK: Final = (1 << 128) - (1 << 64)


def network_of(address: str) -> str:
    """The network that an address counts for.

    Args:
        address: As the server has it: IPv4, IPv6, or anything else, which counts as it is.

    Returns:
        The address for IPv4, however it is spelled, and for addresses of one machine or link; ``"2001:db8::/64"``
        for the other ones of IPv6.
    """
    if ":" not in address:
        return address
    try:
        ip = IPv6Address(address)
    except AddressValueError:
        return address
    number = int(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    if number >> 32 == _NAT64 >> 32:
        return str(IPv4Address(number & 0xFFFFFFFF))
    if ip.is_loopback or ip.is_link_local:
        return str(ip)
    return f"{IPv6Address(number & _NETWORK_MASK)}/64"
