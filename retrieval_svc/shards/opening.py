"""Opens the files of a shard: what this node has, else a snapshot, else nothing; the log brings what is missing."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from opentelemetry.trace import Tracer

from retrieval_svc.shards.checkpoint import sweep
from retrieval_svc.shards.follower import ChangeReader, ShardKey
from retrieval_svc.shards.head import FrozenHead
from retrieval_svc.shards.lexical import LexicalIndex, UnusableLexicalIndex
from retrieval_svc.shards.payloads import ChunkCodec
from retrieval_svc.shards.replica import Replica, Threads
from retrieval_svc.shards.sealing import publish_segments, seal
from retrieval_svc.shards.shard_index import ShardIndex
from retrieval_svc.values import Changes, Collection, Rows, StoredChunk

_log = logging.getLogger(__name__)

_WORDS: Final = "words-"
_READ_MAX: Final = 4096


class Codec(ChunkCodec, Protocol):
    """Between a chunk and its bytes, and the text alone."""

    def text(self, encoded: bytes, /) -> str:
        """The chunk's text."""
        ...


class RowReader(ChangeReader, Protocol):
    """The record, as a shard is built from it."""

    async def positions(self, uid: int) -> dict[int, int]:
        """For each shard the last sequence number."""
        ...

    def rows(self, uid: int, shard: int, through: int) -> AsyncIterator[Rows]:
        """All rows that are stored under numbers up to `through`, in parts, ascending."""
        ...


class SnapshotSource(Protocol):
    """Where snapshots come from."""

    async def restore(self, key: ShardKey, folder: Path, words: Path) -> bool:
        """Puts the newest valid snapshot of a shard into an empty folder; False where there is none."""
        ...


class ShardOpener:
    """Opens replicas. `worker` is this process's number among those that share the folder; 0 leads."""

    def __init__(
        self,
        folder: Path,
        reader: RowReader,
        codec: Codec,
        threads: Threads,
        *,
        snapshots: SnapshotSource | None,
        worker: int,
        search_threads: int,
        head_rows_max: int,
        lexical_memory_bytes: int,
        tracer: Tracer,
    ) -> None:
        self._folder = folder
        self._reader = reader
        self._codec = codec
        self._threads = threads
        self._snapshots = snapshots
        self._worker = worker
        self._search_threads = search_threads
        self._head_rows_max = head_rows_max
        self._lexical_memory_bytes = lexical_memory_bytes
        self._tracer = tracer

    def folder_of(self, key: ShardKey) -> Path:
        """The folder of a shard's files."""
        return self._folder / str(key.uid) / str(key.shard)

    async def open(self, collection: Collection, shard: int) -> Replica:
        """The shard as its files have it, behind the record or not."""
        key = ShardKey(uid=collection.uid, shard=shard)
        index = await self._index(collection, key)
        words = await self._words(collection, key) if collection.spec.lexical.enabled else None
        replica = Replica(
            key,
            index,
            words,
            reader=self._reader,
            threads=self._threads,
            tracer=self._tracer,
            rebuild=partial(self._rebuild, collection),
            text_of=self._codec.text,
        )
        if replica.word_follower and replica.word_follower.position == 0 and index.row_count:
            replica.word_follower.position = await replica.rebuild_words()
        return replica

    async def _index(self, collection: Collection, key: ShardKey) -> ShardIndex:
        folder = self.folder_of(key)
        if self._snapshots is not None and self._worker == 0 and not folder.exists():
            await self._snapshots.restore(key, folder, self._words_folder(key))
        if self._worker == 0:
            folder.mkdir(parents=True, exist_ok=True)
            await asyncio.to_thread(sweep, folder)
        return await self._threads.index.run(partial(self._open_index, collection, key))

    def _open_index(self, collection: Collection, key: ShardKey) -> ShardIndex:
        folder = self.folder_of(key)
        folder.mkdir(parents=True, exist_ok=True)
        return ShardIndex.open(folder, spec=collection.spec, shard=key.shard, codec=self._codec, threads=self._search_threads)

    def _words_folder(self, key: ShardKey) -> Path:
        return words_folder(self.folder_of(key), self._worker)

    async def _words(self, collection: Collection, key: ShardKey) -> LexicalIndex:
        return await self._threads.words.run(partial(self._open_words, collection, self._words_folder(key)))

    def _open_words(self, collection: Collection, folder: Path) -> LexicalIndex:
        config = collection.spec.lexical
        try:
            return LexicalIndex.open(folder, config, writer_memory_bytes=self._lexical_memory_bytes)
        except UnusableLexicalIndex as error:
            _log.warning("the words are built anew: %s", error)
            shutil.rmtree(folder)
            return LexicalIndex.open(folder, config, writer_memory_bytes=self._lexical_memory_bytes)

    async def _rebuild(self, collection: Collection, replica: Replica) -> int:
        """Builds the index anew from the rows that are stored, while the old one is searched; its position."""
        key, folder = replica.key, self.folder_of(replica.key)
        through = (await self._reader.positions(key.uid)).get(key.shard, 0)
        await asyncio.to_thread(_emptied, folder)
        fresh = await self._threads.index.run(partial(self._open_index, collection, key))
        await self._threads.index.run(partial(fresh.remember, await self._threads.index.run(replica.index.fields)))
        unwritten: list[FrozenHead] = []
        async for rows in self._reader.rows(key.uid, key.shard, through):
            await self._apply(fresh, _stored(rows, fresh.position, int(rows.sequences[-1])))
            if fresh.head_row_count >= self._head_rows_max:
                added = await seal(fresh, folder, self._threads.index, unwritten)
                await publish_segments(fresh, folder, self._threads.index, added=added)
                unwritten.clear()
        await self._apply(fresh, _stored(_no_rows(collection.spec.dimension), fresh.position, through))
        await self._catch_up(fresh, key)
        replica.index = fresh
        return fresh.position

    async def _catch_up(self, index: ShardIndex, key: ShardKey) -> None:
        """Applies what was logged while the rows were read: a row that was replaced meanwhile is in neither part alone."""
        through = (await self._reader.positions(key.uid)).get(key.shard, 0)
        while index.position < through:
            await self._apply(index, await self._reader.changes(key.uid, key.shard, index.position, _READ_MAX))

    async def _apply(self, index: ShardIndex, changes: Changes) -> None:
        await self._threads.index.run(partial(index.apply, changes))


def words_folder(folder: Path, worker: int) -> Path:
    """The words of a shard's folder that belong to a process: only one may write to them."""
    return folder / f"{_WORDS}{worker}"


def _emptied(folder: Path) -> None:
    """Removes the index's files. What is mapped of them lives on until it is let go; words are a matter of their own."""
    for path in folder.iterdir():
        if not path.name.startswith(_WORDS):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _stored(rows: Rows, after: int, through: int) -> Changes:
    """Rows as changes that store them."""
    nothing = np.empty(0, dtype=np.int64)
    return Changes(after=after, through=through, stored=rows, removed=nothing, removed_at=nothing)


def _no_rows(dimension: int) -> Rows:
    chunks: tuple[StoredChunk, ...] = ()
    return Rows(chunks=chunks, vectors=np.empty((0, dimension), dtype=np.float32))
