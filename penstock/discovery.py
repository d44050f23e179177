"""Finds the replicas behind names, again and again: a headless service's name has an address for each, and they come and go."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from penstock.addresses import Address

log = logging.getLogger(__name__)

ADDRESSES_MAX: Final = 256
"""Most replicas behind one name."""

Resolve = Callable[[str], Awaitable[Collection[str]]]
"""All IP addresses of a name. Raises OSError for one that has none, or that cannot be asked for now."""
G = TypeVar("G", bound=Hashable)
"""What a group of replicas is called, such as the number of a slot or the name of a service."""


async def resolve_by_dns(host: str) -> Collection[str]:
    """The system's own resolver. A replica with addresses of both families is one replica: IPv4 where there is any."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    by_family: dict[int, set[str]] = {}
    for family, _, _, _, address in found:
        by_family.setdefault(family, set()).add(str(address[0]))
    return by_family.get(socket.AF_INET) or by_family.get(socket.AF_INET6, set())


class Discovery(Generic[G]):
    """Keeps every group's replicas current. A name that cannot be resolved keeps the addresses that it had last.

    `changed(group, addresses)` is called with all of a group's "ip:port" when they are other than before. `own` is left out:
    this process's address, which the name of its own group has too. `kind` is what the log calls a group.
    """

    def __init__(
        self,
        groups: Mapping[G, Sequence[Address]],
        changed: Callable[[G, frozenset[str]], None],
        *,
        kind: str,
        resolve: Resolve = resolve_by_dns,
        own: Iterable[str] = (),
        interval_s: float = 5.0,
        timeout_s: float = 4.0,
    ) -> None:
        self._groups = groups
        self._changed = changed
        self._kind = kind
        self._resolve = resolve
        self._own = frozenset(own)
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._last: dict[Address, frozenset[str]] = {}
        self._current: dict[G, frozenset[str]] = {}

    async def refresh(self) -> None:
        """Resolves every name once."""
        wanted = [address for addresses in self._groups.values() for address in addresses]
        await asyncio.gather(*map(self._resolve_one, wanted))
        for group, addresses in self._groups.items():
            found = frozenset[str]().union(*(self._last.get(address, frozenset()) for address in addresses)) - self._own
            if found != self._current.get(group, frozenset()):
                log.info("the replicas of %s %s are now %s", self._kind, group, sorted(found))
                self._current[group] = found
                self._changed(group, found)

    async def run(self) -> None:
        """Refreshes until it is cancelled; not at all where every replica is given by its IP address."""
        while not all(address.is_resolved for addresses in self._groups.values() for address in addresses):
            await asyncio.sleep(self._interval_s)
            await self.refresh()

    async def _resolve_one(self, address: Address) -> None:
        if address.is_resolved:
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
