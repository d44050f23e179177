import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from retrieval_svc.bulk.build import Surroundings
from retrieval_svc.bulk.job import Phase, Progress
from retrieval_svc.bulk.local_executor import LocalExecutor
from retrieval_svc.chunk_messages import ChunkCodec
from retrieval_svc.filters import OneOf
from retrieval_svc.record.store import SqlStore
from retrieval_svc.shards.lexical import LexicalIndex
from retrieval_svc.shards.opening import words_folder
from retrieval_svc.shards.shard_index import ShardIndex
from retrieval_svc.snapshots.store import SnapshotStore
from retrieval_svc.values import (
    EVERYTHING,
    Chunk,
    Collection,
    IndexConfig,
    IndexKind,
    LexicalConfig,
    ShardQuery,
    WriteBatch,
    shard_of,
)
from tests.retrieval_svc.bulk.fakes import (
    DIMENSION,
    MODEL,
    HashedWordsSource,
    build,
    surroundings,
    vector_of,
    with_vectors,
    write_lines,
)

TEXT = "The gateway waits for thirty seconds. Then it gives up and tells so. Nobody sees it but the log, which keeps all."


@pytest.fixture
def around(tmp_path: Path, database_url: str) -> Surroundings:
    return surroundings(tmp_path / "data", database_url)


async def the_collection(store: SqlStore) -> Collection:
    [collection] = await store.collections()
    return collection


def opened(around: Surroundings, collection: Collection, shard: int) -> ShardIndex:
    folder = around.shards / str(collection.uid) / str(shard)
    return ShardIndex.open(folder, spec=collection.spec, shard=shard, codec=ChunkCodec())


async def all_rows(store: SqlStore) -> list[tuple[Any, ...]]:
    """What the record has, under the numbers that it has it."""
    collection = await the_collection(store)
    found = []
    for shard, end in sorted((await store.positions(collection.uid)).items()):
        async for rows in store.rows(collection.uid, shard, end):
            for chunk, vector in zip(rows.chunks, rows.vectors, strict=True):
                found.append((shard, chunk.sequence, chunk.id, chunk.text, chunk.metadata_json, vector.tobytes()))
    return found


async def test_records_with_vectors_are_recorded_and_indexed_in_their_shards(
    tmp_path: Path, store: SqlStore, around: Surroundings
) -> None:
    path = write_lines(tmp_path / "rows.jsonl", with_vectors(500))
    summary = await build(store, around, path, shard_count=3)
    collection = await the_collection(store)
    assert (collection.spec.id, collection.chunk_count, summary.chunk_count) == ("docs", 500, 500)
    rows = await all_rows(store)
    assert {(row[2], row[0]) for row in rows} == {(f"c{at}", shard_of(f"c{at}", 3)) for at in range(500)}
    for shard, end in (await store.positions(collection.uid)).items():
        index = opened(around, collection, shard)
        assert (index.position, index.row_count) == (end, end)
        here = [row for row in rows if row[0] == shard]
        query = np.frombuffer(here[7][5], np.float32)
        [(ranked, _)] = index.search([ShardQuery(vector=query, limit=end, with_chunks=True)])
        exact = sorted(here, key=lambda row: -float(np.frombuffer(row[5], np.float32) @ query))
        assert [ChunkCodec().decode(chunk).id for chunk in ranked.chunks][:10] == [row[2] for row in exact[:10]]


async def test_metadata_can_be_filtered_by_and_words_found(tmp_path: Path, sqlite_store: SqlStore, sqlite_url: str) -> None:
    around = surroundings(tmp_path / "data", sqlite_url)
    await build(sqlite_store, around, write_lines(tmp_path / "rows.jsonl", with_vectors(30)))
    collection = await the_collection(sqlite_store)
    matched = opened(around, collection, 0).match(OneOf(field="group", values=("g1",)), EVERYTHING)
    assert matched.sequences.tolist() == list(range(2, 31, 3))
    words = LexicalIndex.open(words_folder(around.shards / str(collection.uid) / "0", 0), LexicalConfig())
    assert words.position == 30
    assert words.search("17", 5).sequences.tolist() == [18]


async def test_documents_are_split_and_embedded_as_the_service_would(
    tmp_path: Path, store: SqlStore, around: Surroundings
) -> None:
    path = write_lines(tmp_path / "docs.jsonl", [{"id": "a", "text": TEXT, "n": 1}, {"id": "b", "text": "Short."}])
    summary = await build(store, around, path, source=HashedWordsSource())
    collection = await the_collection(store)
    assert (collection.spec.embedding_model, collection.spec.embedding_fingerprint) == (MODEL.name, MODEL.fingerprint)
    chunks = await store.chunks_after(collection.uid, "", 100)
    assert [chunk.id for chunk in chunks] == ["a#0", "a#1", "b#0"]
    assert [chunk.document_id for chunk in chunks] == ["a", "a", "b"]
    rows = await all_rows(store)
    assert all(np.array_equal(np.frombuffer(row[5], np.float32), vector_of(row[3])) for row in rows)
    records = await store.documents_by_id(collection.uid, ["a", "b"])
    assert {record.id: record.chunk_count for record in records} == {"a": 2, "b": 1}
    assert (summary.document_count, summary.chunk_count) == (2, 3)


async def test_whole_records_are_chunks_with_their_own_ids(tmp_path: Path, store: SqlStore, around: Surroundings) -> None:
    path = write_lines(tmp_path / "docs.jsonl", [{"id": "a", "text": TEXT}, *with_vectors(1)])
    await build(store, around, path, source=HashedWordsSource(), executor=LocalExecutor(2), whole=True)
    assert sorted(row[2] for row in await all_rows(store)) == ["a", "c0"]


async def test_parquet_folders_and_zipped_lines_are_read_together(
    tmp_path: Path, store: SqlStore, around: Surroundings
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    plain = with_vectors(40)
    table = {name: [each[name] for each in plain] for name in plain[0]}
    pq.write_table(pa.table(table), corpus / "a.parquet")
    (corpus / "b.jsonl.gz").write_bytes(gzip.compress(write_lines(tmp_path / "b", with_vectors(20, first=40)).read_bytes()))
    await build(store, around, corpus)
    assert [row[2] for row in await all_rows(store)] == [f"c{at}" for at in range(60)]


async def test_bad_records_are_told_by_file_and_line_and_the_rest_is_in(
    tmp_path: Path, store: SqlStore, around: Surroundings
) -> None:
    good = with_vectors(6)
    lines: list[Any] = [
        good[0],
        "{broken",
        good[1] | {"vector": [1.0, 2.0]},
        good[2] | {"vector": [1e30] * DIMENSION},
        {"id": "no-vector", "text": "text"},
        good[0] | {"text": "again"},
        good[3],
        good[4] | {"id": "x" * 600},
        good[5],
    ]
    text = [each if isinstance(each, str) else json.dumps(each) for each in lines]
    path = write_lines(tmp_path / "rows.jsonl", text)
    summary = await build(store, around, path)
    assert [row[2] for row in await all_rows(store)] == ["c0", "c3", "c5"]
    told = dict(summary.first_errors)
    assert summary.error_count == 6
    assert {place.rpartition(":")[2] for place in told} == {"2", "3", "4", "5", "6", "8"}
    assert "not JSON" in told[f"{path}:2"]
    assert "8 bytes" in told[f"{path}:3"]
    assert "inner products overflow" in told[f"{path}:4"]
    assert "no vector" in told[f"{path}:5"]
    assert "stood at" in told[f"{path}:6"]
    assert "longer than 512 bytes" in told[f"{path}:8"]
    assert summary.errors_file is not None
    assert len(summary.errors_file.read_text().splitlines()) == 6


async def test_too_many_bad_records_end_the_build_which_can_go_on_when_more_are_allowed(
    tmp_path: Path, store: SqlStore, around: Surroundings
) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [*with_vectors(3), *["{"] * 3])
    with pytest.raises(InvalidArgument, match="--errors-max") as caught:
        await build(store, around, path, errors_max=2)
    assert len(caught.value.violations) == 3
    assert await store.collections() == []
    summary = await build(store, around, path, errors_max=3)
    assert (summary.chunk_count, summary.error_count) == (3, 3)


async def test_of_an_id_that_comes_again_the_first_record_is_taken_over_all_files(
    tmp_path: Path, store: SqlStore, around: Surroundings
) -> None:
    first = write_lines(tmp_path / "1.jsonl", with_vectors(3, word="first"))
    second = write_lines(tmp_path / "2.jsonl", with_vectors(4, word="second"))
    summary = await build(store, around, first, second)
    assert [row[3].split()[0] for row in await all_rows(store)] == ["first"] * 3 + ["second"]
    assert summary.error_count == 3


async def test_a_chunk_named_like_a_piece_of_a_document_is_refused_and_nothing_is_published(
    tmp_path: Path, store: SqlStore, around: Surroundings
) -> None:
    [ready] = with_vectors(1)
    path = write_lines(tmp_path / "docs.jsonl", [{"id": "a", "text": TEXT}, ready | {"id": "a#0"}])
    with pytest.raises(AlreadyExists, match="ID#NUMBER"):
        await build(store, around, path, source=HashedWordsSource())
    assert await store.collections() == []


async def test_a_collection_that_exists_is_left_alone_unless_it_is_to_be_replaced(
    tmp_path: Path, store: SqlStore, around: Surroundings
) -> None:
    old = write_lines(tmp_path / "old.jsonl", with_vectors(3, word="old"))
    new = write_lines(tmp_path / "new.jsonl", with_vectors(2, word="new"))
    await build(store, around, old)
    before = await the_collection(store)
    with pytest.raises(AlreadyExists, match="--replace"):
        await build(store, around, new)
    assert await the_collection(store) == before
    await build(store, around, new, replace=True)
    after = await the_collection(store)
    assert (after.uid > before.uid, after.chunk_count) == (True, 2)
    assert [row[3].split()[0] for row in await all_rows(store)] == ["new"] * 2
    assert not (around.shards / str(before.uid)).exists()


async def test_a_built_collection_is_written_to_like_any_other(tmp_path: Path, store: SqlStore, around: Surroundings) -> None:
    await build(store, around, write_lines(tmp_path / "rows.jsonl", with_vectors(5)))
    collection = await the_collection(store)
    batch = WriteBatch(chunks=(Chunk(id="c1", text="newer"),), vectors=np.ones((1, DIMENSION), np.float32))
    commit = await store.commit(collection.uid, batch)
    index = opened(around, collection, 0)
    index.apply(commit.changes[0])
    assert (index.position, index.row_count) == (6, 5)


async def test_another_build_of_that_name_is_not_gone_on_with(tmp_path: Path, store: SqlStore, around: Surroundings) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [*with_vectors(3), "{"])
    with pytest.raises(InvalidArgument):
        await build(store, around, path, errors_max=0)
    with pytest.raises(FailedPrecondition, match="--fresh"):
        await build(store, around, path, index=IndexConfig(kind=IndexKind.FLAT))
    write_lines(path, with_vectors(4))
    with pytest.raises(FailedPrecondition, match="they have changed"):
        await build(store, around, path)
    summary = await build(store, around, path, fresh=True)
    assert (summary.chunk_count, summary.error_count) == (4, 0)


async def test_a_build_that_goes_on_reads_only_what_is_missing(tmp_path: Path, store: SqlStore, around: Surroundings) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [*with_vectors(5000), "{", *with_vectors(50, first=5000)])
    with pytest.raises(InvalidArgument):
        await build(store, around, path, errors_max=0)
    broken_off = await store.builds.find("docs")
    assert broken_off is not None
    assert broken_off.part_count == 1
    told: list[Progress] = []
    await build(store, around, path, told=told)
    assert told[0].resumed
    assert [each.chunk_count for each in told if each.phase is Phase.ROWS] == [5050]
    rows = await all_rows(store)
    assert [row[1] for row in rows] == list(range(1, 5051))
    assert [row[2] for row in rows] == [f"c{at}" for at in range(5050)]


async def test_snapshots_are_what_a_node_without_files_starts_from(tmp_path: Path, store: SqlStore, database_url: str) -> None:
    around = surroundings(tmp_path / "data", database_url, snapshot_url=str(tmp_path / "snapshots"), keep_files=False)
    await build(store, around, write_lines(tmp_path / "rows.jsonl", with_vectors(60)), shard_count=2)
    collection = await the_collection(store)
    assert not (around.shards / str(collection.uid)).exists()
    for shard, end in (await store.positions(collection.uid)).items():
        folder = tmp_path / "node" / str(shard)
        snapshot = await SnapshotStore(around.snapshot_url).download(collection.uid, shard, folder)
        assert snapshot is not None
        index = ShardIndex.open(folder, spec=collection.spec, shard=shard, codec=ChunkCodec())
        assert (snapshot.position, index.position, index.row_count) == (end, end, end)
        assert LexicalIndex.open(folder / "outgoing", LexicalConfig()).position == end


async def test_snapshots_of_a_replaced_collection_go_with_it(tmp_path: Path, sqlite_store: SqlStore, sqlite_url: str) -> None:
    around = surroundings(tmp_path / "data", sqlite_url, snapshot_url=str(tmp_path / "snapshots"))
    for word in ("old", "new"):
        path = write_lines(tmp_path / f"{word}.jsonl", with_vectors(5, word=word))
        await build(sqlite_store, around, path, replace=True)
    uid = (await the_collection(sqlite_store)).uid
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == [str(uid)]


@pytest.mark.parametrize("kind", [IndexKind.HNSW, IndexKind.IVF_SQ8])
async def test_the_recall_of_an_approximate_index_is_measured(
    tmp_path: Path, sqlite_store: SqlStore, sqlite_url: str, kind: IndexKind
) -> None:
    around = surroundings(tmp_path / "data", sqlite_url)
    path = write_lines(tmp_path / "rows.jsonl", with_vectors(10_000))
    summary = await build(sqlite_store, around, path, index=IndexConfig(kind=kind), lexical=LexicalConfig(enabled=False))
    [shard] = summary.shards
    assert shard.index_kind == kind.value
    assert shard.recall is not None
    assert 0.5 < shard.recall <= 1.0
    assert 0.5 < summary.to_json()["recall"] <= 1.0


async def test_nothing_is_left_of_a_build_in_the_record_but_its_collection(
    tmp_path: Path, store: SqlStore, around: Surroundings
) -> None:
    await build(store, around, write_lines(tmp_path / "rows.jsonl", with_vectors(5)))
    assert await store.builds.all() == []
    spec = (await the_collection(store)).spec
    assert spec == replace(spec, id="docs", dimension=DIMENSION, shard_count=1)
