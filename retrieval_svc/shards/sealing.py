"""From a head in memory to a checkpoint on disk, in steps on the threads that each belongs to."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from retrieval_svc.shards.checkpoint import Manifest, open_segments, publish
from retrieval_svc.shards.head import FrozenHead
from retrieval_svc.shards.segment import SegmentEntry
from retrieval_svc.shards.segment_writer import write_segment
from retrieval_svc.shards.shard_index import ShardIndex
from retrieval_svc.shards.threads import IndexThread


async def seal(index: ShardIndex, folder: Path, thread: IndexThread, unwritten: list[FrozenHead]) -> list[SegmentEntry]:
    """Writes the head as a segment, and those heads that could not be written before, which `unwritten` keeps."""
    frozen = await thread.run(index.freeze_head)
    if frozen is not None:
        unwritten.append(frozen)
    return [await asyncio.to_thread(write_segment, head, folder) for head in unwritten]


async def publish_segments(
    index: ShardIndex,
    folder: Path,
    thread: IndexThread,
    *,
    added: Sequence[SegmentEntry],
    replaced: Sequence[str] = (),
) -> Manifest:
    """Makes a checkpoint with `added` in place of `replaced`, and goes on searching those."""
    manifest = await thread.run(partial(index.next_manifest, added=added, replaced=replaced))
    manifest = await asyncio.to_thread(publish, folder, manifest)
    segments = await asyncio.to_thread(open_segments, folder, manifest)
    await thread.run(partial(index.adopt, manifest, segments))
    return manifest
