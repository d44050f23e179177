"""The collections as this node knows them: what exists, which model embeds each, and the shards that lie here.

Collections are made and deleted in the record, by any node; a node hears of it by the record's hints, and looks itself when it
is asked for a collection that it does not know.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from penstock.errors import (
    AlreadyExists,
    BackendUnavailable,
    CollectionNotFound,
    DimensionMismatch,
    FailedPrecondition,
    ModelNotFound,
    PenstockError,
)
from penstock.paging import key_after, page_token
from retrieval_svc import checks
from retrieval_svc.embedding.batching import Embeddings
from retrieval_svc.embedding.models import check_fingerprints
from retrieval_svc.unbroken import unbroken
from retrieval_svc.values import Collection, CollectionSpec, EmbeddingModel, IndexConfig, LexicalConfig, Metric, ShardStatus

_log = logging.getLogger(__name__)

_LISTING: Final = "collections"


class CollectionRecord(Protocol):
    """Where collections are recorded. When a call returns, what it did is durable."""

    async def create_collection(self, spec: CollectionSpec) -> Collection:
        """Records an empty collection. Raises AlreadyExists."""
        ...

    async def delete_collection(self, uid: int) -> None:
        """Removes a collection and everything in it."""
        ...

    async def collections(self) -> list[Collection]:
        """Every collection, with its present number of chunks."""
        ...


class ShardHolder(Protocol):
    """What holds this node's shards."""

    async def open(self, collection: Collection) -> None:
        """Opens the shards of a collection that belong here; done when they have caught up with the record."""
        ...

    async def drop(self, uid: int) -> None:
        """Closes a deleted collection's shards and removes their files."""
        ...

    def retire(self, uid: int) -> None:
        """The same of a replaced one, in a while: searches that began with it end with it."""
        ...

    def statuses(self, uid: int) -> list[ShardStatus]:
        """The shards of a collection that lie here."""
        ...


class Models(Protocol):
    """The embedding models that are loaded."""

    @property
    def models(self) -> Mapping[str, EmbeddingModel]:
        """What is loaded, by name."""
        ...

    def for_name(self, name: str) -> Embeddings:
        """The model of that name, or the default for "". Raises ModelNotFound."""
        ...


class Archive(Protocol):
    """Where snapshots are."""

    async def drop(self, uid: int) -> None:
        """Removes a deleted collection's. Raises BackendUnavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A collection as a caller asks for it. Zero and empty values leave the choice to the service."""

    id: str
    embedding_model: str = ""
    dimension: int = 0
    metric: Metric = Metric.COSINE
    index: IndexConfig = field(default_factory=IndexConfig)
    lexical: LexicalConfig = field(default_factory=LexicalConfig)
    shard_count: int = 0


class Catalog:
    """Every collection by its id."""

    def __init__(
        self,
        record: CollectionRecord,
        shards: ShardHolder,
        models: Models,
        archive: Archive | None,
        *,
        shard_count: int,
        check_language: "CheckLanguage",
    ) -> None:
        self._record = record
        self._shards = shards
        self._models = models
        self._archive = archive
        self._shard_count = shard_count
        self._check_language = check_language
        self._open: dict[str, Collection] = {}
        self._replaced: dict[str, int] = {}
        """Of an id the uid of the collection that another took the place of last."""
        self._refreshing = asyncio.Lock()

    async def load(self) -> None:
        """Opens every collection. Raises EmbeddingMismatch when one's vectors were made by another model than is loaded."""
        collections = await self._record.collections()
        self._check([collection.spec for collection in collections])
        await asyncio.gather(*map(self._opened, collections))

    async def refresh(self) -> None:
        """Brings this node to what the record says: collections that other nodes made or deleted."""
        async with self._refreshing:
            recorded = {collection.spec.id: collection for collection in await self._record.collections()}
            for collection_id, collection in list(self._open.items()):
                if collection_id not in recorded:
                    await self._closed(collection)
            for collection_id, collection in recorded.items():
                former = self._open.get(collection_id)
                if former is None or former.uid != collection.uid:
                    await self._opened(collection)
                    self._replace(former)
                self._open[collection_id] = collection

    async def create(self, wanted: Wanted) -> Collection:
        """Creates an empty collection. Raises AlreadyExists, ModelNotFound, DimensionMismatch, InvalidArgument."""
        spec = self._spec(wanted)
        if spec.id in self._open:
            message = f"the collection {spec.id!r} exists already; choose another id, or delete it first"
            raise AlreadyExists(message, metadata={"collection": spec.id})
        return await unbroken(self._create(spec))

    async def find(self, name: str) -> Collection:
        """The collection of a resource name. Raises CollectionNotFound."""
        collection_id = checks.collection_name(name)
        collection = self._open.get(collection_id)
        if collection is None:
            await self._look_again()
            collection = self._open.get(collection_id)
        if collection is None:
            message = f"there is no collection {collection_id!r}; list the collections, or create it"
            raise CollectionNotFound(message, metadata={"collection": collection_id})
        return collection

    async def counted(self, name: str) -> Collection:
        """The collection with its present number of chunks.

        While the record cannot be read, it is that of the chunks that searches see, if all its shards lie here. Raises
        BackendUnavailable if not: the number that was known last would pass for the present one.
        """
        collection = await self.find(name)
        failure = await self._look_again()
        return self._counted(self._open.get(collection.spec.id, collection), failure)

    async def page(self, page_size: int, token: str) -> tuple[list[Collection], str]:
        """A page of collections as `counted` has them, in the order of ids, and the next page's token."""
        failure = await self._look_again()
        size, after = checks.page_size(page_size), key_after(_LISTING, token)
        ids = sorted(collection_id for collection_id in self._open if collection_id > after)
        following = page_token(_LISTING, ids[size - 1]) if len(ids) > size else ""
        return [self._counted(self._open[collection_id], failure) for collection_id in ids[:size]], following

    async def delete(self, name: str) -> None:
        """Deletes a collection with everything in it."""
        collection = await self.find(name)
        await unbroken(self._delete(collection))

    async def exists(self, collection: Collection) -> bool:
        """Whether the collection has been neither deleted nor replaced, as far as the record can be read."""
        await self._look_again()
        known = self._open.get(collection.spec.id)
        return known is not None and known.uid == collection.uid

    def is_open(self, collection: Collection) -> bool:
        """Whether the collection still exists, as far as is known here, or has just been replaced by another of its id."""
        known = self._open.get(collection.spec.id)
        return known is not None and collection.uid in {known.uid, self._replaced.get(known.spec.id)}

    def embeddings_for(self, spec: CollectionSpec) -> Embeddings:
        """What embeds texts for a collection.

        Raises FailedPrecondition when its vectors come from the caller, EmbeddingMismatch when another model made them.
        """
        if not spec.embedding_model:
            message = f"the collection {spec.id!r} has no embedding model: give a vector, not a text alone"
            raise FailedPrecondition(message, metadata={"collection": spec.id})
        self._check([spec])
        return self._models.for_name(spec.embedding_model)

    def _spec(self, wanted: Wanted) -> CollectionSpec:
        collection_id = checks.collection_id(wanted.id)
        checks.index(wanted.index)
        shard_count = checks.shard_count(wanted.shard_count or self._shard_count)
        self._check_language(wanted.lexical.language)
        model, fingerprint, dimension = self._model_of(wanted)
        checks.index_fits(wanted.index, dimension)
        return CollectionSpec(
            id=collection_id,
            embedding_model=model,
            embedding_fingerprint=fingerprint,
            dimension=dimension,
            metric=wanted.metric,
            index=wanted.index,
            lexical=wanted.lexical,
            shard_count=shard_count,
        )

    def _model_of(self, wanted: Wanted) -> tuple[str, str, int]:
        """Name and fingerprint of the model that is to embed, both empty where callers bring the vectors; the dimension."""
        if not wanted.embedding_model and wanted.dimension:
            return "", "", checks.dimension(wanted.dimension)
        try:
            model = self._models.for_name(wanted.embedding_model).model
        except ModelNotFound:
            if wanted.embedding_model:
                raise
            message = "this service embeds nothing; give a dimension and no embedding_model, and bring the vectors"
            raise ModelNotFound(message) from None
        if wanted.dimension not in {0, model.dimension}:
            message = f"{model.name} makes vectors of {model.dimension} components, not {wanted.dimension}"
            raise DimensionMismatch(message, metadata={"dimension": str(model.dimension)})
        return model.name, model.fingerprint, model.dimension

    def _check(self, specs: Sequence[CollectionSpec]) -> None:
        check_fingerprints(specs, self._models.models.values())

    async def _look_again(self) -> PenstockError | None:
        """Reads the record if it can be read, or says why not: what is known goes on being served while it cannot."""
        try:
            await self.refresh()
        except PenstockError as error:
            _log.warning("the collections cannot be read from the record now: %s", error.message)
            return error
        return None

    def _counted(self, collection: Collection, failure: PenstockError | None) -> Collection:
        if failure is None:
            return collection
        statuses = self._shards.statuses(collection.uid)
        if len(statuses) < collection.spec.shard_count:
            message = f"how many chunks the collection {collection.spec.id!r} has cannot be told now: {failure.message}"
            raise BackendUnavailable(message, metadata={"collection": collection.spec.id}) from failure
        return replace(collection, chunk_count=sum(status.row_count for status in statuses))

    async def _create(self, spec: CollectionSpec) -> Collection:
        collection = await self._record.create_collection(spec)
        async with self._refreshing:
            if spec.id not in self._open:
                await self._opened(collection)
        return collection

    async def _delete(self, collection: Collection) -> None:
        await self._record.delete_collection(collection.uid)
        async with self._refreshing:
            if self.is_open(collection):
                await self._closed(collection)
        if self._archive is not None:
            await self._remove_snapshots(self._archive, collection)

    async def _remove_snapshots(self, archive: Archive, collection: Collection) -> None:
        try:
            await archive.drop(collection.uid)
        except PenstockError as error:
            _log.warning("the snapshots of the deleted collection %s are still there: %s", collection.spec.id, error.message)

    async def _opened(self, collection: Collection) -> None:
        await self._shards.open(collection)
        self._open[collection.spec.id] = collection

    def _replace(self, former: Collection | None) -> None:
        """Another collection has taken this one's place and is open: what is under way with it may end."""
        if former is not None:
            self._replaced[former.spec.id] = former.uid
            self._shards.retire(former.uid)

    async def _closed(self, collection: Collection) -> None:
        del self._open[collection.spec.id]
        await self._shards.drop(collection.uid)


class CheckLanguage(Protocol):
    """Raises InvalidArgument for a language that lexical indexes do not know."""

    def __call__(self, language: str) -> None: ...
