"""An embedder that needs no model, and the service's core put together around it."""

import re
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from retrieval_svc.search.cache import ChunkCache
from retrieval_svc.catalog import Catalog
from retrieval_svc.ingest.chunking import Span
from retrieval_svc.embedding.batching import Embedder, Embeddings
from retrieval_svc.shards.index import flat_index_builder
from retrieval_svc.shards.indexing import Indexes
from retrieval_svc.ingest.writing import Ingest, IngestLimits
from retrieval_svc.search.searching import Search, SearchLimits
from retrieval_svc.servicer import RetrievalServicer
from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.values import EmbeddingModel, Matrix

DIMENSION = 64
WINDOW_TOKENS = 16


class WordEmbedder:
    """A bag of words: each word is a direction, so texts that share words are near. Tokens are words and marks."""

    def __init__(self, fingerprint: str = "words/1") -> None:
        self.model = EmbeddingModel(name="words", dimension=DIMENSION, window_tokens=WINDOW_TOKENS, fingerprint=fingerprint)
        self.passes: list[list[str]] = []

    def token_spans(self, text: str) -> list[Span]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]

    def embed(self, texts: Sequence[str]) -> Matrix:
        assert all(len(self.token_spans(text)) <= WINDOW_TOKENS for text in texts), "a text over the window would be cut"
        self.passes.append(list(texts))
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> Matrix:
        vector = np.full(DIMENSION, 1e-3, dtype=np.float32)
        for start, end in self.token_spans(text):
            vector[zlib.crc32(text[start:end].lower().encode()) % DIMENSION] += 1.0
        return vector / np.linalg.norm(vector)


@dataclass(frozen=True, kw_only=True)
class Core:
    """The service without its transport."""

    store: SqlStore
    indexes: Indexes
    catalog: Catalog
    ingest: Ingest
    search: Search
    embedder: Embedder | None
    provider: TracerProvider
    exporter: InMemorySpanExporter
    stopped: list[str]

    @property
    def servicer(self) -> RetrievalServicer:
        return RetrievalServicer(self.catalog, self.ingest, self.search)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@asynccontextmanager
async def running_core(
    folder: Path,
    *,
    embedder: Embedder | None = None,
    chunk_tokens_max: int = WINDOW_TOKENS,
    capture_content: bool = False,
    writes_max: int = 64,
    top_k_max: int = 1000,
    cache_bytes_max: int = 2**20,
) -> AsyncIterator[Core]:
    """The core over a real SQLite file in `folder` and real FAISS indexes, as __main__ puts it together."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    stopped: list[str] = []
    async with open_store(f"sqlite+aiosqlite:///{folder / 'retrieval.db'}") as store:
        indexes = Indexes(flat_index_builder(1), batch_max=16, waiting_max=1024)
        embeddings = _embeddings(embedder, provider) if embedder else None
        catalog = Catalog(store, indexes, embeddings)
        await catalog.load()
        cache = ChunkCache(cache_bytes_max)
        limits = IngestLimits(
            writes_max=writes_max,
            chunk_text_bytes_max=10_000,
            document_text_bytes_max=100_000,
            chunk_tokens_max=chunk_tokens_max,
            chunk_overlap_tokens=4,
        )
        core = Core(
            store=store,
            indexes=indexes,
            catalog=catalog,
            ingest=Ingest(catalog, store, indexes, cache=cache, limits=limits, tracer=tracer, stop=stopped.append),
            search=Search(
                catalog,
                store,
                indexes,
                cache=cache,
                limits=SearchLimits(top_k_max=top_k_max, query_text_bytes_max=1000),
                tracer=tracer,
                capture_content=capture_content,
            ),
            embedder=embedder,
            provider=provider,
            exporter=exporter,
            stopped=stopped,
        )
        yield core
        if embeddings:
            await embeddings.close()
        await indexes.close()


def _embeddings(embedder: Embedder, provider: TracerProvider) -> Embeddings:
    return Embeddings(
        embedder,
        tracer=provider.get_tracer("test"),
        query_batch_max=8,
        query_waiting_max=64,
        write_batch_max=4,
        pass_tokens_max=64,
    )
