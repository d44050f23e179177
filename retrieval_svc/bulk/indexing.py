"""A shard's rows in the record to the files that a node starts from: segment, words, checkpoint; and a snapshot where wanted.

It is done with the rows of one shard at a time, read as a stream, so memory holds what building that shard's index takes
(shards/index.py) and no more, however large the corpus is. A shard that was finished before is left as it is.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from retrieval_svc.bulk.job import ShardSummary
from retrieval_svc.chunk_messages import ChunkCodec
from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.shards.checkpoint import Manifest, newest, publish, sweep
from retrieval_svc.shards.index import use_threads
from retrieval_svc.shards.lexical import LexicalIndex
from retrieval_svc.shards.opening import words_folder
from retrieval_svc.shards.segment import SegmentEntry
from retrieval_svc.shards.segment_writer import RowBlock, write_rows
from retrieval_svc.shards.shard_index import ShardIndex
from retrieval_svc.snapshots.backups import OUTGOING, snapshot_files
from retrieval_svc.snapshots.store import SnapshotStore
from retrieval_svc.values import Changes, CollectionSpec, IndexKind, Rows, ShardQuery

TOP_K: Final = 10
QUERIES: Final = 100
"""Stored vectors that recall is measured with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """A shard whose last row has the number `end`."""

    shard: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStep:
    """Indexes shards of the collection `uid` into `folder`/UID/SHARD. An empty `snapshot_url`: no snapshots."""

    spec: CollectionSpec
    uid: int
    database_url: str
    folder: Path
    snapshot_url: str
    threads: int
    lexical_memory_bytes: int

    @contextmanager
    def open(self) -> Iterator[Callable[[ShardTask], ShardSummary]]:
        """As the port has it."""
        use_threads(self.threads)
        with asyncio.Runner() as runner:
            opened = open_store(self.database_url)
            store = runner.run(opened.__aenter__())
            try:
                yield lambda task: _Shard(self, task, store, runner).indexed()
            finally:
                runner.run(opened.__aexit__(None, None, None))


class _Shard:
    def __init__(self, step: IndexStep, task: ShardTask, store: SqlStore, runner: asyncio.Runner) -> None:
        self._step = step
        self._task = task
        self._store = store
        self._runner = runner
        self._folder = step.folder / str(step.uid) / str(task.shard)

    def indexed(self) -> ShardSummary:
        manifest = newest(self._folder)
        if manifest is None or manifest.position != self._task.end:
            manifest = self._built()
        if self._step.snapshot_url:
            self._send(manifest)
        entries = manifest.segments
        return ShardSummary(
            shard=self._task.shard,
            row_count=manifest.row_count,
            index_kind=entries[0].kind.value if entries else IndexKind.FLAT.value,
            size_bytes=sum(entry.size_bytes for entry in entries),
            recall=self._recall(entries),
        )

    def _built(self) -> Manifest:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        sweep(self._folder)
        entry = write_rows(self._folder, self._blocks(), self._step.spec)
        unpublished = Manifest(
            shard=self._task.shard,
            position=self._task.end,
            dimension=self._step.spec.dimension,
            metric=self._step.spec.metric,
            segments=(entry,) if entry.row_count else (),
            tombstones=np.zeros(0, np.int64),
        )
        return publish(self._folder, unpublished)

    def _blocks(self) -> Iterator[RowBlock]:
        """The rows on their way into the segment; their texts go into the words as they pass."""
        codec, words = ChunkCodec(), self._words()
        for rows in self._rows():
            if words is not None:
                words.apply(_stored(rows, words.position))
            yield RowBlock(
                sequences=rows.sequences,
                vectors=rows.vectors,
                document_ids=[chunk.document_id for chunk in rows.chunks],
                payloads=[codec.encode(chunk) for chunk in rows.chunks],
                metadata_json=[chunk.metadata_json for chunk in rows.chunks],
                allowed_principals=[chunk.allowed_principals for chunk in rows.chunks],
            )
        if words is not None:
            words.close()

    def _rows(self) -> Iterator[Rows]:
        parts: AsyncIterator[Rows] = self._store.rows(self._step.uid, self._task.shard, self._task.end)
        while (rows := self._runner.run(_next(parts))) is not None:
            yield rows

    def _words(self) -> LexicalIndex | None:
        """The words of the process that leads; others of its host make their own of the segment."""
        if not self._step.spec.lexical.enabled:
            return None
        memory = self._step.lexical_memory_bytes
        return LexicalIndex.open(words_folder(self._folder, 0), self._step.spec.lexical, writer_memory_bytes=memory)

    def _send(self, manifest: Manifest) -> None:
        store, outgoing = SnapshotStore(self._step.snapshot_url), self._folder / OUTGOING
        shutil.rmtree(outgoing, ignore_errors=True)
        words = self._words()
        try:
            if words is not None:
                words.copy_to(outgoing)
            files = snapshot_files(self._folder, manifest)
            sending = store.upload(
                self._folder, uid=self._step.uid, shard=self._task.shard, position=manifest.position, files=files
            )
            self._runner.run(sending)
        finally:
            shutil.rmtree(outgoing, ignore_errors=True)

    def _recall(self, entries: tuple[SegmentEntry, ...]) -> float | None:
        """Of the nearest of some stored vectors, themselves left out, the share that the index finds."""
        if all(entry.kind is IndexKind.FLAT for entry in entries):
            return None
        index = ShardIndex.open(
            self._folder, spec=self._step.spec, shard=self._task.shard, codec=ChunkCodec(), threads=self._step.threads
        )
        spread = np.unique(np.linspace(1, self._task.end, QUERIES).astype(np.int64))
        sample = index.fetch(spread, with_vectors=True)
        assert sample.vectors is not None  # noqa: S101  # They were asked for.
        found, exact = (
            index.search([ShardQuery(vector=vector, limit=TOP_K + 1, exact=exactly) for vector in sample.vectors])
            for exactly in (False, True)
        )
        kept = [
            len(set(some.sequences.tolist()) & set(all_.sequences.tolist()) - {own})
            for own, (some, _), (all_, _) in zip(sample.sequences.tolist(), found, exact, strict=True)
        ]
        wanted = [
            len(set(all_.sequences.tolist()) - {own}) for own, (all_, _) in zip(sample.sequences.tolist(), exact, strict=True)
        ]
        return sum(kept) / sum(wanted)


async def _next(parts: AsyncIterator[Rows]) -> Rows | None:
    return await anext(parts, None)


def _stored(rows: Rows, after: int) -> Changes:
    nothing = np.empty(0, np.int64)
    return Changes(after=after, through=int(rows.sequences[-1]), stored=rows, removed=nothing, removed_at=nothing)
