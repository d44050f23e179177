"""What writes need of the rest of the service."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from retrieval_svc.filters import Filter
from retrieval_svc.ingest.chunking import Tokenise
from retrieval_svc.values import (
    Changes,
    Collection,
    CollectionSpec,
    Commit,
    DocumentRecord,
    EmbeddingModel,
    Matrix,
    Sequences,
    Visibility,
    WriteBatch,
)


class Embeddings(Protocol):
    """A model that embeds texts."""

    @property
    def model(self) -> EmbeddingModel:
        """What it is."""
        ...

    @property
    def token_spans(self) -> Tokenise:
        """How it cuts a text into tokens. Called from any thread."""
        ...

    async def texts(self, texts: Sequence[str]) -> Matrix:
        """A vector for each text, one a row. Texts of any length."""
        ...


class Collections(Protocol):
    """The collections that exist."""

    async def find(self, name: str) -> Collection:
        """The collection of a resource name. Raises CollectionNotFound."""
        ...

    def embeddings_for(self, spec: CollectionSpec) -> Embeddings:
        """What embeds for a collection. Raises FailedPrecondition where its vectors come from the caller, EmbeddingMismatch."""
        ...


class ChangeLog(Protocol):
    """The record: what is in it when a call returns is durable."""

    async def commit(self, uid: int, batch: WriteBatch) -> Commit:
        """Makes the batch durable with the next sequence numbers of its shards, as a whole or not at all.

        Raises CollectionNotFound when the collection is gone, Unavailable when the record cannot be reached.
        """
        ...

    async def positions(self, uid: int) -> dict[int, int]:
        """The last sequence number of every shard."""
        ...

    async def documents_by_id(self, uid: int, document_ids: Sequence[str]) -> list[DocumentRecord]:
        """What is recorded of those documents whose chunks are all as they were ingested, in no order."""
        ...


class Followers(Protocol):
    """The shards that this node holds."""

    def offer(self, uid: int, changes: Mapping[int, Changes]) -> None:
        """Hands over what was committed here, by shard, so that it need not be read back. Those of other nodes are left."""
        ...

    async def visible(self, uid: int, positions: Mapping[int, int]) -> None:
        """Returns when searches of the shards that lie here see those positions. Raises DeadlineExceeded."""
        ...


class Matcher(Protocol):
    """All shards of a collection as one."""

    async def match(
        self, collection: Collection, filter_: Filter, visibility: Visibility, *, at_least: Mapping[int, int]
    ) -> dict[int, Sequences]:
        """For each shard the numbers of all rows that match, once it has reached its position in `at_least`."""
        ...
