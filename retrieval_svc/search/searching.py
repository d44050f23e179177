"""Reads: validate -> embed -> search -> hydrate. And lists of chunks."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from opentelemetry.trace import Span, Tracer
from opentelemetry.util.types import AttributeValue

from penstock import semconv
from retrieval_svc import checks
from retrieval_svc.search.cache import ChunkCache
from retrieval_svc.catalog import Catalog, OpenCollection
from retrieval_svc.shards.indexing import Indexes
from penstock.paging import key_after, page_token
from retrieval_svc.values import Hit, Neighbours, StoredChunk, Vector

_ATTEMPTS_MAX: Final = 3
"""Times that a search begins again because what it found was replaced under it."""


class ChunkReader(Protocol):
    """Where chunks are read, without their vectors."""

    async def chunks_by_sequence(self, uid: int, sequences: Sequence[int]) -> list[StoredChunk]:
        """Those that are stored under these numbers now, in no order."""
        ...

    async def chunks_after(self, uid: int, chunk_id: str, limit: int) -> list[StoredChunk]:
        """The first `limit` whose ids come after `chunk_id`, in the order of ids."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to search for: a text, or a vector of little-endian float32."""

    text: str | None = None
    vector: bytes | None = None
    top_k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLimits:
    """How much a search may ask for."""

    top_k_max: int
    query_text_bytes_max: int


class Search:
    """Finds chunks. `capture_content` says whether queries and passages may stand in spans."""

    def __init__(
        self,
        catalog: Catalog,
        reader: ChunkReader,
        indexes: Indexes,
        *,
        cache: ChunkCache,
        limits: SearchLimits,
        tracer: Tracer,
        capture_content: bool,
    ) -> None:
        self._catalog = catalog
        self._reader = reader
        self._indexes = indexes
        self._cache = cache
        self._limits = limits
        self._tracer = tracer
        self._capture_content = capture_content

    async def search(self, name: str, query: Query) -> list[Hit]:
        """The nearest chunks, nearest first; all there are when there are fewer than top_k."""
        top_k = checks.top_k(query.top_k, self._limits.top_k_max)
        entry = self._catalog.find(name)
        attributes: dict[str, AttributeValue] = {
            semconv.GEN_AI_OPERATION_NAME: "retrieval",
            semconv.GEN_AI_DATA_SOURCE_ID: entry.spec.id,
            semconv.GEN_AI_REQUEST_TOP_K: top_k,
        }
        with self._tracer.start_as_current_span(f"retrieval {entry.spec.id}", attributes=attributes) as span:
            vector = await self._vector(entry, query)
            hits = await self._hits(entry, vector, top_k)
            self._describe(span, query, hits)
            return hits

    async def page(self, name: str, page_size: int, token: str) -> tuple[list[StoredChunk], str]:
        """A page of a collection's chunks in the order of ids, and the next page's token."""
        entry = self._catalog.find(name)
        listing = f"collections/{entry.spec.id}/chunks"
        size, after = checks.page_size(page_size), key_after(listing, token)
        chunks = await self._reader.chunks_after(entry.uid, after, size + 1)
        following = page_token(listing, chunks[size - 1].id) if len(chunks) > size else ""
        return chunks[:size], following

    async def _vector(self, entry: OpenCollection, query: Query) -> Vector:
        if query.vector is not None:
            spec = entry.spec
            vector: Vector = checks.vectors([query.vector], ["vector"], dimension=spec.dimension, metric=spec.metric)[0]
            return vector
        text = checks.text(query.text or "", "text", self._limits.query_text_bytes_max)
        return await self._catalog.embeddings_for(entry.spec).query(text)

    async def _hits(self, entry: OpenCollection, vector: Vector, top_k: int) -> list[Hit]:
        """The nearest chunks with their texts.

        The record is ahead of the index for the moment between a write's commit and its indexing. What is found in that moment
        and is no longer in the record has been replaced or deleted: the search waits for the write and begins again.
        """
        for _ in range(_ATTEMPTS_MAX):
            found = await self._nearest(entry, vector, top_k)
            hits = await self._hydrate(entry, found)
            if len(hits) == len(found.sequences):
                break
            async with entry.write_lock:
                pass
        return hits

    async def _nearest(self, entry: OpenCollection, vector: Vector, top_k: int) -> Neighbours:
        attributes: dict[str, AttributeValue] = {
            semconv.GEN_AI_DATA_SOURCE_ID: entry.spec.id,
            semconv.GEN_AI_REQUEST_TOP_K: top_k,
        }
        with self._tracer.start_as_current_span("faiss.search", attributes=attributes) as span:
            found = await self._indexes.search(entry.uid, vector, top_k)
            span.set_attribute(semconv.PENSTOCK_HIT_COUNT, len(found.sequences))
            return found

    async def _hydrate(self, entry: OpenCollection, found: Neighbours) -> list[Hit]:
        """The found chunks that are still stored, in the same order."""
        sequences = found.sequences.tolist()
        chunks = {sequence: self._cache.get((entry.uid, sequence)) for sequence in sequences}
        missing = [sequence for sequence, chunk in chunks.items() if chunk is None]
        if missing:
            for stored in await self._reader.chunks_by_sequence(entry.uid, missing):
                chunks[stored.sequence] = stored
                self._cache.put((entry.uid, stored.sequence), stored)
        pairs = zip(sequences, found.scores.tolist(), strict=True)
        return [Hit(chunk=chunk, score=score) for sequence, score in pairs if (chunk := chunks[sequence]) is not None]

    def _describe(self, span: Span, query: Query, hits: Sequence[Hit]) -> None:
        span.set_attribute(semconv.PENSTOCK_HIT_COUNT, len(hits))
        if not self._capture_content or not span.is_recording():
            return
        if query.text:
            span.set_attribute(semconv.GEN_AI_RETRIEVAL_QUERY_TEXT, query.text)
        documents = [{"id": hit.chunk.id, "score": hit.score, "content": hit.chunk.text} for hit in hits]
        span.set_attribute(semconv.GEN_AI_RETRIEVAL_DOCUMENTS, json.dumps(documents, ensure_ascii=False))
