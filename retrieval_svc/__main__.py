"""The composition root of the retrieval service: `python -m retrieval_svc`."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

# Read by OpenMP and the BLAS libraries when they are loaded, which the imports below do. A thread pool each in FAISS, its BLAS
# and torch fights over the same cores; the pools that are wanted are sized by settings.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Threads that wait for each other sleep. The default, to spin, made a query's embedding thirty times slower (measured: 28 ms
# against 921 ms) whenever another process wanted the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# What gRPC does in a child that was forked crashed one in twenty of them (measured). Here children only become other programs.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
# gRPC's handlers around fork() are for children that go on with gRPC; ours (compaction, reading of files) are other programs.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from penstock.errors import FailedPrecondition
from penstock.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc, shard_pb2, shard_pb2_grpc
from penstock.server import Assembly, Service, run
from retrieval_svc.catalog import Catalog
from retrieval_svc.chunk_messages import ChunkCodec
from retrieval_svc.cluster.coordinator import Coordinator
from retrieval_svc.cluster.limits import ClusterLimits
from retrieval_svc.cluster.remote_node import RemoteNode
from retrieval_svc.cluster.servicer import ShardServicer
from retrieval_svc.cluster.topology import Topology, parse_topology
from retrieval_svc.data_directory import locked_directory
from retrieval_svc.embedding.batching import Embeddings
from retrieval_svc.embedding.cache import VectorCache
from retrieval_svc.embedding.loading import Loaded, load
from retrieval_svc.embedding.models import EmbeddingModels
from retrieval_svc.ingest.extraction import Extractor
from retrieval_svc.ingest.preparing import Preparation
from retrieval_svc.ingest.reading_limits import ReadingLimits
from retrieval_svc.ingest.splitting import Splitting
from retrieval_svc.ingest.writing import Ingest, IngestLimits
from retrieval_svc.metrics import RetrievalMetrics
from retrieval_svc.operations import Operations
from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.scopes import SCOPES
from retrieval_svc.search.calls import SearchLimits
from retrieval_svc.search.listing import Listing
from retrieval_svc.search.reranking import Reranking
from retrieval_svc.search.searching import Search
from retrieval_svc.servicer import RetrievalServicer
from retrieval_svc.settings import RetrievalSettings
from retrieval_svc.shards.errands import Errands
from retrieval_svc.shards.lexical import check_language
from retrieval_svc.shards.maintenance import Maintenance, MaintenanceLimits
from retrieval_svc.shards.node import LocalShards
from retrieval_svc.shards.opening import ShardOpener
from retrieval_svc.shards.replica import Threads
from retrieval_svc.shards.threads import IndexThread, TaskThread
from retrieval_svc.snapshots.backups import Backups
from retrieval_svc.snapshots.store import SnapshotStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the parts of the service are built from."""

    assembly: Assembly
    settings: RetrievalSettings
    metrics: RetrievalMetrics
    store: SqlStore
    threads: Threads
    backups: Backups | None


@asynccontextmanager
async def assemble(assembly: Assembly) -> AsyncIterator[None]:
    """Builds the service; by its yield every shard has caught up with the record and the models have answered once."""
    settings: RetrievalSettings = assembly.settings
    async with AsyncExitStack() as stack:
        _take_folder(assembly, stack)
        parts = await _parts(assembly, stack)
        models = await _models(parts, stack)
        rerankings = await _rerankings(parts, stack)
        topology = _topology(settings)
        shards, maintenance = await _shards(parts, topology, stack)
        catalog = Catalog(
            parts.store, shards, models, parts.backups, shard_count=settings.shard_count, check_language=check_language
        )
        shards.on_unknown = catalog.refresh
        coordinator = await _coordinator(parts, topology, shards, stack)
        await catalog.load()
        shards.start()
        parts.metrics.watch(shards, maintenance)
        ingest = _ingest(parts, catalog, shards, coordinator, stack)
        search = _search(parts, catalog, coordinator, rerankings)
        operations = Operations(
            models, shards, maintenance, parts.backups, catalog, text_bytes_max=settings.chunk_text_bytes_max
        )
        servicer = RetrievalServicer(catalog, ingest, search, Listing(parts.store, coordinator), operations)
        retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(servicer, assembly.dispatcher)  # type: ignore[no-untyped-call]  # Generated.
        shard_pb2_grpc.add_ShardServiceServicer_to_server(ShardServicer(shards), assembly.dispatcher)  # type: ignore[no-untyped-call]
        yield


def _take_folder(assembly: Assembly, stack: AsyncExitStack) -> None:
    """The first of the processes that share the folder holds it for all of them."""
    folder = assembly.settings.data_dir
    if assembly.worker.index == 0:
        stack.enter_context(locked_directory(folder))
    else:
        folder.mkdir(parents=True, exist_ok=True)


async def _parts(assembly: Assembly, stack: AsyncExitStack) -> Parts:
    settings: RetrievalSettings = assembly.settings
    store = await stack.enter_async_context(open_store(settings.resolved_database_url))
    metrics = RetrievalMetrics(assembly.telemetry.meter("retrieval"), assembly.telemetry.histograms)
    index = IndexThread(batch_max=settings.search_batch_max, waiting_max=settings.search_queue_max, searched=metrics.searched)
    stack.push_async_callback(index.close)
    words = TaskThread("words", waiting_max=settings.search_queue_max)
    stack.push_async_callback(words.close)
    return Parts(
        assembly=assembly,
        settings=settings,
        metrics=metrics,
        store=store,
        threads=Threads(index=index, words=words),
        backups=_backups(settings),
    )


def _backups(settings: RetrievalSettings) -> Backups | None:
    if not settings.snapshot_url:
        return None
    store = SnapshotStore(settings.snapshot_url)
    return Backups(store, interval_s=settings.snapshot_interval_s, kept=settings.snapshots_kept)


def _topology(settings: RetrievalSettings) -> Topology:
    try:
        return parse_topology(settings.slot_targets, own_slot=settings.slot, slot_count=settings.slots)
    except ValueError as error:
        message = f"PENSTOCK_RETRIEVAL_SLOT, _SLOTS and _SLOT_TARGETS do not fit: {error}"
        raise FailedPrecondition(message) from error


async def _models(parts: Parts, stack: AsyncExitStack) -> EmbeddingModels:
    settings = parts.settings
    configs = [each.config for each in settings.all_embedding_models]
    cache = VectorCache(settings.embedding_cache_bytes_max, parts.metrics)
    start = partial(_embeddings, parts, cache)
    folder = settings.resolved_model_cache_dir
    models = await EmbeddingModels.load(
        configs, load=partial(load, cache_dir=folder, threads=settings.embedding_threads), start=start
    )
    stack.push_async_callback(models.close)
    await models.warm()
    return models


def _embeddings(parts: Parts, cache: VectorCache, loaded: Loaded) -> Embeddings:
    settings = parts.settings
    return Embeddings(
        loaded.embedder,
        tracer=parts.assembly.telemetry.tracer("retrieval"),
        query_batch_max=settings.embedding_batch_max,
        query_waiting_max=settings.embed_queue_max,
        write_batch_max=settings.ingest_batch_max,
        pass_tokens_max=settings.embedding_pass_tokens_max,
        prompts=loaded.prompts,
        cache=cache,
        turned=parts.metrics.embedded,
    )


async def _rerankings(parts: Parts, stack: AsyncExitStack) -> Mapping[str, Reranking]:
    settings = parts.settings
    if not settings.reranker:
        return {}
    # Imported here: it brings torch, which a service without a reranker may do without.
    from retrieval_svc.embedding.cross_encoder import load_reranker  # noqa: PLC0415

    loaded = await asyncio.to_thread(load_reranker, settings.reranker, name=settings.reranker_name)
    tracer = parts.assembly.telemetry.tracer("retrieval")
    reranking = Reranking(loaded, tracer=tracer, batch_max=settings.embedding_batch_max, waiting_max=settings.rerank_queue_max)
    stack.push_async_callback(reranking.close)
    return {reranking.name: reranking}


async def _shards(parts: Parts, topology: Topology, stack: AsyncExitStack) -> tuple[LocalShards, Maintenance]:
    settings, worker = parts.settings, parts.assembly.worker.index
    folder, tracer = settings.data_dir / "shards", parts.assembly.telemetry.tracer("retrieval")
    opener = ShardOpener(
        folder,
        parts.store,
        ChunkCodec(),
        parts.threads,
        snapshots=parts.backups,
        worker=worker,
        search_threads=settings.search_threads,
        head_rows_max=settings.head_rows_max,
        lexical_memory_bytes=settings.lexical_memory_bytes,
        tracer=tracer,
    )
    shards = LocalShards(
        folder,
        parts.store,
        opener,
        holds=lambda uid, shard: topology.slot_of(uid, shard) == topology.own_slot,
        consistency_wait_s=settings.consistency_wait_s,
        tracer=tracer,
        stop=parts.assembly.stop,
    )
    maintenance = Maintenance(
        shards.replicas,
        folder_of=opener.folder_of,
        threads=parts.threads,
        limits=MaintenanceLimits(
            head_rows_max=settings.head_rows_max,
            checkpoint_interval_s=settings.checkpoint_interval_s,
            log_entries_kept=settings.log_entries_kept,
        ),
        leads=worker == 0,
        shared=Errands(settings.data_dir / "errands"),
        trimmer=parts.store,
        backup=parts.backups,
    )
    stack.push_async_callback(shards.close)
    await stack.enter_async_context(maintenance.running())
    stack.push_async_callback(maintenance.close)
    return shards, maintenance


async def _coordinator(parts: Parts, topology: Topology, shards: LocalShards, stack: AsyncExitStack) -> Coordinator:
    settings = parts.settings
    key = settings.node_api_key.get_secret_value()
    connect = partial(
        RemoteNode,
        timeout_s=settings.shard_timeout_s,
        message_bytes_max=4 * settings.message_bytes_max,
        tracer_provider=parts.assembly.telemetry.tracer_provider,
        metadata=(("authorization", f"Bearer {key}"),) if key else (),
    )
    limits = ClusterLimits(
        shard_timeout_s=settings.shard_timeout_s,
        hedge_delay_min_s=settings.hedge_delay_min_s,
        hedge_delay_max_s=settings.hedge_delay_max_s,
    )
    tracer = parts.assembly.telemetry.tracer("retrieval")
    coordinator = Coordinator(
        topology,
        node=shards,
        connect=connect,
        tracer=tracer,
        limits=limits,
        statistics=parts.metrics,
        own_addresses=_own_addresses(settings.grpc_address),
    )
    stack.push_async_callback(coordinator.close)
    await coordinator.start()
    return coordinator


def _own_addresses(grpc_address: str) -> frozenset[str]:
    """The node's own among those that the name of its slot resolves to: every address of the host, with its port."""
    port = grpc_address.rpartition(":")[2]
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:  # A host without a name of its own; then it may ask itself, which costs and does no harm.
        found = []
    return frozenset(f"{address[0]}:{port}" for *_, address in found)


def _ingest(parts: Parts, catalog: Catalog, shards: LocalShards, coordinator: Coordinator, stack: AsyncExitStack) -> Ingest:
    settings = parts.settings
    extractor = Extractor(
        ReadingLimits(
            timeout_s=settings.extraction_timeout_s,
            memory_bytes=settings.extraction_memory_bytes,
            text_bytes_max=settings.document_text_bytes_max,
        )
    )
    stack.push_async_callback(extractor.close)
    return Ingest(
        catalog,
        parts.store,
        shards,
        coordinator,
        preparation=Preparation(extractor, text_bytes_max=settings.document_text_bytes_max),
        limits=IngestLimits(
            writes_max=settings.writes_max,
            chunk_text_bytes_max=settings.chunk_text_bytes_max,
            document_text_bytes_max=settings.document_text_bytes_max,
            document_content_bytes_max=settings.document_content_bytes_max,
            splitting=Splitting(chunk_tokens_max=settings.chunk_tokens_max, overlap_tokens=settings.chunk_overlap_tokens),
        ),
        tracer=parts.assembly.telemetry.tracer("retrieval"),
    )


def _search(parts: Parts, catalog: Catalog, coordinator: Coordinator, rerankings: Mapping[str, Reranking]) -> Search:
    settings = parts.settings
    return Search(
        catalog,
        coordinator,
        ChunkCodec(),
        rerankings=rerankings,
        limits=SearchLimits(
            top_k_max=settings.top_k_max,
            query_text_bytes_max=settings.query_text_bytes_max,
            group_max=settings.search_batch_max,
            waiting_max=settings.search_queue_max,
        ),
        tracer=parts.assembly.telemetry.tracer("retrieval"),
        capture_content=parts.assembly.telemetry.capture_content,
    )


SERVICE = Service(
    name="retrieval",
    rpc_services=(
        retrieval_pb2.DESCRIPTOR.services_by_name["RetrievalService"].full_name,
        shard_pb2.DESCRIPTOR.services_by_name["ShardService"].full_name,
    ),
    settings=RetrievalSettings,
    assemble=assemble,
    scopes=SCOPES,
)

if __name__ == "__main__":
    run(SERVICE)
