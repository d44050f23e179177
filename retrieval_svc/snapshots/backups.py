"""Checkpoints and words of shards as snapshots in the store, and back."""

import asyncio
import hashlib
import logging
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from retrieval_svc.operations import StoredSnapshot
from retrieval_svc.shards.checkpoint import CHECKPOINTS, Manifest
from retrieval_svc.shards.follower import ShardKey
from retrieval_svc.shards.replica import Replica
from retrieval_svc.shards.segment import ENTRY, SEGMENTS, files_below
from retrieval_svc.snapshots.manifest import SnapshotFile
from retrieval_svc.snapshots.store import SnapshotStore

_log = logging.getLogger(__name__)

OUTGOING: Final = "outgoing"
"""Where the words are, in a snapshot."""
STAGED: Final = "staged"
"""Where a snapshot is put together, in the shard's folder."""


class Backups:
    """Implements what the maintenance copies to, what a shard is opened from, and what operators list."""

    def __init__(self, store: SnapshotStore, *, interval_s: float, kept: int) -> None:
        self._store = store
        self._interval_s = interval_s
        self._kept = kept
        self._looked_s: dict[ShardKey, float] = {}
        self._copied: dict[ShardKey, int] = {}

    def is_due(self, replica: Replica) -> bool:
        """Whether the shard has changed since it was copied, and that was an interval ago."""
        looked = self._looked_s.setdefault(replica.key, time.monotonic())
        return time.monotonic() - looked >= self._interval_s and replica.position > self._copied.get(replica.key, 0)

    async def stage(self, replica: Replica, folder: Path, manifest: Manifest, *, always: bool = False) -> Path | None:
        """Puts a checkpoint and the replica's words aside, as links: what is sent of them then stays as it is.

        None where another replica has sent a snapshot lately, unless `always`. Raises BackendUnavailable.
        """
        self._looked_s[replica.key] = time.monotonic()
        if not always and await self._is_fresh(replica.key):
            return None
        staged = folder / STAGED
        await asyncio.to_thread(shutil.rmtree, staged, ignore_errors=True)
        await asyncio.to_thread(_link, folder, staged, manifest)
        await replica.copy_words(staged / OUTGOING)
        return staged

    async def send(self, key: ShardKey, staged: Path, manifest: Manifest) -> None:
        """Sends what was staged, and removes older snapshots. Raises BackendUnavailable when the store fails."""
        try:
            files = await asyncio.to_thread(snapshot_files, staged, manifest)
            await self._store.upload(staged, uid=key.uid, shard=key.shard, position=manifest.position, files=files)
        finally:
            await asyncio.to_thread(shutil.rmtree, staged, ignore_errors=True)
        self._copied[key] = manifest.position
        await self._store.prune(key.uid, key.shard, self._kept)

    async def restore(self, key: ShardKey, folder: Path, words: Path) -> bool:
        """Puts the newest snapshot without a fault into the shard's folder; False where there is none."""
        snapshot = await self._store.download(key.uid, key.shard, folder)
        if snapshot is None:
            return False
        outgoing = folder / OUTGOING
        if outgoing.exists():
            await asyncio.to_thread(outgoing.rename, words)
        _log.info("%s: restored the snapshot %s at position %d", key, snapshot.id, snapshot.position)
        return True

    async def list(self, key: ShardKey) -> list[StoredSnapshot]:
        """A shard's snapshots, newest first."""
        return [
            StoredSnapshot(
                id=f"{key.shard}-{each.id}",
                shard=key.shard,
                position=each.position,
                created=each.create_time,
                size_bytes=each.size_bytes,
            )
            for each in await self._store.snapshots(key.uid, key.shard)
        ]

    async def drop(self, uid: int) -> None:
        """Removes a deleted collection's snapshots."""
        await self._store.delete_collection(uid)

    async def _is_fresh(self, key: ShardKey) -> bool:
        there = await self._store.snapshots(key.uid, key.shard)
        return bool(there) and datetime.now(UTC) - there[0].create_time < timedelta(seconds=self._interval_s)


def snapshot_files(folder: Path, manifest: Manifest) -> list[SnapshotFile]:
    """Everything that a shard is started from: a checkpoint's files and the words in OUTGOING."""
    return list(_files(folder, manifest))


def _link(folder: Path, staged: Path, manifest: Manifest) -> None:
    for path in (*(folder / file.path for file in manifest.files), *_described(folder, manifest)):
        target = staged / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(path)


def _described(folder: Path, manifest: Manifest) -> list[Path]:
    """The files that describe the others: the manifest, and each segment's entry."""
    entries = [folder / SEGMENTS / entry.name / ENTRY for entry in manifest.segments]
    return [folder / CHECKPOINTS / manifest.name, *entries]


def _files(folder: Path, manifest: Manifest) -> Iterator[SnapshotFile]:
    for file in manifest.files:
        yield SnapshotFile(path=file.path, size_bytes=file.size_bytes, sha256=file.sha256)
    for path in [*_described(folder, manifest), *files_below(folder / OUTGOING)]:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        yield SnapshotFile(path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=digest)
