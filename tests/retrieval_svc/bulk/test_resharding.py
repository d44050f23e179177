import asyncio
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.errors import CollectionNotFound, FailedPrecondition
from retrieval_svc.bulk.executing import Executor, Item, Result, Step
from retrieval_svc.bulk.job import Phase, Progress, Summary
from retrieval_svc.bulk.resharding import Reshard
from retrieval_svc.bulk.surroundings import Surroundings
from retrieval_svc.chunk_messages import ChunkCodec
from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.shards.shard_index import ShardIndex
from retrieval_svc.values import Chunk, Collection, DocumentRecord, WriteBatch, shard_of
from tests.retrieval_svc.bulk.fakes import InlineExecutor, build, surroundings, vector_of, with_vectors, write_lines

COUNT = 200


@pytest.fixture
def around(tmp_path: Path, database_url: str) -> Surroundings:
    return surroundings(tmp_path / "data", database_url)


@pytest.fixture
async def docs(tmp_path: Path, store: SqlStore, around: Surroundings) -> Collection:
    """A collection of two shards, one of whose chunks has a document, metadata and an access list."""
    await build(store, around, write_lines(tmp_path / "a.jsonl", with_vectors(COUNT)), shard_count=2)
    [collection] = await store.collections()
    batch = WriteBatch(
        chunks=(Chunk(id="d#0", document_id="d", text="of d", metadata_json='{"a":1}', allowed_principals=("user:ann",)),),
        vectors=vector_of("d")[None],
        documents=(DocumentRecord(id="d", content_hash="x", chunk_count=1),),
        delete_chunk_ids=("c7",),
    )
    await store.commit(collection.uid, batch)
    return collection


async def resharded(
    store: SqlStore,
    around: Surroundings,
    shard_count: int,
    *,
    name: str = "docs",
    executor: Executor | None = None,
    told: list[Progress] | None = None,
) -> Summary:
    reshard = Reshard(
        collection=name,
        shard_count=shard_count,
        store=store,
        executor=executor or InlineExecutor(),
        surroundings=around,
        report=([] if told is None else told).append,
    )
    return await reshard.run()


async def contents(store: SqlStore, collection: Collection) -> dict[str, tuple[int, str, str, str, tuple[str, ...], bytes]]:
    found = {}
    for shard, end in (await store.positions(collection.uid)).items():
        async for rows in store.rows(collection.uid, shard, end):
            for chunk, vector in zip(rows.chunks, rows.vectors, strict=True):
                kept = (chunk.document_id, chunk.text, chunk.metadata_json, chunk.allowed_principals, vector.tobytes())
                found[chunk.id] = (shard, *kept)
    return found


@pytest.mark.parametrize("shard_count", [1, 5])
async def test_everything_is_there_under_its_new_shard(
    store: SqlStore, around: Surroundings, docs: Collection, shard_count: int
) -> None:
    before = await contents(store, docs)
    summary = await resharded(store, around, shard_count)
    [collection] = await store.collections()
    after = await contents(store, collection)
    assert (summary.chunk_count, summary.document_count, len(summary.shards)) == (COUNT, 1, shard_count)
    assert (collection.spec.id, collection.spec.shard_count, collection.chunk_count) == ("docs", shard_count, COUNT)
    assert {chunk_id: kept[1:] for chunk_id, kept in after.items()} == {chunk_id: kept[1:] for chunk_id, kept in before.items()}
    assert all(kept[0] == shard_of(chunk_id, shard_count) for chunk_id, kept in after.items())
    [document] = await store.documents_by_id(collection.uid, ["d"])
    assert (document.content_hash, document.chunk_count) == ("x", 1)
    for shard in range(shard_count):
        folder = around.shards / str(collection.uid) / str(shard)
        index = ShardIndex.open(folder, spec=collection.spec, shard=shard, codec=ChunkCodec())
        assert index.row_count == sum(kept[0] == shard for kept in after.values())
    assert not (around.shards / str(docs.uid)).exists()
    assert await store.builds.all() == []


async def test_what_was_written_meanwhile_is_not_lost_and_nothing_is_changed(
    store: SqlStore, around: Surroundings, docs: Collection
) -> None:
    with pytest.raises(FailedPrecondition, match="written to meanwhile"):
        executor = WritingExecutor(database_url=around.database_url, uid=docs.uid)
        await resharded(store, around, 3, executor=executor)
    [collection] = await store.collections()
    assert (collection.uid, collection.chunk_count) == (docs.uid, COUNT + 1)
    await resharded(store, around, 3)
    [collection] = await store.collections()
    assert (collection.spec.shard_count, collection.chunk_count) == (3, COUNT + 1)
    assert "late" in await contents(store, collection)


@dataclass(frozen=True)
class WritingExecutor(InlineExecutor):
    """Somebody writes to a collection while its shards are indexed."""

    database_url: str
    uid: int

    def map(self, step: Step[Item, Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        asyncio.run(self._write())
        yield from super().map(step, items)

    async def _write(self) -> None:
        async with open_store(self.database_url) as store:
            batch = WriteBatch(chunks=(Chunk(id="late", text="late"),), vectors=vector_of("late")[None])
            await store.commit(self.uid, batch)


async def test_the_same_number_and_a_name_that_there_is_not_are_refused(
    store: SqlStore, around: Surroundings, docs: Collection
) -> None:
    with pytest.raises(FailedPrecondition, match="2 shards already"):
        await resharded(store, around, 2)
    with pytest.raises(CollectionNotFound, match="there are: docs"):
        await resharded(store, around, 2, name="other")
    assert docs.spec.shard_count == 2


async def test_it_tells_how_far_it_has_come(store: SqlStore, around: Surroundings, docs: Collection) -> None:
    told: list[Progress] = []
    await resharded(store, around, 3, told=told)
    assert [each.phase for each in told if each.done == each.total] == [Phase.ROWS, Phase.SHARDS, Phase.PUBLISHED]
    assert docs.uid
