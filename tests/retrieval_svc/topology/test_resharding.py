"""A collection of the cluster is spread over another number of shards by the command, while it is searched."""

import asyncio
import sys
from pathlib import Path

import pytest

from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub
from tests.retrieval_svc.processes import environment
from tests.retrieval_svc.topology.load import Corpus, SearchLoad
from tests.retrieval_svc.topology.nodes import Topology, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


async def penstock(*arguments: str, environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of the command."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "penstock",
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_a_collection_gets_another_number_of_shards_and_is_found_all_the_while(
    topology: Topology, still: Corpus, tmp_path: Path
) -> None:
    corpus = Corpus("spread", count=400, seed=6)
    places = environment(tmp_path, topology["a"].settings)
    async with topology.clients() as clients:
        await corpus.fill(clients[0])
        for client in clients:
            await eventually(lambda client=client: is_whole(client, corpus), "every node finds what was stored at one")
        async with SearchLoad(corpus=still, clients=clients, parallel=2).running() as load:
            async with SearchLoad(corpus=corpus, clients=clients, parallel=2).running() as own:
                code, output = await penstock("index", "reshard", "spread", "--shards", "5", environment=places)
                assert code == 0, output
                await own.goes_on(50)
        assert load.faults == []
        # A node that has heard of the new collection no longer has the old one, for which another may still ask it.
        assert {fault.partition(":")[0] for fault in own.faults} <= {"NOT_FOUND"}, set(own.faults)
        for client in clients:
            await eventually(lambda client=client: is_whole(client, corpus), "every node finds the new collection")
        collection = (await clients[1].GetCollection(pb.GetCollectionRequest(name=corpus.name))).collection
        assert (collection.shard_count, collection.chunk_count) == (5, 400)
        held = [await shards_of(client, corpus) for client in clients]
        assert held[0] == held[1] != held[2] == held[3]
        assert held[0] | held[2] == {0, 1, 2, 3, 4}
        chunk = pb.Chunk(id="new", text="new", vector=corpus.queries[0].tobytes())
        stored = await clients[2].UpsertChunks(pb.UpsertChunksRequest(collection=corpus.name, chunks=[chunk]))
        for client in clients:
            request = pb.SearchRequest(
                collection=corpus.name,
                vector=corpus.queries[0].tobytes(),
                top_k=1,
                consistency_token=stored.consistency_token,
            )
            assert [hit.chunk.id for hit in (await client.Search(request)).hits] == ["new"]
    print(f"{len(own.faults)} of {own.count} searches of the collection itself were told that it is not there")


async def is_whole(client: RetrievalServiceStub, corpus: Corpus) -> object:
    found = [hit.chunk.id for hit in (await client.Search(corpus.search(1))).hits]
    return found == corpus.expected[1] or found


async def shards_of(client: RetrievalServiceStub, corpus: Corpus) -> set[int]:
    status = await client.GetCollectionStatus(pb.GetCollectionStatusRequest(name=corpus.name))
    return {shard.shard for shard in status.shards}
