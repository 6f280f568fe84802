"""The addresses of clients, as the limits count them. Pure.

One client can own a whole IPv6 network: a home or a server gets at least a /64 (RFC 6177, RFC 7421). So an IPv6 address
counts as its /64. An IPv4 address has several spellings in IPv6, and all of them count as the IPv4 address.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

_NAT64: Final = 0x0064FF9B << 96  # 64:ff9b::/96, RFC 6052: the last 32 bits are the IPv4 address
_NETWORK_MASK: Final = (1 << 128) - (1 << 64)


def network_of(address: str) -> str:
    """Returns the address or network by which the limits count an address.

    Args:
        address: The client's address, from the server: IPv4, IPv6, or anything else, which is returned unchanged.

    Returns:
        The IPv4 address, however it was spelled. A loopback or link-local IPv6 address. For every other IPv6 address
        its network, such as ``"2001:db8::/64"``.
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
