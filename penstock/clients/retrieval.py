"""A typed client of retrieval.v1: collections, filling them, and searching them.

    async with RetrievalClient("127.0.0.1:50051") as client:
        await client.create_collection("wiki")
        await client.ingest("wiki", [Document(id="eiffel", text="The tower was designed by Stephen Sauvestre.")])
        hits = await client.search("wiki", "Who designed the tower?", top_k=3)

What a call has stored when it returns is durable and searchable.
"""

import sys
from array import array
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

from penstock.clients.connection import LONG_TIMEOUT_S, TIMEOUT_S, Client, batches, items_of, resource_name, short_name
from penstock.clients.structs import from_struct, to_struct
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub

Metric = Literal["cosine", "inner_product"]
Vector = Sequence[float] | bytes
"""A vector's components, or its little-endian float32 bytes as NumPy's `astype("<f4").tobytes()` gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Chunks that share an embedding model, a dimension and a metric. An empty model: every vector comes from the caller."""

    name: str
    embedding_model: str
    dimension: int
    metric: Metric
    chunk_count: int
    embedding_fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole document, before the service splits it. `metadata` comes back with each hit, at most 64 KiB as JSON."""

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The unit that is stored and found. Without a `vector` the service embeds the text; answers leave it out."""

    id: str
    text: str
    document_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    vector: Vector | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A chunk that was found. `score` is in the collection's metric: higher is nearer."""

    chunk_id: str
    document_id: str
    text: str
    metadata: Mapping[str, Any]
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """How many documents have been stored so far, and into how many chunks they were split."""

    document_count: int = 0
    chunk_count: int = 0


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
        timeout_s: float = TIMEOUT_S,
    ) -> Collection:
        """Creates an empty collection that is embedded by `embedding_model`, without one by the service's own.

        With a `dimension` and no model every vector must come from the caller. Raises AlreadyExists.
        """
        wanted = pb.Collection(embedding_model=embedding_model, dimension=dimension, metric=_METRICS[metric])
        request = pb.CreateCollectionRequest(collection_id=short_name(collection), collection=wanted)
        return _collection((await self._call(self._stub.CreateCollection, request, timeout_s)).collection)

    async def get_collection(self, collection: str, *, timeout_s: float = TIMEOUT_S) -> Collection:
        """Reads one collection."""
        request = pb.GetCollectionRequest(name=_name(collection))
        return _collection((await self._call(self._stub.GetCollection, request, timeout_s)).collection)

    async def list_collections(self, *, page_size: int = 100, timeout_s: float = TIMEOUT_S) -> AsyncGenerator[Collection, None]:
        """All collections in the order of their names, read page by page, each page within `timeout_s`."""
        pages = self._pages(self._stub.ListCollections, pb.ListCollectionsRequest(page_size=page_size), timeout_s)
        async with aclosing(items_of(pages, "collections")) as collections:
            async for collection in collections:
                yield _collection(collection)

    async def delete_collection(self, collection: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Deletes a collection with everything in it."""
        await self._call(self._stub.DeleteCollection, pb.DeleteCollectionRequest(name=_name(collection)), timeout_s)

    async def ingest(
        self,
        collection: str,
        documents: Iterable[Document],
        *,
        batch_size_max: int = 32,
        on_progress: Callable[[Ingested], None] | None = None,
        timeout_s: float = LONG_TIMEOUT_S,
    ) -> Ingested:
        """Splits, embeds and stores documents, batch by batch, each batch within `timeout_s`; returns the totals.

        `on_progress` hears the totals after each batch: all of it is durable and searchable. A failure leaves the batches
        before it stored; ingesting a document again replaces its chunks, so that the whole may simply be repeated.
        """
        total = Ingested()
        for batch in batches((_document(document) for document in documents), count_max=batch_size_max):
            request = pb.IngestDocumentsRequest(collection=_name(collection), documents=batch)
            stored = await self._call(self._stub.IngestDocuments, request, timeout_s)
            total = Ingested(
                document_count=total.document_count + stored.document_count,
                chunk_count=total.chunk_count + stored.chunk_count,
            )
            if on_progress is not None:
                on_progress(total)
        return total

    async def upsert_chunks(
        self, collection: str, chunks: Iterable[Chunk], *, batch_size_max: int = 256, timeout_s: float = LONG_TIMEOUT_S
    ) -> int:
        """Stores ready chunks, replacing those whose ids exist, in batches as `ingest` does. Returns how many were stored."""
        count = 0
        for batch in batches((_to_chunk(chunk) for chunk in chunks), count_max=batch_size_max):
            request = pb.UpsertChunksRequest(collection=_name(collection), chunks=batch)
            count += (await self._call(self._stub.UpsertChunks, request, timeout_s)).chunk_count
        return count

    async def delete_chunks(
        self,
        collection: str,
        *,
        chunk_ids: Sequence[str] = (),
        document_ids: Sequence[str] = (),
        timeout_s: float = TIMEOUT_S,
    ) -> int:
        """Deletes chunks by their ids and by their documents' ids, at most 10,000 of each. Returns how many existed."""
        request = pb.DeleteChunksRequest(collection=_name(collection), chunk_ids=chunk_ids, document_ids=document_ids)
        return int((await self._call(self._stub.DeleteChunks, request, timeout_s)).deleted_count)

    async def list_chunks(
        self, collection: str, *, page_size: int = 100, timeout_s: float = TIMEOUT_S
    ) -> AsyncGenerator[Chunk, None]:
        """All chunks of a collection in the order of their ids, read page by page, each page within `timeout_s`."""
        request = pb.ListChunksRequest(collection=_name(collection), page_size=page_size)
        async with aclosing(items_of(self._pages(self._stub.ListChunks, request, timeout_s), "chunks")) as chunks:
            async for chunk in chunks:
                yield _from_chunk(chunk)

    async def search(
        self, collection: str, query: str | Vector, *, top_k: int | None = None, timeout_s: float = TIMEOUT_S
    ) -> tuple[Hit, ...]:
        """The `top_k` chunks (without it 10) nearest to a text or a vector, nearest first; fewer where there are fewer."""
        request = pb.SearchRequest(collection=_name(collection), top_k=top_k)
        if isinstance(query, str):
            request.text = query
        else:
            request.vector = _float32_bytes(query)
        response = await self._call(self._stub.Search, request, timeout_s)
        return tuple(_hit(hit) for hit in response.hits)

    @cached_property
    def _stub(self) -> Any:
        return RetrievalServiceStub(self._channel)  # type: ignore[no-untyped-call]  # Generated.


_METRICS: Final[dict[Metric, pb.Metric]] = {"cosine": pb.METRIC_COSINE, "inner_product": pb.METRIC_INNER_PRODUCT}


def _name(collection: str) -> str:
    return resource_name("collections", collection)


def _float32_bytes(vector: Vector) -> bytes:
    if isinstance(vector, bytes):
        return vector
    packed = array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _document(document: Document) -> pb.Document:
    metadata = to_struct(document.metadata, f"the metadata of document {document.id!r}")
    return pb.Document(id=document.id, text=document.text, metadata=metadata)


def _to_chunk(chunk: Chunk) -> pb.Chunk:
    return pb.Chunk(
        id=chunk.id,
        document_id=chunk.document_id,
        text=chunk.text,
        metadata=to_struct(chunk.metadata, f"the metadata of chunk {chunk.id!r}"),
        vector=b"" if chunk.vector is None else _float32_bytes(chunk.vector),
    )


def _from_chunk(chunk: pb.Chunk) -> Chunk:
    return Chunk(id=chunk.id, document_id=chunk.document_id, text=chunk.text, metadata=from_struct(chunk.metadata))


def _hit(hit: pb.Hit) -> Hit:
    return Hit(
        chunk_id=hit.chunk.id,
        document_id=hit.chunk.document_id,
        text=hit.chunk.text,
        metadata=from_struct(hit.chunk.metadata),
        score=hit.score,
    )


def _collection(collection: pb.Collection) -> Collection:
    return Collection(
        name=short_name(collection.name),
        embedding_model=collection.embedding_model,
        dimension=collection.dimension,
        metric="inner_product" if collection.metric == pb.METRIC_INNER_PRODUCT else "cosine",
        chunk_count=collection.chunk_count,
        embedding_fingerprint=collection.embedding_fingerprint,
    )
