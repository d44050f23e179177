import asyncio
from pathlib import Path

import pytest

from penstock.errors import (
    AlreadyExists,
    BackendUnavailable,
    CollectionNotFound,
    DimensionMismatch,
    EmbeddingMismatch,
    FailedPrecondition,
    InvalidArgument,
    ModelNotFound,
)
from retrieval_svc.catalog import Wanted
from retrieval_svc.ingest.splitting import Splitting
from retrieval_svc.record.store import SqlStore
from retrieval_svc.search.calls import SearchCall, SearchResult
from retrieval_svc.shards.node import LocalShards
from retrieval_svc.values import Chunk, Collection, CollectionSpec, Document, Metric, ShardStatus
from tests.retrieval_svc.fakes import DIMENSION, Core, CoreLimits, WordEmbedder, found_ids, running_core

TEXTS, VECTORS = "collections/texts", "collections/vectors"


async def find(core: Core, text: str, top_k: int = 5) -> SearchResult:
    return await core.search.search(await core.catalog.find(TEXTS), SearchCall(text=text, top_k=top_k))


async def ids(core: Core) -> list[str]:
    return [collection.spec.id for collection in (await core.catalog.page(100, ""))[0]]


async def test_a_collection_gets_the_services_own_model_unless_it_asks_otherwise(core: Core) -> None:
    spec = (await core.catalog.find(TEXTS)).spec
    assert (spec.embedding_model, spec.embedding_fingerprint, spec.dimension) == ("words", "words/1", DIMENSION)
    named = await core.catalog.create(Wanted(id="named", embedding_model="words", dimension=DIMENSION))
    assert named.spec.embedding_fingerprint == "words/1"


async def test_a_dimension_without_a_model_means_that_the_caller_brings_vectors(core: Core) -> None:
    spec = (await core.catalog.find(VECTORS)).spec
    assert (spec.embedding_model, spec.embedding_fingerprint, spec.dimension) == ("", "", 3)


async def test_another_model_is_refused_and_the_loaded_one_named(core: Core) -> None:
    with pytest.raises(ModelNotFound, match="'words'") as refused:
        await core.catalog.create(Wanted(id="other", embedding_model="e5"))
    assert refused.value.metadata == {"model": "e5", "loaded": "words"}


async def test_a_dimension_that_the_model_does_not_have_is_refused(core: Core) -> None:
    with pytest.raises(DimensionMismatch):
        await core.catalog.create(Wanted(id="other", embedding_model="words", dimension=3))


async def test_without_a_model_a_collection_of_texts_cannot_be_made(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        with pytest.raises(ModelNotFound, match="give a dimension"):
            await core.catalog.create(Wanted(id="texts"))


@pytest.mark.parametrize("collection_id", ["", "Upper", "1st", "-a", "a b", "a/b", "a" * 64, "ä", "a\n"])
async def test_a_bad_id_is_refused(core: Core, collection_id: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await core.catalog.create(Wanted(id=collection_id))
    assert refused.value.metadata == {"field": "collection_id"}


async def test_a_collection_has_the_services_number_of_shards_unless_it_asks_otherwise(tmp_path: Path) -> None:
    async with running_core(tmp_path, limits=CoreLimits(shard_count=3)) as core:
        usual = await core.catalog.create(Wanted(id="usual", dimension=2))
        own = await core.catalog.create(Wanted(id="own", dimension=2, shard_count=5))
        assert (usual.spec.shard_count, own.spec.shard_count) == (3, 5)
        assert [len(core.shards.of(collection.uid)) for collection in (usual, own)] == [3, 5]


async def test_of_two_creations_at_once_one_is_told_that_the_name_is_taken(core: Core) -> None:
    creations = (core.catalog.create(Wanted(id="race", dimension=2)) for _ in range(2))
    outcomes = await asyncio.gather(*creations, return_exceptions=True)
    assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == 1
    with pytest.raises(AlreadyExists):
        await core.catalog.create(Wanted(id="race", dimension=2))


async def test_lists_are_in_the_order_of_ids_page_by_page(core: Core) -> None:
    for collection_id in ("c", "a", "b"):
        await core.catalog.create(Wanted(id=collection_id, dimension=1))
    pages, token = [], ""
    while True:
        page, token = await core.catalog.page(2, token)
        pages.append([collection.spec.id for collection in page])
        if not token:
            break
    assert pages == [["a", "b"], ["c", "texts"], ["vectors"]]


async def test_a_deleted_collection_is_gone_and_its_name_is_free_for_an_empty_one(core: Core, tmp_path: Path) -> None:
    await core.ingest.ingest_documents(TEXTS, [Document(id="d", text="some words")], Splitting())
    files = tmp_path / "shards" / str((await core.catalog.find(TEXTS)).uid)
    assert files.exists()
    await core.catalog.delete(TEXTS)
    assert not files.exists()
    with pytest.raises(CollectionNotFound):
        await core.catalog.find(TEXTS)
    await core.catalog.create(Wanted(id="texts"))
    assert found_ids(await find(core, "some words")) == []


async def test_writes_beside_a_deletion_are_stored_before_it_or_refused(core: Core) -> None:
    writes = [core.ingest.upsert_chunks(TEXTS, [Chunk(id=f"c{at}", text="some words")]) for at in range(20)]
    *written, deleted = await asyncio.gather(*writes, core.catalog.delete(TEXTS), return_exceptions=True)
    assert deleted is None
    assert all(isinstance(outcome, CollectionNotFound) or outcome.chunk_count == 1 for outcome in written)
    assert await ids(core) == ["vectors"]
    assert core.stopped == []


async def test_collections_of_other_nodes_come_and_go_by_the_record(core: Core) -> None:
    spec = CollectionSpec(id="away", embedding_model="", embedding_fingerprint="", dimension=2, metric=Metric.COSINE)
    collection = await core.store.create_collection(spec)
    assert (await core.catalog.find("collections/away")).uid == collection.uid
    await core.store.delete_collection(collection.uid)
    assert await ids(core) == ["texts", "vectors"]
    with pytest.raises(CollectionNotFound):
        await core.catalog.find("collections/away")


async def test_a_name_that_was_given_anew_elsewhere_means_the_new_collection(core: Core) -> None:
    await core.ingest.ingest_documents(TEXTS, [Document(id="d", text="some words")], Splitting())
    old = await core.catalog.find(TEXTS)
    await core.store.delete_collection(old.uid)
    new = await core.store.create_collection(old.spec)
    await core.catalog.refresh()
    assert (await core.catalog.find(TEXTS)).uid == new.uid
    assert found_ids(await find(core, "some words")) == []


async def test_shards_are_as_they_were_after_a_start(tmp_path: Path) -> None:
    async with running_core(tmp_path, embedder=WordEmbedder()) as core:
        await core.catalog.create(Wanted(id="texts"))
        documents = [Document(id=f"d{number}", text=f"word{number} stays") for number in range(50)]
        await core.ingest.ingest_documents(TEXTS, documents, Splitting())
        await core.ingest.delete_chunks(TEXTS, ["d7#0"], [])
        before = await find(core, "word3 stays", top_k=100)
    async with running_core(tmp_path, embedder=WordEmbedder()) as core:
        after = await find(core, "word3 stays", top_k=100)
        assert (await core.catalog.counted(TEXTS)).chunk_count == 49
    assert found_ids(after) == found_ids(before)
    assert after.scores.tolist() == before.scores.tolist()
    assert len(after.scores) == 49


async def test_a_service_whose_model_did_not_make_a_collections_vectors_does_not_start(tmp_path: Path) -> None:
    async with running_core(tmp_path, embedder=WordEmbedder("words/1")) as core:
        await core.catalog.create(Wanted(id="texts"))
        await core.catalog.create(Wanted(id="vectors", dimension=3))
    with pytest.raises(EmbeddingMismatch, match="'texts' was made with words/1, and words/2 is loaded"):
        async with running_core(tmp_path, embedder=WordEmbedder("words/2")):
            pass
    with pytest.raises(EmbeddingMismatch, match="no model 'words' is loaded"):
        async with running_core(tmp_path):
            pass


async def test_a_collection_of_vectors_takes_no_texts(core: Core) -> None:
    with pytest.raises(FailedPrecondition, match="give a vector"):
        await core.search.search(await core.catalog.find(VECTORS), SearchCall(text="some words", top_k=1))
    with pytest.raises(FailedPrecondition, match="give a vector"):
        await core.ingest.ingest_documents(VECTORS, [Document(id="d", text="some words")], Splitting())


@pytest.mark.parametrize("name", ["", "texts", "collections/", "collections/a/b", "flows/texts"])
async def test_what_is_no_resource_name_is_said_to_be_none(core: Core, name: str) -> None:
    with pytest.raises(InvalidArgument):
        await core.catalog.find(name)


class Leaving:
    """A record that goes away."""

    def __init__(self, record: SqlStore) -> None:
        self._record = record
        self.is_away = False

    async def collections(self) -> list[Collection]:
        if self.is_away:
            raise BackendUnavailable("the database is away")
        return await self._record.collections()


class Elsewhere:
    """A node that holds some of the shards alone."""

    def __init__(self, shards: LocalShards) -> None:
        self._shards = shards

    def statuses(self, uid: int) -> list[ShardStatus]:
        return self._shards.statuses(uid)[1:]


async def test_while_the_record_is_away_chunks_are_counted_as_searches_see_them(core: Core) -> None:
    await core.catalog.counted(TEXTS)
    record = Leaving(core.store)
    core.catalog._record = record
    await core.ingest.upsert_chunks(TEXTS, [Chunk(id=f"c{at}", text="some words") for at in range(5)])
    await core.ingest.delete_chunks(TEXTS, ["c0"], [])
    record.is_away = True
    assert (await core.catalog.counted(TEXTS)).chunk_count == 4
    listed, _ = await core.catalog.page(10, "")
    assert [collection.chunk_count for collection in listed] == [4, 0]


async def test_while_the_record_is_away_a_count_that_may_be_old_is_not_passed_off_as_present(core: Core) -> None:
    record = Leaving(core.store)
    core.catalog._record, core.catalog._shards = record, Elsewhere(core.shards)
    await core.ingest.upsert_chunks(TEXTS, [Chunk(id="c", text="some words")])
    assert (await core.catalog.counted(TEXTS)).chunk_count == 1
    record.is_away = True
    for asked in (core.catalog.counted(TEXTS), core.catalog.page(10, "")):
        with pytest.raises(BackendUnavailable, match=r"how many chunks the collection 'texts' has .*: the database is away"):
            await asked
    assert found_ids(await find(core, "some words")) == ["c"]
