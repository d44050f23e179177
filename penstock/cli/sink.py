"""Where an ingestion sends its documents: streams of a batch each, so that what is stored is known batch by batch."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol, TypeVar

from penstock.channel import rpc_errors
from penstock.clients.connection import LONG_TIMEOUT_S, Client, batches, resource_name
from penstock.clients.structs import to_struct
from penstock.corpora import CorpusRecord
from penstock.errors import InvalidArgument, Overloaded, Unavailable
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub

MESSAGE_DOCUMENTS_MAX: Final = 100
_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""How long a service that restarts is waited for."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a batch. `errors` has the place in the batch and the reason of each document that was not stored."""

    document_count: int = 0
    chunk_count: int = 0
    unchanged_count: int = 0
    errors: tuple[tuple[int, str], ...] = ()

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            document_count=self.document_count + other.document_count,
            chunk_count=self.chunk_count + other.chunk_count,
            unchanged_count=self.unchanged_count + other.unchanged_count,
            errors=self.errors + other.errors,
        )


class Sink(Protocol):
    """Takes batches of documents."""

    async def store(self, records: Sequence[CorpusRecord]) -> Outcome:
        """Stores a batch. Raises what is no single document's fault."""
        ...


class ServiceSink(Client):
    """A collection of a retrieval service. Documents that bring a vector are stored as ready chunks."""

    service = "retrieval"

    def __init__(self, target: str, *, collection: str, splitting: pb.Splitting, api_key: str = "") -> None:
        super().__init__(target, api_key=api_key)
        self._collection = resource_name("collections", collection)
        self._splitting = splitting

    async def store(self, records: Sequence[CorpusRecord]) -> Outcome:
        documents: dict[int, pb.Document] = {}
        chunks: dict[int, pb.Chunk] = {}
        refused = []
        for at, record in enumerate(records):
            try:
                if record.vector:
                    chunks[at] = _chunk(record)
                else:
                    documents[at] = _document(record)
            except (InvalidArgument, ValueError) as error:
                refused.append((at, str(error)))
        ingested = await patiently(lambda: self._ingest(documents)) if documents else Outcome()
        return Outcome(errors=tuple(refused)) + ingested + await self._upsert(list(chunks.items()))

    async def _ingest(self, documents: dict[int, pb.Document]) -> Outcome:
        with rpc_errors(self.service):
            response = await self._stub.IngestStream(self._messages(list(documents.values())), timeout=LONG_TIMEOUT_S)
        places = list(documents)
        return Outcome(
            document_count=response.document_count,
            chunk_count=response.chunk_count,
            unchanged_count=response.unchanged_count,
            errors=tuple((places[error.index], error.error.message) for error in response.errors),
        )

    async def _messages(self, documents: Sequence[pb.Document]) -> AsyncIterator[pb.IngestStreamRequest]:
        first = pb.IngestStreamRequest(collection=self._collection, splitting=self._splitting)
        for part in batches(documents, count_max=MESSAGE_DOCUMENTS_MAX):
            first.documents.extend(part)
            yield first
            first = pb.IngestStreamRequest()

    async def _upsert(self, chunks: Sequence[tuple[int, pb.Chunk]]) -> Outcome:
        """Stores ready chunks, all or none in one call: where one is refused, it is found by halves."""
        if not chunks:
            return Outcome()
        request = pb.UpsertChunksRequest(collection=self._collection, chunks=[chunk for _, chunk in chunks])
        try:
            response = await patiently(lambda: self._call(self._stub.UpsertChunks, request, LONG_TIMEOUT_S))
        except InvalidArgument as error:
            if len(chunks) == 1:
                return Outcome(errors=((chunks[0][0], error.message),))
            half = len(chunks) // 2
            return await self._upsert(chunks[:half]) + await self._upsert(chunks[half:])
        return Outcome(document_count=len(chunks), chunk_count=response.chunk_count)

    @cached_property
    def _stub(self) -> Any:
        return RetrievalServiceStub(self._channel)  # type: ignore[no-untyped-call]  # Generated.


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Calls again while the service is away or has too much to do; what is repeated does no harm."""
    for pause_s in _PAUSES_S:
        try:
            return await call()
        except (Unavailable, Overloaded) as error:
            await asyncio.sleep(max(pause_s, error.retry_after_s or 0.0))
    return await call()


def _document(record: CorpusRecord) -> pb.Document:
    return pb.Document(
        id=record.id,
        text=record.text,
        metadata=to_struct(record.metadata, "the metadata"),
        content=record.content,
        content_type=record.content_type,
    )


def _chunk(record: CorpusRecord) -> pb.Chunk:
    metadata = to_struct(record.metadata, "the metadata")
    return pb.Chunk(id=record.id, document_id=record.id, text=record.text, metadata=metadata, vector=record.vector)
