import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import make_url

from penstock.errors import AlreadyExists, BackendUnavailable, CollectionNotFound
from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.values import (
    Changes,
    Chunk,
    Collection,
    CollectionSpec,
    DocumentRecord,
    IndexConfig,
    IndexKind,
    LexicalConfig,
    Metric,
    WriteBatch,
)
from tests.retrieval_svc.record.batches import SPEC, Replica, chunks, deletion, ingest, replicas, sharded, stored_ids


def numbers(changes: Changes) -> list[int]:
    return changes.stored.sequences.tolist()


async def stored_vectors(store: SqlStore, uid: int) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    async for part in store.rows(uid, 0, 2**62):
        found |= dict(zip(part.sequences.tolist(), part.vectors.tolist(), strict=True))
    return found


async def count_of(store: SqlStore, uid: int) -> int:
    return next(found.chunk_count for found in await store.collections() if found.uid == uid)


async def test_a_commit_gives_each_chunk_the_next_number(store: SqlStore, docs: Collection) -> None:
    first = await store.commit(docs.uid, chunks("a", "b"))
    second = await store.commit(docs.uid, chunks("c"))
    assert (numbers(first.changes[0]), numbers(second.changes[0])) == ([1, 2], [3])
    assert (first.positions, second.positions) == ({0: 2}, {0: 3})
    assert await count_of(store, docs.uid) == 3
    assert await stored_vectors(store, docs.uid) == {1: [0, 1], 2: [2, 3], 3: [0, 1]}


async def test_storing_an_id_again_replaces_its_chunk(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("a", "b"))
    commit = await store.commit(docs.uid, chunks("b", "c"))
    change = commit.changes[0]
    assert (change.removed.tolist(), change.removed_at.tolist(), commit.deleted_count) == ([2], [3], 0)
    assert [chunk.sequence for chunk in await store.chunks_after(docs.uid, "", 10)] == [1, 3, 4]
    assert await count_of(store, docs.uid) == 3


async def test_storing_a_document_again_removes_what_it_no_longer_has(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("d#0", "d#1", "d#2", document="d"))
    shorter = replace(chunks("d#0", document="d"), delete_document_ids=("d",))
    commit = await store.commit(docs.uid, shorter)
    change = commit.changes[0]
    assert (change.removed.tolist(), change.removed_at.tolist(), change.through) == ([1, 2, 3], [4, 5, 6], 6)
    assert commit.deleted_count == 2
    assert await stored_ids(store, docs.uid) == ["d#0"]


async def test_a_deletion_by_row_takes_exactly_the_version_that_was_seen(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("a", "b", "c"))
    await store.commit(docs.uid, chunks("b"))
    commit = await store.commit(docs.uid, deletion(rows={0: [1, 2, 99]}))
    assert (commit.deleted_count, commit.changes[0].removed.tolist()) == (1, [1])
    assert await stored_ids(store, docs.uid) == ["b", "c"]


async def test_a_write_that_changes_nothing_has_no_changes(store: SqlStore, docs: Collection) -> None:
    commit = await store.commit(docs.uid, deletion(chunk_ids=("unknown",), document_ids=("unknown",)))
    assert (commit.changes, commit.deleted_count) == ({}, 0)
    assert await store.positions(docs.uid) == {0: 0}


async def test_an_id_twice_in_one_write_is_refused_and_nothing_is_stored(store: SqlStore, docs: Collection) -> None:
    with pytest.raises(AlreadyExists, match="twice"):
        await store.commit(docs.uid, chunks("a", "b", "a"))
    assert await stored_ids(store, docs.uid) == []


async def test_what_a_commit_says_is_what_the_log_says(store: SqlStore) -> None:
    collection = await store.create_collection(sharded(3))
    rng = np.random.default_rng(3)
    told = {shard: Replica(shard=shard) for shard in range(3)}
    for _ in range(60):
        ids = [f"c{number}" for number in rng.choice(12, size=4, replace=False)]
        batch = chunks(*ids, document=f"d{rng.integers(3)}") if rng.random() < 0.7 else deletion(chunk_ids=tuple(ids))
        if rng.random() < 0.2:
            batch = replace(batch, delete_document_ids=(f"d{rng.integers(3)}",))
        for shard, change in (await store.commit(collection.uid, batch)).changes.items():
            told[shard].apply(change)
    followed = await replicas(store, collection.uid)
    assert {shard: replica.rows for shard, replica in told.items()} == {s: replica.rows for s, replica in followed.items()}
    assert {shard: replica.vectors for shard, replica in told.items()} == {s: r.vectors for s, r in followed.items()}
    assert sorted(chunk_id for replica in told.values() for chunk_id in replica.rows.values()) == await stored_ids(
        store, collection.uid
    )
    assert await count_of(store, collection.uid) == len(await stored_ids(store, collection.uid))


async def test_the_changes_of_one_shard_hold_the_callers_own_vectors(store: SqlStore, docs: Collection) -> None:
    batch = chunks("a", "b")
    assert (await store.commit(docs.uid, batch)).changes[0].stored.vectors is batch.vectors


async def test_a_chunk_comes_back_as_it_was_stored(store: SqlStore, docs: Collection) -> None:
    chunk = Chunk(id="ä", document_id="d", text="text", metadata_json='{"a":1}', allowed_principals=("user:ann", "group:ü"))
    batch = WriteBatch(chunks=(chunk,), vectors=np.array([[0.5, -1]], dtype=np.float32))
    commit = await store.commit(docs.uid, batch)
    [told] = commit.changes[0].stored.chunks
    [listed] = await store.chunks_by_id(docs.uid, ["ä", "unknown"])
    for found in (told, listed):
        assert (found.sequence, found.id, found.document_id, found.text) == (1, "ä", "d", "text")
        assert (found.metadata_json, found.allowed_principals) == ('{"a":1}', ("user:ann", "group:ü"))


async def test_writers_at_the_same_time_get_numbers_of_their_own(store: SqlStore, docs: Collection) -> None:
    commits = await asyncio.gather(*(store.commit(docs.uid, chunks(f"w{at}-0", f"w{at}-1")) for at in range(20)))
    shared = {commit.changes[0].after: commit.changes[0] for commit in commits}
    assert sorted(number for change in shared.values() for number in numbers(change)) == list(range(1, 41))
    assert await count_of(store, docs.uid) == 40


async def test_a_deletion_of_many_ids(store: SqlStore, docs: Collection) -> None:
    ids = tuple(f"id{number:05d}" for number in range(40_000))
    await store.commit(docs.uid, chunks(*ids))
    commit = await store.commit(docs.uid, deletion(chunk_ids=ids[:39_500]))
    assert commit.deleted_count == 39_500
    assert await count_of(store, docs.uid) == 500


async def test_all_is_there_after_the_store_is_opened_again(database_url: str) -> None:
    async with open_store(database_url) as store:
        collection = await store.create_collection(SPEC)
        await store.commit(collection.uid, chunks("a", "b", "c"))
        await store.commit(collection.uid, deletion(chunk_ids=("b",)))
    async with open_store(database_url) as store:
        [found] = await store.collections()
        assert found == Collection(uid=collection.uid, spec=SPEC, chunk_count=2)
        assert await stored_vectors(store, found.uid) == {1: [0, 1], 3: [4, 5]}
        assert numbers((await store.commit(found.uid, chunks("d"))).changes[0]) == [5]


async def test_a_collection_is_read_as_it_was_made(store: SqlStore) -> None:
    spec = CollectionSpec(
        id="whole",
        embedding_model="m",
        embedding_fingerprint="f/1",
        dimension=7,
        metric=Metric.L2,
        index=IndexConfig(kind=IndexKind.IVF_PQ, ivf_lists=7, pq_bytes=None, rescore_factor=3),
        lexical=LexicalConfig(enabled=False, language="de"),
        shard_count=5,
    )
    made = await store.create_collection(spec)
    assert await store.collections() == [made]
    assert await store.positions(made.uid) == dict.fromkeys(range(5), 0)


async def test_an_id_is_taken_once_and_its_uid_never_again(store: SqlStore, docs: Collection) -> None:
    with pytest.raises(AlreadyExists):
        await store.create_collection(SPEC)
    await store.commit(docs.uid, ingest("d", "d#0"))
    await store.delete_collection(docs.uid)
    again = await store.create_collection(SPEC)
    assert again.uid > docs.uid
    assert await stored_vectors(store, again.uid) == {}
    assert await store.documents_by_id(again.uid, ["d"]) == []


async def test_of_many_who_create_the_same_collection_one_does(store: SqlStore) -> None:
    made = await asyncio.gather(*(store.create_collection(SPEC) for _ in range(8)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in made) == ["AlreadyExists"] * 7 + ["Collection"]


async def test_a_collection_that_is_gone_is_told_to_everyone_who_uses_it(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("a"))
    await store.delete_collection(docs.uid)
    for use in (
        store.commit(docs.uid, chunks("b")),
        store.changes(docs.uid, 0, 0, 10),
        store.positions(docs.uid),
        store.trim(docs.uid, 0, 1),
    ):
        with pytest.raises(CollectionNotFound):
            await use
    assert await store.collections() == []
    await store.delete_collection(docs.uid)


async def test_another_node_hears_that_a_collection_it_knows_is_gone(store: SqlStore, database_url: str) -> None:
    collection = await store.create_collection(SPEC)
    async with open_store(database_url) as other:
        await other.commit(collection.uid, chunks("a"))
        await store.delete_collection(collection.uid)
        with pytest.raises(CollectionNotFound):
            await other.commit(collection.uid, chunks("b"))
        with pytest.raises(CollectionNotFound):
            await other.changes(collection.uid, 0, 0, 10)


async def test_a_deletion_that_was_broken_off_is_ended_at_the_next_start(store: SqlStore, database_url: str) -> None:
    collection = await store.create_collection(SPEC)
    await store.commit(collection.uid, ingest("d", "d#0", "d#1"))
    await store.commit(collection.uid, chunks("d#0"))

    class BrokenOff(SqlStore):
        async def _clear(self, uid: int, ends: dict[int, int]) -> None:
            """As if the process ended here."""

    await BrokenOff(store._database).delete_collection(collection.uid)
    assert await store.collections() == []
    assert await stored_ids(store, collection.uid) == ["d#0", "d#1"]
    async with open_store(database_url) as again:
        assert await stored_ids(again, collection.uid) == []
        made = await again.create_collection(SPEC)
        assert made.uid > collection.uid


async def test_pages_follow_the_bytes_of_ids(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("b", "B", "ä", "a", "10", "9"))
    assert [chunk.id for chunk in await store.chunks_after(docs.uid, "", 10)] == ["10", "9", "B", "a", "b", "ä"]
    assert [chunk.id for chunk in await store.chunks_after(docs.uid, "B", 2)] == ["a", "b"]


async def test_a_page_goes_over_all_shards(store: SqlStore) -> None:
    collection = await store.create_collection(sharded(4))
    ids = [f"id{number:03d}" for number in range(100)]
    commit = await store.commit(collection.uid, chunks(*ids))
    assert len(commit.changes) == 4
    assert await stored_ids(store, collection.uid) == ids
    assert await count_of(store, collection.uid) == 100


async def test_rows_are_read_in_parts_and_in_order(store: SqlStore) -> None:
    wide = await store.create_collection(replace(SPEC, id="wide", dimension=65_536))
    vectors = np.zeros((150, 65_536), dtype=np.float32)
    vectors[:, 0] = np.arange(150)
    made = tuple(Chunk(id=f"c{number}", text="x") for number in range(150))
    await store.commit(wide.uid, WriteBatch(chunks=made, vectors=vectors))
    parts = [part async for part in store.rows(wide.uid, 0, 140)]
    assert len(parts) > 1
    assert [number for part in parts for number in part.sequences.tolist()] == list(range(1, 141))
    assert [value for part in parts for value in part.vectors[:, 0].tolist()] == list(range(140))


async def test_a_document_is_recorded_with_its_chunks(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, ingest("d", "d#0", "d#1", content_hash="one"))
    await store.commit(docs.uid, ingest("e", "e#0"))
    assert await store.documents_by_id(docs.uid, ["d", "x"]) == [DocumentRecord(id="d", content_hash="one", chunk_count=2)]
    await store.commit(docs.uid, ingest("d", "d#0", content_hash="two"))
    assert await store.documents_by_id(docs.uid, ["d"]) == [DocumentRecord(id="d", content_hash="two", chunk_count=1)]
    await store.commit(docs.uid, deletion(document_ids=("d",)))
    assert [found.id for found in await store.documents_by_id(docs.uid, ["d", "e"])] == ["e"]


@pytest.mark.parametrize(
    "change",
    [chunks("d#1"), chunks("other", document="d"), deletion(chunk_ids=("d#0",)), deletion(rows={0: [1]})],
    ids=["a chunk replaced", "a chunk added", "a chunk deleted by id", "a chunk deleted by row"],
)
async def test_a_document_that_is_no_longer_as_it_was_ingested_has_no_record(
    store: SqlStore, docs: Collection, change: WriteBatch
) -> None:
    await store.commit(docs.uid, ingest("d", "d#0", "d#1"))
    await store.commit(docs.uid, ingest("e", "e#0"))
    await store.commit(docs.uid, change)
    assert [found.id for found in await store.documents_by_id(docs.uid, ["d", "e"])] == ["e"]


async def test_vectors_lie_as_little_endian_float32(sqlite_url: str) -> None:
    async with open_store(sqlite_url) as store:
        collection = await store.create_collection(SPEC)
        await store.commit(collection.uid, chunks("a"))
        with sqlite3.connect(file_of(sqlite_url)) as connection:
            [(raw,)] = connection.execute("SELECT vector FROM chunks").fetchall()
        connection.close()
    assert raw == np.array([0, 1], dtype="<f4").tobytes()


async def test_a_commit_is_on_the_disk_before_it_is_acknowledged(sqlite_url: str) -> None:
    async with open_store(sqlite_url) as store, store._database.reading() as connection:
        journal = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one()
        synchronous = (await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one()
    assert (journal, synchronous) == ("wal", 2)


async def test_a_disk_that_is_full_records_nothing_and_says_what_to_do(sqlite_url: str) -> None:
    async with open_store(sqlite_url) as store:
        collection = await store.create_collection(SPEC)
        await store.commit(collection.uid, chunks("a"))
        # A disk that is full, as SQLite sees it: no connection may grow the file further.
        pages = await limit_pages(store)
        with pytest.raises(BackendUnavailable, match=r"SQLITE_FULL.*make room"):
            await store.commit(collection.uid, chunks(*(f"big{number}" for number in range(2000))))
        assert list(await stored_vectors(store, collection.uid)) == [1]
        await limit_pages(store, pages + 100_000)
        assert (await store.commit(collection.uid, chunks("b"))).positions == {0: 2}


async def limit_pages(store: SqlStore, pages: int | None = None) -> int:
    connections = [store._database.engine.connect() for _ in range(5)]
    async with connections[0] as first, connections[1], connections[2], connections[3], connections[4]:
        pages = pages or int((await first.exec_driver_sql("PRAGMA page_count")).scalar_one())
        for connection in connections:
            await connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    return pages


async def test_a_file_that_is_no_database_is_said_to_be_so(sqlite_url: str) -> None:
    garbage = b"this is not a database, but long enough to be read as one" * 100
    await asyncio.to_thread(file_of(sqlite_url).write_bytes, garbage)
    with pytest.raises(BackendUnavailable, match="file is not a database"):
        async with open_store(sqlite_url):
            pass


def file_of(url: str) -> Path:
    return Path(make_url(url).database or "")
