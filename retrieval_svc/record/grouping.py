"""Small writes that wait for one another's transaction share the next one.

A commit waits for the disk, and writes of one shard come one after another, so single writes would be bound by how often the
disk can be waited for. Whatever waits when a transaction ends goes into the next together; nothing ever waits for company.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np

from retrieval_svc.record.committing import Written
from retrieval_svc.values import Commit, WriteBatch

_SMALL_CHUNKS: Final = 64
"""Larger writes go alone: they gain little, and joining would copy their vectors."""
_TOGETHER_MAX: Final = 64

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    batch: WriteBatch
    written: asyncio.Future[Commit]


@dataclass(slots=True)
class Lane:
    """The writes of one collection, in the order in which they came. `write` is one transaction."""

    write: Callable[[WriteBatch], Awaitable[Written]]
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _task: asyncio.Task[None] | None = None

    async def end(self) -> None:
        """Returns when nothing is being written any more."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def commit(self, batch: WriteBatch) -> Commit:
        """The batch's commit. Its changes may hold those of other writes too, which are visible at the same position."""
        waiting = _Waiting(batch=batch, written=asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return await waiting.written

    async def _run(self) -> None:
        while self._waiting:
            group = self._next()
            try:
                written = await self.write(group[0].batch if len(group) == 1 else _joined([one.batch for one in group]))
            except Exception as error:  # noqa: BLE001  # Whatever it is, it is theirs to hear.
                for one in group:
                    _tell(one.written, error)
            else:
                for one in group:
                    _tell(one.written, Commit(changes=written.changes, deleted_count=written.deleted_by(one.batch)))

    def _next(self) -> list[_Waiting]:
        """The first that waits, and those behind it that may share its transaction."""
        group = [self._waiting.popleft()]
        touched = _touched(group[0].batch)
        size = _size(group[0].batch)
        while self._waiting and len(group) < _TOGETHER_MAX and not group[0].batch.delete_rows:
            batch = self._waiting[0].batch
            more = _touched(batch)
            size += _size(batch)
            # What touches the same has an order, which a joint write would lose.
            if batch.delete_rows or size > _SMALL_CHUNKS or not touched.isdisjoint(more):
                break
            touched |= more
            group.append(self._waiting.popleft())
        return group


def _tell(written: asyncio.Future[Commit], result: Commit | Exception) -> None:
    if written.done():  # Who waited for it has left.
        return
    if isinstance(result, Exception):
        written.set_exception(result)
    else:
        written.set_result(result)


def _size(batch: WriteBatch) -> int:
    return len(batch.chunks) + len(batch.delete_chunk_ids) + len(batch.delete_document_ids)


def _touched(batch: WriteBatch) -> set[Hashable]:
    """The chunks and documents that a write names."""
    touched: set[Hashable] = {("document", chunk.document_id) for chunk in batch.chunks if chunk.document_id}
    touched |= {("chunk", chunk.id) for chunk in batch.chunks} | {("chunk", chunk_id) for chunk_id in batch.delete_chunk_ids}
    touched |= {("document", document_id) for document_id in batch.delete_document_ids}
    return touched | {("document", document.id) for document in batch.documents}


def _joined(batches: list[WriteBatch]) -> WriteBatch:
    """One write that does what all of them do, none of which touches what another does."""
    return WriteBatch(
        chunks=_all(batch.chunks for batch in batches),
        vectors=np.concatenate([batch.vectors for batch in batches]),
        delete_chunk_ids=_all(batch.delete_chunk_ids for batch in batches),
        delete_document_ids=_all(batch.delete_document_ids for batch in batches),
        documents=_all(batch.documents for batch in batches),
    )


def _all(parts: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    return tuple(value for part in parts for value in part)
