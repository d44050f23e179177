"""Replicas that are killed, paused and gone, while searches go on whose every answer is checked."""

import grpc
import numpy as np
import pytest

from penstock.errors import Unavailable
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub
from penstock.wire import from_rpc_error
from tests.retrieval_svc.topology.load import DIMENSION, Corpus, SearchLoad
from tests.retrieval_svc.topology.nodes import Topology, caught_up, eventually, positions

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


async def write(client: RetrievalServiceStub, name: str, number: int) -> str:
    """Stores ten chunks of a document; the token that a search needs to see them."""
    vector = [1.0] * DIMENSION
    chunks = [
        pb.Chunk(id=f"m{number}-{at}", document_id=f"m{number}", text="moves", vector=packed([at + 1.0, *vector[1:]]))
        for at in range(10)
    ]
    return (await client.UpsertChunks(pb.UpsertChunksRequest(collection=name, chunks=chunks))).consistency_token


def packed(components: list[float]) -> bytes:
    return np.asarray(components, dtype="<f4").tobytes()


async def create(client: RetrievalServiceStub, collection_id: str) -> str:
    collection = pb.Collection(dimension=DIMENSION, shard_count=2)
    await client.CreateCollection(pb.CreateCollectionRequest(collection_id=collection_id, collection=collection))
    return f"collections/{collection_id}"


async def ids_seen(client: RetrievalServiceStub, name: str, token: str = "") -> set[str]:
    request = pb.SearchRequest(
        collection=name, vector=packed([1.0] * DIMENSION), top_k=1000, exact=True, fields=["id"], consistency_token=token
    )
    return {hit.chunk.id for hit in (await client.Search(request)).hits}


@pytest.mark.parametrize("victim", ["b", "d"])
async def test_a_replica_that_is_killed_costs_no_search_and_comes_back_with_everything(
    topology: Topology, still: Corpus, victim: str
) -> None:
    others = "abcd".replace(victim, "")
    fellow = {"b": "a", "d": "c"}[victim]
    async with topology.clients(others) as clients, topology.clients(fellow) as [beside]:
        name = await create(clients[0], f"moving-{victim}")
        before = await write(clients[0], name, 0)
        async with SearchLoad(corpus=still, clients=clients).running() as load:
            topology[victim].kill()
            await load.goes_on(150)
            token = [await write(clients[at % 3], name, at) for at in range(1, 21)][-1]
            await load.goes_on(50)
            topology[victim].begin()
            await load.goes_on(50)
            topology[victim].wait()
            await load.goes_on(50)
        assert load.faults == []
        async with topology.clients(victim) as [revived]:
            await caught_up(revived, beside, name)
            expected = {f"m{number}-{at}" for number in range(21) for at in range(10)}
            assert await ids_seen(revived, name, token) == expected
            async with SearchLoad(corpus=still, clients=[revived]).running() as load:
                await load.goes_on(50)
            assert load.faults == []
    assert before
    print(f"slowest search while {victim} was killed: {load.slowest_s * 1000:.0f} ms")


@pytest.mark.parametrize("victim", ["b", "c"])
async def test_a_replica_that_is_paused_is_hidden_by_its_fellow(topology: Topology, still: Corpus, victim: str) -> None:
    others = "abcd".replace(victim, "")
    fellow = {"b": "a", "c": "d"}[victim]
    async with topology.clients(others) as clients, topology.clients(victim + fellow) as [paused, beside]:
        name = await create(clients[0], f"paused-{victim}")
        async with SearchLoad(corpus=still, clients=clients).running() as load:
            with topology[victim].paused():
                await load.goes_on(150)
                token = await write(clients[0], name, 1)
                await load.goes_on(50)
            await load.goes_on(50)
        assert load.faults == []
        await caught_up(paused, beside, name)
        assert len(await ids_seen(paused, name, token)) == 10
    print(f"slowest search while {victim} was paused: {load.slowest_s * 1000:.0f} ms")


async def test_a_slot_without_any_replica_fails_searches_that_do_not_allow_partial_answers(
    topology: Topology, still: Corpus
) -> None:
    async with topology.clients("a") as [client]:
        held = await positions(client, still.name)
        [missing] = {0, 1} - held.keys()
        for name in "cd":
            topology[name].kill()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.Search(still.search(0))
        error = from_rpc_error(refused.value)
        assert isinstance(error, Unavailable)
        assert f"shard {missing} (slot 1)" in error.message
        assert error.metadata == {"shards": str(missing), "slots": "1"}
        partial = await client.Search(still.search(0, allow_partial=True))
        assert (partial.partial, list(partial.missing_shards)) == (True, [missing])
        whole = {chunk_id for ids in still.expected for chunk_id in ids}
        assert partial.hits
        assert {hit.chunk.id for hit in partial.hits} & whole
        topology.heal()

        async def is_whole() -> object:
            try:
                answer = await client.Search(still.search(0))
            except grpc.aio.AioRpcError as error:
                return error.details()
            return [hit.chunk.id for hit in answer.hits] == still.expected[0]

        await eventually(is_whole, "searches are whole again")
        answer = await client.Search(still.search(0, allow_partial=True))
        assert not answer.partial
