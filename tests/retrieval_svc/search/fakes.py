"""A collection in memory behind the ports of the search: exact by brute force, so that it can serve as the reference too."""

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import orjson
from numpy.typing import NDArray
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock.errors import FailedPrecondition, PenstockError
from retrieval_svc.filters import Filter
from retrieval_svc.search.calls import SearchCall, SearchLimits, SearchResult
from retrieval_svc.search.gathering import FetchedRow, Gathered, GatheredRows
from retrieval_svc.search.reranking import Reranking
from retrieval_svc.search.searching import Search
from retrieval_svc.values import (
    Collection,
    CollectionSpec,
    LexicalConfig,
    Matrix,
    Metric,
    Sequences,
    ShardQuery,
    StoredChunk,
    Vector,
    Visibility,
)

DIMENSION = 16


class JsonCodec:
    """Chunks as JSON. Counts what it is asked, so that a test can tell that it was not."""

    def __init__(self) -> None:
        self.reads = 0

    def encode(self, chunk: StoredChunk) -> bytes:
        return orjson.dumps({"id": chunk.id, "document_id": chunk.document_id, "text": chunk.text})

    def decode(self, encoded: bytes) -> StoredChunk:
        self.reads += 1
        return StoredChunk(sequence=0, metadata_json="", **orjson.loads(encoded))

    def chunk_id(self, encoded: bytes) -> str:
        return self.decode(encoded).id

    def document_id(self, encoded: bytes) -> str:
        return self.decode(encoded).document_id

    def text(self, encoded: bytes) -> str:
        return self.decode(encoded).text

    def select(self, encoded: bytes, fields: Sequence[str], vector: Vector | None) -> bytes:
        kept = {name: value for name, value in orjson.loads(encoded).items() if name in {"id", *fields}}
        return orjson.dumps(kept | ({"vector": vector.tolist()} if vector is not None else {}))


@dataclass(frozen=True, kw_only=True)
class Row:
    shard: int
    sequence: int
    chunk: StoredChunk
    vector: Vector


def row(number: int, vector: Vector, *, text: str = "", document_id: str = "", shard_count: int = 2) -> Row:
    chunk = StoredChunk(
        sequence=number, id=f"c{number}", document_id=document_id, text=text or f"text{number}", metadata_json=""
    )
    return Row(shard=number % shard_count, sequence=number, chunk=chunk, vector=np.asarray(vector, dtype=np.float32))


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def nearness(metric: Metric, query: Vector, vector: Vector) -> float:
    wide, other = query.astype(np.float64), vector.astype(np.float64)
    if metric is Metric.L2:
        return -float(((wide - other) ** 2).sum())
    product = float(wide @ other)
    return product / float(np.linalg.norm(wide) * np.linalg.norm(other)) if metric is Metric.COSINE else product


@dataclass
class FakeGatherer:
    """All rows, ranked by brute force. A row in `gone` is found by searches and read by nobody, `gone_reads` times."""

    rows: list[Row]
    metric: Metric = Metric.COSINE
    codec: JsonCodec = field(default_factory=JsonCodec)
    gathers: list[tuple[list[ShardQuery], Mapping[int, int], bool]] = field(default_factory=list)
    fetches: list[tuple[int, bool]] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    gone_reads: int = 10**9
    missing_shards: tuple[int, ...] = ()
    error: PenstockError | None = None
    on_gather: Callable[[], None] = lambda: None

    async def gather(
        self, collection: Collection, queries: Sequence[ShardQuery], *, at_least: Mapping[int, int], allow_partial: bool
    ) -> list[Gathered]:
        self.gathers.append((list(queries), at_least, allow_partial))
        self.on_gather()
        if self.error:
            raise self.error
        return [self._gathered(query) for query in queries]

    async def fetch(
        self, collection: Collection, shards: NDArray[np.int32], sequences: Sequences, *, with_vectors: bool
    ) -> list[FetchedRow | None]:
        self.fetches.append((len(sequences), with_vectors))
        hidden = self.gone if self.gone_reads > 0 else set()
        self.gone_reads -= 1
        by_key = {(row.shard, row.sequence): row for row in self.rows if row.sequence not in hidden}
        found = [by_key.get(key) for key in zip(shards.tolist(), sequences.tolist(), strict=True)]
        return [
            None
            if each is None
            else FetchedRow(chunk=self.codec.encode(each.chunk), vector=each.vector if with_vectors else None)
            for each in found
        ]

    async def match(
        self, collection: Collection, filter_: Filter, visibility: Visibility, *, at_least: Mapping[int, int]
    ) -> dict[int, Sequences]:
        raise NotImplementedError

    def dense(self, vector: Vector, document_id: str = "") -> list[tuple[float, Row]]:
        return ordered([(nearness(self.metric, vector, row.vector), row) for row in self._here(document_id)])

    def lexical(self, text: str, document_id: str = "") -> list[tuple[float, Row]]:
        """Each shared word counts, rarely the same for two rows; those that share none are not found."""
        wanted = words(text)
        scores = [
            (sum(1 + zlib.crc32(word.encode()) % 7 / 10 for word in wanted & words(row.chunk.text)), row)
            for row in self._here(document_id)
        ]
        return ordered([(float(np.float32(score)), row) for score, row in scores if score])

    def _here(self, document_id: str) -> list[Row]:
        return [row for row in self.rows if row.shard not in self.missing_shards and document_id in {"", row.chunk.document_id}]

    def _gathered(self, query: ShardQuery) -> Gathered:
        asked = query.document_id
        dense = self._columns(self.dense(query.vector, asked), query) if query.vector is not None else None
        lexical = self._columns(self.lexical(query.text, asked), query, chunks=False) if query.text else None
        return Gathered(dense=dense, lexical=lexical, missing_shards=self.missing_shards)

    def _columns(self, found: list[tuple[float, Row]], query: ShardQuery, *, chunks: bool = True) -> GatheredRows:
        found = found[: query.limit]
        return GatheredRows(
            scores=np.array([score for score, _ in found], dtype=np.float32),
            shards=np.array([row.shard for _, row in found], dtype=np.int32),
            sequences=np.array([row.sequence for _, row in found], dtype=np.int64),
            chunks=tuple(self.codec.encode(row.chunk) for _, row in found) if chunks and query.with_chunks else (),
        )


def ordered(found: list[tuple[float, Row]]) -> list[tuple[float, Row]]:
    return sorted(found, key=lambda each: (-each[0], each[1].shard, each[1].sequence))


class HashEmbeddings:
    """A text's vector is drawn from its hash. Notes what was embedded together."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    async def queries(self, texts: Sequence[str]) -> Matrix:
        self.batches.append(list(texts))
        return np.stack([embedded(text) for text in texts])


def embedded(text: str) -> Vector:
    return np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIMENSION).astype(np.float32)


@dataclass
class FakeCollections:
    """Everything is open until it is closed."""

    embeddings: HashEmbeddings
    open: bool = True

    def is_open(self, collection: Collection) -> bool:
        return self.open

    def embeddings_for(self, spec: CollectionSpec) -> HashEmbeddings:
        if not spec.embedding_model:
            raise FailedPrecondition("no embedding model: give a vector")
        return self.embeddings


@dataclass
class Bench:
    """A search over a fake collection, and all that it stands on."""

    gatherer: FakeGatherer
    collection: Collection
    collections: FakeCollections
    search: Search
    exporter: InMemorySpanExporter

    async def run(self, call: SearchCall) -> SearchResult:
        return await self.search.search(self.collection, call)

    async def ids(self, call: SearchCall) -> list[str]:
        return chunk_ids(await self.run(call))

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


def chunk_ids(result: SearchResult) -> list[str]:
    return [orjson.loads(chunk)["id"] for chunk in result.chunks]


def bench(
    rows: Sequence[Row],
    *,
    metric: Metric = Metric.COSINE,
    lexical: bool = True,
    embedding_model: str = "hash",
    top_k_max: int = 1000,
    rerankings: Mapping[str, Reranking] | None = None,
    capture_content: bool = False,
) -> Bench:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    gatherer = FakeGatherer(rows=list(rows), metric=metric)
    collections = FakeCollections(embeddings=HashEmbeddings())
    spec = CollectionSpec(
        id="texts", embedding_model=embedding_model, embedding_fingerprint=embedding_model, dimension=DIMENSION, metric=metric,
        lexical=LexicalConfig(enabled=lexical), shard_count=2,
    )  # fmt: skip
    search = Search(
        collections, gatherer, gatherer.codec, rerankings=rerankings or {},
        limits=SearchLimits(top_k_max=top_k_max, query_text_bytes_max=1000),
        tracer=provider.get_tracer("test"), capture_content=capture_content,
    )  # fmt: skip
    collection = Collection(uid=7, spec=spec, chunk_count=len(rows))
    return Bench(gatherer=gatherer, collection=collection, collections=collections, search=search, exporter=exporter)


TOPICS = ("canal", "lock", "barge", "sluice", "weir", "lift", "tow", "rope")


def many_rows(count: int, *, documents: int = 0, seed: int = 1) -> list[Row]:
    """Random rows with texts of a few topics; over `documents` documents when that is not 0."""
    random = np.random.default_rng(seed)
    return [
        row(
            number,
            random.standard_normal(DIMENSION).astype(np.float32),
            text=" ".join(random.choice(TOPICS, size=3)) + f" n{number}",
            document_id=f"d{random.integers(documents)}" if documents else "",
        )
        for number in range(count)
    ]


def query_vector(seed: int = 2) -> Vector:
    return np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
