"""The client of the retrieval service, over a real server and channel."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from penstock.clients import Chunk, Document, Hit, Ingested, RetrievalClient, Written
from penstock.errors import CollectionNotFound, EmptyText, InvalidArgument
from penstock.retrieval.v1 import retrieval_pb2 as pb


@pytest.fixture
async def client(services: Any) -> AsyncIterator[RetrievalClient]:
    async with RetrievalClient(services.target) as opened:
        await opened.create_collection("wiki", dimension=2, metric="inner_product")
        yield opened


def texts(count: int, text: str = "a text") -> list[Document]:
    return [Document(id=f"d{number}", text=text) for number in range(count)]


async def test_a_collection_is_created_read_listed_and_deleted(services: Any, client: RetrievalClient) -> None:
    await client.create_collection("notes", embedding_model="minilm")
    read = await client.get_collection("collections/wiki")
    assert (read.name, read.dimension, read.metric) == ("wiki", 2, "inner_product")
    listed = [collection async for collection in client.list_collections(page_size=1)]
    assert [(each.name, each.embedding_model, each.metric) for each in listed] == [
        ("notes", "minilm", "cosine"),
        ("wiki", "", "inner_product"),
    ]
    await client.delete_collection("wiki")
    with pytest.raises(CollectionNotFound):
        await client.get_collection("wiki")


async def test_ingest_sends_batches_and_tells_the_totals_after_each(services: Any, client: RetrievalClient) -> None:
    told: list[Ingested] = []
    total = await client.ingest("wiki", iter(texts(5)), batch_size_max=2, on_progress=told.append)
    assert total == Ingested(document_count=5, chunk_count=5, unchanged_count=3, consistency_token="t1,t2,t3")
    assert [each.document_count for each in told] == [2, 4, 5]
    assert [len(request.documents) for request in services.retrieval.requests] == [2, 2, 1]


async def test_a_batch_ends_before_it_is_too_large_for_one_message(services: Any, client: RetrievalClient) -> None:
    await client.ingest("wiki", texts(3, "x" * 3 * 2**20))
    assert [len(request.documents) for request in services.retrieval.requests] == [1, 1, 1]


async def test_a_failing_batch_raises_and_leaves_the_batches_before_it_stored(services: Any, client: RetrievalClient) -> None:
    with pytest.raises(EmptyText, match="'bad'"):
        await client.ingest("wiki", [*texts(2), Document(id="bad", text=" ")], batch_size_max=2)
    assert sorted(services.retrieval.chunks) == ["d0#0", "d1#0"]


async def test_ingesting_nothing_makes_no_call(services: Any, client: RetrievalClient) -> None:
    assert await client.ingest("wiki", []) == Ingested()
    assert services.retrieval.requests == []


async def test_a_search_by_text_returns_hits_with_their_metadata(services: Any, client: RetrievalClient) -> None:
    await client.ingest("wiki", [Document(id="d", text="a tower", metadata={"page": 3, "tags": ["x"]})])
    hits = await client.search("wiki", "tower", top_k=1)
    expected = Hit(chunk_id="d#0", document_id="d", text="a tower", metadata={"page": 3, "tags": ["x"]}, score=0.5)
    assert list(hits) == [expected]
    assert (hits[0], hits[:1], len(hits)) == (expected, (expected,), 1)
    assert services.retrieval.requests[-1] == pb.SearchRequest(collection="collections/wiki", text="tower", top_k=1)


@pytest.mark.parametrize("vector", [[0.1, -2.0], (0.1, -2.0), np.array([0.1, -2.0]), np.array([0.1, -2.0], "<f4").tobytes()])
async def test_a_search_by_vector_sends_little_endian_float32(services: Any, client: RetrievalClient, vector: Any) -> None:
    await client.search("wiki", vector)
    request = services.retrieval.requests[-1]
    assert np.frombuffer(request.vector, "<f4").tolist() == np.array([0.1, -2.0], np.float32).tolist()
    assert not request.HasField("top_k")


async def test_a_top_k_of_zero_reaches_the_service_to_be_refused_there(services: Any, client: RetrievalClient) -> None:
    await client.search("wiki", "tower", top_k=0)
    assert services.retrieval.requests[-1].HasField("top_k")


async def test_ready_chunks_are_stored_listed_and_deleted(services: Any, client: RetrievalClient) -> None:
    chunks = [Chunk(id=f"c{number}", document_id="d", text="t", metadata={"n": number}) for number in range(3)]
    with_vector = Chunk(id="v", text="t", vector=[1.0, 0.0])
    assert await client.upsert_chunks("wiki", [*chunks, with_vector], batch_size_max=3) == Written(chunk_count=4)
    assert [len(request.chunks) for request in services.retrieval.requests] == [3, 1]
    assert services.retrieval.requests[1].chunks[0].vector == np.array([1, 0], "<f4").tobytes()
    assert [chunk async for chunk in client.list_chunks("wiki", page_size=2)][:3] == chunks
    assert await client.delete_chunks("wiki", chunk_ids=["v", "none"], document_ids=["d"]) == Written(chunk_count=4)


async def test_metadata_that_json_cannot_say_names_its_document(client: RetrievalClient) -> None:
    with pytest.raises(InvalidArgument, match="the metadata of document 'd'"):
        await client.ingest("wiki", [Document(id="d", text="t", metadata={"when": object()})])
