import asyncio
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import Overloaded
from retrieval_svc.search.cache import ChunkCache
from retrieval_svc.shards.index import flat_index_builder
from retrieval_svc.shards.indexing import Indexes
from retrieval_svc.ingest.writing import Ingest, IngestLimits
from retrieval_svc.search.searching import Query
from retrieval_svc.values import Chunk, Document, Matrix, Metric, Sequences
from tests.retrieval_svc.fakes import WINDOW_TOKENS, Core, WordEmbedder, running_core

TEXTS = "collections/texts"
VECTORS = "collections/vectors"


def vector(*components: float) -> bytes:
    return np.array(components, dtype="<f4").tobytes()


async def listed(core: Core, name: str = TEXTS) -> dict[str, str]:
    chunks, _ = await core.search.page(name, 1000, "")
    return {chunk.id: chunk.text for chunk in chunks}


async def test_a_document_is_split_embedded_and_found(core: Core) -> None:
    sentences = [f"Sentence{number} speaks of topic{number} only." for number in range(12)]
    document = Document(id="long", text=" ".join(sentences), metadata_json='{"title":"Long"}')
    stored = await core.ingest.ingest_documents(TEXTS, [document, Document(id="short", text="Nothing else.")])
    texts = await listed(core)
    assert stored == len(texts) > 3
    assert core.embedder is not None
    assert all(len(core.embedder.token_spans(text)) <= WINDOW_TOKENS for text in texts.values())
    [hit] = await core.search.search(TEXTS, Query(text="topic9", top_k=1))
    assert "topic9" in hit.chunk.text
    assert (hit.chunk.document_id, hit.chunk.metadata_json) == ("long", '{"title":"Long"}')


async def test_ingesting_a_document_again_replaces_all_its_chunks(core: Core) -> None:
    sentences = " ".join(f"Old{number} words stand in this place." for number in range(12))
    await core.ingest.ingest_documents(TEXTS, [Document(id="d", text=sentences), Document(id="e", text="Another one.")])
    await core.ingest.ingest_documents(TEXTS, [Document(id="d", text="New text.")])
    assert await listed(core) == {"d#0": "New text.", "e#0": "Another one."}
    assert core.catalog.find(TEXTS).collection.chunk_count == 2
    found = await core.search.search(TEXTS, Query(text="old3 words", top_k=50))
    assert {hit.chunk.id for hit in found} == {"d#0", "e#0"}


async def test_ready_chunks_may_bring_a_vector_or_have_their_text_embedded(core: Core) -> None:
    own = WordEmbedder().embed(["something entirely different"])[0].tobytes()
    chunks = [Chunk(id="mine", text="its text is not what is embedded", vector=own), Chunk(id="yours", text="plain words")]
    assert await core.ingest.upsert_chunks(TEXTS, chunks) == 2
    [first] = await core.search.search(TEXTS, Query(text="something entirely different", top_k=1))
    [second] = await core.search.search(TEXTS, Query(text="plain words", top_k=1))
    assert (first.chunk.id, second.chunk.id) == ("mine", "yours")
    assert first.score == pytest.approx(1.0, abs=1e-5)


async def test_upserting_replaces_and_deleting_removes(core: Core) -> None:
    await core.ingest.upsert_chunks(
        VECTORS,
        [
            Chunk(id="a", document_id="d", text="a", vector=vector(1, 0, 0)),
            Chunk(id="b", document_id="d", text="b", vector=vector(2, 0, 0)),
            Chunk(id="c", text="c", vector=vector(3, 0, 0)),
        ],
    )
    await core.ingest.upsert_chunks(VECTORS, [Chunk(id="c", text="c again", vector=vector(-1, 0, 0))])
    found = await core.search.search(VECTORS, Query(vector=vector(1, 0, 0), top_k=10))
    assert [(hit.chunk.text, hit.score) for hit in found] == [("b", 2.0), ("a", 1.0), ("c again", -1.0)]
    assert await core.ingest.delete_chunks(VECTORS, ["c", "unknown", "c"], ["d", "nobody's"]) == 3
    assert await core.search.search(VECTORS, Query(vector=vector(1, 0, 0), top_k=10)) == []
    assert core.catalog.find(VECTORS).collection.chunk_count == 0


async def test_writers_of_one_id_leave_one_chunk_and_the_index_agrees_with_the_record(core: Core) -> None:
    writes = [
        core.ingest.upsert_chunks(VECTORS, [Chunk(id="same", text=f"version {at}", vector=vector(at + 1, 0, 0))])
        for at in range(30)
    ]
    await asyncio.gather(*writes)
    [hit] = await core.search.search(VECTORS, Query(vector=vector(1, 0, 0), top_k=10))
    assert hit.chunk.text == f"version {round(hit.score) - 1}"
    assert (await listed(core, VECTORS))["same"] == hit.chunk.text


async def test_too_many_writes_at_once_are_refused_at_once(tmp_path: Path) -> None:
    async with running_core(tmp_path, embedder=WordEmbedder(), writes_max=3) as core:
        await core.catalog.create("texts", embedding_model="", dimension=0, metric=Metric.COSINE)
        writes = [core.ingest.upsert_chunks(TEXTS, [Chunk(id=f"c{at}", text="some words")]) for at in range(10)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert sum(isinstance(outcome, Overloaded) for outcome in outcomes) == 7
        assert len(await listed(core)) == 3
        assert await core.ingest.upsert_chunks(TEXTS, [Chunk(id="later", text="some words")]) == 1


async def test_a_write_whose_caller_leaves_is_whole_or_not_there(core: Core) -> None:
    chunks = [Chunk(id=f"c{number}", text="text", vector=vector(1, number, 0)) for number in range(200)]
    for pause in range(12):
        name = f"run{pause}"
        await core.catalog.create(name, embedding_model="", dimension=3, metric=Metric.COSINE)
        task = asyncio.create_task(core.ingest.upsert_chunks(f"collections/{name}", chunks))
        await asyncio.sleep(pause * 0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        in_record = len(await listed(core, f"collections/{name}"))
        in_index = len(await core.search.search(f"collections/{name}", Query(vector=vector(1, 0, 0), top_k=1000)))
        assert in_record == in_index
        assert in_record in (0, 200)
        assert core.catalog.find(f"collections/{name}").collection.chunk_count == in_record
    assert core.stopped == []


async def test_the_process_is_asked_to_leave_when_its_index_cannot_follow_the_record(core: Core) -> None:
    class ForgetfulIndexes(Indexes):
        """Has lost the collection's index."""

        async def apply(self, uid: int, *, removed: Sequences, stored: Sequences, vectors: Matrix) -> None:
            await super().apply(uid + 100, removed=removed, stored=stored, vectors=vectors)

    limits = IngestLimits(
        writes_max=1, chunk_text_bytes_max=100, document_text_bytes_max=100, chunk_tokens_max=10, chunk_overlap_tokens=0
    )
    tracer = core.provider.get_tracer("test")
    indexes = ForgetfulIndexes(flat_index_builder(1), batch_max=1, waiting_max=1)
    ingest = Ingest(
        core.catalog, core.store, indexes, cache=ChunkCache(0), limits=limits, tracer=tracer, stop=core.stopped.append
    )
    with pytest.raises(KeyError):
        await ingest.upsert_chunks(VECTORS, [Chunk(id="a", text="a", vector=vector(1, 0, 0))])
    await indexes.close()
    [reason] = core.stopped
    assert "vectors could not follow" in reason


async def test_a_write_has_a_span_of_its_own(core: Core) -> None:
    await core.ingest.ingest_documents(TEXTS, [Document(id="d", text="some words")])
    spans = core.spans()
    attributes = spans["write texts"].attributes
    assert attributes is not None
    assert attributes["gen_ai.data_source.id"] == "texts"
    assert attributes["penstock.batch.size"] == 1
    assert spans["embeddings words"].parent == spans["write texts"].context
