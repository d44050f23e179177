"""The record, in SQL. With `tables` the only module that imports SQLAlchemy.

A write is one transaction: it locks its shard's row, takes the next sequence numbers, and is in the record as a whole or not at
all. Because numbers are given out under that lock, whoever has read the log up to n has seen everything before n. Every
collection has one shard so far.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np
from sqlalchemy import Table, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from penstock.errors import AlreadyExists, BackendUnavailable, CollectionNotFound
from retrieval_svc.record import tables
from retrieval_svc.values import Collection, CollectionSpec, Commit, Matrix, Metric, Sequences, StoredChunk, WriteBatch

_log = logging.getLogger(__name__)

SHARD: Final = 0
"""The only shard so far."""
_IDS_PER_STATEMENT: Final = 1000
"""Well under the number of parameters that a statement may have (SQLite 32,766; PostgreSQL 32,767)."""
_VECTORS_PER_FETCH: Final = 2048

_hit_columns = (
    tables.chunks.c.sequence,
    tables.chunks.c.chunk_id,
    tables.chunks.c.document_id,
    tables.chunks.c.text,
    tables.chunks.c.metadata_json,
)


class SqlStore:
    """The record of collections and chunks. Implements the ports of catalog, ingest and search.

    Raises BackendUnavailable when the database fails (a full disk, a lost connection); then nothing of the write is recorded.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(**{tables.WRITES: True})

    async def prepare(self) -> None:
        """Makes the tables that are missing."""
        async with self._writing() as connection:
            await connection.run_sync(tables.metadata.create_all)

    async def create_collection(self, spec: CollectionSpec) -> Collection:
        """Records an empty collection. Raises AlreadyExists when the id is taken."""
        row = {name: getattr(spec, name) for name in ("id", "embedding_model", "embedding_fingerprint", "dimension")}
        try:
            async with self._writing() as connection:
                new = insert(tables.collections).values(**row, metric=spec.metric.value).returning(tables.collections.c.uid)
                uid = int((await connection.execute(new)).scalar_one())
                await connection.execute(
                    insert(tables.shards).values(collection_uid=uid, shard=SHARD, last_sequence=0, chunk_count=0)
                )
        except IntegrityError as error:
            message = f"the collection {spec.id!r} exists already"
            raise AlreadyExists(message, metadata={"collection": spec.id}) from error
        return Collection(uid=uid, spec=spec, chunk_count=0)

    async def delete_collection(self, uid: int) -> None:
        """Removes a collection and everything in it."""
        async with self._writing() as connection:
            for table in (tables.changes, tables.chunks, tables.shards):
                await connection.execute(delete(table).where(table.c.collection_uid == uid))
            await connection.execute(delete(tables.collections).where(tables.collections.c.uid == uid))

    async def collections(self) -> list[Collection]:
        """Every collection, in the order of ids."""
        query = (
            select(tables.collections, func.sum(tables.shards.c.chunk_count).label("chunk_count"))
            .join(tables.shards, tables.shards.c.collection_uid == tables.collections.c.uid)
            .group_by(tables.collections.c.uid)
            .order_by(tables.collections.c.id)
        )
        async with self._reading() as connection:
            return [_collection(row) for row in await connection.execute(query)]

    async def vectors(self, collection: Collection) -> AsyncIterator[tuple[Sequences, Matrix]]:
        """All vectors of a collection, some thousands at a time, in the order of their sequence numbers."""
        query = select(tables.chunks.c.sequence, tables.chunks.c.vector).order_by(tables.chunks.c.sequence)
        query = query.where(tables.chunks.c.collection_uid == collection.uid, tables.chunks.c.shard == SHARD)
        async with self._reading() as connection:
            rows = await connection.stream(query)
            async for part in rows.partitions(_VECTORS_PER_FETCH):
                joined = b"".join(row.vector for row in part)
                matrix = np.frombuffer(joined, dtype="<f4").reshape(len(part), collection.spec.dimension)
                yield np.array([row.sequence for row in part], dtype=np.int64), matrix.astype(np.float32, copy=False)

    async def commit(self, uid: int, batch: WriteBatch) -> Commit:
        """Makes a write durable, as a whole. Raises CollectionNotFound when the collection is gone."""
        async with self._writing() as connection:
            last, count = await _locked_shard(connection, uid)
            gone = await _present(connection, uid, batch)
            stored = np.arange(last + 1, last + 1 + len(batch.chunks), dtype=np.int64)
            removed = np.array(sorted(gone.values()), dtype=np.int64)
            log = list(_entries(uid, batch, gone, last))
            count += len(batch.chunks) - len(gone)
            await _forget(connection, uid, removed)
            await _insert(connection, tables.chunks, _rows(uid, batch, stored))
            await _insert(connection, tables.changes, log)
            await connection.execute(
                update(tables.shards)
                .where(tables.shards.c.collection_uid == uid, tables.shards.c.shard == SHARD)
                .values(last_sequence=last + len(log), chunk_count=count)
            )
        return Commit(stored=stored, removed=removed, deleted_count=len(log) - len(stored), chunk_count=count)

    async def chunks_by_sequence(self, uid: int, sequences: Sequence[int]) -> list[StoredChunk]:
        """The chunks that are stored under these numbers now, in no order."""
        found: list[StoredChunk] = []
        async with self._reading() as connection:
            for part in _parts(sequences):
                query = select(*_hit_columns).where(
                    tables.chunks.c.collection_uid == uid, tables.chunks.c.shard == SHARD, tables.chunks.c.sequence.in_(part)
                )
                found += [_stored_chunk(row) for row in await connection.execute(query)]
        return found

    async def chunks_after(self, uid: int, chunk_id: str, limit: int) -> list[StoredChunk]:
        """The first `limit` chunks whose ids come after `chunk_id`, in the order of ids."""
        query = select(*_hit_columns).where(tables.chunks.c.collection_uid == uid, tables.chunks.c.chunk_id > chunk_id)
        async with self._reading() as connection:
            rows = await connection.execute(query.order_by(tables.chunks.c.chunk_id).limit(limit))
            return [_stored_chunk(row) for row in rows]

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._writer.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise _unavailable(error) from error

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise _unavailable(error) from error


@asynccontextmanager
async def open_store(database_url: str) -> AsyncIterator[SqlStore]:
    """The store at an SQLAlchemy URL, with its tables made where they are missing; closed on the way out."""
    engine = tables.open_engine(database_url)
    store = SqlStore(engine)
    try:
        await store.prepare()
        yield store
    finally:
        await engine.dispose()


async def _locked_shard(connection: AsyncConnection, uid: int) -> tuple[int, int]:
    query = select(tables.shards.c.last_sequence, tables.shards.c.chunk_count)
    query = query.where(tables.shards.c.collection_uid == uid, tables.shards.c.shard == SHARD).with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise CollectionNotFound("the collection was deleted")
    return row.last_sequence, row.chunk_count


async def _present(connection: AsyncConnection, uid: int, batch: WriteBatch) -> dict[str, int]:
    """The chunks that the write deletes or replaces: chunk id to sequence number."""
    found: dict[str, int] = {}
    chunk_ids = [*batch.delete_chunk_ids, *(chunk.id for chunk in batch.chunks)]
    for column, ids in ((tables.chunks.c.chunk_id, chunk_ids), (tables.chunks.c.document_id, batch.delete_document_ids)):
        for part in _parts(ids):
            query = select(tables.chunks.c.chunk_id, tables.chunks.c.sequence).where(
                tables.chunks.c.collection_uid == uid, column.in_(part)
            )
            found |= {row.chunk_id: row.sequence for row in await connection.execute(query)}
    return found


def _entries(uid: int, batch: WriteBatch, gone: dict[str, int], last: int) -> Iterator[dict[str, Any]]:
    """The entries of a write: one for each chunk stored, then one for each that is gone and was not replaced."""
    replaced = {chunk.id for chunk in batch.chunks}
    entries = [(True, gone.get(chunk.id)) for chunk in batch.chunks]
    entries += [(False, sequence) for chunk_id, sequence in gone.items() if chunk_id not in replaced]
    for sequence, (stored, removed) in enumerate(entries, start=last + 1):
        yield {
            "collection_uid": uid, "shard": SHARD, "sequence": sequence, "stored": stored, "removed_sequence": removed,
        }  # fmt: skip


def _rows(uid: int, batch: WriteBatch, stored: Sequences) -> list[dict[str, Any]]:
    raw = batch.vectors.astype("<f4", copy=False).tobytes()
    size = 4 * batch.vectors.shape[1]
    return [
        {
            "collection_uid": uid, "shard": SHARD, "sequence": sequence, "chunk_id": chunk.id, "document_id": chunk.document_id,
            "text": chunk.text, "metadata_json": chunk.metadata_json, "vector": raw[at * size : (at + 1) * size],
        }
        for at, (chunk, sequence) in enumerate(zip(batch.chunks, stored.tolist(), strict=True))
    ]  # fmt: skip


async def _insert(connection: AsyncConnection, table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        await connection.execute(insert(table), rows)


async def _forget(connection: AsyncConnection, uid: int, sequences: Sequences) -> None:
    for part in _parts(sequences.tolist()):
        await connection.execute(
            delete(tables.chunks).where(
                tables.chunks.c.collection_uid == uid, tables.chunks.c.shard == SHARD, tables.chunks.c.sequence.in_(part)
            )
        )


_T = TypeVar("_T")


def _parts(values: Iterable[_T]) -> Iterator[list[_T]]:
    """The values, as many at a time as one statement takes."""
    rest = iter(values)
    while part := list(islice(rest, _IDS_PER_STATEMENT)):
        yield part


def _collection(row: Any) -> Collection:
    spec = CollectionSpec(
        id=row.id,
        embedding_model=row.embedding_model,
        embedding_fingerprint=row.embedding_fingerprint,
        dimension=row.dimension,
        metric=Metric(row.metric),
    )
    return Collection(uid=row.uid, spec=spec, chunk_count=int(row.chunk_count))


def _stored_chunk(row: Any) -> StoredChunk:
    sequence, chunk_id, document_id, text, metadata_json = row
    return StoredChunk(sequence=sequence, id=chunk_id, document_id=document_id, text=text, metadata_json=metadata_json)


def _unavailable(error: DBAPIError) -> BackendUnavailable:
    """What the caller may know of a database that failed; the whole of it is in the log."""
    cause = error.orig
    kind = getattr(cause, "sqlite_errorname", type(cause).__name__)
    _log.error("the database failed", exc_info=error)
    return BackendUnavailable(f"the record cannot be read or written now ({kind})", metadata={"service": "database"})
