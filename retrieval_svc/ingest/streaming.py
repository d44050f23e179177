"""Any number of documents in one call: read only as fast as they are stored, each with its own error.

    messages ─> batches by count and bytes ─> at most N of them on their way ─> totals

A document that cannot be stored is told in the answer. A failure that is not a document's (the record cannot be reached) ends
the call when the batches on their way have ended; the error's metadata says what is stored.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from penstock.errors import PenstockError
from retrieval_svc.consistency import merged
from retrieval_svc.values import Document

ERRORS_TOLD_MAX: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A document of a stream that could not even be read from its message."""

    document_id: str
    error: PenstockError


Item = Document | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemError:
    """Why a document was not stored. `index` is its place in the stream, from 0."""

    index: int
    document_id: str
    error: PenstockError


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of a write. `positions`: where in the shards' logs it is visible."""

    document_count: int = 0
    chunk_count: int = 0
    unchanged_count: int = 0
    positions: Mapping[int, int] = field(default_factory=dict)

    def __add__(self, other: "Written") -> "Written":
        return Written(
            document_count=self.document_count + other.document_count,
            chunk_count=self.chunk_count + other.chunk_count,
            unchanged_count=self.unchanged_count + other.unchanged_count,
            positions=merged(self.positions, other.positions),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """What became of a stream. `errors` are the first of `error_count`, in the order of the stream."""

    written: Written
    error_count: int
    errors: tuple[ItemError, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """How a stream is cut into writes, and how many of those are on their way at a time."""

    batch_documents_max: int = 64
    batch_bytes_max: int = 2 * 2**20
    batches_max: int = 4


Batch = Sequence[tuple[int, Item]]
"""Documents with their places in the stream, no id twice."""
Store = Callable[[Sequence[tuple[int, Document]]], Awaitable[tuple[Written, Sequence[ItemError]]]]
"""Stores documents, given with their places, and tells of those that it could not."""


async def ingest_stream(messages: AsyncIterator[Sequence[Item]], store: Store, limits: StreamLimits) -> Streamed:
    """Stores everything that comes. Raises what made it stop before the end, with what is stored in the metadata."""
    stream = _Stream(store, limits)
    try:
        async for batch in batches(messages, limits):
            await stream.room_for(batch)
            if stream.failure is not None:
                break
            stream.begin(batch)
        await stream.finish()
    finally:
        await stream.abandon()
    if stream.failure is not None:
        raise stream.failure.located(**stream.told())
    return stream.total()


async def batches(messages: AsyncIterator[Sequence[Item]], limits: StreamLimits) -> AsyncIterator[Batch]:
    """Batches of at most so many documents and, unless one alone is more, bytes. An id that comes again begins another."""
    batch: list[tuple[int, Item]] = []
    ids, size, index = set[str](), 0, 0
    async for message in messages:
        for item in message:
            name, more = _identity(item)
            full = len(batch) == limits.batch_documents_max or size + more > limits.batch_bytes_max
            if batch and (full or name in ids):
                yield batch
                batch, ids, size = [], set(), 0
            batch.append((index, item))
            ids.add(name)
            size += more
            index += 1
    if batch:
        yield batch


def _identity(item: Item) -> tuple[str, int]:
    if isinstance(item, Refused):
        return item.document_id, 0
    return item.id, len(item.text) + len(item.content) + len(item.metadata_json)


class _Stream:
    """The batches that are on their way, and what became of those before them."""

    def __init__(self, store: Store, limits: StreamLimits) -> None:
        self._store = store
        self._limits = limits
        self._tasks: dict[asyncio.Task[None], frozenset[str]] = {}
        self._written = Written()
        self._errors: list[ItemError] = []
        self._error_count = 0
        self.failure: PenstockError | None = None

    async def room_for(self, batch: Batch) -> None:
        """Waits for a free place, and for every batch that has one of the same ids: the later one is to win."""
        ids = frozenset(_identity(item)[0] for _, item in batch)
        while len(self._tasks) >= self._limits.batches_max or any(ids & others for others in self._tasks.values()):
            await self._one_ended()

    def begin(self, batch: Batch) -> None:
        ids = frozenset(_identity(item)[0] for _, item in batch)
        self._tasks[asyncio.create_task(self._run(batch))] = ids

    async def finish(self) -> None:
        while self._tasks:
            await self._one_ended()

    async def abandon(self) -> None:
        """Ends what is on its way; after `finish` there is nothing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def told(self) -> dict[str, str]:
        """What is stored, for an error's metadata."""
        return {
            "stored_document_count": str(self._written.document_count),
            "stored_chunk_count": str(self._written.chunk_count),
            "unchanged_count": str(self._written.unchanged_count),
            "error_count": str(self._error_count),
        }

    def total(self) -> Streamed:
        return Streamed(written=self._written, error_count=self._error_count, errors=tuple(self._first_errors()))

    async def _one_ended(self) -> None:
        ended, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            del self._tasks[task]
            task.result()  # A defect, for _run keeps what is a PenstockError.

    async def _run(self, batch: Batch) -> None:
        refused = [
            ItemError(index=index, document_id=item.document_id, error=item.error)
            for index, item in batch
            if isinstance(item, Refused)
        ]
        documents = [(index, item) for index, item in batch if isinstance(item, Document)]
        try:
            written, errors = await self._store(documents) if documents else (Written(), [])
        except PenstockError as failure:
            self.failure = self.failure or failure
            return
        self._written += written
        self._note([*refused, *errors])

    def _note(self, errors: Sequence[ItemError]) -> None:
        self._error_count += len(errors)
        self._errors += errors
        if len(self._errors) > 2 * ERRORS_TOLD_MAX:
            self._errors = self._first_errors()

    def _first_errors(self) -> list[ItemError]:
        return sorted(self._errors, key=lambda each: each.index)[:ERRORS_TOLD_MAX]
