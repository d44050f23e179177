import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from penstock.errors import BackendUnavailable
from retrieval_svc.record.hints import Hint
from retrieval_svc.record.store import SqlStore, open_store
from tests.retrieval_svc.postgres import Cluster
from tests.retrieval_svc.record.batches import SPEC, chunks, sharded, stored_ids


class Watching:
    """What a watcher was told so far."""

    def __init__(self) -> None:
        self.positions: dict[tuple[int, int], int] = {}
        self.catalog = 0
        self._heard = asyncio.Condition()

    async def listen(self, hints: AsyncIterator[Hint]) -> None:
        async for hint in hints:
            async with self._heard:
                self.positions |= hint.positions
                self.catalog += hint.catalog
                self._heard.notify_all()

    async def until_position(self, uid: int, shard: int, sequence: int) -> None:
        async with asyncio.timeout(20), self._heard:
            await self._heard.wait_for(lambda: self.positions.get((uid, shard), 0) >= sequence)

    async def until_catalog(self, count: int) -> None:
        async with asyncio.timeout(20), self._heard:
            await self._heard.wait_for(lambda: self.catalog >= count)


@asynccontextmanager
async def watching(store: SqlStore) -> AsyncIterator[Watching]:
    heard = Watching()
    task = asyncio.create_task(heard.listen(store.watch()))
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_another_node_writes_is_told(database_url: str) -> None:
    async with open_store(database_url) as store, open_store(database_url) as other:
        collection = await other.create_collection(sharded(3))
        async with watching(store) as heard:
            await heard.until_catalog(1)
            for turn in range(1, 6):
                commit = await other.commit(collection.uid, chunks(*(f"t{turn}-{at}" for at in range(20))))
                for shard, position in commit.positions.items():
                    await heard.until_position(collection.uid, shard, position)


async def test_collections_that_come_and_go_are_told(database_url: str) -> None:
    async with open_store(database_url) as store, open_store(database_url) as other, watching(store) as heard:
        await heard.until_catalog(1)
        collection = await other.create_collection(SPEC)
        await heard.until_catalog(2)
        told = heard.catalog
        await other.delete_collection(collection.uid)
        await heard.until_catalog(told + 1)


async def test_a_watcher_begins_with_where_everything_is(store: SqlStore) -> None:
    collection = await store.create_collection(SPEC)
    await store.commit(collection.uid, chunks("a", "b"))
    async with watching(store) as heard:
        await heard.until_position(collection.uid, 0, 2)


async def test_hints_that_nobody_takes_become_one(store: SqlStore) -> None:
    collection = await store.create_collection(SPEC)
    hints = store.watch()
    await anext(hints)
    for turn in range(10):
        await store.commit(collection.uid, chunks(f"c{turn}"))
    seen = {}
    count = 0
    while seen.get((collection.uid, 0)) != 10:
        seen |= (await anext(hints)).positions
        count += 1
    assert count <= 10
    await hints.aclose()  # type: ignore[attr-defined]


async def test_a_lost_notification_is_made_good_by_the_poll(postgres_url: str) -> None:
    async with open_store(postgres_url) as store:
        collection = await store.create_collection(SPEC)
        async with watching(store) as heard:
            await heard.until_catalog(1)
            async with store._database.writing() as connection:
                await connection.exec_driver_sql("UPDATE shards SET last_sequence = 7")  # As a write whose hint was lost.
            await heard.until_position(collection.uid, 0, 7)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_of_postgresql_needs_none_of_ours(postgres: Cluster, postgres_url: str, mode: str) -> None:
    async with open_store(postgres_url) as store:
        collection = await store.create_collection(SPEC)
        await store.commit(collection.uid, chunks("a"))
        async with watching(store) as heard:
            await heard.until_position(collection.uid, 0, 1)
            await asyncio.to_thread(postgres.stop, mode)
            try:
                for use in (store.commit(collection.uid, chunks("lost")), store.collections()):
                    with pytest.raises(BackendUnavailable, match=r"Searches go on.*PENSTOCK_RETRIEVAL_DATABASE_URL"):
                        await use
            finally:
                await asyncio.to_thread(postgres.start)
            commit = await store.commit(collection.uid, chunks("b"))
            await heard.until_position(collection.uid, 0, commit.positions[0])
        assert await stored_ids(store, collection.uid) == ["a", "b"]


async def test_a_writer_whose_connection_is_cut_records_nothing(postgres_url: str) -> None:
    async with open_store(postgres_url) as store, open_store(postgres_url) as other:
        collection = await store.create_collection(SPEC)
        with pytest.raises(BackendUnavailable):
            async with store._database.writing() as connection:
                await connection.exec_driver_sql("UPDATE shards SET last_sequence = 99")
                async with other._database.reading() as killer:
                    await killer.exec_driver_sql(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND state = 'idle in transaction'"
                    )
        assert (await store.commit(collection.uid, chunks("a"))).positions == {0: 1}


@pytest.mark.slow
async def test_a_writer_that_hangs_in_a_transaction_loses_its_locks(postgres_url: str) -> None:
    async with open_store(postgres_url) as store, open_store(postgres_url) as other:
        collection = await store.create_collection(SPEC)
        with pytest.raises(BackendUnavailable):
            async with store._database.writing() as hanging:
                await hanging.exec_driver_sql("SELECT * FROM shards FOR UPDATE")
                assert (await other.commit(collection.uid, chunks("a"))).positions == {0: 1}
                await hanging.exec_driver_sql("SELECT 1")
