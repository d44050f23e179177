import asyncio
import socket
from collections.abc import Collection

import numpy as np
import pytest

from retrieval_svc.cluster.discovery import Discovery, resolve_by_dns
from retrieval_svc.cluster.topology import parse_topology
from retrieval_svc.values import Sequences
from tests.retrieval_svc.cluster.fakes import FakeNode, collection, coordinating, query, serving


class Names:
    """A resolver whose answers a test changes."""

    def __init__(self, **hosts: Collection[str]) -> None:
        self.hosts = hosts
        self.asked = 0

    async def __call__(self, host: str) -> Collection[str]:
        self.asked += 1
        if host not in self.hosts:
            message = f"no such name: {host}"
            raise OSError(message)
        return self.hosts[host]


class Seen:
    def __init__(self) -> None:
        self.changes: list[tuple[int, list[str]]] = []

    def __call__(self, slot: int, addresses: frozenset[str]) -> None:
        self.changes.append((slot, sorted(addresses)))


async def test_all_addresses_of_a_name_are_found_and_the_own_one_left_out() -> None:
    names, seen = Names(a=["10.0.0.1", "10.0.0.2"], b=["::1"]), Seen()
    topology = parse_topology("a:1|10.0.0.9:2,b:3", slot_count=2)
    await Discovery(topology, seen, resolve=names, own=["10.0.0.1:1"]).refresh()
    assert seen.changes == [(0, ["10.0.0.2:1", "10.0.0.9:2"]), (1, ["[::1]:3"])]


async def test_only_changes_are_told_and_a_name_that_fails_keeps_what_it_had() -> None:
    names, seen = Names(a=["10.0.0.1"]), Seen()
    discovery = Discovery(parse_topology(",a:1|b:2", slot_count=2), seen, resolve=names)
    await discovery.refresh()
    await discovery.refresh()
    names.hosts = {"b": ["10.0.0.5"]}
    await discovery.refresh()
    names.hosts = {"a": ["10.0.0.2"], "b": ["10.0.0.5"]}
    await discovery.refresh()
    assert seen.changes == [(1, ["10.0.0.1:1"]), (1, ["10.0.0.1:1", "10.0.0.5:2"]), (1, ["10.0.0.2:1", "10.0.0.5:2"])]


async def test_a_name_that_takes_too_long_keeps_nobody_waiting() -> None:
    async def never(host: str) -> Collection[str]:
        await asyncio.Event().wait()
        return ()

    seen = Seen()
    topology = parse_topology(",a:1|10.0.0.1:1", slot_count=2)
    await Discovery(topology, seen, resolve=never, timeout_s=0.01).refresh()
    assert seen.changes == [(1, ["10.0.0.1:1"])]


async def test_names_are_resolved_again_and_again() -> None:
    names, seen = Names(a=["10.0.0.1"]), Seen()
    discovery = Discovery(parse_topology(",a:1", slot_count=2), seen, resolve=names, interval_s=0.01)
    running = asyncio.create_task(discovery.run())
    while not seen.changes:
        await asyncio.sleep(0.01)
    names.hosts = {"a": ["10.0.0.2"]}
    while len(seen.changes) < 2:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen.changes[1] == (1, ["10.0.0.2:1"])


async def test_without_names_there_is_nothing_to_repeat() -> None:
    await Discovery(parse_topology(",10.0.0.1:1|[::1]:2", slot_count=2), Seen()).run()


async def test_the_systems_resolver_gives_one_address_a_node() -> None:
    assert await resolve_by_dns("localhost") in ({"127.0.0.1"}, {"::1"})
    with pytest.raises(socket.gaierror):
        await resolve_by_dns("no-such-name.invalid")


async def test_a_replica_that_left_the_name_is_let_go_of_and_a_new_one_used() -> None:
    rows = {1: {1: 1.0}}
    async with serving(FakeNode(rows)) as old, serving(FakeNode(rows)) as new:
        host, port = old.address.split(":")
        names = Names(shards=[host])
        topology = parse_topology(f",shards:{port}|{new.address}", slot_count=2)
        async with coordinating(FakeNode({0: {}}), topology, resolve=names) as coordinator:

            async def fetch() -> None:
                wanted: Sequences = np.array([1])
                [row] = await coordinator.fetch(collection(2), np.array([1], np.int32), wanted, with_vectors=False)
                assert row is not None

            while not (old.node.fetches and new.node.fetches):
                await fetch()
            names.hosts = {"shards": []}
            await coordinator._discovery.refresh()
            count = len(old.node.fetches)
            for _ in range(10):
                await fetch()
            await coordinator.gather(collection(2), [query()], at_least={}, allow_partial=False)
    assert len(old.node.fetches) == count
    assert not old.node.calls
