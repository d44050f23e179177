"""Which addresses are those of the public internet, whatever they are dressed as.

A name that the operator allows may still be made to point to the gateway's own network by whoever runs its DNS: to the cloud's
metadata service at 169.254.169.254, to a database, to this very process.
"""

import ipaddress
from typing import Final

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_EMBEDDED_LAST: Final = (*_NAT64, ipaddress.IPv6Network("::/96"))
"""Networks whose addresses have an IPv4 address in their last 32 bits."""

_NOT_GLOBAL: Final = (
    ipaddress.ip_network("192.0.0.0/24"),  # Of protocols; a cloud has its metadata service in it.
    ipaddress.ip_network("192.88.99.0/24"),  # 6to4 relays, withdrawn.
    ipaddress.ip_network("fec0::/10"),  # Site-local, withdrawn; still routed inside of old networks.
)


def is_public(text: str) -> bool:
    """Whether a numeric address is one of the public internet, and so are all that are embedded in it."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(_is_public(each) for each in (address, *_embedded(address)))


def _embedded(address: _Address) -> tuple[_Address, ...]:
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found: list[_Address] = [each for each in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if each]
    if any(address in network for network in _EMBEDDED_LAST):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(found)


def _is_public(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address in _NAT64[0]):
        return True  # What counts is the address that is embedded in it.
    if any(address.version == network.version and address in network for network in _NOT_GLOBAL):
        return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local or address.is_loopback
    )
