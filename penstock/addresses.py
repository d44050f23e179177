"""Addresses, as settings name them: "host:port", where one name may stand for many replicas."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

_ADDRESS: Final = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s\[\]:|,/]+):(?P<port>\d{1,5})")
_PORT_MAX: Final = 65_535
_BY_DNS: Final = "dns:///"
"""gRPC's scheme for a name that is resolved, and what it takes for granted where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a replica, or all replicas behind one name, are reached. `host` is a name or an IP address without brackets."""

    host: str
    port: int

    @property
    def is_resolved(self) -> bool:
        """Whether it is an IP address already."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Reads "host:port", "[::1]:port" for IPv6. Raises ValueError."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or not 1 <= int(match["port"]) <= _PORT_MAX:
        raise ValueError(f'{text.strip()!r} is not "host:port" with a port from 1 to {_PORT_MAX}')
    return Address(host=match["host"].strip("[]"), port=int(match["port"]))


def parse_target(text: str) -> tuple[Address, ...]:
    """Reads a target as gRPC writes one, "dns:///host:port" or "host:port", or several with commas between them.

    Raises ValueError for anything else, gRPC's other schemes included, and for what is there twice.
    """
    addresses = tuple(parse_address(each.strip().removeprefix(_BY_DNS)) for each in text.split(","))
    if len(set(addresses)) < len(addresses):
        raise ValueError(f"{text!r} has an address twice")
    return addresses
