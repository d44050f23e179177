import asyncio
import socket
from collections.abc import Collection

import pytest

from penstock.addresses import parse_target
from penstock.discovery import Discovery, resolve_by_dns


class Names:
    """A resolver whose answers a test changes."""

    def __init__(self, **hosts: Collection[str]) -> None:
        self.hosts = hosts

    async def __call__(self, host: str) -> Collection[str]:
        if host not in self.hosts:
            message = f"no such name: {host}"
            raise OSError(message)
        return self.hosts[host]


class Seen:
    def __init__(self) -> None:
        self.changes: list[tuple[str, list[str]]] = []

    def __call__(self, group: str, addresses: frozenset[str]) -> None:
        self.changes.append((group, sorted(addresses)))


def groups(**targets: str) -> dict:
    return {name: parse_target(target) for name, target in targets.items()}


async def test_all_addresses_of_a_name_are_found_and_the_own_one_left_out() -> None:
    names, seen = Names(a=["10.0.0.1", "10.0.0.2"], b=["::1"]), Seen()
    wanted = groups(one="a:1,10.0.0.9:2", two="b:3")
    await Discovery(wanted, seen, kind="group", resolve=names, own=["10.0.0.1:1"]).refresh()
    assert seen.changes == [("one", ["10.0.0.2:1", "10.0.0.9:2"]), ("two", ["[::1]:3"])]


async def test_only_changes_are_told_and_a_name_that_fails_keeps_what_it_had() -> None:
    names, seen = Names(a=["10.0.0.1"]), Seen()
    discovery = Discovery(groups(one="a:1,b:2"), seen, kind="group", resolve=names)
    await discovery.refresh()
    await discovery.refresh()
    names.hosts = {"b": ["10.0.0.5"]}
    await discovery.refresh()
    names.hosts = {"a": ["10.0.0.2"], "b": ["10.0.0.5"]}
    await discovery.refresh()
    assert [found for _, found in seen.changes] == [
        ["10.0.0.1:1"],
        ["10.0.0.1:1", "10.0.0.5:2"],
        ["10.0.0.2:1", "10.0.0.5:2"],
    ]


async def test_a_name_that_takes_too_long_keeps_nobody_waiting() -> None:
    async def never(host: str) -> Collection[str]:
        await asyncio.Event().wait()
        return ()

    seen = Seen()
    await Discovery(groups(one="a:1,10.0.0.1:1"), seen, kind="group", resolve=never, timeout_s=0.01).refresh()
    assert seen.changes == [("one", ["10.0.0.1:1"])]


async def test_names_are_resolved_again_and_again() -> None:
    names, seen = Names(a=["10.0.0.1"]), Seen()
    discovery = Discovery(groups(one="a:1"), seen, kind="group", resolve=names, interval_s=0.01)
    running = asyncio.create_task(discovery.run())
    while not seen.changes:
        await asyncio.sleep(0.01)
    names.hosts = {"a": ["10.0.0.2"]}
    while len(seen.changes) < 2:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen.changes[1] == ("one", ["10.0.0.2:1"])


async def test_without_names_there_is_nothing_to_repeat() -> None:
    await Discovery(groups(one="10.0.0.1:1,[::1]:2"), Seen(), kind="group").run()


async def test_the_systems_resolver_gives_one_address_a_replica() -> None:
    assert await resolve_by_dns("localhost") in ({"127.0.0.1"}, {"::1"})
    with pytest.raises(socket.gaierror):
        await resolve_by_dns("no-such-name.invalid")
