"""What the service is about, as plain values. Nothing here knows protobuf, SQL or FAISS."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""One vector: shape (dimension,)."""
Matrix = NDArray[np.float32]
"""One vector a row: shape (n, dimension), C-contiguous."""
Sequences = NDArray[np.int64]
"""Sequence numbers of changes. The number of the change that stored a chunk is also the chunk's id in the index."""


class Metric(Enum):
    """How nearness is measured; higher is nearer in all of them."""

    COSINE = "cosine"
    INNER_PRODUCT = "inner_product"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingModel:
    """A loaded model. `window_tokens` counts what fits into one pass besides the model's own special tokens.

    `fingerprint` says what makes its vectors (weights, precision, window, pooling): models that share it may be mixed.
    """

    name: str
    dimension: int
    window_tokens: int
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSpec:
    """A collection to create. An empty `embedding_model` means that every vector comes from the caller."""

    id: str
    embedding_model: str
    embedding_fingerprint: str
    dimension: int
    metric: Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A collection that exists. `uid` is never given to another, even when the collection is deleted and its id reused."""

    uid: int
    spec: CollectionSpec
    chunk_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole text, before it is split. `metadata_json` is a JSON object, or empty."""

    id: str
    text: str
    metadata_json: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A chunk to store. `vector` holds little-endian float32, or nothing when the service is to embed the text."""

    id: str
    document_id: str = ""
    text: str
    metadata_json: str = ""
    vector: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class StoredChunk:
    """A chunk as the record has it, without its vector. It never changes: storing its id again makes another.

    Compared by identity, and weakly referable, so that whoever encodes it may keep the result for as long as it lives.
    """

    sequence: int
    id: str
    document_id: str
    text: str
    metadata_json: str

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return 400 + len(self.id) + len(self.document_id) + len(self.text) + len(self.metadata_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A chunk that was found, and how near it is."""

    chunk: StoredChunk
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """What an index found for one query, nearest first: scores and sequence numbers of equal length."""

    scores: NDArray[np.float32]
    sequences: Sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBatch:
    """What one write does, all of it or nothing: first the deletions, then the chunks. Row i of `vectors` is chunk i's."""

    chunks: tuple[Chunk, ...] = ()
    vectors: Matrix
    delete_chunk_ids: tuple[str, ...] = ()
    delete_document_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A write that is durable. `stored` has the sequence number of each chunk of the batch in its order.

    `removed` has those of the chunks that are gone, whether deleted or replaced; `deleted_count` counts the deleted alone.
    """

    stored: Sequences
    removed: Sequences
    deleted_count: int
    chunk_count: int
