"""Finds the replicas behind names, again and again: a headless service's name has an address for each, and they come and go."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

from retrieval_svc.cluster.topology import Address, Topology

log = logging.getLogger(__name__)

ADDRESSES_MAX: Final = 256
"""Most replicas behind one name."""

Resolve = Callable[[str], Awaitable[Collection[str]]]
"""All IP addresses of a name. Raises OSError for one that has none, or that cannot be asked for now."""


async def resolve_by_dns(host: str) -> Collection[str]:
    """The system's own resolver. A node with addresses of both families is one node: IPv4 where there is any."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    by_family: dict[int, set[str]] = {}
    for family, _, _, _, address in found:
        by_family.setdefault(family, set()).add(str(address[0]))
    return by_family.get(socket.AF_INET) or by_family.get(socket.AF_INET6, set())


class Discovery:
    """Keeps every slot's replicas current. A name that cannot be resolved keeps the addresses that it had last.

    `changed(slot, addresses)` is called with all of a slot's "ip:port" when they are other than before. `own` is left out: this
    node's address, which the name of its own slot has too.
    """

    def __init__(
        self,
        topology: Topology,
        changed: Callable[[int, frozenset[str]], None],
        *,
        resolve: Resolve = resolve_by_dns,
        own: Iterable[str] = (),
        interval_s: float = 5.0,
        timeout_s: float = 4.0,
    ) -> None:
        self._topology = topology
        self._changed = changed
        self._resolve = resolve
        self._own = frozenset(own)
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._last: dict[Address, frozenset[str]] = {}
        self._current: dict[int, frozenset[str]] = {}

    async def refresh(self) -> None:
        """Resolves every name once."""
        wanted = [address for replicas in self._topology.addresses.values() for address in replicas]
        await asyncio.gather(*map(self._resolve_one, wanted))
        for slot, replicas in self._topology.addresses.items():
            found = frozenset[str]().union(*(self._last.get(address, frozenset()) for address in replicas)) - self._own
            if found != self._current.get(slot, frozenset()):
                log.info("slot %d has replicas %s", slot, sorted(found))
                self._current[slot] = found
                self._changed(slot, found)

    async def run(self) -> None:
        """Refreshes until it is cancelled; not at all where every replica is given by its IP address."""
        while any(not _is_ip(address.host) for replicas in self._topology.addresses.values() for address in replicas):
            await asyncio.sleep(self._interval_s)
            await self.refresh()

    async def _resolve_one(self, address: Address) -> None:
        if _is_ip(address.host):
            self._last[address] = frozenset({str(address)})
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                hosts = await self._resolve(address.host)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError; a label over 63 bytes is a UnicodeError.
            log.warning("%s cannot be resolved (%s); its replicas stay as they were", address, error or "no answer in time")
        else:
            kept = sorted(hosts)[:ADDRESSES_MAX]
            self._last[address] = frozenset(str(Address(host=host, port=address.port)) for host in kept)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
