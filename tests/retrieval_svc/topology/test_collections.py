"""Collections that are made and deleted at one node, seen from the others."""

import asyncio
import subprocess
import sys

import grpc
import numpy as np
import pytest

from penstock.errors import CollectionNotFound
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub
from penstock.wire import from_rpc_error
from tests.retrieval_svc.processes import environment
from tests.retrieval_svc.topology.load import Corpus, SearchLoad
from tests.retrieval_svc.topology.nodes import Topology, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


async def is_gone(client: RetrievalServiceStub, corpus: Corpus) -> object:
    try:
        await client.Search(corpus.search(0))
    except grpc.aio.AioRpcError as error:
        return isinstance(from_rpc_error(error), CollectionNotFound) or str(error)
    return "it is still found"


async def test_a_collection_is_known_everywhere_at_once_and_gone_everywhere_soon(topology: Topology) -> None:
    corpus = Corpus("passing", count=200, seed=3)
    async with topology.clients() as clients:
        await corpus.fill(clients[1])
        for client in clients:
            found = await client.Search(corpus.search(0))
            assert {hit.chunk.id for hit in found.hits} <= {f"c{row}" for row in range(200)}
        for client in clients:

            async def is_whole(client: RetrievalServiceStub = client) -> object:
                return [hit.chunk.id for hit in (await client.Search(corpus.search(0))).hits] == corpus.expected[0]

            await eventually(is_whole, "every node finds what was stored at one")
        uids = {int(path.name) for node in topology.nodes for path in (node.folder / "data" / "shards").iterdir()}
        await clients[2].DeleteCollection(pb.DeleteCollectionRequest(name=corpus.name))
        for client in clients:
            await eventually(lambda client=client: is_gone(client, corpus), "it is gone at every node", within_s=20)

        async def files_are_gone() -> object:
            left = [
                {int(path.name) for path in (node.folder / "data" / "shards").iterdir()} & {max(uids)}
                for node in topology.nodes
            ]
            return not any(left) or left

        await eventually(files_are_gone, "its files are removed at every node", within_s=20)


async def test_a_collection_that_is_deleted_while_it_is_searched_is_said_to_be_gone(topology: Topology, still: Corpus) -> None:
    doomed = Corpus("doomed", count=200, seed=4)
    async with topology.clients() as clients:
        await doomed.fill(clients[0])
        for client in clients:

            async def is_whole(client: RetrievalServiceStub = client) -> object:
                return [hit.chunk.id for hit in (await client.Search(doomed.search(0))).hits] == doomed.expected[0]

            await eventually(is_whole, "every node finds what was stored at one")
        async with SearchLoad(corpus=still, clients=clients, parallel=2).running() as load:
            searches = SearchLoad(corpus=doomed, clients=clients, parallel=4)
            async with searches.running():
                assert searches.faults == []
                await clients[0].DeleteCollection(pb.DeleteCollectionRequest(name=doomed.name))
                await asyncio.gather(
                    *(eventually(lambda client=client: is_gone(client, doomed), "it is gone") for client in clients)
                )
            assert searches.faults
            assert {fault.partition(":")[0] for fault in searches.faults} == {"NOT_FOUND"}, set(searches.faults)
        assert load.faults == []
        assert all(node.is_running for node in topology.nodes)


async def test_a_name_that_is_given_anew_means_the_new_collection_everywhere(topology: Topology) -> None:
    async with topology.clients() as clients:
        for generation in range(3):
            corpus = Corpus("again", count=50, seed=20 + generation)
            await corpus.fill(clients[generation])
            for client in clients:

                async def is_whole(client: RetrievalServiceStub = client, corpus: Corpus = corpus) -> object:
                    try:
                        found = await client.Search(corpus.search(0))
                    except grpc.aio.AioRpcError as error:
                        return error.details()
                    return [hit.chunk.id for hit in found.hits] == corpus.expected[0]

                await eventually(is_whole, f"every node finds generation {generation}", within_s=20)
            await clients[generation + 1].DeleteCollection(pb.DeleteCollectionRequest(name=corpus.name))


async def test_a_second_process_on_a_nodes_folder_refuses_to_start(topology: Topology, still: Corpus) -> None:
    node = topology["a"]
    settings = node.settings | {"grpc_address": "127.0.0.1:0", "address_file": str(node.folder / "second.json")}
    second = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "retrieval_svc"], env=environment(node.folder, settings), capture_output=True
    )
    assert second.returncode == 1
    assert f"in use by process {node.pid}" in second.stderr.decode()
    async with topology.clients("a") as [client]:
        assert [hit.chunk.id for hit in (await client.Search(still.search(1))).hits] == still.expected[1]
        assert np.isclose(
            (await client.Search(still.search(1))).hits[0].score, float((still.queries[1] @ still.vectors.T).max())
        )
