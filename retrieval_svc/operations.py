"""What operators ask of a node, and what is asked of its models: states, compaction, snapshots, embeddings."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from penstock.errors import CollectionNotFound, FailedPrecondition, InvalidArgument, Violation
from penstock.paging import key_after, page_token
from retrieval_svc import checks
from retrieval_svc.embedding.models import EmbeddedTexts
from retrieval_svc.shards.follower import ShardKey
from retrieval_svc.shards.replica import Replica
from retrieval_svc.values import Collection, EmbeddingModel, ShardStatus

TEXTS_MAX: Final = 1000
_MODELS: Final = "models"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSnapshot:
    """A snapshot of one shard in the store."""

    id: str
    shard: int
    position: int
    created: datetime
    size_bytes: int


class LoadedModels(Protocol):
    """The embedding models that are loaded."""

    @property
    def default(self) -> str:
        """The name of the one that is meant where none is named; empty: none is loaded."""
        ...

    @property
    def models(self) -> Mapping[str, EmbeddingModel]:
        """All of them by name."""
        ...

    async def embed(self, name: str, texts: Sequence[str], *, is_query: bool) -> EmbeddedTexts:
        """A vector for each text. Raises ModelNotFound."""
        ...


class HeldShards(Protocol):
    """The shards that this node holds."""

    def of(self, uid: int) -> list[Replica]:
        """A collection's."""
        ...


class Caretaker(Protocol):
    """What looks after them."""

    async def compact(self, replica: Replica) -> None:
        """Merges a shard's segments into one. Raises Unavailable."""
        ...

    async def snapshot(self, replica: Replica) -> None:
        """Sends a snapshot of a shard to the store. Raises Unavailable."""
        ...


class KnownCollections(Protocol):
    """The collections as this node knows them."""

    async def exists(self, collection: Collection) -> bool:
        """Whether it has been neither deleted nor replaced, as far as the record can be read."""
        ...


class SnapshotShelf(Protocol):
    """The snapshots that there are."""

    async def list(self, key: ShardKey) -> "Sequence[StoredSnapshot]":
        """A shard's, newest first."""
        ...


class Operations:
    """`shelf` is None where no snapshot store is set."""

    def __init__(
        self,
        models: LoadedModels,
        shards: HeldShards,
        caretaker: Caretaker,
        shelf: SnapshotShelf | None,
        collections: KnownCollections,
        *,
        text_bytes_max: int,
    ) -> None:
        self._models = models
        self._shards = shards
        self._caretaker = caretaker
        self._shelf = shelf
        self._collections = collections
        self._text_bytes_max = text_bytes_max

    def models(self, page_size: int, token: str) -> tuple[list[EmbeddingModel], str, str]:
        """A page of the loaded models in the order of names, the default one's name, and the next page's token."""
        size, after = checks.page_size(page_size), key_after(_MODELS, token)
        names = sorted(name for name in self._models.models if name > after)
        following = page_token(_MODELS, names[size - 1]) if len(names) > size else ""
        return [self._models.models[name] for name in names[:size]], self._models.default, following

    async def embed(self, model: str, texts: Sequence[str], *, is_query: bool) -> EmbeddedTexts:
        """A vector for each text."""
        if not 1 <= len(texts) <= TEXTS_MAX:
            message = f"give from 1 to {TEXTS_MAX} texts in one call; not {len(texts)}"
            violation = Violation(message=message, field="texts")
            raise InvalidArgument(message, metadata={"field": "texts"}, violations=[violation])
        for at, text in enumerate(texts):
            checks.text(text, f"texts[{at}]", self._text_bytes_max)
        return await self._models.embed(model, texts, is_query=is_query)

    def statuses(self, collection: Collection) -> list[ShardStatus]:
        """The states of the shards that lie here."""
        return [replica.status() for replica in self._shards.of(collection.uid)]

    async def compact(self, collection: Collection) -> list[ShardStatus]:
        """Merges the segments of the shards that lie here; their states afterwards. Raises CollectionNotFound."""
        replicas = await self._done(collection, self._caretaker.compact)
        return [replica.status() for replica in replicas]

    async def snapshot(self, collection: Collection) -> list[StoredSnapshot]:
        """Sends snapshots of the shards that lie here; the newest of each. Raises CollectionNotFound."""
        shelf = self._shelf_there()
        replicas = await self._done(collection, self._caretaker.snapshot)
        stored = await asyncio.gather(*(shelf.list(replica.key) for replica in replicas))
        return [each[0] for each in stored if each]

    async def snapshots(self, collection: Collection, page_size: int, token: str) -> tuple[list[StoredSnapshot], str]:
        """A page of a collection's snapshots, newest first, and the next page's token."""
        shelf, listing = self._shelf_there(), f"collections/{collection.spec.id}/snapshots"
        size, after = checks.page_size(page_size), key_after(listing, token)
        keys = [ShardKey(uid=collection.uid, shard=shard) for shard in range(collection.spec.shard_count)]
        found = [each for part in await asyncio.gather(*map(shelf.list, keys)) for each in part]
        ordered = sorted(found, key=lambda each: (each.created, each.id), reverse=True)
        ids = [each.id for each in ordered]
        first = ids.index(after) + 1 if after in ids else 0
        following = page_token(listing, ids[first + size - 1]) if len(ids) > first + size else ""
        return ordered[first : first + size], following

    async def _done(self, collection: Collection, work: Callable[[Replica], Awaitable[None]]) -> list[Replica]:
        """The shards that lie here, once the work on them is done.

        A collection may be deleted meanwhile, and its files with it: whatever fails then, that is the reason.
        """
        replicas = self._shards.of(collection.uid)
        try:
            await asyncio.gather(*map(work, replicas))
        except Exception as error:
            if await self._collections.exists(collection):
                raise
            raise _deleted(collection) from error
        if self._shards.of(collection.uid) != replicas:
            raise _deleted(collection)
        return replicas

    def _shelf_there(self) -> SnapshotShelf:
        if self._shelf is None:
            message = "there is no snapshot store; set PENSTOCK_RETRIEVAL_SNAPSHOT_URL and restart"
            raise FailedPrecondition(message)
        return self._shelf


def _deleted(collection: Collection) -> CollectionNotFound:
    message = f"the collection {collection.spec.id!r} was deleted or replaced meanwhile"
    return CollectionNotFound(message, metadata={"collection": collection.spec.id})
