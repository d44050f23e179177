import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from penstock.errors import AlreadyExists, CollectionNotFound, FailedPrecondition
from retrieval_svc.record import tables
from retrieval_svc.record.building import Build, BuiltPart
from retrieval_svc.record.rows import stored
from retrieval_svc.record.store import SqlStore
from retrieval_svc.shards.follower import LogTrimmedError
from retrieval_svc.values import Chunk, Collection, DocumentRecord, Rows
from tests.retrieval_svc.record.batches import SPEC, chunks, sharded, stored_ids


def rows(first: int, *ids: str) -> Rows:
    made = tuple(stored(Chunk(id=each, text=f"text of {each}"), number) for number, each in enumerate(ids, start=first))
    return Rows(chunks=made, vectors=np.ones((len(ids), 2), dtype=np.float32))


def part(by_shard: dict[int, Rows], **progress: Any) -> BuiltPart:
    return BuiltPart(rows=by_shard, documents=(), progress=progress)


async def built(store: SqlStore, name: str = "docs") -> Build:
    build = await store.builds.begin(sharded(2, name), {"of": "files"}, {})
    build = await store.builds.append(build, part({0: rows(1, "a", "b")}, at=2))
    return await store.builds.append(build, part({0: rows(3, "c"), 1: rows(1, "d")}, at=4))


async def count(store: SqlStore, table: Any, uid: int) -> int:
    async with store._database.reading() as connection:
        mine = select(func.count()).select_from(table).where(table.c.collection_uid == uid)
        return int(await connection.scalar(mine) or 0)


async def test_what_is_being_built_is_no_collection_yet(store: SqlStore) -> None:
    build = await built(store)
    assert await store.collections() == []
    with pytest.raises(CollectionNotFound):
        await store.positions(build.uid)
    with pytest.raises(CollectionNotFound):
        await store.commit(build.uid, chunks("z"))


async def test_a_published_build_is_a_collection_whose_rows_and_positions_are_there(store: SqlStore) -> None:
    build = await built(store)
    assert await store.builds.publish(build, replace=False) is None
    [collection] = await store.collections()
    assert (collection.uid, collection.spec, collection.chunk_count) == (build.uid, sharded(2, "docs"), 4)
    assert await store.positions(build.uid) == {0: 3, 1: 1}
    assert await stored_ids(store, build.uid) == ["a", "b", "c", "d"]
    assert await store.builds.all() == []


async def test_a_follower_of_a_published_build_begins_at_its_end_or_with_its_rows(store: SqlStore) -> None:
    build = await built(store)
    await store.builds.publish(build, replace=False)
    nothing = await store.changes(build.uid, 0, 3, 10)
    assert (nothing.after, nothing.through) == (3, 3)
    with pytest.raises(LogTrimmedError):
        await store.changes(build.uid, 0, 0, 10)
    assert [chunk.id async for found in store.rows(build.uid, 0, 3) for chunk in found.chunks] == ["a", "b", "c"]
    written = await store.commit(build.uid, chunks("a"))
    assert max(written.positions.values()) == 4


async def test_a_build_is_found_again_as_it_was(store: SqlStore) -> None:
    build = await built(store)
    found = await store.builds.find("docs")
    assert found == build
    assert (build.part_count, build.progress, build.ends) == (2, {"at": 4}, (3, 1))
    assert await store.builds.find("other") is None


async def test_a_collection_is_built_once_at_a_time(store: SqlStore) -> None:
    await built(store)
    with pytest.raises(AlreadyExists, match="being built"):
        await built(store)


async def test_of_two_processes_that_go_on_with_a_build_one_ends_and_nothing_is_in_twice(store: SqlStore) -> None:
    build = await built(store)
    both = [store.builds.append(build, part({1: rows(2, name)})) for name in ("e", "f")]
    outcomes = await asyncio.gather(*both, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Build", "FailedPrecondition"]
    assert await count(store, tables.chunks, build.uid) == 5
    with pytest.raises(FailedPrecondition, match="another process"):
        await store.builds.publish(build, replace=False)


async def test_an_id_that_comes_twice_is_refused_with_its_whole_part(store: SqlStore) -> None:
    build = await built(store)
    with pytest.raises(AlreadyExists, match="comes twice"):
        await store.builds.append(build, part({0: rows(4, "x", "d")}))
    assert await store.builds.find("docs") == build
    assert await count(store, tables.chunks, build.uid) == 4


async def test_a_collection_of_that_id_stays_unless_it_is_to_be_replaced(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("old"))
    build = await built(store)
    with pytest.raises(AlreadyExists, match="exists already"):
        await store.builds.publish(build, replace=False)
    assert await stored_ids(store, docs.uid) == ["old"]
    assert await store.builds.find("docs") == build


async def test_a_replaced_collection_goes_in_the_same_moment_and_its_rows_after(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("old"))
    build = await built(store)
    assert await store.builds.publish(build, replace=True) == docs.uid
    assert [collection.uid for collection in await store.collections()] == [build.uid]
    with pytest.raises(CollectionNotFound):
        await store.positions(docs.uid)
    await store.finish_deletions()
    assert await count(store, tables.chunks, docs.uid) == 0
    assert await count(store, tables.chunks, build.uid) == 4


async def test_readers_see_the_old_or_the_new_collection_and_never_both_or_none(store: SqlStore, docs: Collection) -> None:
    builds = [await built(store, "docs")]
    seen: list[list[int]] = []
    ended = asyncio.Event()

    async def read() -> None:
        while not ended.is_set():
            seen.append([collection.uid for collection in await store.collections()])

    reading = [asyncio.create_task(read()) for _ in range(4)]
    await asyncio.sleep(0.05)
    await store.builds.publish(builds[0], replace=True)
    await asyncio.sleep(0.05)
    ended.set()
    await asyncio.gather(*reading)
    assert {tuple(each) for each in seen} == {(docs.uid,), (builds[0].uid,)}


async def test_a_discarded_build_leaves_nothing(store: SqlStore) -> None:
    build = await built(store)
    documents = BuiltPart(rows={}, documents=[DocumentRecord(id="d", content_hash="h", chunk_count=1)], progress={})
    build = await store.builds.append(build, documents)
    await store.builds.discard(build)
    await store.finish_deletions()
    for table in (tables.chunks, tables.documents, tables.builds):
        assert await count(store, table, build.uid) == 0
    assert (await built(store)).uid > build.uid


async def test_a_start_leaves_builds_that_are_under_way(store: SqlStore) -> None:
    build = await built(store)
    await store.prepare()
    assert await store.builds.find("docs") == build


async def test_a_shard_without_rows_is_published_at_zero(store: SqlStore) -> None:
    build = await store.builds.begin(replace(SPEC, id="empty"), {}, {})
    await store.builds.publish(build, replace=False)
    assert await store.positions(build.uid) == {0: 0}
