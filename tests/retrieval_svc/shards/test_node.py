"""A node's shards over a real record: when they are opened, when they may be searched, and what failing hints cost."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.trace import NoOpTracer

from penstock.deadline import set_deadline
from penstock.errors import BackendUnavailable, CollectionNotFound, DeadlineExceeded, Unavailable
from retrieval_svc.chunk_messages import ChunkCodec
from retrieval_svc.record.hints import Hint
from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.shards.node import LocalShards
from retrieval_svc.shards.opening import ShardOpener
from retrieval_svc.shards.replica import Threads
from retrieval_svc.shards.threads import IndexThread, TaskThread
from retrieval_svc.values import Chunk, Collection, CollectionSpec, Metric, ShardQuery, WriteBatch

SPEC = CollectionSpec(id="docs", embedding_model="", embedding_fingerprint="", dimension=2, metric=Metric.COSINE)
QUERY = ShardQuery(vector=np.ones(2, dtype=np.float32), limit=10)


class Record:
    """A record whose answers wait, fail, and hint as a test says."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.failures = 0
        self.hints: asyncio.Queue[Hint] = asyncio.Queue()

    async def positions(self, uid: int) -> Mapping[int, int]:
        await self.may_answer.wait()
        if self.failures:
            self.failures -= 1
            raise BackendUnavailable("the database is away")
        return await self._store.positions(uid)

    async def watch(self) -> AsyncIterator[Hint]:
        while True:
            yield await self.hints.get()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    async with open_store(f"sqlite+aiosqlite:///{tmp_path / 'record.db'}") as opened:
        yield opened


@pytest.fixture
def record(store: SqlStore) -> Record:
    return Record(store)


@pytest.fixture
async def shards(tmp_path: Path, store: SqlStore, record: Record) -> AsyncIterator[LocalShards]:
    threads = Threads(index=IndexThread(batch_max=8, waiting_max=64), words=TaskThread("words", waiting_max=64))
    folder = tmp_path / "shards"
    opener = ShardOpener(
        folder,
        store,
        ChunkCodec(),
        threads,
        snapshots=None,
        worker=0,
        search_threads=1,
        head_rows_max=100,
        lexical_memory_bytes=15 * 2**20,
        tracer=NoOpTracer(),
    )
    stopped: list[str] = []
    shards = LocalShards(
        folder,
        record,
        opener,
        holds=lambda *_: True,
        consistency_wait_s=5.0,
        tracer=NoOpTracer(),
        stop=stopped.append,
    )
    yield shards
    await shards.close()
    await threads.index.close()
    await threads.words.close()
    assert stopped == []


async def filled(store: SqlStore) -> Collection:
    collection = await store.create_collection(SPEC)
    chunks = tuple(Chunk(id=f"c{at}", text=f"text {at}") for at in range(5))
    await store.commit(collection.uid, WriteBatch(chunks=chunks, vectors=np.ones((5, 2), dtype=np.float32)))
    return collection


async def found(shards: LocalShards, uid: int) -> int:
    [answer] = await shards.search(uid, {0: 0}, [QUERY])
    dense = answer.found[0].dense
    assert dense is not None
    return len(dense.sequences)


async def test_nothing_is_found_in_a_shard_before_it_has_caught_up(
    shards: LocalShards, record: Record, store: SqlStore
) -> None:
    collection = await filled(store)
    record.may_answer.clear()
    opening = asyncio.create_task(shards.open(collection))
    while not shards.of(collection.uid):
        await asyncio.sleep(0.01)
    with pytest.raises(Unavailable, match="is being opened"):
        await found(shards, collection.uid)
    record.may_answer.set()
    await opening
    assert await found(shards, collection.uid) == 5


async def test_an_opening_that_fails_leaves_nothing_behind_and_can_be_tried_again(
    shards: LocalShards, record: Record, store: SqlStore
) -> None:
    collection = await filled(store)
    record.failures = 1
    with pytest.raises(BackendUnavailable):
        await shards.open(collection)
    with pytest.raises(CollectionNotFound):
        await found(shards, collection.uid)
    await shards.open(collection)
    assert await found(shards, collection.uid) == 5


async def test_collections_are_looked_at_again_until_that_succeeds_and_other_hints_go_on(
    shards: LocalShards, record: Record, store: SqlStore
) -> None:
    collection = await filled(store)
    await shards.open(collection)
    outcomes = iter([BackendUnavailable("away"), OSError("no room"), None])
    looked = asyncio.Event()

    async def look() -> None:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        looked.set()

    shards.on_unknown = look
    shards.start()
    record.hints.put_nowait(Hint(positions={}, catalog=True))
    vectors = np.ones((1, 2), dtype=np.float32)
    commit = await store.commit(collection.uid, WriteBatch(chunks=(Chunk(id="late", text="late"),), vectors=vectors))
    record.hints.put_nowait(Hint(positions={(collection.uid, 0): commit.positions[0]}))
    async with asyncio.timeout(30):
        while await found(shards, collection.uid) < 6:
            await asyncio.sleep(0.01)
        await looked.wait()


async def test_a_position_that_does_not_come_is_told_before_who_asked_gives_up(shards: LocalShards, store: SqlStore) -> None:
    collection = await filled(store)
    await shards.open(collection)
    set_deadline(0.5)
    async with asyncio.timeout(0.48):
        with pytest.raises(
            DeadlineExceeded, match=r"^shard 0 is at position 5, and 9 was asked for and did not come within 0\.4"
        ):
            await shards.search(collection.uid, {0: 9}, [QUERY])
