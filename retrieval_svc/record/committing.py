"""A write, as one transaction: lock shards -> remove -> store -> tell. It is in the record as a whole or not at all.

Sequence numbers are given out under the lock of the shard's row, which is held until the commit, so whoever has read a shard's
log up to n has seen everything before n. Locks are taken in ascending order of shard.

A document's chunks may lie in any shard. Its home shard (the one that its id falls into) stands for the document itself: writes
that touch the document lock that too, and so come one after another. Where its present chunks lie is read under the locks; when
some lie in a shard that is not locked, the write starts again with that shard as well.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import and_, bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.errors import AlreadyExists, CollectionNotFound
from retrieval_svc.record import tables
from retrieval_svc.record.database import Database, insert_rows, one_of
from retrieval_svc.record.hints import notify
from retrieval_svc.record.rows import chunk_rows, stored
from retrieval_svc.values import Changes, Rows, WriteBatch, shard_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """A chunk that a write removed."""

    shard: int
    sequence: int
    chunk_id: str
    document_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A write that is durable: what it did to each shard, and what it deleted or replaced."""

    changes: Mapping[int, Changes]
    gone: tuple[Gone, ...]

    def deleted_by(self, batch: WriteBatch) -> int:
        """How many chunks are gone, and not replaced, because of one of the batches of which the write was made."""
        stored_ids = {chunk.id for chunk in batch.chunks}
        ids, documents = set(batch.delete_chunk_ids), set(batch.delete_document_ids)
        return sum(
            gone.chunk_id not in stored_ids
            and (gone.chunk_id in ids or gone.document_id in documents or gone.shard in batch.delete_rows)
            for gone in self.gone
        )


async def write(database: Database, uid: int, shard_count: int, batch: WriteBatch) -> Written:
    """Makes a write durable. Raises CollectionNotFound when its collection is gone."""
    locked = _shards(batch, shard_count)
    while True:
        try:
            async with database.writing() as connection:
                return await _write(connection, uid, shard_count, batch, locked)
        except _MoreShards as more:
            locked |= more.shards


def check(batch: WriteBatch) -> None:
    """Raises AlreadyExists when a chunk's id comes twice."""
    if len({chunk.id for chunk in batch.chunks}) < len(batch.chunks):
        raise AlreadyExists("a chunk's id comes twice in one write; give each id once")


class _MoreShards(Exception):
    """The write needs these shards too."""

    def __init__(self, shards: set[int]) -> None:
        super().__init__(shards)
        self.shards = shards


@dataclass(slots=True, kw_only=True)
class _ShardWrite:
    """What a write does to one shard."""

    last_sequence: int
    chunk_count: int
    rows: list[int] = field(default_factory=list)
    """Which of the batch's chunks it stores."""
    gone: dict[str, int] = field(default_factory=dict)
    """Chunk id to sequence number of what it removes."""

    def changes(self, batch: WriteBatch) -> Changes:
        """Its entries: one for each chunk stored, which may replace another, then one for each that is gone for good."""
        first = self.last_sequence + 1
        whole = len(self.rows) == len(batch.chunks)
        given = batch.chunks if whole else [batch.chunks[row] for row in self.rows]
        chunks = tuple(stored(chunk, sequence) for sequence, chunk in enumerate(given, start=first))
        gone = dict(self.gone)
        removals = [(chunk.sequence, gone.pop(chunk.id)) for chunk in chunks if chunk.id in gone] if gone else []
        removals += enumerate(sorted(gone.values()), start=first + len(chunks))
        at, removed = zip(*removals, strict=True) if removals else ((), ())
        return Changes(
            after=self.last_sequence,
            through=self.last_sequence + len(chunks) + len(gone),
            stored=Rows(chunks=chunks, vectors=batch.vectors if whole else batch.vectors[self.rows]),
            removed=np.array(removed, dtype=np.int64),
            removed_at=np.array(at, dtype=np.int64),
        )


def _shards(batch: WriteBatch, shard_count: int) -> set[int]:
    """The shards that the write is known to touch: those of its chunks' ids and its documents' homes."""
    if shard_count == 1:
        return {0}
    documents = _documents(batch.chunks) | set(batch.delete_document_ids) | {document.id for document in batch.documents}
    ids = {chunk.id for chunk in batch.chunks} | set(batch.delete_chunk_ids) | documents
    return {shard_of(chunk_id, shard_count) for chunk_id in ids} | set(batch.delete_rows)


def _documents(chunks: Iterable[Any]) -> set[str]:
    return {chunk.document_id for chunk in chunks} - {""}


async def _write(connection: AsyncConnection, uid: int, shard_count: int, batch: WriteBatch, locked: set[int]) -> Written:
    writes = await _lock(connection, uid, locked)
    if shard_count > 1:
        await _check_documents(connection, uid, batch, locked)
    gone = await _remove(connection, uid, batch)
    for former in gone:
        writes[former.shard].gone[former.chunk_id] = former.sequence
    for row, chunk in enumerate(batch.chunks):
        writes[shard_of(chunk.id, shard_count)].rows.append(row)
    changes = {shard: write.changes(batch) for shard, write in writes.items() if write.rows or write.gone}
    await insert_rows(connection, tables.chunks, list(_chunk_rows(uid, changes)))
    await insert_rows(connection, tables.removals, list(_removal_rows(uid, changes)))
    await _record_documents(connection, uid, batch, _documents(gone))
    await _advance(connection, uid, writes, changes)
    await notify(connection, uid, {shard: change.through for shard, change in changes.items()})
    return Written(changes=changes, gone=tuple(gone))


async def _lock(connection: AsyncConnection, uid: int, shards: set[int]) -> dict[int, _ShardWrite]:
    table = tables.shards.c
    query = select(table.shard, table.last_sequence, table.chunk_count).where(table.collection_uid == uid)
    query = query.where(one_of(table.shard, sorted(shards), connection)).order_by(table.shard).with_for_update()
    found = {
        row.shard: _ShardWrite(last_sequence=row.last_sequence, chunk_count=row.chunk_count)
        for row in await connection.execute(query)
    }
    if len(found) < len(shards):
        raise CollectionNotFound("the collection was deleted")
    return found


async def _check_documents(connection: AsyncConnection, uid: int, batch: WriteBatch, locked: set[int]) -> None:
    if not batch.delete_document_ids:
        return
    table = tables.chunks.c
    query = select(table.shard).distinct().where(table.collection_uid == uid)
    query = query.where(one_of(table.document_id, batch.delete_document_ids, connection))
    if more := set(await connection.scalars(query)) - locked:
        raise _MoreShards(more)


async def _remove(connection: AsyncConnection, uid: int, batch: WriteBatch) -> list[Gone]:
    """Removes what the write deletes or replaces."""
    table = tables.chunks.c
    conditions = [
        one_of(column, values, connection)
        for column, values in (
            (table.chunk_id, [*batch.delete_chunk_ids, *(chunk.id for chunk in batch.chunks)]),
            (table.document_id, batch.delete_document_ids),
        )
        if values
    ]
    conditions += [
        and_(table.shard == shard, one_of(table.sequence, sequences.tolist(), connection))
        for shard, sequences in sorted(batch.delete_rows.items())
    ]
    gone: list[Gone] = []
    for condition in conditions:
        statement = delete(tables.chunks).where(table.collection_uid == uid, condition)
        rows = await connection.execute(statement.returning(table.shard, table.sequence, table.chunk_id, table.document_id))
        gone += [Gone(shard=row[0], sequence=row[1], chunk_id=row[2], document_id=row[3]) for row in rows]
    return gone


def _chunk_rows(uid: int, changes: Mapping[int, Changes]) -> Iterator[tuple[Any, ...]]:
    for shard, change in changes.items():
        yield from chunk_rows(uid, shard, change.stored.chunks, change.stored.vectors)


def _removal_rows(uid: int, changes: Mapping[int, Changes]) -> Iterator[tuple[Any, ...]]:
    for shard, change in changes.items():
        stored_through = change.after + len(change.stored.chunks)
        for at, removed in zip(change.removed_at.tolist(), change.removed.tolist(), strict=True):
            yield uid, shard, at, removed, at <= stored_through


async def _record_documents(connection: AsyncConnection, uid: int, batch: WriteBatch, of_gone: set[str]) -> None:
    """Records the batch's documents, and forgets every other whose chunks the write touches: it is no longer as it was."""
    changed = _documents(batch.chunks) | of_gone | {*batch.delete_document_ids} | {document.id for document in batch.documents}
    if not changed:
        return
    table = tables.documents.c
    mine = and_(table.collection_uid == uid, one_of(table.document_id, sorted(changed), connection))
    # Locked in the order of ids: two writes that touch the same documents from different shards do not wait for each other.
    ordered = select(table.document_id).where(mine).order_by(table.document_id).with_for_update()
    if found := list(await connection.scalars(ordered)):
        found_here = one_of(table.document_id, found, connection)
        await connection.execute(delete(tables.documents).where(table.collection_uid == uid, found_here))
    rows = [(uid, document.id, document.content_hash, document.chunk_count) for document in batch.documents]
    await insert_rows(connection, tables.documents, rows)


async def _advance(
    connection: AsyncConnection, uid: int, writes: Mapping[int, _ShardWrite], changes: Mapping[int, Changes]
) -> None:
    if not changes:
        return
    table = tables.shards.c
    statement = update(tables.shards).where(table.collection_uid == uid, table.shard == bindparam("of_shard"))
    rows = [
        {
            "of_shard": shard,
            "last_sequence": change.through,
            "chunk_count": writes[shard].chunk_count + len(change.stored.chunks) - len(writes[shard].gone),
        }
        for shard, change in changes.items()
    ]
    await connection.execute(
        statement.values(last_sequence=bindparam("last_sequence"), chunk_count=bindparam("chunk_count")), rows
    )
