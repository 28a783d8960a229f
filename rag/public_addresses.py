"""Which addresses are of the open internet. A name that somebody else chose may lead into a company's own network."""

import ipaddress
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SPECIAL = [
    ipaddress.ip_network(network)
    # Azure's platform, protocol assignments, and site-local: a public look, but no open internet behind it.
    for network in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "fec0::/10", "2001::/23", "5f00::/16")
]


class NotPublic(Exception):
    """A name leads to addresses that are not of the open internet, and to no other."""


def is_public(address: Address) -> bool:
    """Whether the address is one of the open internet, for what it embeds too (mapped, 6to4, Teredo, NAT64)."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(inner is not None and not is_public(inner) for inner in (address.sixtofour, *(address.teredo or ()))):
            return False
    special = any(address in network for network in _SPECIAL if network.version == address.version)
    return address.is_global and not special and not address.is_multicast and not address.is_reserved


def resolved(host: str, port: int) -> list[Address]:
    """Every address of a name, in the system's order. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
