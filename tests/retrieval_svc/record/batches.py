"""Writes to try, and a follower that keeps what it was told."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from retrieval_svc.record.store import SqlStore
from retrieval_svc.values import Changes, Chunk, CollectionSpec, DocumentRecord, Matrix, Metric, Sequences, WriteBatch

SPEC = CollectionSpec(id="docs", embedding_model="", embedding_fingerprint="", dimension=2, metric=Metric.INNER_PRODUCT)


def sharded(shard_count: int, name: str = "sharded") -> CollectionSpec:
    return replace(SPEC, id=name, shard_count=shard_count)


def chunks(*ids: str, document: str = "") -> WriteBatch:
    made = tuple(Chunk(id=chunk_id, document_id=document, text=f"text of {chunk_id}") for chunk_id in ids)
    return WriteBatch(chunks=made, vectors=np.arange(2 * len(ids), dtype=np.float32).reshape(-1, 2))


def deletion(
    *,
    chunk_ids: tuple[str, ...] = (),
    document_ids: tuple[str, ...] = (),
    rows: Mapping[int, list[int]] | None = None,
) -> WriteBatch:
    nothing: Matrix = np.empty((0, 2), dtype=np.float32)
    numbers: dict[int, Sequences] = {shard: np.array(values, dtype=np.int64) for shard, values in (rows or {}).items()}
    return WriteBatch(vectors=nothing, delete_chunk_ids=chunk_ids, delete_document_ids=document_ids, delete_rows=numbers)


def ingest(document: str, *ids: str, content_hash: str = "hash") -> WriteBatch:
    """A document in place of all that was stored of it, and recorded."""
    record = DocumentRecord(id=document, content_hash=content_hash, chunk_count=len(ids))
    return replace(chunks(*ids, document=document), delete_document_ids=(document,), documents=(record,))


@dataclass(slots=True)
class Replica:
    """What a follower of one shard has: sequence number to chunk id. It holds the log to what it promises."""

    shard: int = 0
    position: int = 0
    rows: dict[int, str] = field(default_factory=dict)
    vectors: dict[int, list[float]] = field(default_factory=dict)

    def apply(self, changes: Changes) -> None:
        assert changes.after == self.position <= changes.through
        numbers = changes.stored.sequences.tolist()
        assert numbers == sorted(numbers)
        assert all(changes.after < number <= changes.through for number in numbers)
        assert changes.removed_at.tolist() == sorted(changes.removed_at.tolist())
        assert not set(numbers) & set(changes.removed.tolist())
        self.rows |= {chunk.sequence: chunk.id for chunk in changes.stored.chunks}
        self.vectors |= dict(zip(numbers, changes.stored.vectors.tolist(), strict=True))
        for removed in changes.removed.tolist():
            self.rows.pop(removed, None)
            self.vectors.pop(removed, None)
        self.position = changes.through

    async def catch_up(self, store: SqlStore, uid: int, limit: int = 1000) -> None:
        """Reads the log to its end."""
        while True:
            changes = await store.changes(uid, self.shard, self.position, limit)
            self.apply(changes)
            if changes.after == changes.through:
                return


async def replicas(store: SqlStore, uid: int) -> dict[int, Replica]:
    """Every shard, followed to its end."""
    found = {shard: Replica(shard=shard) for shard in await store.positions(uid)}
    for replica in found.values():
        await replica.catch_up(store, uid)
    return found


async def stored_ids(store: SqlStore, uid: int) -> list[str]:
    return [chunk.id for chunk in await store.chunks_after(uid, "", 100_000)]
