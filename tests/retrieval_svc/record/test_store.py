import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import AlreadyExists, BackendUnavailable, CollectionNotFound
from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.values import Chunk, Collection, CollectionSpec, Matrix, Metric, WriteBatch

SPEC = CollectionSpec(id="docs", embedding_model="", embedding_fingerprint="", dimension=2, metric=Metric.INNER_PRODUCT)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "record.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqlStore]:
    async with open_store(f"sqlite+aiosqlite:///{file}") as opened:
        yield opened


@pytest.fixture
async def docs(store: SqlStore) -> Collection:
    return await store.create_collection(SPEC)


def chunks(*ids: str, document: str = "") -> WriteBatch:
    made = tuple(Chunk(id=chunk_id, document_id=document, text=f"text of {chunk_id}") for chunk_id in ids)
    return WriteBatch(chunks=made, vectors=np.arange(2 * len(ids), dtype=np.float32).reshape(-1, 2))


def deletion(*, chunk_ids: tuple[str, ...] = (), document_ids: tuple[str, ...] = ()) -> WriteBatch:
    nothing: Matrix = np.empty((0, 2), dtype=np.float32)
    return WriteBatch(vectors=nothing, delete_chunk_ids=chunk_ids, delete_document_ids=document_ids)


async def stored_vectors(store: SqlStore, collection: Collection) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    async for sequences, vectors in store.vectors(collection):
        found |= dict(zip(sequences.tolist(), vectors.tolist(), strict=True))
    return found


async def test_a_commit_gives_each_chunk_the_next_number(store: SqlStore, docs: Collection) -> None:
    first = await store.commit(docs.uid, chunks("a", "b"))
    second = await store.commit(docs.uid, chunks("c"))
    assert (first.stored.tolist(), second.stored.tolist()) == ([1, 2], [3])
    assert (first.chunk_count, second.chunk_count) == (2, 3)
    assert await stored_vectors(store, docs) == {1: [0, 1], 2: [2, 3], 3: [0, 1]}


async def test_storing_an_id_again_replaces_its_chunk(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("a", "b"))
    commit = await store.commit(docs.uid, chunks("b", "c"))
    assert (commit.removed.tolist(), commit.deleted_count, commit.chunk_count) == ([2], 0, 3)
    assert [chunk.sequence for chunk in await store.chunks_after(docs.uid, "", 10)] == [1, 3, 4]


async def test_storing_a_document_again_removes_what_it_no_longer_has(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("d#0", "d#1", "d#2", document="d"))
    shorter = chunks("d#0", document="d")
    commit = await store.commit(
        docs.uid, WriteBatch(chunks=shorter.chunks, vectors=shorter.vectors, delete_document_ids=("d",))
    )
    assert (commit.removed.tolist(), commit.deleted_count, commit.chunk_count) == ([1, 2, 3], 2, 1)
    assert [chunk.id for chunk in await store.chunks_after(docs.uid, "", 10)] == ["d#0"]


async def test_the_log_has_every_change_in_order_without_gaps(store: SqlStore, docs: Collection, file: Path) -> None:
    await store.commit(docs.uid, chunks("a", "b"))
    await store.commit(docs.uid, chunks("b"))
    await store.commit(docs.uid, deletion(chunk_ids=("a", "unknown")))
    with sqlite3.connect(file) as connection:
        log = connection.execute("SELECT sequence, stored, removed_sequence FROM changes ORDER BY sequence").fetchall()
    connection.close()
    assert log == [(1, 1, None), (2, 1, None), (3, 1, 2), (4, 0, 1)]


async def test_whoever_replays_the_log_has_what_the_record_has(store: SqlStore, docs: Collection, file: Path) -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        ids = [f"c{number}" for number in rng.choice(12, size=4, replace=False)]
        await store.commit(docs.uid, chunks(*ids) if rng.random() < 0.7 else deletion(chunk_ids=tuple(ids)))
    with sqlite3.connect(file) as connection:
        log = connection.execute("SELECT sequence, stored, removed_sequence FROM changes ORDER BY sequence").fetchall()
    connection.close()
    replayed: set[int] = set()
    for sequence, stored, removed in log:
        replayed -= {removed}
        replayed |= {sequence} if stored else set()
    assert [sequence for sequence, _, _ in log] == list(range(1, len(log) + 1))
    assert replayed == set(await stored_vectors(store, docs))


async def test_writers_at_the_same_time_get_numbers_of_their_own(store: SqlStore, docs: Collection) -> None:
    commits = await asyncio.gather(*(store.commit(docs.uid, chunks(f"w{at}-0", f"w{at}-1")) for at in range(20)))
    numbers = sorted(number for commit in commits for number in commit.stored.tolist())
    assert numbers == list(range(1, 41))
    assert max(commit.chunk_count for commit in commits) == 40


async def test_a_deletion_of_more_ids_than_a_statement_takes(store: SqlStore, docs: Collection) -> None:
    ids = tuple(f"id{number:05d}" for number in range(5000))
    await store.commit(docs.uid, chunks(*ids))
    commit = await store.commit(docs.uid, deletion(chunk_ids=ids[:4500]))
    assert (commit.deleted_count, commit.chunk_count) == (4500, 500)


async def test_all_is_there_after_the_store_is_opened_again(file: Path) -> None:
    url = f"sqlite+aiosqlite:///{file}"
    async with open_store(url) as store:
        collection = await store.create_collection(SPEC)
        await store.commit(collection.uid, chunks("a", "b", "c"))
        await store.commit(collection.uid, deletion(chunk_ids=("b",)))
    async with open_store(url) as store:
        [found] = await store.collections()
        assert found == Collection(uid=collection.uid, spec=SPEC, chunk_count=2)
        assert await stored_vectors(store, found) == {1: [0, 1], 3: [4, 5]}
        assert (await store.commit(found.uid, chunks("d"))).stored.tolist() == [5]


async def test_vectors_lie_as_little_endian_float32(store: SqlStore, docs: Collection, file: Path) -> None:
    await store.commit(docs.uid, chunks("a"))
    with sqlite3.connect(file) as connection:
        [(raw,)] = connection.execute("SELECT vector FROM chunks").fetchall()
    connection.close()
    assert raw == np.array([0, 1], dtype="<f4").tobytes()


async def test_a_commit_is_on_the_disk_before_it_is_acknowledged(store: SqlStore) -> None:
    async with store._reading() as connection:
        journal = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one()
        synchronous = (await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one()
    assert (journal, synchronous) == ("wal", 2)


async def test_an_id_is_taken_once_and_its_uid_never_again(store: SqlStore, docs: Collection) -> None:
    with pytest.raises(AlreadyExists):
        await store.create_collection(SPEC)
    await store.delete_collection(docs.uid)
    again = await store.create_collection(SPEC)
    assert again.uid > docs.uid
    assert await stored_vectors(store, again) == {}


async def test_a_write_to_a_collection_that_is_gone_is_refused(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("a"))
    await store.delete_collection(docs.uid)
    with pytest.raises(CollectionNotFound):
        await store.commit(docs.uid, chunks("b"))
    assert await store.collections() == []


async def test_pages_follow_the_bytes_of_ids(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("b", "B", "ä", "a", "10", "9"))
    assert [chunk.id for chunk in await store.chunks_after(docs.uid, "", 10)] == ["10", "9", "B", "a", "b", "ä"]
    assert [chunk.id for chunk in await store.chunks_after(docs.uid, "B", 2)] == ["a", "b"]


async def test_a_database_that_fails_is_unavailable_and_records_nothing(store: SqlStore, docs: Collection, file: Path) -> None:
    await store.commit(docs.uid, chunks("a"))
    async with store._reading() as connection:
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
    # A disk that is full, as SQLite sees it: the pool's connections may grow the file no further.
    for _ in range(5):
        async with store._reading() as connection:
            await connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(BackendUnavailable) as failure:
        await store.commit(docs.uid, chunks(*(f"big{number}" for number in range(2000))))
    assert "SQLITE_FULL" in failure.value.message
    assert list(await stored_vectors(store, docs)) == [1]


async def test_a_file_that_is_no_database_is_said_to_be_so(file: Path) -> None:
    await asyncio.to_thread(file.write_bytes, b"this is not a database, but long enough to be read as one" * 100)
    with pytest.raises(BackendUnavailable, match="SQLITE_NOTADB"):
        async with open_store(f"sqlite+aiosqlite:///{file}"):
            pass
