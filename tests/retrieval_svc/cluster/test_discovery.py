import numpy as np

from retrieval_svc.cluster.topology import parse_topology
from retrieval_svc.values import Sequences
from tests.retrieval_svc.cluster.fakes import FakeNode, collection, coordinating, query, serving


async def test_a_replica_that_left_the_name_is_let_go_of_and_a_new_one_used() -> None:
    rows = {1: {1: 1.0}}
    async with serving(FakeNode(rows)) as old, serving(FakeNode(rows)) as new:
        host, port = old.address.split(":")
        hosts = {"shards": [host]}
        topology = parse_topology(f",shards:{port}|{new.address}", slot_count=2)

        async def resolve(name: str) -> list[str]:
            return hosts[name]

        async with coordinating(FakeNode({0: {}}), topology, resolve=resolve) as coordinator:

            async def fetch() -> None:
                wanted: Sequences = np.array([1])
                [row] = await coordinator.fetch(collection(2), np.array([1], np.int32), wanted, with_vectors=False)
                assert row is not None

            while not (old.node.fetches and new.node.fetches):
                await fetch()
            hosts["shards"] = []
            await coordinator._discovery.refresh()
            count = len(old.node.fetches)
            for _ in range(10):
                await fetch()
            await coordinator.gather(collection(2), [query()], at_least={}, allow_partial=False)
    assert len(old.node.fetches) == count
    assert not old.node.calls
