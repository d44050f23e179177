"""Writers at every node at once: what was acknowledged is there, on every replica, and what was deleted is not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub
from tests.retrieval_svc.topology.history import History
from tests.retrieval_svc.topology.load import Corpus, SearchLoad
from tests.retrieval_svc.topology.nodes import Topology, caught_up, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WRITERS = 6


@contextlib.asynccontextmanager
async def writing(history: History, clients: Sequence[RetrievalServiceStub]) -> AsyncIterator[None]:
    """Writers that write while the block runs."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(history.write(clients, number, stop)) for number in range(WRITERS)]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def written(history: History, count: int) -> None:
    """Returns when so many more writes have been acknowledged."""
    target = acknowledged(history) + count

    async def enough() -> object:
        return acknowledged(history) >= target or (acknowledged(history), target)

    await eventually(enough, "writes go on")


def acknowledged(history: History) -> int:
    return sum(write.position is not None for writes in history.writes.values() for write in writes)


async def test_what_concurrent_writers_were_told_is_what_every_node_finds(topology: Topology, still: Corpus) -> None:
    history = History(name="collections/contested")
    async with topology.clients() as clients:
        await history.create(clients[0])
        async with SearchLoad(corpus=still, clients=clients, parallel=2).running() as load, writing(history, clients):
            await written(history, 400)
        assert load.faults == []
        assert history.failures == []
        assert len(history.seen) > 100
        history.check_observations()
        for client in clients:
            await history.check(client)


async def test_a_writer_that_dies_with_its_node_loses_nothing_that_was_acknowledged(topology: Topology) -> None:
    history = History(name="collections/interrupted", seed=8)
    async with topology.clients() as clients:
        await history.create(clients[0])
        async with writing(history, clients):
            await written(history, 150)
            topology["a"].kill()
            await written(history, 150)
            topology["a"].begin()
            await written(history, 50)
        assert history.failures, "no write was under way when the node was killed"
        topology["a"].wait()
        history.check_observations()
        for client in clients[1:]:
            await history.check(client)
    async with topology.clients("a") as [revived]:
        await history.check(revived)


async def test_a_new_replica_joins_from_a_snapshot_while_writes_go_on(topology: Topology, still: Corpus) -> None:
    history = History(name="collections/growing", seed=9)
    async with topology.clients() as clients:
        await history.create(clients[0])
        async with writing(history, clients):
            await written(history, 200)
        for client in (clients[0], clients[2]):
            sent = await client.CreateSnapshot(pb.CreateSnapshotRequest(collection=history.name))
            assert [snapshot.position > 0 for snapshot in sent.snapshots] == [True]
    topology["b"].kill()
    topology["b"].forget()
    async with topology.clients("acd") as clients:
        async with SearchLoad(corpus=still, clients=clients, parallel=2).running() as load, writing(history, clients):
            await written(history, 100)
            topology["b"].begin()
            await written(history, 100)
            topology["b"].wait()
            await written(history, 50)
        assert load.faults == []
        assert history.failures == []
        assert "restored the snapshot" in topology["b"].log
        async with topology.clients("b") as [joined]:
            await caught_up(joined, clients[0], history.name)
            await history.check(joined)
            async with SearchLoad(corpus=still, clients=[joined]).running() as load:
                await load.goes_on(20)
            assert load.faults == []
