import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest

from retrieval_svc.record.following import ShardLog
from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.shards.follower import LogTrimmedError
from retrieval_svc.values import Collection
from tests.retrieval_svc.record.batches import Replica, chunks, deletion, ingest, replicas, sharded, stored_ids

WRITER = """
import asyncio, sys
from retrieval_svc.record.following import ShardLog
from retrieval_svc.record.store import open_store
from tests.retrieval_svc.record.batches import chunks

async def write(url, uid, name, count):
    async with open_store(url) as store:
        for turn in range(count):
            await store.commit(uid, chunks(*(f"{name}-{turn}-{at}" for at in range(3))))

asyncio.run(write(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
"""


async def test_a_follower_sees_every_number_while_processes_write(database_url: str, tmp_path: Path) -> None:
    script = tmp_path / "writer.py"
    await asyncio.to_thread(script.write_text, WRITER)
    async with open_store(database_url) as store:
        collection = await store.create_collection(sharded(2))
        writers = [
            await asyncio.create_subprocess_exec(
                sys.executable, script, database_url, str(collection.uid), f"p{at}", "40", env={"PYTHONPATH": str(Path.cwd())}
            )
            for at in range(3)
        ]
        done = asyncio.gather(*(writer.wait() for writer in writers))
        followed = {shard: Replica(shard=shard) for shard in range(2)}
        reads_with_news = 0
        while not done.done() or await store.positions(collection.uid) != {s: r.position for s, r in followed.items()}:
            for shard, replica in followed.items():
                changes = await store.changes(collection.uid, shard, replica.position, 5)
                # Nothing is replaced or deleted here, so every number is a chunk's: none may be passed over.
                assert changes.stored.sequences.tolist() == list(range(changes.after + 1, changes.through + 1))
                replica.apply(changes)
                reads_with_news += changes.through > changes.after
        assert await done == [0, 0, 0]
        found = sorted(chunk_id for replica in followed.values() for chunk_id in replica.rows.values())
        assert found == sorted(f"p{at}-{turn}-{number}" for at in range(3) for turn in range(40) for number in range(3))
        assert reads_with_news > 10


async def test_an_id_that_is_written_again_and_again_is_always_visible(database_url: str) -> None:
    ids = [f"hot{number}" for number in range(6)]
    async with open_store(database_url) as store, open_store(database_url) as other:
        collection = await store.create_collection(sharded(2))
        await store.commit(collection.uid, chunks(*ids))
        followed = await replicas(store, collection.uid)
        before = {shard: sorted(replica.rows.values()) for shard, replica in followed.items()}
        stop = asyncio.Event()

        async def write(writer: SqlStore, seed: int) -> None:
            rng = np.random.default_rng(seed)
            while not stop.is_set():
                await writer.commit(collection.uid, chunks(*rng.permutation(ids)[:3].tolist()))

        writers = [asyncio.create_task(write(writer, seed)) for seed, writer in enumerate((store, other, other))]
        reads = 0
        while reads < 50 or min(replica.position for replica in followed.values()) <= 10:
            reads += 1
            for shard, replica in followed.items():
                replica.apply(await store.changes(collection.uid, shard, replica.position, 1))
                assert sorted(replica.rows.values()) == before[shard]
        stop.set()
        await asyncio.gather(*writers)


async def test_changes_go_on_to_where_nothing_is_missing(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("a", "b"))
    await store.commit(docs.uid, chunks("a"))  # 3, which is replaced again by
    await store.commit(docs.uid, chunks("c", "d", "a"))  # 6.
    await store.commit(docs.uid, chunks("e"))
    changes = await store.changes(docs.uid, 0, 2, 1)
    assert changes.through == 6
    assert changes.stored.sequences.tolist() == [4, 5, 6]
    assert (changes.removed.tolist(), changes.removed_at.tolist()) == ([1, 3], [3, 6])


async def test_a_chunk_that_was_deleted_later_need_not_be_waited_for(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("a", "b", "c"))
    await store.commit(docs.uid, deletion(chunk_ids=("a",)))
    changes = await store.changes(docs.uid, 0, 0, 2)
    assert (changes.through, changes.stored.sequences.tolist(), changes.removed.tolist()) == (2, [2], [])


async def test_reading_on_brings_the_same_rows_whatever_the_step(store: SqlStore, docs: Collection) -> None:
    rng = np.random.default_rng(5)
    for _ in range(40):
        ids = tuple(f"c{number}" for number in rng.choice(8, size=3, replace=False))
        await store.commit(docs.uid, chunks(*ids) if rng.random() < 0.6 else deletion(chunk_ids=ids))
    expected = await stored_ids(store, docs.uid)
    for limit in (1, 2, 7, 1000):
        replica = Replica()
        await replica.catch_up(store, docs.uid, limit)
        assert sorted(replica.rows.values()) == expected
        assert {docs.uid: replica.position} == {docs.uid: (await store.positions(docs.uid))[0]}


async def test_nothing_new_is_said_to_be_so(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("a"))
    changes = await store.changes(docs.uid, 0, 1, 100)
    assert (changes.after, changes.through, changes.stored.vectors.shape) == (1, 1, (0, 2))


async def test_rows_and_the_log_from_there_make_the_whole(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("a", "b", "c"))
    await store.commit(docs.uid, chunks("b"))
    begun = Replica(position=4)
    async for part in store.rows(docs.uid, 0, 4):
        begun.rows |= {chunk.sequence: chunk.id for chunk in part.chunks}
    await store.commit(docs.uid, chunks("c", "d"))
    await begun.catch_up(store, docs.uid)
    assert sorted(begun.rows.values()) == ["a", "b", "c", "d"]


async def test_whoever_is_behind_a_trimmed_log_is_told_to_begin_anew(store: SqlStore, docs: Collection) -> None:
    for _ in range(3):
        await store.commit(docs.uid, chunks("a", "b"))
    await store.trim(docs.uid, 0, 4)
    with pytest.raises(LogTrimmedError):
        await store.changes(docs.uid, 0, 3, 10)
    changes = await store.changes(docs.uid, 0, 4, 10)
    assert (changes.removed.tolist(), changes.stored.sequences.tolist()) == ([3, 4], [5, 6])
    await store.trim(docs.uid, 0, 2)
    assert (await store.changes(docs.uid, 0, 4, 10)).through == 6


async def test_a_log_is_not_trimmed_beyond_its_end(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("a"))
    await store.commit(docs.uid, chunks("a"))
    await store.trim(docs.uid, 0, 99)
    assert (await store.changes(docs.uid, 0, 0, 10)).stored.sequences.tolist() == [2]


async def test_a_follower_that_would_have_to_take_too_much_at_once_begins_anew(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("a"))
    for turn in range(5):
        await store.commit(docs.uid, chunks(*(f"t{turn}-{at}" for at in range(4))))
    await store.commit(docs.uid, chunks("a"))
    log = ShardLog(database=store._database, uid=docs.uid, shard=0, dimension=2, entries_max=20)
    with pytest.raises(LogTrimmedError, match="too far"):
        await log.changes(0, 1)
    assert (await log.changes(1, 1)).through == 2
    assert (await log.changes(0, 22)).through == 22


async def test_a_replica_that_is_ahead_of_the_record_begins_anew(store: SqlStore, docs: Collection) -> None:
    await store.commit(docs.uid, chunks("a"))
    with pytest.raises(LogTrimmedError):
        await store.changes(docs.uid, 0, 5, 10)


async def test_writers_of_one_document_leave_the_chunks_of_one_of_them(database_url: str) -> None:
    async with open_store(database_url) as one, open_store(database_url) as two:
        collection = await one.create_collection(sharded(5))
        for turn in range(12):
            first = [f"first{number}" for number in range(turn % 4 + 1)]
            second = [f"second{number}" for number in range(turn % 3 + 1)]
            await asyncio.gather(
                one.commit(collection.uid, ingest("d", *first, content_hash="first")),
                two.commit(collection.uid, ingest("d", *second, content_hash="second")),
            )
            [record] = await one.documents_by_id(collection.uid, ["d"])
            assert await stored_ids(one, collection.uid) == (first if record.content_hash == "first" else second)


async def test_a_document_is_deleted_from_shards_that_its_ids_do_not_name(store: SqlStore) -> None:
    collection = await store.create_collection(sharded(16))
    ids = tuple(f"c{number}" for number in range(40))
    await store.commit(collection.uid, chunks(*ids, document="d"))
    commit = await store.commit(collection.uid, deletion(document_ids=("d",)))
    assert (commit.deleted_count, len(commit.changes)) == (40, len({*commit.changes}))
    assert len(commit.changes) > 5
    assert await stored_ids(store, collection.uid) == []


async def test_writers_that_touch_the_same_shards_in_any_order_all_end(store: SqlStore) -> None:
    collection = await store.create_collection(sharded(4))
    rng = np.random.default_rng(1)

    async def write(name: int) -> None:
        for turn in range(5):
            ids = [f"c{number}" for number in rng.choice(20, size=8, replace=False)]
            await store.commit(collection.uid, ingest(f"d{(name + turn) % 3}", *ids))

    await asyncio.gather(*(write(name) for name in range(8)))
    followed = await replicas(store, collection.uid)
    found = sorted(chunk_id for replica in followed.values() for chunk_id in replica.rows.values())
    assert found == await stored_ids(store, collection.uid)
