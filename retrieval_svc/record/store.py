"""The record, in SQL: collections, what is stored in them, and each shard's log."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError, ProgrammingError

from penstock.errors import AlreadyExists, BackendUnavailable, CollectionNotFound
from retrieval_svc.record import committing, hints, tables
from retrieval_svc.record.building import DELETED, CollectionBuilds
from retrieval_svc.record.database import Database, one_of, refused_at_start
from retrieval_svc.record.following import ShardLog
from retrieval_svc.record.grouping import Lane
from retrieval_svc.record.migrating import migrate
from retrieval_svc.record.rows import STORED, collection, collection_columns, document_record, stored_chunk
from retrieval_svc.values import (
    Changes,
    Collection,
    CollectionSpec,
    Commit,
    DocumentRecord,
    Rows,
    StoredChunk,
    WriteBatch,
)


class SqlStore:
    """The record of collections and chunks. Implements the ports of catalog, ingest and followers.

    Raises BackendUnavailable when the database fails (a full disk, a lost connection); then nothing of a write is recorded,
    unless the connection was lost while it was being committed. What is written again as it was changes nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.builds = CollectionBuilds(database)
        self._facts: dict[int, tuple[int, int]] = {}
        self._lanes: dict[int, Lane] = {}

    async def prepare(self) -> None:
        """Brings the database to today's tables, and ends deletions that were broken off. Any number of nodes may at once."""
        await migrate(self._database)
        await self.finish_deletions()

    async def finish_deletions(self) -> None:
        """Removes the rows of collections that are gone: deletions that were broken off, and what builds replaced."""
        for uid, shard_count in await self._half_deleted():
            await self._clear(uid, dict.fromkeys(range(shard_count), 2**63 - 1))

    async def close(self) -> None:
        """Ends what is being written and closes every connection."""
        for lane in list(self._lanes.values()):
            await lane.end()
        await self._database.close()

    async def create_collection(self, spec: CollectionSpec) -> Collection:
        """Records an empty collection. Raises AlreadyExists when the id is taken."""
        try:
            async with self._database.writing() as connection:
                new = insert(tables.collections).values(**collection_columns(spec)).returning(tables.collections.c.uid)
                uid = int((await connection.execute(new)).scalar_one())
                rows = [
                    {"collection_uid": uid, "shard": shard, "last_sequence": 0, "chunk_count": 0}
                    for shard in range(spec.shard_count)
                ]
                await connection.execute(insert(tables.shards), rows)
                await hints.notify_catalog(connection)
        except IntegrityError as error:
            message = f"the collection {spec.id!r} exists already"
            raise AlreadyExists(message, metadata={"collection": spec.id}) from error
        return Collection(uid=uid, spec=spec, chunk_count=0)

    async def delete_collection(self, uid: int) -> None:
        """Removes a collection and everything in it. Its name is free, and it can't be written to, before its rows are gone."""
        table = tables.shards.c
        async with self._database.writing() as connection:
            locked = select(table.shard, table.last_sequence).where(table.collection_uid == uid).order_by(table.shard)
            ends = {row.shard: row.last_sequence for row in await connection.execute(locked.with_for_update())}
            await connection.execute(delete(tables.shards).where(table.collection_uid == uid))
            renamed = update(tables.collections).where(tables.collections.c.uid == uid).values(id=f"{DELETED}{uid}")
            await connection.execute(renamed)
            await hints.notify_catalog(connection)
        self._facts.pop(uid, None)
        self._lanes.pop(uid, None)
        await self._clear(uid, ends)

    async def collections(self) -> list[Collection]:
        """Every collection, in the order of ids."""
        query = (
            select(tables.collections, func.sum(tables.shards.c.chunk_count).label("chunk_count"))
            .join(tables.shards, tables.shards.c.collection_uid == tables.collections.c.uid)
            .group_by(tables.collections.c.uid)
            .order_by(tables.collections.c.id)
        )
        async with self._database.reading() as connection:
            return [collection(row) for row in await connection.execute(query)]

    async def commit(self, uid: int, batch: WriteBatch) -> Commit:
        """Makes a write durable, as a whole.

        Small writes that come while another is under way share a transaction: the changes of the commit then hold all of
        theirs. Raises CollectionNotFound when the collection is gone, AlreadyExists when a chunk's id comes twice in it.
        """
        committing.check(batch)
        _, shard_count = await self._facts_of(uid)
        if uid not in self._lanes:
            self._lanes[uid] = Lane(write=partial(committing.write, self._database, uid, shard_count))
        return await self._lanes[uid].commit(batch)

    async def positions(self, uid: int) -> dict[int, int]:
        """The sequence number of the last change of each shard. Raises CollectionNotFound."""
        table = tables.shards.c
        query = select(table.shard, table.last_sequence).where(table.collection_uid == uid)
        async with self._database.reading() as connection:
            found = {row.shard: row.last_sequence for row in await connection.execute(query)}
        if not found:
            raise _gone()
        return found

    async def changes(self, uid: int, shard: int, after: int, limit: int) -> Changes:
        """The log above `after`: about `limit` entries, more where the state between would lack a chunk that is not deleted.

        Raises CollectionNotFound, and LogTrimmedError when the log can't be followed from there.
        """
        return await (await self._log(uid, shard)).changes(after, limit)

    async def rows(self, uid: int, shard: int, through: int) -> AsyncIterator[Rows]:
        """What is stored under numbers up to `through`, in parts.

        Rows that were replaced meanwhile are missing, so follow the log to where `positions` is afterwards before you search.
        """
        async for part in (await self._log(uid, shard)).rows(through):
            yield part

    def watch(self) -> AsyncIterator[hints.Hint]:
        """Hints that something changed, for ever."""
        return hints.watch(self._database)

    async def trim(self, uid: int, shard: int, through: int) -> None:
        """Forgets a shard's log up to `through`: whoever is behind that begins with the rows. Raises CollectionNotFound."""
        await (await self._log(uid, shard)).trim(through)

    async def chunks_after(self, uid: int, chunk_id: str, limit: int) -> list[StoredChunk]:
        """The first `limit` chunks whose ids come after `chunk_id`, in the order of ids."""
        table = tables.chunks.c
        query = select(*STORED).where(table.collection_uid == uid, table.chunk_id > chunk_id)
        async with self._database.reading() as connection:
            return [stored_chunk(row) for row in await connection.execute(query.order_by(table.chunk_id).limit(limit))]

    async def chunks_by_id(self, uid: int, chunk_ids: Sequence[str]) -> list[StoredChunk]:
        """The chunks of these ids that exist, in no order."""
        table = tables.chunks.c
        async with self._database.reading() as connection:
            query = select(*STORED).where(table.collection_uid == uid, one_of(table.chunk_id, chunk_ids, connection))
            return [stored_chunk(row) for row in await connection.execute(query)]

    async def documents_by_id(self, uid: int, document_ids: Sequence[str]) -> list[DocumentRecord]:
        """What is recorded of these documents, in no order. A document of which a chunk was changed by itself has no record."""
        table = tables.documents
        async with self._database.reading() as connection:
            query = select(table).where(table.c.collection_uid == uid, one_of(table.c.document_id, document_ids, connection))
            return [document_record(row) for row in await connection.execute(query)]

    async def documents_after(self, uid: int, document_id: str, limit: int) -> list[DocumentRecord]:
        """The first `limit` documents that are recorded and whose ids come after `document_id`, in the order of ids."""
        table = tables.documents
        query = select(table).where(table.c.collection_uid == uid, table.c.document_id > document_id)
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(table.c.document_id).limit(limit))
            return [document_record(row) for row in rows]

    async def _log(self, uid: int, shard: int) -> ShardLog:
        dimension, _ = await self._facts_of(uid)
        return ShardLog(database=self._database, uid=uid, shard=shard, dimension=dimension)

    async def _facts_of(self, uid: int) -> tuple[int, int]:
        """Dimension and number of shards, which never change."""
        if uid not in self._facts:
            table = tables.collections.c
            async with self._database.reading() as connection:
                row = (
                    await connection.execute(select(table.dimension, table.shard_count).where(table.uid == uid))
                ).one_or_none()
            if row is None:
                raise _gone()
            self._facts[uid] = (row.dimension, row.shard_count)
        return self._facts[uid]

    async def _half_deleted(self) -> list[Any]:
        table = tables.collections.c
        query = select(table.uid, table.shard_count).where(table.id.startswith(DELETED, autoescape=True))
        async with self._database.reading() as connection:
            return list(await connection.execute(query))

    async def _clear(self, uid: int, ends: dict[int, int]) -> None:
        """Removes what is left of a collection whose shards are gone."""
        for shard, end in ends.items():
            log = ShardLog(database=self._database, uid=uid, shard=shard, dimension=0)
            await log.delete(tables.removals, end)
            await log.delete(tables.chunks, end)
        async with self._database.writing() as connection:
            await connection.execute(delete(tables.documents).where(tables.documents.c.collection_uid == uid))
            await connection.execute(delete(tables.collections).where(tables.collections.c.uid == uid))


@asynccontextmanager
async def open_store(database_url: str) -> AsyncIterator[SqlStore]:
    """The store at an SQLAlchemy URL with an async driver, its tables brought up to date; closed on the way out.

    Raises BackendUnavailable when the database cannot be reached or used, FailedPrecondition when the URL is wrong or a newer
    version has written the database.
    """
    database = Database(database_url)
    store = SqlStore(database)
    try:
        await _prepared(store, database)
        yield store
    finally:
        await store.close()


async def _prepared(store: SqlStore, database: Database) -> None:
    try:
        await store.prepare()
    except (BackendUnavailable, ProgrammingError) as error:  # The latter where a user may not make tables.
        raise refused_at_start(database, error) from error


def _gone() -> CollectionNotFound:
    return CollectionNotFound("the collection was deleted")
