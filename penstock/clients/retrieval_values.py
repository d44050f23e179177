"""What the retrieval client takes and gives: collections, chunks, how to search, and what was found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Required, TypedDict, overload

from penstock.clients.filters import Filter
from penstock.errors import PenstockError

Metric = Literal["cosine", "inner_product", "l2"]
IndexKind = Literal["auto", "flat", "hnsw", "ivf_sq8", "ivf_pq"]
SearchMode = Literal["dense", "lexical", "hybrid"]
Splitter = Literal["auto", "sentences", "tokens", "markdown"]
Vector = Sequence[float] | bytes
"""A vector's components, or its little-endian float32 bytes as NumPy's `astype("<f4").tobytes()` gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """How vectors are indexed. What is None has a default that suits; protos/penstock/retrieval/v1 has their bounds."""

    kind: IndexKind = "auto"
    hnsw_m: int | None = None
    hnsw_ef_construction: int | None = None
    hnsw_ef_search: int | None = None
    ivf_lists: int | None = None
    ivf_nprobe: int | None = None
    pq_bytes: int | None = None
    rescore_factor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexical:
    """How texts are indexed by their words. `language` is that of stemmer and stop words, "none" for neither."""

    enabled: bool = True
    language: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Chunks that share an embedding model, a dimension and a metric. An empty model: every vector comes from the caller."""

    name: str
    embedding_model: str
    dimension: int
    metric: Metric
    chunk_count: int
    embedding_fingerprint: str
    index: Index = field(default_factory=Index)
    index_kind_in_use: IndexKind = "auto"
    shard_count: int = 0
    lexical: Lexical | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole document, before the service splits it: its `text`, or a file's `content` and what `content_type` it is.

    `metadata` comes back with each hit, at most 64 KiB as JSON. `allowed_principals` are those who may find it; none: everyone.
    """

    id: str
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    content: bytes = b""
    content_type: str = ""
    allowed_principals: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The unit that is stored and found. Without a `vector` the service embeds the text; answers have it when asked to."""

    id: str
    text: str
    document_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    vector: Vector | None = None
    allowed_principals: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Splitting:
    """How documents are split. What is not given is as the service is set."""

    splitter: Splitter = "auto"
    chunk_tokens_max: int | None = None
    overlap_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """How many documents have been stored so far, into how many chunks, and how many were there already just so.

    A search with `consistency_token` waits until it sees all of them.
    """

    document_count: int = 0
    chunk_count: int = 0
    unchanged_count: int = 0
    consistency_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemError:
    """A document of a stream that was not stored: its place in the stream, the first being 0, and why."""

    index: int
    document_id: str
    error: PenstockError


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamIngested(Ingested):
    """What a stream has stored. `errors` are the first 1000 of `error_count`."""

    error_count: int = 0
    errors: tuple[ItemError, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """How many chunks a write stored or deleted. A search with `consistency_token` waits until it sees that."""

    chunk_count: int
    consistency_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How a hybrid search makes one ranking of two: by a weighted sum of scores, or by reciprocal ranks."""

    method: Literal["convex", "reciprocal_rank"] = "convex"
    dense_weight: float | None = None
    rrf_k: int | None = None
    candidates: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """Hits that differ from one another (MMR). `relevance_weight` from 0, only new, to 1, only near."""

    relevance_weight: float | None = None
    candidates: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Hits grouped by document: top_k then counts documents."""

    hits_per_document_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranking:
    """Candidates are read together with the query by a cross-encoder. An empty `model`: the only one."""

    model: str = ""
    candidates: int | None = None


class SearchOptions(TypedDict, total=False):
    """How to search; what is left out is as the service has it.

    `vector` stands in for the text's own in a hybrid or reranked search. `fields` are the parts of a chunk to return: "text",
    "document_id", "metadata", "metadata.KEY", "vector". `page_token` is `next_page_token` of the page
    before. `allow_partial` answers without shards that cannot be reached.
    """

    vector: Vector
    top_k: int | None
    mode: SearchMode
    filter: Filter
    fusion: Fusion
    score_min: float
    diversity: Diversity
    grouping: Grouping
    reranking: Reranking
    ef_search: int
    nprobe: int
    exact: bool
    fields: Sequence[str]
    page_token: str
    consistency_token: str
    allow_partial: bool


class Query(SearchOptions, total=False):
    """One search of a batch."""

    query: Required[str | Vector]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A chunk that was found, with what was asked for of it. `score` is what hits are ordered by: higher is better.

    `dense_score` and `lexical_score` are the sides' own, where a hybrid or reranked search knows them.
    """

    chunk_id: str
    document_id: str
    text: str
    metadata: Mapping[str, Any]
    score: float
    dense_score: float | None = None
    lexical_score: float | None = None
    vector: bytes | None = None
    allowed_principals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits(Sequence[Hit]):
    """The hits of a search, best first, and what is to be said of them all.

    With an empty `next_page_token` there are no more. `missing_shards` are those without which a partial answer was made.
    """

    hits: tuple[Hit, ...] = ()
    next_page_token: str = ""
    partial: bool = False
    missing_shards: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """The vectors of texts, little-endian float32 each, and what made them."""

    vectors: tuple[bytes, ...]
    dimension: int
    model: str
    embedding_fingerprint: str
    token_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingModel:
    """An embedding model that is loaded."""

    name: str
    dimension: int
    window_tokens: int
    backend: str
    embedding_fingerprint: str
    is_default: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatus:
    """A shard on the node that answered. `position` is the last change that searches see, of `record_position` known."""

    shard: int
    position: int
    record_position: int
    row_count: int
    deleted_row_count: int
    head_row_count: int
    segment_count: int
    index_kind: IndexKind
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot of a shard in the snapshot store."""

    id: str
    shard: int
    position: int
    create_time: datetime
    size_bytes: int
