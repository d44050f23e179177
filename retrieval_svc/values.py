"""What the service is about, as plain values. Nothing here knows protobuf, SQL or FAISS."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.filters import Filter
from retrieval_svc.light import light

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
    L2 = "l2"
    """Minus the squared Euclidean distance."""


class IndexKind(Enum):
    """How vectors are searched."""

    AUTO = "auto"
    FLAT = "flat"
    HNSW = "hnsw"
    IVF_SQ8 = "ivf_sq8"
    IVF_PQ = "ivf_pq"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexConfig:
    """How an index is built and searched; None: chosen by the number of vectors."""

    kind: IndexKind = IndexKind.AUTO
    hnsw_m: int = 32
    hnsw_ef_construction: int = 80
    hnsw_ef_search: int = 64
    ivf_lists: int | None = None
    ivf_nprobe: int = 16
    pq_bytes: int | None = None
    rescore_factor: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LexicalConfig:
    """Whether texts are indexed by their words. `language` is a two-letter code, or "none": no stemmer and no stop words."""

    enabled: bool = True
    language: str = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingModel:
    """A loaded model. `window_tokens` counts what fits into one pass besides the model's own special tokens.

    `fingerprint` says what makes its vectors (weights, precision, window, pooling): models that share it may be mixed.
    `backend` is what runs it and the precision, for people.
    """

    name: str
    dimension: int
    window_tokens: int
    fingerprint: str
    backend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSpec:
    """A collection to create. An empty `embedding_model` means that every vector comes from the caller."""

    id: str
    embedding_model: str
    embedding_fingerprint: str
    dimension: int
    metric: Metric
    index: IndexConfig = IndexConfig()
    lexical: LexicalConfig = LexicalConfig()
    shard_count: int = 1


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
    content: bytes = b""
    content_type: str = ""
    allowed_principals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A chunk to store. `vector` holds little-endian float32, or nothing when the service is to embed the text."""

    id: str
    document_id: str = ""
    text: str
    metadata_json: str = ""
    vector: bytes = b""
    allowed_principals: tuple[str, ...] = ()


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
    allowed_principals: tuple[str, ...] = ()

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
class Rows:
    """Chunks with their vectors, ascending in sequence number. Row i of `vectors` is chunk i's, as it was given."""

    chunks: tuple[StoredChunk, ...]
    vectors: Matrix

    @property
    def sequences(self) -> Sequences:
        """The rows' sequence numbers."""
        return np.fromiter((chunk.sequence for chunk in self.chunks), dtype=np.int64, count=len(self.chunks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The entries of one shard's log that are numbered above `after`, up to and with `through`.

    `stored` are the rows to add; those that a later entry of the same changes removes again are left out. `removed` are the
    sequence numbers of all rows that are gone, deleted or replaced, the left out among them, and `removed_at` the numbers of
    the entries that say so (ascending). Applied as a whole, they bring a shard at `after` to the state at `through`.
    """

    after: int
    through: int
    stored: Rows
    removed: Sequences
    removed_at: Sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRecord:
    """What the record keeps of an ingested document: `content_hash` is over everything that its chunks depend on."""

    id: str
    content_hash: str
    chunk_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBatch:
    """What one write does, all of it or nothing: first the deletions, then the chunks. Row i of `vectors` is chunk i's.

    `delete_rows` names rows by shard and sequence number: exactly the versions that somebody saw, so that a row that was
    replaced meanwhile stays. `documents` are recorded with the write.
    """

    chunks: tuple[Chunk, ...] = ()
    vectors: Matrix
    delete_chunk_ids: tuple[str, ...] = ()
    delete_document_ids: tuple[str, ...] = ()
    delete_rows: Mapping[int, Sequences] = field(default_factory=dict)
    documents: tuple[DocumentRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A write that is durable. `changes` has what its transaction did to each shard, other writers' part in it included."""

    changes: Mapping[int, Changes]
    deleted_count: int

    @property
    def positions(self) -> dict[int, int]:
        """For each shard the sequence number at which the write is visible."""
        return {shard: changes.through for shard, changes in self.changes.items()}


def shard_of(chunk_id: str, shard_count: int) -> int:
    """The shard of a chunk. Stable for all time: changing it would lose every stored chunk."""
    if shard_count == 1:
        return 0
    return int.from_bytes(blake2b(chunk_id.encode(), digest_size=8).digest(), "little") % shard_count


@dataclass(frozen=True, slots=True, kw_only=True)
class Visibility:
    """Whose eyes a search has: rows whose access list is empty or has one of `principals`. None: every row."""

    principals: frozenset[str] | None = frozenset()


EVERYTHING: Final = Visibility(principals=None)
"""For the service's own reads, and for callers that may see everything."""


@light
class ShardQuery:
    """What is asked of one shard. A vector, a text, or both; each side gives at most `limit` rows. None: the collection's own.

    `document_id` wants rows of that document alone, each of which is compared; empty: of any. `with_chunks` wants the rows'
    chunks with the dense side, which saves a fetch where that side is the answer.
    """

    vector: Vector | None = None
    text: str = ""
    limit: int
    filter: Filter | None = None
    visibility: Visibility = EVERYTHING
    document_id: str = ""
    ef_search: int | None = None
    nprobe: int | None = None
    exact: bool = False
    with_chunks: bool = False


@light
class Ranked:
    """Rows, best first: scores and sequence numbers of equal length, and the rows' encoded chunks where they were asked for."""

    scores: NDArray[np.float32]
    sequences: Sequences
    chunks: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmetCondition:
    """A condition that no row could meet of those that a shard has or has had.

    `present` are the types that the field has, or had, there; none: no row has had it.
    """

    field: str
    wanted: str
    present: frozenset[str] = frozenset()


@light
class ShardFound:
    """What a shard found for one query."""

    dense: Ranked | None = None
    lexical: Ranked | None = None
    unmet: tuple[UnmetCondition, ...] = ()


@light
class ShardAnswer:
    """What a shard found, one entry a query, and how many rows it has."""

    shard: int
    found: tuple[ShardFound, ...]
    row_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedRows:
    """Rows that were read by number; those that are gone are left out. `vectors` as they were given, where asked for."""

    sequences: Sequences
    chunks: tuple[bytes, ...]
    vectors: Matrix | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedRows:
    """The rows of a shard that match a filter, ascending, and how many rows it has."""

    sequences: Sequences
    unmet: tuple[UnmetCondition, ...] = ()
    row_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatus:
    """The state of one shard on one node."""

    shard: int
    position: int
    record_position: int
    row_count: int
    deleted_row_count: int
    head_row_count: int
    segment_count: int
    index_kind: IndexKind
    size_bytes: int
