"""The composition root of the retrieval service: `python -m retrieval_svc`."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

# Read by OpenMP and the BLAS libraries when they are loaded, which the imports below do. A thread pool each in FAISS, its BLAS
# and torch fights over the same cores; the pools that are wanted are sized by settings.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Threads that wait for each other sleep. The default, to spin, made a query's embedding thirty times slower (measured: 28 ms
# against 921 ms) whenever another process wanted the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from penstock.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from penstock.server import Assembly, Service, run
from retrieval_svc.search.cache import ChunkCache
from retrieval_svc.catalog import Catalog
from retrieval_svc.data_directory import locked_directory
from retrieval_svc.embedding.batching import Embeddings
from retrieval_svc.shards.index import flat_index_builder
from retrieval_svc.shards.indexing import Indexes
from retrieval_svc.ingest.writing import Ingest, IngestLimits
from retrieval_svc.search.searching import Search, SearchLimits
from retrieval_svc.servicer import RetrievalServicer
from retrieval_svc.settings import RetrievalSettings
from retrieval_svc.record.store import SqlStore, open_store


@asynccontextmanager
async def assemble(assembly: Assembly) -> AsyncIterator[None]:
    """Builds the service; by its yield every index is rebuilt from the record and the model has answered once."""
    settings: RetrievalSettings = assembly.settings
    async with AsyncExitStack() as stack:
        stack.enter_context(locked_directory(settings.data_dir))
        store = await stack.enter_async_context(open_store(settings.resolved_database_url))
        indexes = Indexes(
            flat_index_builder(settings.search_threads),
            batch_max=settings.search_batch_max,
            waiting_max=settings.search_queue_max,
        )
        stack.push_async_callback(indexes.close)
        embeddings = await _embeddings(assembly, stack)
        catalog = Catalog(store, indexes, embeddings)
        await catalog.load()
        servicer = _servicer(assembly, store, indexes, catalog)
        retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(servicer, assembly.dispatcher)  # type: ignore[no-untyped-call]  # Generated.
        yield


async def _embeddings(assembly: Assembly, stack: AsyncExitStack) -> Embeddings | None:
    settings: RetrievalSettings = assembly.settings
    if not settings.embedding_model:
        return None
    # Imported here: who brings every vector need not install torch, nor wait for it.
    from retrieval_svc.embedding.sentence_transformer import load_embedder  # noqa: PLC0415

    embedder = await asyncio.to_thread(
        load_embedder,
        settings.embedding_model,
        name=settings.embedding_model_name,
        threads=settings.embedding_threads,
    )
    embeddings = Embeddings(
        embedder,
        tracer=assembly.telemetry.tracer("retrieval"),
        query_batch_max=settings.embedding_batch_max,
        query_waiting_max=settings.embed_queue_max,
        write_batch_max=settings.ingest_batch_max,
        pass_tokens_max=settings.embedding_pass_tokens_max,
    )
    stack.push_async_callback(embeddings.close)
    await embeddings.query("The first pass is slower than those that follow, so it is taken here.")
    return embeddings


def _servicer(assembly: Assembly, store: SqlStore, indexes: Indexes, catalog: Catalog) -> RetrievalServicer:
    settings: RetrievalSettings = assembly.settings
    tracer = assembly.telemetry.tracer("retrieval")
    cache = ChunkCache(settings.chunk_cache_bytes_max)
    ingest = Ingest(
        catalog,
        store,
        indexes,
        cache=cache,
        limits=IngestLimits(
            writes_max=settings.writes_max,
            chunk_text_bytes_max=settings.chunk_text_bytes_max,
            document_text_bytes_max=settings.document_text_bytes_max,
            chunk_tokens_max=settings.chunk_tokens_max,
            chunk_overlap_tokens=settings.chunk_overlap_tokens,
        ),
        tracer=tracer,
        stop=assembly.stop,
    )
    search = Search(
        catalog,
        store,
        indexes,
        cache=cache,
        limits=SearchLimits(top_k_max=settings.top_k_max, query_text_bytes_max=settings.query_text_bytes_max),
        tracer=tracer,
        capture_content=assembly.telemetry.capture_content,
    )
    return RetrievalServicer(catalog, ingest, search)


SERVICE = Service(
    name="retrieval",
    rpc_services=(retrieval_pb2.DESCRIPTOR.services_by_name["RetrievalService"].full_name,),
    settings=RetrievalSettings,
    assemble=assemble,
)

if __name__ == "__main__":
    run(SERVICE)
