"""Between the tables' rows and the service's values."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import orjson

from retrieval_svc.record import tables
from retrieval_svc.values import (
    Chunk,
    Collection,
    CollectionSpec,
    DocumentRecord,
    IndexConfig,
    IndexKind,
    LexicalConfig,
    Matrix,
    Metric,
    Rows,
    StoredChunk,
)

STORED: Final = (
    tables.chunks.c.sequence,
    tables.chunks.c.chunk_id,
    tables.chunks.c.document_id,
    tables.chunks.c.text,
    tables.chunks.c.metadata_json,
    tables.chunks.c.allowed_principals,
)
"""The columns that `stored_chunk` takes."""


def stored_chunk(row: Sequence[Any]) -> StoredChunk:
    """A chunk of a row that begins with the columns of STORED."""
    sequence, chunk_id, document_id, text, metadata_json, principals = row[:6]
    return StoredChunk(
        sequence=sequence,
        id=chunk_id,
        document_id=document_id,
        text=text,
        metadata_json=metadata_json,
        allowed_principals=tuple(orjson.loads(principals)) if principals else (),
    )


def with_vectors(rows: Sequence[Sequence[Any]], dimension: int) -> Rows:
    """Chunks and vectors of rows that have the columns of STORED and the vector."""
    raw = bytearray().join(row[6] for row in rows)  # A bytearray, so that the matrix may be written to.
    vectors = np.frombuffer(raw, dtype="<f4").reshape(len(rows), dimension).astype(np.float32, copy=False)
    return Rows(chunks=tuple(map(stored_chunk, rows)), vectors=vectors)


def stored(chunk: Chunk, sequence: int) -> StoredChunk:
    """What a chunk is once it is stored under a number."""
    return StoredChunk(
        sequence=sequence,
        id=chunk.id,
        document_id=chunk.document_id,
        text=chunk.text,
        metadata_json=chunk.metadata_json,
        allowed_principals=chunk.allowed_principals,
    )


def chunk_rows(uid: int, shard: int, chunks: Sequence[StoredChunk], vectors: Matrix) -> Iterator[tuple[Any, ...]]:
    """The rows of the chunks table, in the order of its columns. Row i of `vectors` is chunk i's."""
    # Parts of one buffer: the drivers read them in place.
    raw = np.ascontiguousarray(vectors, dtype="<f4").data.cast("B") if chunks else memoryview(b"")
    size = 4 * vectors.shape[1]
    for at, chunk in enumerate(chunks):
        principals = orjson.dumps(chunk.allowed_principals).decode() if chunk.allowed_principals else ""
        yield (
            uid, shard, chunk.sequence, chunk.id, chunk.document_id, chunk.text, chunk.metadata_json,
            raw[at * size : (at + 1) * size], principals,
        )  # fmt: skip


def collection_columns(spec: CollectionSpec) -> dict[str, Any]:
    """The columns of a collection, but for its uid."""
    index = asdict(spec.index) | {"kind": spec.index.kind.value}
    return {
        "id": spec.id,
        "embedding_model": spec.embedding_model,
        "embedding_fingerprint": spec.embedding_fingerprint,
        "dimension": spec.dimension,
        "metric": spec.metric.value,
        "index_config": index,
        "lexical_config": asdict(spec.lexical),
        "shard_count": spec.shard_count,
    }


def collection(row: Any) -> Collection:
    """A collection of its columns and `chunk_count`. What its configurations do not say has its default."""
    index = dict(row.index_config)
    kind = IndexKind(index.pop("kind", IndexKind.AUTO.value))
    spec = CollectionSpec(
        id=row.id,
        embedding_model=row.embedding_model,
        embedding_fingerprint=row.embedding_fingerprint,
        dimension=row.dimension,
        metric=Metric(row.metric),
        index=IndexConfig(kind=kind, **index),
        lexical=LexicalConfig(**row.lexical_config),
        shard_count=row.shard_count,
    )
    return Collection(uid=row.uid, spec=spec, chunk_count=int(row.chunk_count))


def document_record(row: Any) -> DocumentRecord:
    """A document of its row."""
    return DocumentRecord(id=row.document_id, content_hash=row.content_hash, chunk_count=row.chunk_count)
