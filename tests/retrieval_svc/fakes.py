"""An embedder that needs no model, and the service's core put together around it."""

import re
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

from retrieval_svc.catalog import Catalog
from retrieval_svc.chunk_messages import ChunkCodec
from retrieval_svc.cluster.coordinator import Coordinator
from retrieval_svc.cluster.remote_node import RemoteNode
from retrieval_svc.cluster.topology import Topology
from retrieval_svc.embedding.batching import Embeddings
from retrieval_svc.embedding.embedder import Embedder
from retrieval_svc.embedding.models import EmbeddingModels
from retrieval_svc.ingest.chunking import Span
from retrieval_svc.ingest.extraction import Extractor
from retrieval_svc.ingest.preparing import Preparation
from retrieval_svc.ingest.reading_limits import ReadingLimits
from retrieval_svc.ingest.splitting import Splitting
from retrieval_svc.ingest.writing import Ingest, IngestLimits
from retrieval_svc.operations import Operations
from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.search.calls import SearchLimits, SearchResult
from retrieval_svc.search.listing import Listing
from retrieval_svc.search.searching import Search
from retrieval_svc.servicer import RetrievalServicer
from retrieval_svc.shards.errands import Errands
from retrieval_svc.shards.lexical import check_language
from retrieval_svc.shards.maintenance import Maintenance, MaintenanceLimits
from retrieval_svc.shards.node import LocalShards
from retrieval_svc.shards.opening import ShardOpener
from retrieval_svc.shards.replica import Threads
from retrieval_svc.shards.threads import IndexThread, TaskThread
from retrieval_svc.snapshots.backups import Backups
from retrieval_svc.snapshots.store import SnapshotStore
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


def found_ids(result: SearchResult) -> list[str]:
    """The ids of what a search found, best first."""
    return [ChunkCodec().decode(chunk).id for chunk in result.chunks]


@dataclass(frozen=True, kw_only=True)
class Core:
    """The service without its transport."""

    store: SqlStore
    shards: LocalShards
    maintenance: Maintenance
    catalog: Catalog
    ingest: Ingest
    search: Search
    servicer: RetrievalServicer
    exporter: InMemorySpanExporter
    stopped: list[str]

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@dataclass(frozen=True, kw_only=True)
class CoreLimits:
    """What tests set otherwise than the service does."""

    chunk_tokens_max: int = WINDOW_TOKENS
    chunk_text_bytes_max: int = 10_000
    writes_max: int = 64
    top_k_max: int = 1000
    head_rows_max: int = 8192
    shard_count: int = 1


@asynccontextmanager
async def running_core(
    folder: Path,
    *,
    embedder: Embedder | None = None,
    snapshots: Path | None = None,
    limits: CoreLimits = CoreLimits(),
    database_url: str = "",
) -> AsyncIterator[Core]:
    """The core of a service that is alone, over a database and shards below `folder`, as __main__ puts it together.

    Without a `database_url` it is a SQLite file in the folder.
    """
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with AsyncExitStack() as stack:
        parts = _Parts(
            folder=folder,
            store=await stack.enter_async_context(open_store(database_url or f"sqlite+aiosqlite:///{folder / 'retrieval.db'}")),
            backups=Backups(SnapshotStore(snapshots.as_uri()), interval_s=3600.0, kept=3) if snapshots else None,
            limits=limits,
            tracer=provider.get_tracer("test"),
            stack=stack,
        )
        models = parts.models(embedder)
        shards, maintenance = await parts.shards()
        catalog = Catalog(
            parts.store, shards, models, parts.backups, shard_count=limits.shard_count, check_language=check_language
        )
        shards.on_unknown = catalog.refresh
        coordinator = parts.coordinator(shards)
        await catalog.load()
        shards.start()
        ingest, search = parts.ingest(catalog, shards, coordinator), parts.search(catalog, coordinator)
        operations = Operations(models, shards, maintenance, parts.backups, catalog, text_bytes_max=limits.chunk_text_bytes_max)
        yield Core(
            store=parts.store,
            shards=shards,
            maintenance=maintenance,
            catalog=catalog,
            ingest=ingest,
            search=search,
            servicer=RetrievalServicer(catalog, ingest, search, Listing(parts.store, coordinator), operations),
            exporter=exporter,
            stopped=parts.stopped,
        )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What the core is built from. Whatever has an end ends with the stack."""

    folder: Path
    store: SqlStore
    backups: Backups | None
    limits: CoreLimits
    tracer: Tracer
    stack: AsyncExitStack
    stopped: list[str] = field(default_factory=list)

    def models(self, embedder: Embedder | None) -> EmbeddingModels:
        tracer = self.tracer
        models = EmbeddingModels(
            {
                each.model.name: Embeddings(
                    each, tracer=tracer, query_batch_max=8, query_waiting_max=64, write_batch_max=4, pass_tokens_max=64
                )
                for each in ([embedder] if embedder else [])
            }
        )
        self.stack.push_async_callback(models.close)
        return models

    async def shards(self) -> tuple[LocalShards, Maintenance]:
        threads = Threads(index=IndexThread(batch_max=16, waiting_max=1024), words=TaskThread("words", waiting_max=1024))
        self.stack.push_async_callback(threads.index.close)
        self.stack.push_async_callback(threads.words.close)
        opener = ShardOpener(
            self.folder / "shards",
            self.store,
            ChunkCodec(),
            threads,
            snapshots=self.backups,
            worker=0,
            search_threads=1,
            head_rows_max=self.limits.head_rows_max,
            lexical_memory_bytes=15 * 2**20,
            tracer=self.tracer,
        )
        shards = LocalShards(
            self.folder / "shards",
            self.store,
            opener,
            holds=lambda *_: True,
            consistency_wait_s=10.0,
            tracer=self.tracer,
            stop=self.stopped.append,
        )
        maintenance = Maintenance(
            shards.replicas,
            folder_of=opener.folder_of,
            threads=threads,
            limits=MaintenanceLimits(
                head_rows_max=self.limits.head_rows_max, checkpoint_interval_s=60.0, log_entries_kept=1_000_000
            ),
            leads=True,
            shared=Errands(self.folder / "errands"),
            trimmer=self.store,
            backup=self.backups,
        )
        self.stack.push_async_callback(shards.close)
        await self.stack.enter_async_context(maintenance.running())
        self.stack.push_async_callback(maintenance.close)
        return shards, maintenance

    def coordinator(self, shards: LocalShards) -> Coordinator:
        coordinator = Coordinator(Topology(), node=shards, connect=RemoteNode, tracer=self.tracer)
        self.stack.push_async_callback(coordinator.close)
        return coordinator

    def ingest(self, catalog: Catalog, shards: LocalShards, coordinator: Coordinator) -> Ingest:
        extractor = Extractor(ReadingLimits(timeout_s=20.0, memory_bytes=512 * 2**20, text_bytes_max=100_000))
        self.stack.push_async_callback(extractor.close)
        limits = IngestLimits(
            writes_max=self.limits.writes_max,
            chunk_text_bytes_max=self.limits.chunk_text_bytes_max,
            document_text_bytes_max=100_000,
            document_content_bytes_max=1_000_000,
            splitting=Splitting(chunk_tokens_max=self.limits.chunk_tokens_max, overlap_tokens=4),
        )
        preparation = Preparation(extractor, text_bytes_max=100_000)
        return Ingest(catalog, self.store, shards, coordinator, preparation=preparation, limits=limits, tracer=self.tracer)

    def search(self, catalog: Catalog, coordinator: Coordinator) -> Search:
        limits = SearchLimits(top_k_max=self.limits.top_k_max, query_text_bytes_max=1000)
        return Search(
            catalog, coordinator, ChunkCodec(), rerankings={}, limits=limits, tracer=self.tracer, capture_content=False
        )
