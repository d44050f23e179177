"""Rows for shards: what the record would hand over, and an exact reference to compare with."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson

from retrieval_svc.shards.shard_index import ShardIndex
from retrieval_svc.values import Changes, CollectionSpec, IndexConfig, IndexKind, Matrix, Metric, Rows, ShardQuery, StoredChunk

DIMENSION = 8
NOTHING = np.empty(0, np.int64)


class PlainCodec:
    """Chunks as JSON."""

    def encode(self, chunk: StoredChunk) -> bytes:
        return orjson.dumps([chunk.sequence, chunk.id, chunk.text, chunk.metadata_json, chunk.document_id])

    def decode(self, data: bytes) -> StoredChunk:
        sequence, id_, text, metadata_json, document_id = orjson.loads(data)
        return StoredChunk(sequence=sequence, id=id_, document_id=document_id, text=text, metadata_json=metadata_json)

    def document_id(self, data: bytes) -> str:
        return self.decode(data).document_id


CODEC = PlainCodec()


def spec_of(
    metric: Metric = Metric.INNER_PRODUCT, kind: IndexKind = IndexKind.AUTO, dimension: int = DIMENSION, **config: int
) -> CollectionSpec:
    index = IndexConfig(kind=kind, **config)  # type: ignore[arg-type]
    return CollectionSpec(id="c", embedding_model="", embedding_fingerprint="", dimension=dimension, metric=metric, index=index)


def open_shard(folder: Path, spec: CollectionSpec | None = None) -> ShardIndex:
    return ShardIndex.open(folder, spec=spec or spec_of(), shard=0, codec=CODEC)


def clustered(count: int, dimension: int = DIMENSION, *, seed: int = 0) -> Matrix:
    """Vectors around as many centres as makes about 50 a cluster: nearest neighbours that are worth finding."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(max(1, count // 50), dimension))
    return (centres[random.integers(len(centres), size=count)] + 0.3 * random.normal(size=(count, dimension))).astype(
        np.float32
    )


def stored(
    sequences: Sequence[int],
    vectors: Matrix,
    metadata: Sequence[str] = (),
    principals: Sequence[tuple[str, ...]] = (),
    documents: Sequence[str] = (),
) -> Rows:
    chunks = tuple(
        StoredChunk(
            sequence=sequence,
            id=f"chunk-{sequence}",
            document_id=documents[at] if documents else "",
            text=f"text {sequence}",
            metadata_json=metadata[at] if metadata else "",
            allowed_principals=principals[at] if principals else (),
        )
        for at, sequence in enumerate(sequences)
    )
    return Rows(chunks=chunks, vectors=np.asarray(vectors, np.float32))


def added(after: int, vectors: Matrix, **more: Sequence) -> Changes:  # type: ignore[type-arg]
    """The changes that store a row each."""
    sequences = range(after + 1, after + 1 + len(vectors))
    rows = stored(sequences, vectors, **more)
    return Changes(after=after, through=after + len(vectors), stored=rows, removed=NOTHING, removed_at=NOTHING)


def nothing(after: int, through: int, dimension: int = DIMENSION) -> Changes:
    """Changes that have come to nothing."""
    rows = Rows(chunks=(), vectors=np.empty((0, dimension), np.float32))
    return Changes(after=after, through=through, stored=rows, removed=NOTHING, removed_at=NOTHING)


def removed(after: int, sequences: Sequence[int]) -> Changes:
    """The changes that delete a row each."""
    through = after + len(sequences)
    at = np.arange(after + 1, through + 1)
    return replace(nothing(after, through), removed=np.array(sequences, np.int64), removed_at=at)


def query(vector: Matrix, limit: int = 10, **more: object) -> ShardQuery:
    return ShardQuery(vector=np.asarray(vector, np.float32), limit=limit, **more)  # type: ignore[arg-type]


def exact_scores(vectors: Matrix, vector: Matrix, metric: Metric) -> np.ndarray:
    wide, query = vectors.astype(np.float64), vector.astype(np.float64)
    if metric is Metric.L2:
        return -((wide - query) ** 2).sum(axis=1)
    if metric is Metric.COSINE:
        return wide @ query / (np.linalg.norm(wide, axis=1) * np.linalg.norm(query))
    return wide @ query


def recall(found: Sequence[int], scores: np.ndarray, wanted: int) -> float:
    """The share of the best `wanted` that was found; `scores` by row number, and what is found as row numbers."""
    best = np.argsort(-scores, kind="stable")[:wanted]
    return len(set(best.tolist()) & set(found)) / len(best)
