"""Chunks read by id or page by page, from the record: what is stored, whether searches here see it already or not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from penstock.paging import key_after, page_token
from retrieval_svc import checks
from retrieval_svc.search.gathering import Gatherer
from retrieval_svc.values import Collection, StoredChunk, Vector, Visibility, shard_of


class ChunkReader(Protocol):
    """The record, as it is read."""

    async def chunks_after(self, uid: int, chunk_id: str, limit: int) -> list[StoredChunk]:
        """The first `limit` whose ids come after `chunk_id`, in the order of ids."""
        ...

    async def chunks_by_id(self, uid: int, chunk_ids: Sequence[str]) -> list[StoredChunk]:
        """Those that exist, in no order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A chunk, and its vector where that was asked for and searches have it."""

    chunk: StoredChunk
    vector: Vector | None = None


class Listing:
    """Lists of chunks, of which everybody sees what they may."""

    def __init__(self, reader: ChunkReader, gatherer: Gatherer) -> None:
        self._reader = reader
        self._gatherer = gatherer

    async def page(
        self, collection: Collection, page_size: int, token: str, visibility: Visibility
    ) -> tuple[list[StoredChunk], str]:
        """A page of a collection's chunks in the order of ids, and the next page's token."""
        listing = f"collections/{collection.spec.id}/chunks"
        size, after = checks.page_size(page_size), key_after(listing, token)
        visible: list[StoredChunk] = []
        while len(visible) <= size:
            wanted = size + 1 - len(visible)
            chunks = await self._reader.chunks_after(collection.uid, after, wanted)
            visible += [chunk for chunk in chunks if may_see(visibility, chunk)]
            if len(chunks) < wanted:
                break
            after = chunks[-1].id
        following = page_token(listing, visible[size - 1].id) if len(visible) > size else ""
        return visible[:size], following

    async def by_id(
        self, collection: Collection, chunk_ids: Sequence[str], visibility: Visibility, *, with_vectors: bool
    ) -> list[Listed]:
        """The chunks of those ids that exist, in the order of the ids."""
        checks.chunk_ids(chunk_ids)
        found = {chunk.id: chunk for chunk in await self._reader.chunks_by_id(collection.uid, chunk_ids)}
        there = [found[chunk_id] for chunk_id in chunk_ids if chunk_id in found and may_see(visibility, found[chunk_id])]
        vectors = await self._vectors(collection, there) if with_vectors else [None] * len(there)
        return [Listed(chunk=chunk, vector=vector) for chunk, vector in zip(there, vectors, strict=True)]

    async def _vectors(self, collection: Collection, chunks: Sequence[StoredChunk]) -> list[Vector | None]:
        shards = np.array([shard_of(chunk.id, collection.spec.shard_count) for chunk in chunks], dtype=np.int32)
        sequences = np.array([chunk.sequence for chunk in chunks], dtype=np.int64)
        rows = await self._gatherer.fetch(collection, shards, sequences, with_vectors=True)
        return [None if row is None else row.vector for row in rows]


def may_see(visibility: Visibility, chunk: StoredChunk) -> bool:
    """Whether a chunk's access list lets those eyes see it."""
    if visibility.principals is None or not chunk.allowed_principals:
        return True
    return not visibility.principals.isdisjoint(chunk.allowed_principals)
