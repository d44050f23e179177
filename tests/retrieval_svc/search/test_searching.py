import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import TopKOutOfRange
from retrieval_svc.search.cache import ChunkCache
from retrieval_svc.search.searching import Query, Search, SearchLimits
from retrieval_svc.values import Chunk, Document, Metric, StoredChunk
from tests.retrieval_svc.fakes import Core, WordEmbedder, running_core

TEXTS = "collections/texts"
VECTORS = "collections/vectors"


def vector(*components: float) -> bytes:
    return np.array(components, dtype="<f4").tobytes()


async def with_words(core: Core) -> None:
    documents = [Document(id=f"d{number}", text=f"Topic{number} here.") for number in range(20)]
    await core.ingest.ingest_documents(TEXTS, documents)


async def test_more_hits_than_there_are_chunks_are_those_that_there_are(core: Core) -> None:
    await with_words(core)
    found = await core.search.search(TEXTS, Query(text="topic4", top_k=1000))
    assert len(found) == 20
    assert found[0].chunk.id == "d4#0"
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)


async def test_an_empty_collection_has_no_hits(core: Core) -> None:
    assert await core.search.search(TEXTS, Query(text="anything", top_k=5)) == []


@pytest.mark.parametrize("top_k", [0, -1, 1001, 1_000_000])
async def test_top_k_has_bounds(core: Core, top_k: int) -> None:
    with pytest.raises(TopKOutOfRange) as refused:
        await core.search.search(TEXTS, Query(text="anything", top_k=top_k))
    assert refused.value.metadata == {"limit": "1000"}


async def test_hits_come_from_the_cache_as_from_the_record(tmp_path: Path) -> None:
    async with running_core(tmp_path, embedder=WordEmbedder(), cache_bytes_max=0) as core:
        await core.catalog.create("texts", embedding_model="", dimension=0, metric=Metric.COSINE)
        await with_words(core)
        uncached = [await core.search.search(TEXTS, Query(text="topic4", top_k=5)) for _ in range(2)]
    async with running_core(tmp_path, embedder=WordEmbedder()) as core:
        cached = [await core.search.search(TEXTS, Query(text="topic4", top_k=5)) for _ in range(2)]
    assert cached[0][0].chunk is cached[1][0].chunk
    assert uncached[0][0].chunk is not uncached[1][0].chunk
    assert len({tuple((hit.chunk.id, hit.chunk.text, hit.score) for hit in found) for found in uncached + cached}) == 1


async def test_a_chunk_that_is_rewritten_all_the_time_is_found_all_the_time(core: Core) -> None:
    async def rewrite() -> None:
        for version in range(60):
            await core.ingest.upsert_chunks(VECTORS, [Chunk(id="same", text=f"v{version}", vector=vector(1, 0, 0))])

    await core.ingest.upsert_chunks(VECTORS, [Chunk(id="same", text="first", vector=vector(1, 0, 0))])
    rewriting = asyncio.create_task(rewrite())
    searches = 0
    while not rewriting.done():
        found = await core.search.search(VECTORS, Query(vector=vector(1, 0, 0), top_k=3))
        assert [hit.chunk.id for hit in found] == ["same"]
        searches += 1
    await rewriting
    assert searches > 10


async def test_a_hit_that_left_the_record_is_searched_for_again_and_never_returned(core: Core) -> None:
    class ForgetfulReader:
        """The record just after a commit that the index has not seen: the first chunk found is gone."""

        def __init__(self) -> None:
            self.reads = 0

        async def chunks_by_sequence(self, uid: int, sequences: Sequence[int]) -> list[StoredChunk]:
            self.reads += 1
            return [chunk for chunk in await core.store.chunks_by_sequence(uid, sequences) if chunk.id != "a"]

        async def chunks_after(self, uid: int, chunk_id: str, limit: int) -> list[StoredChunk]:
            raise NotImplementedError

    reader = ForgetfulReader()
    search = Search(
        core.catalog, reader, core.indexes, cache=ChunkCache(0),
        limits=SearchLimits(top_k_max=10, query_text_bytes_max=10),
        tracer=core.provider.get_tracer("test"), capture_content=False,
    )  # fmt: skip
    chunks = [Chunk(id=chunk_id, text=chunk_id, vector=vector(1, 0, 0)) for chunk_id in ("a", "b")]
    await core.ingest.upsert_chunks(VECTORS, chunks)
    found = await search.search(VECTORS, Query(vector=vector(1, 0, 0), top_k=2))
    assert [hit.chunk.id for hit in found] == ["b"]
    assert reader.reads == 3


async def test_pages_of_chunks_have_each_once_in_order(core: Core) -> None:
    await with_words(core)
    seen, token = [], ""
    while True:
        page, token = await core.search.page(TEXTS, 7, token)
        assert len(page) <= 7
        seen += [chunk.id for chunk in page]
        if not token:
            break
    assert seen == sorted(f"d{number}#0" for number in range(20))


async def test_the_last_page_has_no_token_even_when_it_is_full(core: Core) -> None:
    await with_words(core)
    page, token = await core.search.page(TEXTS, 20, "")
    assert (len(page), token) == (20, "")


async def test_spans_of_a_search_hang_together(core: Core) -> None:
    await with_words(core)
    core.exporter.clear()
    with core.provider.get_tracer("test").start_as_current_span("request"):
        await core.search.search(TEXTS, Query(text="topic4", top_k=3))
    spans = core.spans()
    retrieval, embeddings, faiss = (spans[name] for name in ("retrieval texts", "embeddings words", "faiss.search"))
    assert retrieval.parent == spans["request"].context
    assert embeddings.parent == faiss.parent == retrieval.context
    assert dict(retrieval.attributes or {}) == {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": "texts",
        "gen_ai.request.top_k": 3,
        "penstock.hit.count": 3,
    }
    assert dict(faiss.attributes or {}) == {
        "gen_ai.data_source.id": "texts",
        "gen_ai.request.top_k": 3,
        "penstock.hit.count": 3,
    }


async def test_searches_that_share_a_batch_keep_their_own_traces(core: Core) -> None:
    await with_words(core)
    core.exporter.clear()
    tracer = core.provider.get_tracer("test")

    async def request(number: int) -> None:
        with tracer.start_as_current_span(f"request{number}"):
            await core.search.search(TEXTS, Query(text=f"topic{number}", top_k=1))

    await asyncio.gather(*(request(number) for number in range(10)))
    finished = core.exporter.get_finished_spans()
    assert {
        len([span for span in finished if span.context.trace_id == trace])
        for trace in {span.context.trace_id for span in finished}
    } == {4}


@pytest.mark.parametrize("capture", [True, False])
async def test_texts_stand_in_spans_only_when_that_is_switched_on(tmp_path: Path, capture: bool) -> None:
    async with running_core(tmp_path, embedder=WordEmbedder(), capture_content=capture) as core:
        await core.catalog.create("texts", embedding_model="", dimension=0, metric=Metric.COSINE)
        await with_words(core)
        await core.search.search(TEXTS, Query(text="topic4", top_k=1))
        attributes = dict(core.spans()["retrieval texts"].attributes or {})
    everything = json.dumps([dict(span.attributes or {}) for span in core.exporter.get_finished_spans()])
    assert ("topic4" in everything.lower()) is capture
    if capture:
        assert attributes["gen_ai.retrieval.query.text"] == "topic4"
        assert json.loads(str(attributes["gen_ai.retrieval.documents"]))[0]["id"] == "d4#0"
