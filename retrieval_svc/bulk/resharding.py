"""Spreads a collection over another number of shards.

    rows      the record -> the same chunks and documents under new numbers, unseen
    shards    as for any build
    publish   in one transaction, where nothing was written to the old collection meanwhile

Writers are to be stopped: what is written meanwhile is not lost, for then nothing is published, but the work is. Searches go on
and find the old collection until the new one stands in its place. What a broken-off run has left is thrown away by the next.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from penstock.errors import CollectionNotFound, FailedPrecondition
from retrieval_svc import checks
from retrieval_svc.bulk.executing import Executor
from retrieval_svc.bulk.job import Phase, Progress, Summary
from retrieval_svc.bulk.numbering import numbered
from retrieval_svc.bulk.stages import Stages
from retrieval_svc.bulk.surroundings import Surroundings
from retrieval_svc.record.building import Build, BuiltPart
from retrieval_svc.record.store import SqlStore
from retrieval_svc.values import Chunk, Collection, Rows, StoredChunk

_DOCUMENTS_AT_A_TIME: Final = 5000
_MARK: Final = "resharded_from"
"""In a build's plan: the collection that it reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshard:
    """One run. `shard_count` is the new number."""

    collection: str
    shard_count: int
    store: SqlStore
    executor: Executor
    surroundings: Surroundings
    report: Callable[[Progress], None]

    async def run(self) -> Summary:
        """Does it. Raises CollectionNotFound; FailedPrecondition when it has so many shards, or was written to meanwhile."""
        old = await self._found()
        spec = replace(old.spec, shard_count=checks.shard_count(self.shard_count))
        stages = Stages(store=self.store, executor=self.executor, surroundings=self.surroundings, report=self.report)
        positions = await self.store.positions(old.uid)
        await self._clear_away(stages)
        build = await self.store.builds.begin(spec, {_MARK: old.uid}, _progress(0, 0))
        with stages.timed(Phase.ROWS):
            build = await self._copied(stages, build, old, positions)
        with stages.timed(Phase.SHARDS):
            shards = await stages.shards(build, spec)
        with stages.timed(Phase.PUBLISHED):
            await stages.publish(build, replace=True, expected=positions)
        return stages.summary(build, shards)

    async def _found(self) -> Collection:
        there = {collection.spec.id: collection for collection in await self.store.collections()}
        if self.collection not in there:
            message = f"there is no collection {self.collection!r}; there are: {', '.join(there) or 'none'}"
            raise CollectionNotFound(message, metadata={"collection": self.collection})
        old = there[self.collection]
        if old.spec.shard_count == self.shard_count:
            message = f"the collection {self.collection!r} has {self.shard_count} shards already"
            raise FailedPrecondition(message, metadata={"collection": self.collection})
        return old

    async def _clear_away(self, stages: Stages) -> None:
        """Removes what an earlier run has left; a build of files that was broken off is not ours to throw away."""
        left = await self.store.builds.find(self.collection)
        if left is not None and _MARK in left.plan:
            await self.store.builds.discard(left)
            await self.store.finish_deletions()
            await stages.remove_files(left.uid)

    async def _copied(self, stages: Stages, build: Build, old: Collection, positions: Mapping[int, int]) -> Build:
        chunks = documents = 0
        async for rows in self._rows(old, positions):
            chunks += len(rows.chunks)
            part = numbered([_chunk(each) for each in rows.chunks], rows.vectors, build.ends)
            build = await self.store.builds.append(
                build, BuiltPart(rows=part, documents=(), progress=_progress(documents, chunks))
            )
            stages.tell(build, Phase.ROWS, chunks, max(chunks, old.chunk_count))
        after = ""
        while page := await self.store.documents_after(old.uid, after, _DOCUMENTS_AT_A_TIME):
            documents, after = documents + len(page), page[-1].id
            build = await self.store.builds.append(
                build, BuiltPart(rows={}, documents=page, progress=_progress(documents, chunks))
            )
        return build

    async def _rows(self, old: Collection, positions: Mapping[int, int]) -> AsyncIterator[Rows]:
        for shard, through in sorted(positions.items()):
            async for rows in self.store.rows(old.uid, shard, through):
                yield rows


def _chunk(stored: StoredChunk) -> Chunk:
    return Chunk(
        id=stored.id,
        document_id=stored.document_id,
        text=stored.text,
        metadata_json=stored.metadata_json,
        allowed_principals=stored.allowed_principals,
    )


def _progress(documents: int, chunks: int) -> dict[str, Any]:
    return {"complete": False, "document_count": documents, "chunk_count": chunks, "error_count": 0}
