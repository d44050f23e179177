"""The retrieval client for code without an event loop: the same methods, which wait for their answers.

    with RetrievalClientSync("127.0.0.1:50051") as client:
        client.ingest("wiki", [Document(id="eiffel", text="The tower was designed by Stephen Sauvestre.")])
        hits = client.search("wiki", "Who designed the tower?", top_k=3)

The calls run on one event loop in a thread of the process; a client may be used from any thread. In code that runs on an event
loop itself RetrievalClient is the one to use: this one would hold it up.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Collection as Members
from typing import Literal, Self, Unpack

from opentelemetry import trace

from penstock.clients.background import BACKGROUND
from penstock.clients.connection import LONG_TIMEOUT_S, MESSAGE_BYTES_MAX, TIMEOUT_S
from penstock.clients.filters import Filter
from penstock.clients.retrieval import RetrievalClient
from penstock.clients.retrieval_values import (
    Chunk,
    Collection,
    Document,
    EmbeddingModel,
    Embeddings,
    Hits,
    Index,
    Ingested,
    Lexical,
    Metric,
    Query,
    SearchOptions,
    ShardStatus,
    Snapshot,
    Splitting,
    StreamIngested,
    Vector,
    Written,
)


class RetrievalClientSync:
    """RetrievalClient without async: what its methods say holds here. `with` closes it, and so does `close()`."""

    def __init__(
        self,
        target: str,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        api_key: str = "",
        principals: Members[str] = (),
        tenant: str = "",
    ) -> None:
        self._client = RetrievalClient(
            target,
            tracer_provider=tracer_provider,
            message_bytes_max=message_bytes_max,
            api_key=api_key,
            principals=principals,
            tenant=tenant,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel; calls in flight are cancelled."""
        BACKGROUND.run(self._client.aclose())

    def create_collection(
        self,
        collection: str,
        *,
        embedding_model: str = "",
        dimension: int = 0,
        metric: Metric = "cosine",
        index: Index | None = None,
        shard_count: int = 0,
        lexical: Lexical | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Collection:
        creating = self._client.create_collection(
            collection,
            embedding_model=embedding_model,
            dimension=dimension,
            metric=metric,
            index=index,
            shard_count=shard_count,
            lexical=lexical,
            timeout_s=timeout_s,
        )
        return BACKGROUND.run(creating)

    def get_collection(self, collection: str, *, timeout_s: float = TIMEOUT_S) -> Collection:
        return BACKGROUND.run(self._client.get_collection(collection, timeout_s=timeout_s))

    def list_collections(self, *, page_size: int = 100, timeout_s: float = TIMEOUT_S) -> Iterator[Collection]:
        return BACKGROUND.iterate(self._client.list_collections(page_size=page_size, timeout_s=timeout_s))

    def delete_collection(self, collection: str, *, timeout_s: float = TIMEOUT_S) -> None:
        BACKGROUND.run(self._client.delete_collection(collection, timeout_s=timeout_s))

    def ingest(
        self,
        collection: str,
        documents: Iterable[Document],
        *,
        splitting: Splitting | None = None,
        batch_size_max: int = 32,
        on_progress: Callable[[Ingested], None] | None = None,
        timeout_s: float = LONG_TIMEOUT_S,
    ) -> Ingested:
        ingesting = self._client.ingest(
            collection,
            documents,
            splitting=splitting,
            batch_size_max=batch_size_max,
            on_progress=on_progress,
            timeout_s=timeout_s,
        )
        return BACKGROUND.run(ingesting)

    def ingest_stream(
        self,
        collection: str,
        documents: Iterable[Document],
        *,
        splitting: Splitting | None = None,
        batch_size_max: int = 32,
        timeout_s: float = LONG_TIMEOUT_S,
    ) -> StreamIngested:
        ingesting = self._client.ingest_stream(
            collection, documents, splitting=splitting, batch_size_max=batch_size_max, timeout_s=timeout_s
        )
        return BACKGROUND.run(ingesting)

    def upsert_chunks(
        self, collection: str, chunks: Iterable[Chunk], *, batch_size_max: int = 256, timeout_s: float = LONG_TIMEOUT_S
    ) -> Written:
        return BACKGROUND.run(
            self._client.upsert_chunks(collection, chunks, batch_size_max=batch_size_max, timeout_s=timeout_s)
        )

    def delete_chunks(
        self,
        collection: str,
        *,
        chunk_ids: Sequence[str] = (),
        document_ids: Sequence[str] = (),
        filter: Filter | None = None,  # noqa: A002  # The proto's name.
        timeout_s: float = TIMEOUT_S,
    ) -> Written:
        deleting = self._client.delete_chunks(
            collection, chunk_ids=chunk_ids, document_ids=document_ids, filter=filter, timeout_s=timeout_s
        )
        return BACKGROUND.run(deleting)

    def batch_get_chunks(
        self, collection: str, chunk_ids: Sequence[str], *, fields: Sequence[str] = (), timeout_s: float = TIMEOUT_S
    ) -> tuple[Chunk, ...]:
        return BACKGROUND.run(self._client.batch_get_chunks(collection, chunk_ids, fields=fields, timeout_s=timeout_s))

    def list_chunks(self, collection: str, *, page_size: int = 100, timeout_s: float = TIMEOUT_S) -> Iterator[Chunk]:
        return BACKGROUND.iterate(self._client.list_chunks(collection, page_size=page_size, timeout_s=timeout_s))

    def search(
        self, collection: str, query: str | Vector, *, timeout_s: float = TIMEOUT_S, **options: Unpack[SearchOptions]
    ) -> Hits:
        return BACKGROUND.run(self._client.search(collection, query, timeout_s=timeout_s, **options))

    def search_pages(
        self, collection: str, query: str | Vector, *, timeout_s: float = TIMEOUT_S, **options: Unpack[SearchOptions]
    ) -> Iterator[Hits]:
        return BACKGROUND.iterate(self._client.search_pages(collection, query, timeout_s=timeout_s, **options))

    def search_batch(
        self, collection: str, queries: Iterable[str | Vector | Query], *, timeout_s: float = TIMEOUT_S
    ) -> tuple[Hits, ...]:
        return BACKGROUND.run(self._client.search_batch(collection, queries, timeout_s=timeout_s))

    def embed(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        purpose: Literal["document", "query"] = "document",
        timeout_s: float = LONG_TIMEOUT_S,
    ) -> Embeddings:
        return BACKGROUND.run(self._client.embed(texts, model=model, purpose=purpose, timeout_s=timeout_s))

    def list_models(self, *, page_size: int = 100, timeout_s: float = TIMEOUT_S) -> Iterator[EmbeddingModel]:
        return BACKGROUND.iterate(self._client.list_models(page_size=page_size, timeout_s=timeout_s))

    def collection_status(self, collection: str, *, timeout_s: float = TIMEOUT_S) -> tuple[ShardStatus, ...]:
        return BACKGROUND.run(self._client.collection_status(collection, timeout_s=timeout_s))

    def compact_collection(self, collection: str, *, timeout_s: float = LONG_TIMEOUT_S) -> tuple[ShardStatus, ...]:
        return BACKGROUND.run(self._client.compact_collection(collection, timeout_s=timeout_s))

    def create_snapshot(self, collection: str, *, timeout_s: float = LONG_TIMEOUT_S) -> tuple[Snapshot, ...]:
        return BACKGROUND.run(self._client.create_snapshot(collection, timeout_s=timeout_s))

    def list_snapshots(self, collection: str, *, page_size: int = 100, timeout_s: float = TIMEOUT_S) -> Iterator[Snapshot]:
        return BACKGROUND.iterate(self._client.list_snapshots(collection, page_size=page_size, timeout_s=timeout_s))
