"""The collections of this process: what exists, whether it takes texts, and the indexes that are derived from the record."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np

from penstock.errors import (
    AlreadyExists,
    CollectionNotFound,
    DimensionMismatch,
    EmbeddingMismatch,
    FailedPrecondition,
    ModelNotFound,
)
from retrieval_svc import checks
from retrieval_svc.embedding.batching import Embeddings
from retrieval_svc.shards.indexing import Indexes
from retrieval_svc.paging import key_after, page_token
from retrieval_svc.unbroken import unbroken
from retrieval_svc.values import Collection, CollectionSpec, Matrix, Metric, Sequences

_log = logging.getLogger(__name__)


class CollectionRecord(Protocol):
    """Where collections are recorded. When a call returns, what it did is durable."""

    async def create_collection(self, spec: CollectionSpec) -> Collection:
        """Records an empty collection. Raises AlreadyExists."""
        ...

    async def delete_collection(self, uid: int) -> None:
        """Removes a collection and everything in it."""
        ...

    async def collections(self) -> list[Collection]:
        """Every collection."""
        ...

    def vectors(self, collection: Collection) -> AsyncIterator[tuple[Sequences, Matrix]]:
        """All vectors of a collection in parts, ascending in sequence number."""
        ...


_LISTING: Final = "collections"


@dataclass(slots=True, kw_only=True)
class OpenCollection:
    """A collection and the lock under which its writes happen one after another, in the record and in the index alike."""

    collection: Collection
    write_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def uid(self) -> int:
        """The collection's uid."""
        return self.collection.uid

    @property
    def spec(self) -> CollectionSpec:
        """What the collection was created as."""
        return self.collection.spec

    def count(self, chunk_count: int) -> None:
        """Notes how many chunks there are after a write."""
        self.collection = replace(self.collection, chunk_count=chunk_count)


class Catalog:
    """Every collection by its id. `embeddings` is None where the service embeds nothing."""

    def __init__(self, record: CollectionRecord, indexes: Indexes, embeddings: Embeddings | None) -> None:
        self._record = record
        self._indexes = indexes
        self._embeddings = embeddings
        self._open: dict[str, OpenCollection] = {}

    async def load(self) -> None:
        """Builds every index from the record."""
        for collection in await self._record.collections():
            await self._index(collection)
            self._open[collection.spec.id] = OpenCollection(collection=collection)
            self._warn_of_mismatch(collection.spec)

    async def create(self, collection_id: str, *, embedding_model: str, dimension: int, metric: Metric) -> Collection:
        """Creates an empty collection. Raises AlreadyExists, ModelNotFound, DimensionMismatch, InvalidArgument."""
        spec = self._spec(checks.collection_id(collection_id), embedding_model, dimension, metric)
        if spec.id in self._open:
            message = f"the collection {spec.id!r} exists already"
            raise AlreadyExists(message, metadata={"collection": spec.id})
        return await unbroken(self._create(spec))

    def find(self, name: str) -> OpenCollection:
        """The collection of a resource name. Raises CollectionNotFound."""
        collection_id = checks.collection_name(name)
        entry = self._open.get(collection_id)
        if entry is None:
            message = f"there is no collection {collection_id!r}"
            raise CollectionNotFound(message, metadata={"collection": collection_id})
        return entry

    def page(self, page_size: int, token: str) -> tuple[list[Collection], str]:
        """A page of collections in the order of ids, and the next page's token."""
        size, after = checks.page_size(page_size), key_after(_LISTING, token)
        ids = sorted(collection_id for collection_id in self._open if collection_id > after)
        following = page_token(_LISTING, ids[size - 1]) if len(ids) > size else ""
        return [self._open[collection_id].collection for collection_id in ids[:size]], following

    async def delete(self, name: str) -> None:
        """Deletes a collection with everything in it, after the writes that have begun."""
        entry = self.find(name)
        async with entry.write_lock:
            if self.is_open(entry):
                await unbroken(self._delete(entry))

    def is_open(self, entry: OpenCollection) -> bool:
        """Whether the collection still exists, which may have changed while its lock was waited for."""
        return self._open.get(entry.spec.id) is entry

    def embeddings_for(self, spec: CollectionSpec) -> Embeddings:
        """What embeds texts for a collection.

        Raises FailedPrecondition when its vectors come from the caller, EmbeddingMismatch when another model made them.
        """
        if not spec.embedding_model:
            message = f"the collection {spec.id!r} has no embedding model: give a vector, not a text alone"
            raise FailedPrecondition(message, metadata={"collection": spec.id})
        if self._embeddings is None or self._embeddings.model.fingerprint != spec.embedding_fingerprint:
            loaded = self._embeddings.model.fingerprint if self._embeddings else "none"
            message = (
                f"the vectors of {spec.id!r} were made by {spec.embedding_fingerprint}, but the loaded model is {loaded}; "
                "load that model, or ingest into a new collection"
            )
            metadata = {"collection": spec.id, "made_by": spec.embedding_fingerprint, "loaded": loaded}
            raise EmbeddingMismatch(message, metadata=metadata)
        return self._embeddings

    def _spec(self, collection_id: str, model_name: str, dimension: int, metric: Metric) -> CollectionSpec:
        if not model_name and dimension:
            vectors_of = checks.dimension(dimension)
            return CollectionSpec(
                id=collection_id, embedding_model="", embedding_fingerprint="", dimension=vectors_of, metric=metric
            )
        if self._embeddings is None:
            raise ModelNotFound("this service embeds nothing; give a dimension and no embedding_model, and bring the vectors")
        model = self._embeddings.model
        if model_name not in {"", model.name}:
            message = f"no embedding model {model_name!r} is loaded here; {model.name!r} is"
            raise ModelNotFound(message, metadata={"model": model_name, "loaded": model.name})
        if dimension not in {0, model.dimension}:
            message = f"{model.name} makes vectors of {model.dimension} components, not {dimension}"
            raise DimensionMismatch(message, metadata={"dimension": str(model.dimension)})
        return CollectionSpec(
            id=collection_id,
            embedding_model=model.name,
            embedding_fingerprint=model.fingerprint,
            dimension=model.dimension,
            metric=metric,
        )

    async def _create(self, spec: CollectionSpec) -> Collection:
        collection = await self._record.create_collection(spec)
        await self._indexes.create(collection.uid, spec.dimension, spec.metric)
        self._open[spec.id] = OpenCollection(collection=collection)
        return collection

    async def _delete(self, entry: OpenCollection) -> None:
        await self._record.delete_collection(entry.uid)
        del self._open[entry.spec.id]
        await self._indexes.drop(entry.uid)

    async def _index(self, collection: Collection) -> None:
        await self._indexes.create(collection.uid, collection.spec.dimension, collection.spec.metric)
        nothing = np.empty(0, dtype=np.int64)
        async for sequences, vectors in self._record.vectors(collection):
            await self._indexes.apply(collection.uid, removed=nothing, stored=sequences, vectors=vectors)

    def _warn_of_mismatch(self, spec: CollectionSpec) -> None:
        loaded = self._embeddings.model.fingerprint if self._embeddings else "none"
        if spec.embedding_model and spec.embedding_fingerprint != loaded:
            _log.warning(
                "collection %s takes no texts: its vectors were made by %s, the loaded model is %s",
                spec.id, spec.embedding_fingerprint, loaded,
            )  # fmt: skip
