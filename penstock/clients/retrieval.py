"""A typed client of retrieval.v1: collections, filling them, and searching them.

    async with RetrievalClient("127.0.0.1:50051") as client:
        await client.create_collection("wiki")
        await client.ingest("wiki", [Document(id="eiffel", text="The tower was designed by Stephen Sauvestre.")])
        hits = await client.search("wiki", "Who designed the tower?", top_k=3, mode="hybrid")

What a call has stored when it returns is durable and searchable. penstock.clients.sync has the same for code without a loop.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import Any, Final, Literal, Unpack

from penstock.clients import retrieval_messages as messages
from penstock.clients.choices import chosen
from penstock.clients.connection import LONG_TIMEOUT_S, TIMEOUT_S, Client, batches, items_of, short_name
from penstock.clients.filters import Filter
from penstock.clients.retrieval_messages import collection_name
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
from penstock.clients.search_messages import batched_message, search_message
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub

_PURPOSES: Final[dict[Literal["document", "query"], pb.EmbedPurpose]] = {
    "document": pb.EMBED_PURPOSE_DOCUMENT,
    "query": pb.EMBED_PURPOSE_QUERY,
}


class RetrievalClient(Client):
    """Calls a retrieval service. Failures are raised as the PenstockError that the service raised.

    A collection is called by its id ("wiki") or its resource name ("collections/wiki"). CollectionNotFound, EmptyText,
    DimensionMismatch and TopKOutOfRange are the errors to expect; BackendUnavailable where nobody answers.
    """

    service = "retrieval"

    async def create_collection(
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
        """Creates an empty collection that is embedded by `embedding_model`, without one by the service's own.

        With a `dimension` and no model every vector must come from the caller. Raises AlreadyExists.
        """
        wanted = pb.Collection(
            embedding_model=embedding_model,
            dimension=dimension,
            metric=chosen(messages.METRICS, metric, "metric"),
            index=messages.index_message(index) if index else None,
            shard_count=shard_count,
            lexical=pb.LexicalConfig(enabled=lexical.enabled, language=lexical.language) if lexical else None,
        )
        request = pb.CreateCollectionRequest(collection_id=short_name(collection), collection=wanted)
        return messages.collection_from((await self._call(self._stub.CreateCollection, request, timeout_s)).collection)

    async def get_collection(self, collection: str, *, timeout_s: float = TIMEOUT_S) -> Collection:
        """Reads one collection."""
        request = pb.GetCollectionRequest(name=collection_name(collection))
        return messages.collection_from((await self._call(self._stub.GetCollection, request, timeout_s)).collection)

    async def list_collections(self, *, page_size: int = 100, timeout_s: float = TIMEOUT_S) -> AsyncGenerator[Collection, None]:
        """All collections in the order of their names, read page by page, each page within `timeout_s`."""
        pages = self._pages(self._stub.ListCollections, pb.ListCollectionsRequest(page_size=page_size), timeout_s)
        async with aclosing(items_of(pages, "collections")) as collections:
            async for collection in collections:
                yield messages.collection_from(collection)

    async def delete_collection(self, collection: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Deletes a collection with everything in it."""
        request = pb.DeleteCollectionRequest(name=collection_name(collection))
        await self._call(self._stub.DeleteCollection, request, timeout_s)

    async def ingest(
        self,
        collection: str,
        documents: Iterable[Document],
        *,
        splitting: Splitting | None = None,
        batch_size_max: int = 32,
        on_progress: Callable[[Ingested], None] | None = None,
        timeout_s: float = LONG_TIMEOUT_S,
    ) -> Ingested:
        """Splits, embeds and stores documents, batch by batch, each batch within `timeout_s`; returns the totals.

        `on_progress` hears the totals after each batch: all of it is durable and searchable. A failure leaves the batches
        before it stored; ingesting a document again replaces its chunks, so that the whole may simply be repeated.
        """
        total, name, split = Ingested(), collection_name(collection), messages.splitting_message(splitting)
        for batch in batches((messages.document_message(each) for each in documents), count_max=batch_size_max):
            request = pb.IngestDocumentsRequest(collection=name, documents=batch, splitting=split)
            total = messages.both(total, await self._call(self._stub.IngestDocuments, request, timeout_s))
            if on_progress is not None:
                on_progress(total)
        return total

    async def ingest_stream(
        self,
        collection: str,
        documents: Iterable[Document] | AsyncIterable[Document],
        *,
        splitting: Splitting | None = None,
        batch_size_max: int = 32,
        timeout_s: float = LONG_TIMEOUT_S,
    ) -> StreamIngested:
        """Ingests documents in one call of at most `timeout_s`, each asked for when the service has room for it.

        A document that cannot be stored is told in the answer, and the others go on.
        """
        first = pb.IngestStreamRequest(collection=collection_name(collection), splitting=messages.splitting_message(splitting))
        requests = _stream(first, documents, batch_size_max)
        return messages.stream_ingested_from(await self._send(self._stub.IngestStream, requests, timeout_s))

    async def upsert_chunks(
        self, collection: str, chunks: Iterable[Chunk], *, batch_size_max: int = 256, timeout_s: float = LONG_TIMEOUT_S
    ) -> Written:
        """Stores ready chunks, replacing those whose ids exist, in batches as `ingest` does."""
        count, tokens = 0, []
        for batch in batches((messages.chunk_message(chunk) for chunk in chunks), count_max=batch_size_max):
            request = pb.UpsertChunksRequest(collection=collection_name(collection), chunks=batch)
            response = await self._call(self._stub.UpsertChunks, request, timeout_s)
            count += response.chunk_count
            tokens.append(response.consistency_token)
        return Written(chunk_count=count, consistency_token=messages.joined(tokens))

    async def delete_chunks(
        self,
        collection: str,
        *,
        chunk_ids: Sequence[str] = (),
        document_ids: Sequence[str] = (),
        filter: Filter | None = None,  # noqa: A002  # The proto's name.
        timeout_s: float = TIMEOUT_S,
    ) -> Written:
        """Deletes chunks by their ids and their documents' ids, at most 10,000 of each, and those that a filter matches.

        Returns how many existed.
        """
        request = pb.DeleteChunksRequest(
            collection=collection_name(collection),
            chunk_ids=chunk_ids,
            document_ids=document_ids,
            filter=filter.message if filter else None,
        )
        response = await self._call(self._stub.DeleteChunks, request, timeout_s)
        return Written(chunk_count=response.deleted_count, consistency_token=response.consistency_token)

    async def batch_get_chunks(
        self, collection: str, chunk_ids: Sequence[str], *, fields: Sequence[str] = (), timeout_s: float = TIMEOUT_S
    ) -> tuple[Chunk, ...]:
        """Those of at most 1,000 chunks that exist, in the order of the ids, with `fields` as a search has them."""
        request = pb.BatchGetChunksRequest(collection=collection_name(collection), chunk_ids=chunk_ids, fields=fields)
        response = await self._call(self._stub.BatchGetChunks, request, timeout_s)
        return tuple(messages.chunk_from(chunk) for chunk in response.chunks)

    async def list_chunks(
        self, collection: str, *, page_size: int = 100, timeout_s: float = TIMEOUT_S
    ) -> AsyncGenerator[Chunk, None]:
        """All chunks of a collection in the order of their ids, read page by page, each page within `timeout_s`."""
        request = pb.ListChunksRequest(collection=collection_name(collection), page_size=page_size)
        async with aclosing(items_of(self._pages(self._stub.ListChunks, request, timeout_s), "chunks")) as chunks:
            async for chunk in chunks:
                yield messages.chunk_from(chunk)

    async def search(
        self, collection: str, query: str | Vector, *, timeout_s: float = TIMEOUT_S, **options: Unpack[SearchOptions]
    ) -> Hits:
        """The `top_k` chunks (without it 10) best for a text or a vector, best first; fewer where there are fewer."""
        request = search_message(collection_name(collection), query, options)
        return messages.hits_from(await self._call(self._stub.Search, request, timeout_s))

    async def search_pages(
        self, collection: str, query: str | Vector, *, timeout_s: float = TIMEOUT_S, **options: Unpack[SearchOptions]
    ) -> AsyncGenerator[Hits, None]:
        """The pages of a search, `top_k` hits each, each read when it is asked for."""
        request = search_message(collection_name(collection), query, options)
        async with aclosing(self._pages(self._stub.Search, request, timeout_s)) as pages:
            async for page in pages:
                yield messages.hits_from(page)

    async def search_batch(
        self, collection: str, queries: Iterable[str | Vector | Query], *, timeout_s: float = TIMEOUT_S
    ) -> tuple[Hits, ...]:
        """The answers to at most 256 searches, in their order, at a fraction of their cost in calls of their own."""
        requests = [batched_message(query, at) for at, query in enumerate(queries)]
        request = pb.SearchBatchRequest(collection=collection_name(collection), requests=requests)
        response = await self._call(self._stub.SearchBatch, request, timeout_s)
        return tuple(messages.hits_from(each) for each in response.responses)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        purpose: Literal["document", "query"] = "document",
        timeout_s: float = LONG_TIMEOUT_S,
    ) -> Embeddings:
        """The vectors of at most 1,000 texts, made by `model`, without it by the service's own. Raises ModelNotFound."""
        request = pb.EmbedRequest(model=model, texts=texts, purpose=chosen(_PURPOSES, purpose, "purpose"))
        return messages.embeddings_from(await self._call(self._stub.Embed, request, timeout_s))

    async def list_models(self, *, page_size: int = 100, timeout_s: float = TIMEOUT_S) -> AsyncGenerator[EmbeddingModel, None]:
        """The embedding models that are loaded."""
        pages = self._pages(self._stub.ListModels, pb.ListModelsRequest(page_size=page_size), timeout_s)
        async with aclosing(items_of(pages, "models")) as models:
            async for model in models:
                yield messages.model_from(model)

    async def collection_status(self, collection: str, *, timeout_s: float = TIMEOUT_S) -> tuple[ShardStatus, ...]:
        """The state of the collection's shards on the node that answers."""
        request = pb.GetCollectionStatusRequest(name=collection_name(collection))
        response = await self._call(self._stub.GetCollectionStatus, request, timeout_s)
        return tuple(messages.shard_from(shard) for shard in response.shards)

    async def compact_collection(self, collection: str, *, timeout_s: float = LONG_TIMEOUT_S) -> tuple[ShardStatus, ...]:
        """Merges the segments of the node's shards now, dropping deleted rows; returns the shards when it is done."""
        request = pb.CompactCollectionRequest(name=collection_name(collection))
        response = await self._call(self._stub.CompactCollection, request, timeout_s)
        return tuple(messages.shard_from(shard) for shard in response.shards)

    async def create_snapshot(self, collection: str, *, timeout_s: float = LONG_TIMEOUT_S) -> tuple[Snapshot, ...]:
        """Writes a snapshot of the node's shards to the snapshot store; one a shard is returned when they are complete."""
        request = pb.CreateSnapshotRequest(collection=collection_name(collection))
        response = await self._call(self._stub.CreateSnapshot, request, timeout_s)
        return tuple(messages.snapshot_from(each) for each in response.snapshots)

    async def list_snapshots(
        self, collection: str, *, page_size: int = 100, timeout_s: float = TIMEOUT_S
    ) -> AsyncGenerator[Snapshot, None]:
        """The snapshots of a collection that are in the snapshot store, newest first."""
        request = pb.ListSnapshotsRequest(collection=collection_name(collection), page_size=page_size)
        async with aclosing(items_of(self._pages(self._stub.ListSnapshots, request, timeout_s), "snapshots")) as snapshots:
            async for snapshot in snapshots:
                yield messages.snapshot_from(snapshot)

    @cached_property
    def _stub(self) -> Any:
        return RetrievalServiceStub(self._channel)  # type: ignore[no-untyped-call]  # Generated.


async def _stream(
    first: pb.IngestStreamRequest, documents: Iterable[Document] | AsyncIterable[Document], count_max: int
) -> AsyncIterator[pb.IngestStreamRequest]:
    yield first
    if isinstance(documents, AsyncIterable):
        async for document in documents:
            yield pb.IngestStreamRequest(documents=[messages.document_message(document)])
    else:
        for batch in batches((messages.document_message(each) for each in documents), count_max=count_max):
            yield pb.IngestStreamRequest(documents=batch)
