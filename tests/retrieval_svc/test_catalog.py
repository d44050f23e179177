import asyncio
import logging
from pathlib import Path

import pytest

from penstock.errors import (
    AlreadyExists,
    CollectionNotFound,
    DimensionMismatch,
    EmbeddingMismatch,
    FailedPrecondition,
    InvalidArgument,
    ModelNotFound,
)
from retrieval_svc.search.searching import Query
from retrieval_svc.values import Chunk, Document, Metric
from tests.retrieval_svc.fakes import DIMENSION, Core, WordEmbedder, running_core


async def test_a_collection_gets_the_services_own_model_unless_it_asks_otherwise(core: Core) -> None:
    spec = core.catalog.find("collections/texts").spec
    assert (spec.embedding_model, spec.embedding_fingerprint, spec.dimension) == ("words", "words/1", DIMENSION)
    named = await core.catalog.create("named", embedding_model="words", dimension=DIMENSION, metric=Metric.COSINE)
    assert named.spec.embedding_fingerprint == "words/1"


async def test_a_dimension_without_a_model_means_that_the_caller_brings_vectors(core: Core) -> None:
    spec = core.catalog.find("collections/vectors").spec
    assert (spec.embedding_model, spec.embedding_fingerprint, spec.dimension) == ("", "", 3)


async def test_another_model_is_refused_and_the_loaded_one_named(core: Core) -> None:
    with pytest.raises(ModelNotFound, match="'words' is") as refused:
        await core.catalog.create("other", embedding_model="e5", dimension=0, metric=Metric.COSINE)
    assert refused.value.metadata == {"model": "e5", "loaded": "words"}


async def test_a_dimension_that_the_model_does_not_have_is_refused(core: Core) -> None:
    with pytest.raises(DimensionMismatch):
        await core.catalog.create("other", embedding_model="words", dimension=3, metric=Metric.COSINE)


async def test_without_a_model_a_collection_of_texts_cannot_be_made(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        with pytest.raises(ModelNotFound, match="give a dimension"):
            await core.catalog.create("texts", embedding_model="", dimension=0, metric=Metric.COSINE)


@pytest.mark.parametrize("collection_id", ["", "Upper", "1st", "-a", "a b", "a/b", "a" * 64, "ä", "a\n"])
async def test_a_bad_id_is_refused(core: Core, collection_id: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await core.catalog.create(collection_id, embedding_model="", dimension=0, metric=Metric.COSINE)
    assert refused.value.metadata == {"field": "collection_id"}


async def test_of_two_creations_at_once_one_is_told_that_the_name_is_taken(core: Core) -> None:
    creations = (core.catalog.create("race", embedding_model="", dimension=2, metric=Metric.COSINE) for _ in range(2))
    outcomes = await asyncio.gather(*creations, return_exceptions=True)
    assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == 1
    with pytest.raises(AlreadyExists):
        await core.catalog.create("race", embedding_model="", dimension=2, metric=Metric.COSINE)


async def test_lists_are_in_the_order_of_ids_page_by_page(core: Core) -> None:
    for collection_id in ("c", "a", "b"):
        await core.catalog.create(collection_id, embedding_model="", dimension=1, metric=Metric.COSINE)
    pages, token = [], ""
    while True:
        page, token = core.catalog.page(2, token)
        pages.append([collection.spec.id for collection in page])
        if not token:
            break
    assert pages == [["a", "b"], ["c", "texts"], ["vectors"]]


async def test_a_deleted_collection_is_gone_and_its_name_is_free_for_an_empty_one(core: Core) -> None:
    await core.ingest.ingest_documents("collections/texts", [Document(id="d", text="some words")])
    await core.catalog.delete("collections/texts")
    with pytest.raises(CollectionNotFound):
        core.catalog.find("collections/texts")
    await core.catalog.create("texts", embedding_model="", dimension=0, metric=Metric.COSINE)
    assert await core.search.search("collections/texts", Query(text="some words", top_k=5)) == []


async def test_writes_beside_a_deletion_are_stored_before_it_or_refused(core: Core) -> None:
    writes = [core.ingest.upsert_chunks("collections/texts", [Chunk(id=f"c{at}", text="some words")]) for at in range(20)]
    outcomes = await asyncio.gather(*writes, core.catalog.delete("collections/texts"), return_exceptions=True)
    assert all(outcome in (1, None) or isinstance(outcome, CollectionNotFound) for outcome in outcomes)
    assert [collection.spec.id for collection in await core.store.collections()] == ["vectors"]
    assert core.stopped == []


async def test_indexes_are_rebuilt_from_the_record(tmp_path: Path) -> None:
    async with running_core(tmp_path, embedder=WordEmbedder()) as core:
        await core.catalog.create("texts", embedding_model="", dimension=0, metric=Metric.COSINE)
        documents = [Document(id=f"d{number}", text=f"word{number} stays") for number in range(50)]
        await core.ingest.ingest_documents("collections/texts", documents)
        await core.ingest.delete_chunks("collections/texts", ["d7#0"], [])
        before = await core.search.search("collections/texts", Query(text="word3 stays", top_k=100))
    async with running_core(tmp_path, embedder=WordEmbedder()) as core:
        after = await core.search.search("collections/texts", Query(text="word3 stays", top_k=100))
        assert core.catalog.find("collections/texts").collection.chunk_count == 49
    assert [(hit.chunk.id, hit.score) for hit in after] == [(hit.chunk.id, hit.score) for hit in before]
    assert len(after) == 49


async def test_another_model_than_the_one_that_made_the_vectors_takes_no_texts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_core(tmp_path, embedder=WordEmbedder("words/1")) as core:
        await core.catalog.create("texts", embedding_model="", dimension=0, metric=Metric.COSINE)
        await core.ingest.upsert_chunks("collections/texts", [Chunk(id="c", text="some words")])
    with caplog.at_level(logging.WARNING):
        async with running_core(tmp_path, embedder=WordEmbedder("words/2")) as core:
            name = "collections/texts"
            with pytest.raises(EmbeddingMismatch) as refused:
                await core.search.search(name, Query(text="some words", top_k=1))
            with pytest.raises(EmbeddingMismatch):
                await core.ingest.ingest_documents(name, [Document(id="d", text="more words")])
            with pytest.raises(EmbeddingMismatch):
                await core.ingest.upsert_chunks(name, [Chunk(id="c2", text="more words")])
            vector = WordEmbedder().embed(["some words"])[0].tobytes()
            [hit] = await core.search.search(name, Query(vector=vector, top_k=1))
    assert refused.value.metadata == {"collection": "texts", "made_by": "words/1", "loaded": "words/2"}
    assert hit.chunk.id == "c"
    assert "texts takes no texts" in caplog.text


async def test_a_collection_of_vectors_takes_no_texts(core: Core) -> None:
    with pytest.raises(FailedPrecondition, match="give a vector"):
        await core.search.search("collections/vectors", Query(text="some words", top_k=1))
    with pytest.raises(FailedPrecondition, match="give a vector"):
        await core.ingest.ingest_documents("collections/vectors", [Document(id="d", text="some words")])


@pytest.mark.parametrize("name", ["", "texts", "collections/", "collections/a/b", "flows/texts"])
async def test_what_is_no_resource_name_is_said_to_be_none(core: Core, name: str) -> None:
    with pytest.raises(InvalidArgument):
        core.catalog.find(name)
