import asyncio
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from penstock.errors import FailedPrecondition
from retrieval_svc.record import tables
from retrieval_svc.record.database import Database
from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.values import IndexConfig, LexicalConfig
from tests.retrieval_svc.record import tables_of_0_2
from tests.retrieval_svc.record.batches import Replica, chunks, stored_ids


def differences(connection: Connection) -> list[Any]:
    options = {"compare_type": True, "compare_server_default": True}
    found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)
    return found


async def test_the_migrations_make_the_tables_that_the_code_uses(store: SqlStore) -> None:
    async with store._database.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_a_column_that_no_migration_makes_would_be_noticed(store: SqlStore) -> None:
    async with store._database.writing() as connection:
        await connection.execute(text("ALTER TABLE chunks DROP COLUMN allowed_principals"))
        assert len(await connection.run_sync(differences)) == 1


async def make_0_2(database_url: str) -> None:
    """A database as version 0.2 left it, with a collection in which chunks were replaced and deleted."""
    database = Database(database_url)
    async with database.writing() as connection:
        await connection.run_sync(tables_of_0_2.metadata.create_all)
        for statement in (
            (
                "INSERT INTO collections (id, embedding_model, embedding_fingerprint, dimension, metric) "
                "VALUES ('docs', '', '', 2, 'l2')"
            ),
            "INSERT INTO shards VALUES (1, 0, 5, 2)",
        ):
            await connection.execute(text(statement))
        chunk = text("INSERT INTO chunks VALUES (1, 0, :sequence, :id, 'd', 'text', '', :vector)")
        for sequence, chunk_id in ((3, "a"), (4, "c")):
            await connection.execute(chunk, {"sequence": sequence, "id": chunk_id, "vector": bytes(8)})
        entry = text("INSERT INTO changes VALUES (1, 0, :sequence, :stored, :removed)")
        for sequence, stored, removed in ((1, True, None), (2, True, None), (3, True, 1), (4, True, None), (5, False, 2)):
            await connection.execute(entry, {"sequence": sequence, "stored": stored, "removed": removed})
    await database.close()


async def test_a_database_of_version_0_2_is_upgraded_in_place(database_url: str) -> None:
    await make_0_2(database_url)
    async with open_store(database_url) as store:
        [docs] = await store.collections()
        assert (docs.spec.id, docs.spec.shard_count, docs.chunk_count) == ("docs", 1, 2)
        assert (docs.spec.index, docs.spec.lexical) == (IndexConfig(), LexicalConfig())
        replica = Replica()
        await replica.catch_up(store, docs.uid)
        assert (replica.position, replica.rows) == (5, {3: "a", 4: "c"})
        assert (await store.changes(docs.uid, 0, 2, 10)).removed.tolist() == [1, 2]
        assert (await store.commit(docs.uid, chunks("a", "e"))).positions == {0: 7}
        assert await stored_ids(store, docs.uid) == ["a", "c", "e"]
        async with store._database.reading() as connection:
            assert await connection.run_sync(differences) == []


async def test_nodes_that_start_at_once_upgrade_once(database_url: str) -> None:
    await make_0_2(database_url)

    async def start() -> int:
        async with open_store(database_url) as store:
            return len(await store.collections())

    assert await asyncio.gather(*(start() for _ in range(6))) == [1] * 6


async def test_nodes_that_start_at_once_make_the_tables_once(database_url: str) -> None:
    async def start() -> int:
        async with open_store(database_url) as store:
            return len(await store.collections())

    assert await asyncio.gather(*(start() for _ in range(6))) == [0] * 6


async def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    async with open_store(database_url) as store, store._database.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(FailedPrecondition, match="newer"):
        async with open_store(database_url):
            pass
