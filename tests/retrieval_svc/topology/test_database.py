"""The database goes away and comes back: searches go on, writes fail and say why, and no process is started again."""

import aiohttp
import grpc
import pytest

from penstock.errors import BackendUnavailable
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.wire import from_rpc_error
from tests.retrieval_svc.postgres import Cluster
from tests.retrieval_svc.topology.history import History
from tests.retrieval_svc.topology.load import Corpus, SearchLoad
from tests.retrieval_svc.topology.nodes import Topology, eventually
from tests.retrieval_svc.topology.test_writes import writing, written

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


async def test_while_the_database_is_away_searches_go_on_and_writes_say_what_to_do(
    topology: Topology, still: Corpus, postgres: Cluster
) -> None:
    pids = [node.pid for node in topology.nodes]
    history = History(name="collections/patient", seed=10)
    chunk = pb.Chunk(id="c0", text="text 0", vector=still.vectors[0].tobytes())
    async with topology.clients() as clients:
        await history.create(clients[0])
        async with SearchLoad(corpus=still, clients=clients).running() as load:
            async with writing(history, clients):
                await written(history, 30)
            postgres.stop()
            try:
                await load.goes_on(100)
                for client in clients:
                    with pytest.raises(grpc.aio.AioRpcError) as refused:
                        await client.UpsertChunks(pb.UpsertChunksRequest(collection=still.name, chunks=[chunk]), timeout=30)
                    error = from_rpc_error(refused.value)
                    assert isinstance(error, BackendUnavailable)
                    assert "PENSTOCK_RETRIEVAL_DATABASE_URL" in error.message
                # Each node holds half of the shards, and what it knew last of the others may be old.
                with pytest.raises(grpc.aio.AioRpcError, match=r"how many chunks .* the record's database failed"):
                    await clients[1].GetCollection(pb.GetCollectionRequest(name=still.name), timeout=30)
                with pytest.raises(grpc.aio.AioRpcError, match="database"):
                    await clients[1].ListChunks(pb.ListChunksRequest(collection=still.name), timeout=30)
                async with aiohttp.ClientSession() as http:
                    body = {"chunk_ids": ["nothing"]}
                    async with http.post(f"http://{topology['c'].http}/v1/{still.name}/chunks:delete", json=body) as answer:
                        error_body = (await answer.json())["error"]
                        assert (answer.status, error_body["details"][0]["reason"]) == (503, "BACKEND_UNAVAILABLE")
                await load.goes_on(100)
            finally:
                postgres.start()
            async with writing(history, clients):
                await written(history, 100)
            await load.goes_on(20)
        assert load.faults == []
        history.check_observations()
        for client in clients:
            await history.check(client)
    assert [node.pid for node in topology.nodes if node.is_running] == pids


async def test_a_crash_of_the_database_under_writers_loses_nothing_that_was_acknowledged(
    topology: Topology, still: Corpus, postgres: Cluster
) -> None:
    history = History(name="collections/crashed", seed=11)
    async with topology.clients() as clients:
        await history.create(clients[0])
        async with SearchLoad(corpus=still, clients=clients).running() as load:
            async with writing(history, clients):
                await written(history, 100)
                postgres.restart("immediate")
                await written(history, 100)
        assert load.faults == []
        assert history.failures, "no write was under way when the database crashed"
        history.check_observations()
        for client in clients:
            await history.check(client)


async def test_collections_that_were_made_before_an_absence_of_the_database_are_known_everywhere_after_it(
    topology: Topology, postgres: Cluster
) -> None:
    async with topology.clients() as clients:
        with topology["d"].paused():
            collection = pb.Collection(dimension=2, shard_count=2)
            await clients[0].CreateCollection(pb.CreateCollectionRequest(collection_id="unheard", collection=collection))
            postgres.restart("immediate")

        async def held() -> object:
            try:
                status = await clients[3].GetCollectionStatus(pb.GetCollectionStatusRequest(name="collections/unheard"))
            except grpc.aio.AioRpcError as error:
                return error.details()
            return len(status.shards) == 1

        await eventually(held, "the node that was paused holds its shard")
