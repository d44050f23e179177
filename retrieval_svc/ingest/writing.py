"""Writes: validate -> split -> embed -> commit -> index. A write that is acknowledged is durable and can be found."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from opentelemetry.trace import Span, Tracer

from penstock import semconv
from penstock.errors import CollectionNotFound, InvalidArgument, Overloaded
from retrieval_svc import checks
from retrieval_svc.search.cache import ChunkCache
from retrieval_svc.catalog import Catalog, OpenCollection
from retrieval_svc.ingest.chunking import Tokenise, split_text
from retrieval_svc.shards.indexing import Indexes
from retrieval_svc.unbroken import unbroken
from retrieval_svc.values import Chunk, Commit, Document, Matrix, StoredChunk, WriteBatch


class ChangeLog(Protocol):
    """Where writes are recorded, in order."""

    async def commit(self, uid: int, batch: WriteBatch) -> Commit:
        """Makes the batch durable with the next sequence numbers of its collection, as a whole or not at all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """How much of a write is taken on, and how documents are split."""

    writes_max: int
    chunk_text_bytes_max: int
    document_text_bytes_max: int
    chunk_tokens_max: int
    chunk_overlap_tokens: int


class Ingest:
    """Stores and deletes chunks. `stop` asks the process to leave: it starts again with indexes rebuilt from the record."""

    def __init__(
        self,
        catalog: Catalog,
        log: ChangeLog,
        indexes: Indexes,
        *,
        cache: ChunkCache,
        limits: IngestLimits,
        tracer: Tracer,
        stop: Callable[[str], None],
    ) -> None:
        self._catalog = catalog
        self._log = log
        self._indexes = indexes
        self._cache = cache
        self._limits = limits
        self._tracer = tracer
        self._stop = stop
        self._writes = 0

    async def ingest_documents(self, name: str, documents: Sequence[Document]) -> int:
        """Splits, embeds and stores documents, each in place of all its former chunks; the number of chunks stored."""
        checks.documents(documents, self._limits.document_text_bytes_max)
        entry = self._catalog.find(name)
        embeddings = self._catalog.embeddings_for(entry.spec)
        with self._write(entry) as span:
            chunks = await asyncio.to_thread(self._split, documents, embeddings.token_spans, embeddings.model.window_tokens)
            vectors = await embeddings.texts([chunk.text for chunk in chunks])
            ids = tuple(document.id for document in documents)
            batch = WriteBatch(chunks=chunks, vectors=vectors, delete_document_ids=ids)
            commit = await self._apply(entry, batch)
            span.set_attribute(semconv.PENSTOCK_BATCH_SIZE, len(commit.stored))
            return len(commit.stored)

    async def upsert_chunks(self, name: str, chunks: Sequence[Chunk]) -> int:
        """Stores ready chunks, embedding those without a vector; their number."""
        checks.chunks(chunks, self._limits.chunk_text_bytes_max)
        entry = self._catalog.find(name)
        with self._write(entry) as span:
            batch = WriteBatch(chunks=tuple(chunks), vectors=await self._vectors(entry, chunks))
            commit = await self._apply(entry, batch)
            span.set_attribute(semconv.PENSTOCK_BATCH_SIZE, len(commit.stored))
            return len(commit.stored)

    async def delete_chunks(self, name: str, chunk_ids: Sequence[str], document_ids: Sequence[str]) -> int:
        """Deletes chunks by id and by document; the number of those that existed."""
        checks.deletions(chunk_ids, document_ids)
        entry = self._catalog.find(name)
        with self._write(entry):
            batch = WriteBatch(
                vectors=np.empty((0, entry.spec.dimension), dtype=np.float32),
                delete_chunk_ids=tuple(chunk_ids),
                delete_document_ids=tuple(document_ids),
            )
            return (await self._apply(entry, batch)).deleted_count

    @contextmanager
    def _write(self, entry: OpenCollection) -> Iterator[Span]:
        """A place among the writes in progress, and the write's span."""
        if self._writes >= self._limits.writes_max:
            message = f"{self._writes} writes are in progress already"
            raise Overloaded(message, metadata={"limit": str(self._limits.writes_max)}, retry_after_s=1.0)
        self._writes += 1
        try:
            attributes = {semconv.GEN_AI_DATA_SOURCE_ID: entry.spec.id}
            with self._tracer.start_as_current_span(f"write {entry.spec.id}", attributes=attributes) as span:
                yield span
        finally:
            self._writes -= 1

    def _split(self, documents: Sequence[Document], tokenise: Tokenise, window_tokens: int) -> tuple[Chunk, ...]:
        chunks: list[Chunk] = []
        for document in documents:
            pieces = split_text(
                document.text,
                tokenise,
                tokens_max=min(self._limits.chunk_tokens_max, window_tokens),
                overlap_tokens=min(self._limits.chunk_overlap_tokens, window_tokens // 2),
            )
            chunks += [_chunk_of(document, number, piece) for number, piece in enumerate(pieces)]
            if len(chunks) > checks.CHUNKS_MAX:
                message = f"these documents are more than {checks.CHUNKS_MAX} chunks; ingest fewer of them in one call"
                raise InvalidArgument(message, metadata={"limit": str(checks.CHUNKS_MAX)})
        return tuple(chunks)

    async def _vectors(self, entry: OpenCollection, chunks: Sequence[Chunk]) -> Matrix:
        """A vector for each chunk: the caller's own, checked, or the model's."""
        matrix = np.empty((len(chunks), entry.spec.dimension), dtype=np.float32)
        given = [at for at, chunk in enumerate(chunks) if chunk.vector]
        missing = [at for at, chunk in enumerate(chunks) if not chunk.vector]
        if given:
            raw = [chunks[at].vector for at in given]
            fields = (f"chunks[{at}].vector" for at in given)
            matrix[given] = checks.vectors(raw, fields, dimension=entry.spec.dimension, metric=entry.spec.metric)
        if missing:
            embeddings = self._catalog.embeddings_for(entry.spec)
            matrix[missing] = await embeddings.texts([chunks[at].text for at in missing])
        return matrix

    async def _apply(self, entry: OpenCollection, batch: WriteBatch) -> Commit:
        """Commits and indexes. One write of a collection at a time, so that the index sees them in the record's order."""
        async with entry.write_lock:
            if not self._catalog.is_open(entry):
                message = f"the collection {entry.spec.id!r} was deleted meanwhile"
                raise CollectionNotFound(message, metadata={"collection": entry.spec.id})
            return await unbroken(self._commit(entry, batch))

    async def _commit(self, entry: OpenCollection, batch: WriteBatch) -> Commit:
        commit = await self._log.commit(entry.uid, batch)
        for chunk, sequence in zip(batch.chunks, commit.stored.tolist(), strict=True):
            self._cache.put((entry.uid, sequence), _stored(chunk, sequence))  # What was just written is soon looked for.
        try:
            await self._indexes.apply(entry.uid, removed=commit.removed, stored=commit.stored, vectors=batch.vectors)
        except Exception as error:
            # The record has what the index has not, and nothing but a rebuild brings them together again.
            self._stop(f"the index of {entry.spec.id} could not follow the record: {error!r}")
            raise
        entry.count(commit.chunk_count)
        return commit


def _stored(chunk: Chunk, sequence: int) -> StoredChunk:
    return StoredChunk(
        sequence=sequence,
        id=chunk.id,
        document_id=chunk.document_id,
        text=chunk.text,
        metadata_json=chunk.metadata_json,
    )


def _chunk_of(document: Document, number: int, text: str) -> Chunk:
    return Chunk(id=f"{document.id}#{number}", document_id=document.id, text=text, metadata_json=document.metadata_json)
